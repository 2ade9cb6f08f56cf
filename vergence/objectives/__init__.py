"""The science: what each method minimises, as a dictionary of per-token terms. See docs/papers.md for the equations."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import Parameter, Signature, signature
from math import isfinite
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vergence.objectives import cppo, papo
from vergence.objectives.cappo import cappo
from vergence.objectives.controls import CONTROLS, controlled, perceptual
from vergence.objectives.dapo import dapo, drgrpo
from vergence.objectives.grpo import grpo
from vergence.objectives.papo_full import full
from vergence.objectives.racro import racro
from vergence.objectives.vppo import vppo
from vergence.types import Method, UserError


def on(base: Callable[..., Method], own: Callable[..., Method], **published: Any) -> Callable[..., Method]:
    """A method on a base, with their published settings: one function that has the options of both.

    An option that both have, such as `mean`, is given to both.

    >>> on(grpo, papo.release, mean="token", beta=0.01)(gamma=0.0).views.keys()
    dict_keys(['image', 'reference'])
    """
    mine = {name: one for name, one in signature(own).parameters.items() if name != "base"}
    theirs = dict(signature(base).parameters)
    hints = {**get_type_hints(base), **get_type_hints(own)}

    def made(**options: Any) -> Method:
        given = {**published, **options}
        under = base(**{name: value for name, value in given.items() if name in theirs})
        method = own(under, **{name: value for name, value in given.items() if name in mine})
        return method._replace(about=method.about._replace(base=base.__name__))

    merged = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=published.get(name, one.default), annotation=hints[name])
        for name, one in {**mine, **{name: one for name, one in theirs.items() if name not in mine}}.items()
    ]
    made.__signature__ = Signature(merged, return_annotation=Method)  # type: ignore[attr-defined]
    made.__annotations__ = {one.name: one.annotation for one in merged}
    made.__name__, made.__doc__ = own.__name__, own.__doc__
    return made


_PAPO = {"clip_high": 0.3, "beta": 0.01}
"""PAPO's GRPO, in code and paper; on DAPO it has that one's own clip and no reference KL."""
_PAPO_CODE = {"mean": "token", "dual": 3.0, "kl_cap": 10.0}
_PAPO_DAPO = {"overlong": 0.0, "gamma": 0.01, "eta": 0.03}
_VPPO = {"dual": 3.0, "kl_cap": 10.0, "entropy": 0.06}
_CPPO_VERL = {"mean": "token", "dual": 3.0, "kl_cap": 10.0}
_CPPO_AREAL = {"mean": "token", "clip_low": 0.4, "clip_high": 0.4, "beta": 0.0}
_RACRO = {"mean": "token", "dual": 3.0, "kl_cap": 10.0}

METHODS: dict[str, Callable[..., Method]] = {
    "grpo": grpo,
    "dapo": dapo,
    "drgrpo": drgrpo,
    "papo-grpo@release": on(grpo, papo.release, **_PAPO, **_PAPO_CODE),
    "papo-grpo@paper": on(grpo, papo.paper, **_PAPO),
    "papo-grpo@full": on(grpo, full, **_PAPO, **_PAPO_CODE),
    "papo-dapo@release": on(dapo, papo.release, **_PAPO_CODE, **_PAPO_DAPO),
    "papo-dapo@paper": on(dapo, papo.paper, mean="token", **_PAPO_DAPO),
    "papo-dapo@full": on(dapo, full, **_PAPO_CODE, **_PAPO_DAPO),
    "vppo-dapo": on(dapo, vppo, overlong=0.0, **_VPPO),
    "vppo-grpo": on(grpo, vppo, mean="token", clip_high=0.3, beta=0.01, **_VPPO),
    "cppo-grpo@release-verl": on(grpo, cppo.release_verl, beta=0.01, **_CPPO_VERL),
    "cppo-grpo@release-areal": on(grpo, cppo.release_areal, **_CPPO_AREAL),
    "cppo-grpo@paper": on(grpo, cppo.paper),
    "cppo-dapo@release-verl": on(dapo, cppo.release_verl, **_CPPO_VERL),
    "cappo-grpo": on(grpo, cappo),
    "cappo-dapo": on(dapo, cappo, mean="token"),
    "racro-grpo": on(grpo, racro, beta=0.001, **_RACRO),
    "racro-dapo": on(dapo, racro, **_RACRO),
}

ALIASES = {
    "papo": "papo-grpo@release",
    "papo-grpo": "papo-grpo@release",
    "papo-dapo": "papo-dapo@release",
    "papo@release": "papo-grpo@release",
    "papo@paper": "papo-grpo@paper",
    "papo@full": "papo-grpo@full",
    "vppo": "vppo-dapo",
    "cppo": "cppo-grpo@release-verl",
    "cppo-grpo": "cppo-grpo@release-verl",
    "cppo-dapo": "cppo-dapo@release-verl",
    "cppo@release-verl": "cppo-grpo@release-verl",
    "cppo@release-areal": "cppo-grpo@release-areal",
    "cppo@paper": "cppo-grpo@paper",
    "cappo": "cappo-grpo",
    "racro": "racro-grpo",
}


def method(name: str, **options: Any) -> Method:
    """The method of that name with these options; options may be text, as from YAML or the command line.

    Raises:
        UserError: there is no such method or option, or the option cannot have that value.

    >>> method("papo", gamma="1e-2").about.variant
    'release'
    >>> method("pape")          # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vergence.types.UserError: there is no method 'pape'; did you mean 'papo'? There are: ...
    """
    if "+" in name:
        return _controlled(*name.split("+", 1), **options)
    full_name = ALIASES.get(name, name)
    if full_name not in METHODS:
        raise UserError(f"there is no method {name!r}; {_nearest(name, {**METHODS, **ALIASES})}")
    function = METHODS[full_name]
    parameters, hints = signature(function).parameters, get_type_hints(function)
    for option in options:
        if option not in parameters:
            raise UserError(f"method {name!r} has no option {option!r}; {_nearest(option, parameters)}")
    return function(**{option: _converted(name, option, hints[option], given) for option, given in options.items()})


def coefficient(name: str, **options: Any) -> tuple[str, float] | None:
    """The option by which a method's own term is weighed, and what it is; None where nothing of the method's own is.

    Raises:
        UserError: as of `method`.

    >>> coefficient("papo", gamma="0.1"), coefficient("cppo"), coefficient("grpo"), coefficient("papo+blind")
    (('gamma', 0.1), ('coefficient', 0.01), None, None)
    """
    made = method(name, **options)
    option = made.about.coefficient
    return (option, float({**defaults(name), **options}[option])) if option and perceptual(made) else None


def defaults(name: str) -> dict[str, Any]:
    """The options of a method, or of a control's, and what they are if they are not given.

    >>> defaults("papo-dapo+shuffled")["gamma"], defaults("papo")["beta"]
    (0.01, 0.01)
    """
    plain = name.split("+")[0]
    return {option: one.default for option, one in signature(METHODS[ALIASES.get(plain, plain)]).parameters.items()}


def _controlled(name: str, control: str, **options: Any) -> Method:
    """A control of a method; `strength` is the control's own option."""
    own = {option: given for option, given in options.items() if option != "strength"}
    changed = method(name, **own)
    if control not in CONTROLS:
        raise UserError(f"there is no control {control!r} (in {name}+{control}); {_nearest(control, CONTROLS)}")
    strength = options.get("strength")
    try:
        return controlled(changed, control, strength and _converted(f"{name}+{control}", "strength", float, strength))
    except UserError as error:
        raise UserError(f"{name} cannot have the control {control!r}: {error}") from error


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"There are: {', '.join(sorted(known))}"


def _converted(name: str, option: str, hint: Any, given: Any) -> Any:
    """`given` as the option's type: float, int, text or one of a Literal's choices."""
    where = f"option {option!r} of method {name!r}"
    if get_origin(hint) is Literal:
        if given not in get_args(hint):
            raise UserError(f"{where} must be one of {', '.join(get_args(hint))}, got {given!r}")
        return given
    if hint is str:
        return str(given)
    try:
        value = hint(given)
    except (TypeError, ValueError, OverflowError):
        value = None
    changed = not isinstance(given, str) and value != given
    if value is None or isinstance(given, bool) or changed or not isfinite(value):
        kind = {float: "a finite number", int: "a whole number"}[hint]
        raise UserError(f"{where} must be {kind}, got {given!r}")
    return value
