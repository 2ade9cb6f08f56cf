"""What is compared: arms, each the config of its runs but for the seed, named by what tells it from the others."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from inspect import signature
from math import isfinite
from typing import NamedTuple

import yaml

from vergence import objectives
from vergence.recipes import recipe
from vergence.train.config import Config
from vergence.train.config_file import from_yaml, to_yaml
from vergence.types import Method, UserError

FIELDS = {one.name for one in fields(Config)} - {"method", "options", "columns", "rewards", "seed"}
"""What of a config may be set or swept; the others have an option of their own, or are no single value."""
ASKED = ("model", "scenes", "columns", "tolerance", "skip_refused", "min_pixels", "max_pixels", "worlds", "wording")
ASKED += ("reasoner", "reasoner_tokens", "server_model", "temperature", "max_tokens", "trust_remote_code")
ASKED += ("sample_batch", "device", "dtype")
"""What the answers of the starting model depend on, besides the seed and who answers."""
ENDLESS = 1_000_000
"""Steps of a run that ends by the clock."""
NAMED = re.compile(r"[\w.@+-]+(,[\w.-]+=[^,/\\]*)*")


class Arm(NamedTuple):
    """One line of the table."""

    name: str
    """The method, then `,option=value` for what tells it from the others; a folder is called so."""
    config: Config
    """Of its runs, whose seed is replaced."""

    @property
    def captions(self) -> bool:
        """Whether a reasoner answers, from the captions that the method trains."""
        return method_of(self.config).ask == "caption"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A complete study: a function that returns one is to a study what a recipe is to a run."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    seconds: float = 0.0
    """Each run trains so long (its evaluations on the way do not count). 0: each takes its config's steps."""
    questions: int = 240
    """Held-out questions of the report split, asked with the image and with it blanked."""
    samples: int = 4
    """Answers to each."""
    elsewhere: int = 60
    """Questions of worlds that are not trained on. 0, or scenes that are not embedded: none."""

    def __post_init__(self) -> None:
        _require(len(self.arms) > 0, "an arm", "--methods")
        _require(len(self.seeds) > 0, "a seed", "--seeds")
        _require(min(self.questions, self.samples) > 0, "a question, and an answer to it", "--questions")
        _require(isfinite(self.seconds) and self.seconds >= 0 <= self.elsewhere, "seconds and questions of 0 or more")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"{twice[0] if twice else 'a seed'} stands twice in this study; name each once")
        for arm in self.arms:
            if not NAMED.fullmatch(arm.name):
                raise UserError(f"an arm's folder cannot be called {arm.name!r}: take a value without , / and \\")
            method_of(arm.config)
            if self.seconds and arm.config.decay != "constant":
                raise UserError("equal seconds need decay=constant: how many steps there will be is not known")

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the arms, in order."""
        return tuple(arm.name for arm in self.arms)


def method_of(config: Config) -> Method:
    """The config's method with its options.

    >>> method_of(Config(method="racro")).about.base
    'grpo'

    Raises:
        UserError: there is no such method or option.
    """
    return _method(config.method, tuple(config.options.items()))


@cache
def _method(name: str, options: tuple[tuple[str, str], ...]) -> Method:
    return objectives.method(name, **dict(options))


def starting(arm: Arm, seed: int) -> Config:
    """How the model that an arm starts from is asked: what its answers do not depend on is as in any other arm.

    >>> starting(Arm("papo", recipe("demo", "papo")), 3) == starting(Arm("dapo", recipe("demo", "dapo")), 3)
    True
    """
    asked = {name: getattr(arm.config, name) for name in ASKED}
    return Config(method="racro" if arm.captions else "grpo", seed=seed, **asked)


def started(arms: Sequence[Arm]) -> dict[str, str]:
    """Arm -> the name of the starting model's record that its gain is counted from.

    All arms that ask the same model in the same way share one: `start`, or `start,answered=reasoner`; a name says more
    where arms ask in more than these two ways.

    >>> started([Arm("grpo", recipe("demo", "grpo")), Arm("racro", recipe("demo", "racro"))])
    {'grpo': 'start', 'racro': 'start,answered=reasoner'}
    """
    first, found = arms[0].config, {}
    for arm in arms:
        differing = [name for name in ASKED if getattr(arm.config, name) != getattr(first, name)]
        more = "".join(f",{name}={_short(getattr(arm.config, name))}" for name in differing)
        found[arm.name] = f"start{',answered=reasoner' * arm.captions}{more}"
    return found


def cross(
    name: str,
    *,
    methods: Sequence[str],
    controls: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    sweeps: Mapping[str, Sequence[str]] | None = None,
) -> tuple[tuple[Arm, ...], list[str]]:
    """Methods x (nothing and each control) x every combination of swept values, from one recipe; and what to tell.

    A control, setting or swept option is for the methods that have it; which arms are without it is told. Of a recipe
    that evaluates on the way, a checkpoint is kept at each evaluation, so that the best can be told from the last.

    >>> [arm.name for arm in cross("demo", methods=["grpo", "papo"], sweeps={"gamma": ["0.02", "0.1"]})[0]]
    ['grpo', 'papo,gamma=0.02', 'papo,gamma=0.1']

    Args:
        name: the recipe.
        controls: what may follow a `+`: see `objectives.controls`.
        settings: an option of methods, or a field of the config -> its value, for all.
        sweeps: the same -> several values.

    Raises:
        UserError: there is no such recipe, method, control, option, field or value; or none of the arms has it.
    """
    arms, told = [], []
    for method in methods:
        config = recipe(name, method)
        objectives.method(method, **config.options)
        arms.append(_with(Arm(method, config), {}))
    for control in controls:
        arms, more = _controlled(name, arms, control)
        told += more
    for option, value in (settings or {}).items():
        arms = [changed for _, changed in _changed(arms, option, [value])]
    for option, values in (sweeps or {}).items():
        swept = _changed(arms, option, values)
        told += _without(option, [changed.name for value, changed in swept if value is None])
        arms = [
            changed if value is None else changed._replace(name=f"{changed.name},{option}={value}")
            for value, changed in swept
        ]
    order = {method: rank for rank, method in enumerate(methods)}
    arms.sort(key=lambda arm: order[arm.config.method.partition("+")[0]])
    return tuple(arms), told


def parsed(given: Sequence[str]) -> dict[str, list[str]]:
    """What was given as FIELD=A,B,C.

    >>> parsed(["gamma=0.01,0.1", "entropies=single,double"])
    {'gamma': ['0.01', '0.1'], 'entropies': ['single', 'double']}

    Raises:
        UserError: it does not read so, or names a field or a value twice.
    """
    found: dict[str, list[str]] = {}
    for text in given:
        name, _, rest = text.partition("=")
        values = rest.split(",")
        if not name or not all(values) or name in found or len(set(values)) < len(values):
            raise UserError(f"--sweep takes FIELD=A,B,C, each field and value once, e.g. gamma=0.01,0.1; got {text!r}")
        found[name] = values
    return found


def _with(arm: Arm, changes: Mapping[str, str]) -> Arm:
    """With fields of the config replaced; a checkpoint at each evaluation."""
    plain = yaml.safe_load(to_yaml(arm.config)) | {name: _read(text) for name, text in changes.items()}
    config = from_yaml(yaml.safe_dump(plain), f"--set of {arm.name}")
    return arm._replace(config=replace(config, save_every=config.eval_every) if config.eval_every else config)


def _read(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{text!r} cannot be read as a value") from None


def _controlled(name: str, arms: Sequence[Arm], control: str) -> tuple[list[Arm], list[str]]:
    """Each arm, followed by its control if it has one."""
    found, told = [], []
    for arm in arms:
        found.append(arm)
        if "+" in arm.config.method:
            continue
        method = f"{arm.config.method}+{control}"
        config = recipe(name, method)
        try:
            objectives.method(method, **config.options)
        except UserError as error:
            if control not in objectives.CONTROLS:
                raise
            told.append(f"{method} is left out: {error}")
        else:
            found.append(_with(Arm(method, config), {}))
    if len(found) == len(arms):
        raise UserError(f"no method of this study takes the control {control!r}: {'; '.join(told)}")
    return found, told


def _changed(arms: Sequence[Arm], option: str, values: Sequence[str]) -> list[tuple[str | None, Arm]]:
    """(value, arm with it) for each; (None, arm) where the arm has no such option."""
    having = [option in _options(arm) for arm in arms]
    if option in FIELDS:
        return [(value, _with(arm, {option: value})) for arm in arms for value in values]
    if not any(having):
        known = sorted({*FIELDS, *(name for arm in arms for name in _options(arm))})
        near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"no method of this study has an option {option!r}, nor has a config; {hint}See vergence methods"
        )
    found: list[tuple[str | None, Arm]] = []
    for arm, has in zip(arms, having, strict=True):
        for value in values if has else [None]:
            options = arm.config.options if value is None else {**arm.config.options, option: value}
            objectives.method(arm.config.method, **options)
            found.append((value, arm._replace(config=replace(arm.config, options=options))))
    return found


def _options(arm: Arm) -> dict[str, object]:
    return effective(arm.config) | ({"strength": None} if _strong(arm.config.method) else {})


def _strong(method: str) -> bool:
    control = objectives.CONTROLS.get(method.partition("+")[2])
    return control is not None and control.strength is not None


def effective(config: Config) -> dict[str, str]:
    """Every option of the config's method and its value, given or not, as text; a control's own is left out.

    >>> effective(Config(method="dapo"))["clip_high"]
    '0.28'
    """
    name = config.method.partition("+")[0]
    known = signature(objectives.METHODS[objectives.ALIASES.get(name, name)]).parameters
    given = {option: str(one.default) for option, one in known.items()} | config.options
    return {option: _number(given[option]) for option in known}


def _number(text: str) -> str:
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _short(value: object) -> str:
    return re.sub(r"[^\w.-]+", "-", str(value)).strip("-")


def _without(option: str, names: Sequence[str]) -> list[str]:
    return [f"{', '.join(names)} has no option {option!r}, and stays as it is"] if names else []


def _require(holds: bool, what: str, where: str = "") -> None:
    if not holds:
        raise UserError(f"a study needs {what}{f': see {where}' if where else ''}")
