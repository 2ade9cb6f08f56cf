"""What is done about what a guard has raised: it is told, or the run stops, or it goes back with a lower coefficient.

What is decided is a function of the log, the config and what was done before. `train.rollback` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from vergence import objectives
from vergence.guards.catalogue import GUARDS, Raised
from vergence.guards.past import NOW
from vergence.train.config import Config
from vergence.train.recorded import INTERVENTION, checked
from vergence.train.run import read_lines
from vergence.types import UserError

Action = Literal["warn", "stop", "back"]
FILE = "interventions.jsonl"
"""In a run's folder, where there were any."""
USUAL: Mapping[str, Action] = MappingProxyType({"not finite": "stop"})
"""What is done where the config says nothing; of all others it is "warn"."""


ACUTE = ("not finite", "metric not finite", "gradient")
"""Guards that see something at the very step at which it begins."""


class Stopped(UserError):
    """A guard has ended the run, which is saved."""

    status = 3


class Intervention(NamedTuple):
    """A line of interventions.jsonl: what was done about what a guard had raised."""

    step: int
    since: int
    guard: str
    said: str
    action: Action
    to: int | None = None
    """The step of the checkpoint that was gone back to."""
    option: str | None = None
    """What was lowered: an option of the method, or "lr"."""
    from_value: float | None = None
    to_value: float | None = None

    def told(self) -> str:
        """As a line for a reader.

        >>> Intervention(68, 64, "KL hacking", "it surges", "back", 50, "gamma", 0.2, 0.1).told()
        'warning, back from step 68 to step 50 with gamma=0.1 instead of 0.2, for KL hacking: it surges'
        """
        if self.action == "back":
            return (
                f"warning, back from step {self.step} to step {self.to} with {self.option}={self.to_value:g} instead "
                f"of {self.from_value:g}, for {self.guard}: {self.said}"
            )
        return f"stopped at step {self.step} by the guard {self.guard!r}: {self.said}"


def interventions(run: Path) -> list[Intervention]:
    """What was done in a run, in order.

    Raises:
        UserError: the file says something else.
    """
    if not (run / FILE).is_file():
        return []
    found = list(checked(read_lines(run / FILE), run / FILE, INTERVENTION))
    for number, one in enumerate(found, 1):
        if one.keys() != set(Intervention._fields):
            raise UserError(f"{run / FILE}, line {number} is no intervention; put the file back as it was written")
        if one["action"] == "back" and None in (one["to"], one["option"], one["to_value"]):
            raise UserError(f"{run / FILE}, line {number} does not say what was gone back to, or with what")
    return [Intervention(**one) for one in found]


def action_of(config: Config, guard: str) -> Action:
    """What is done when this guard is raised.

    >>> config = Config(guards={"KL hacking": "back"})
    >>> [action_of(config, guard) for guard in ("KL hacking", "not finite", "collapse")]
    ['back', 'stop', 'warn']
    """
    return config.guards.get(guard, USUAL.get(guard, "warn"))


def refuse_unknown(guards: Mapping[str, str]) -> None:
    """Raise unless these are guards, and what can be done when they are raised.

    Raises:
        UserError: there is no such guard, or nothing like that can be done.

    >>> refuse_unknown({"KL hackin": "stop"})                   # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vergence.types.UserError: there is no guard 'KL hackin'; did you mean 'KL hacking'? There are: KL hacking, ...
    """
    for guard, action in guards.items():
        for what, given, known in (("guard", guard, tuple(GUARDS)), ("action", action, get_args(Action))):
            if given not in known:
                lower = {one.lower(): one for one in known}
                near = get_close_matches(given.lower(), lower, n=1, cutoff=0.5)
                hint = f"did you mean {lower[near[0]]!r}? " if near else ""
                raise UserError(f"there is no {what} {given!r}; {hint}There are: {', '.join(sorted(known))}")


def goes_back(config: Config) -> bool:
    """Whether any guard may send the run back."""
    return any(action_of(config, guard) == "back" for guard in GUARDS)


def due(raised: Iterable[Raised], config: Config, done: Sequence[Intervention]) -> list[Raised]:
    """What was raised and nothing has been done about yet, though something is to be done; what stops the run first,
    then what is about the earliest step.

    A stop that was written down has been done: a run that is resumed then goes on. What was raised before the run went
    back is in its log no more.

    >>> raised = [Raised(68, "KL hacking", "", 64), Raised(70, "collapse", "", 66), Raised(70, "length", "", 60)]
    >>> config = Config(guards={"KL hacking": "back", "collapse": "stop"})
    >>> [one.name for one in due(raised, config, [])]
    ['collapse', 'KL hacking']
    >>> [one.name for one in due(raised, config, [Intervention(70, 66, "collapse", "", "stop")])]
    ['KL hacking']
    """
    until = handled(done)
    found = [one for one in raised if action_of(config, one.name) != "warn" and one.step > until.get(one.name, 0)]
    return sorted(found, key=lambda one: (action_of(config, one.name) != "stop", one.since))


def handled(done: Iterable[Intervention]) -> dict[str, int]:
    """Guard -> the last step at which it has stopped the run: what it raised up to there has been done. What the run
    went back from is in its log no more.

    >>> stop = Intervention(15, 15, "not finite", "", "stop")
    >>> back = Intervention(57, 53, "KL hacking", "", "back", 40, "gamma", 0.2, 0.1)
    >>> handled([stop, back]), handled([stop, back._replace(to=10)])
    ({'not finite': 15}, {})
    """
    until: dict[str, int] = {}
    for one in done:
        if one.action == "back":
            until = {guard: step for guard, step in until.items() if step <= one.to}
        else:
            until[one.guard] = one.step
    return until


def reach(config: Config) -> int:
    """Steps within which a guard sees what has begun: `NOW` rounds, or two watched ones.

    >>> reach(Config(watch_every=5)), reach(Config(watch_every=0, parts=3))
    (10, 15)
    """
    return max(NOW, 2 * config.watch_every) * config.steps_per_batch


def good(
    steps: Iterable[int], about: Raised, raised: Iterable[Raised], config: Config, done: Sequence[Intervention] = ()
) -> list[int]:
    """Of the steps that have checkpoints, those that can be gone back to, the best first.

    They are from before anything was raised about which something is still to be done, and at least one `reach` before
    the first value that the guard is about: what grows slowly has begun when it is seen. With each time that the run
    went back, one more; and no checkpoint twice. The best is the last of these; where none is that early, the first of
    all.

    >>> config, hacked = Config(guards={"KL hacking": "back"}), Raised(64, "KL hacking", "", 60)
    >>> good((0, 20, 40, 60), hacked, [Raised(10, "length", "", 5)], config)
    [40, 20, 0]
    >>> once = Intervention(57, 53, "KL hacking", "", "back", 40, "gamma", 0.2, 0.1)
    >>> good((0, 20, 40, 60), hacked, [], config, [once])
    [20, 0]
    """
    acted = [one.step for one in due(raised, config, done) if one != about]
    before = [step for step in steps if step < about.since and all(step < one for one in acted)]
    been = [one.to for one in done if one.action == "back"]
    far = (len(been) + (about.name not in ACUTE)) * reach(config)
    early = [step for step in before if step < about.since - far and step not in been]
    return sorted(early, reverse=True) or sorted(before)[:1]


def needed(steps: Iterable[int], step: int, config: Config) -> int | None:
    """Of the steps that have checkpoints, the last that can surely be gone back to if something is raised from here on
    for the first time: two of `reach` ago. None where nothing ever goes back.

    >>> config = Config(guards={"collapse": "back"}, watch_every=5)
    >>> needed((0, 20, 40, 60), 60, config), needed((0, 20, 40, 60), 85, config), needed((0, 20), 75, Config())
    (40, 60, None)
    """
    if not goes_back(config):
        return None
    early = [one for one in steps if one <= step - 2 * reach(config)]
    return max(early, default=min(steps, default=None))


def lowered(config: Config) -> tuple[str, float, float]:
    """What is lowered when the run goes back: (option, from, to). The coefficient of the method's own term; where there
    is none, the learning rate.

    >>> lowered(Config(method="papo", options={"gamma": "0.2"})), lowered(Config(method="grpo", lr=1e-4))
    (('gamma', 0.2, 0.1), ('lr', 0.0001, 5e-05))
    """
    own = objectives.coefficient(config.method, **config.options)
    option, value = own if own and own[1] else ("lr", config.lr)
    return option, value, value * config.back_factor


def effective(config: Config, done: Iterable[Intervention]) -> Config:
    """The config with what was lowered.

    >>> done = [Intervention(68, 64, "KL hacking", "", "back", 50, "gamma", 0.2, 0.1)]
    >>> effective(Config(method="papo", options={"gamma": "0.2", "eta": "0.03"}), done).options
    {'gamma': '0.1', 'eta': '0.03'}
    """
    for one in done:
        if one.option == "lr":
            config = replace(config, lr=one.to_value)
        elif one.option is not None:
            config = replace(config, options={**config.options, one.option: repr(one.to_value)})
    return config


def is_abandoned(step: int, under: int, done: Sequence[Intervention]) -> bool:
    """Whether a checkpoint of this step belongs to what a run has gone back from.

    Args:
        under: how many interventions there were when it was written.

    >>> done = [Intervention(68, 64, "KL hacking", "", "back", 50, "gamma", 0.2, 0.1)]
    >>> is_abandoned(60, 0, done), is_abandoned(50, 0, done), is_abandoned(60, 1, done)
    (True, False, False)
    """
    return any(one.action == "back" and one.to < step for one in done[under:])


def decided(about: Raised, to: int | None, config: Config, done: Sequence[Intervention]) -> Intervention:
    """What is done about it.

    Args:
        to: the step of the checkpoint to go back to; None where the guard stops the run, or there is none.
        config: with what was lowered before.
    """
    told = (about.step, about.since, about.name)
    if action_of(config, about.name) == "stop":
        return Intervention(*told, about.said, "stop")
    backs = sum(one.action == "back" for one in done)
    if backs >= config.most_backs or to is None:
        why = (
            f"it has gone back {backs} times, and most_backs={config.most_backs}"
            if backs >= config.most_backs
            else f"there is no checkpoint from before step {about.since} to go back to (save_every)"
        )
        return Intervention(*told, f"{about.said}. It was to go back, but {why}", "stop")
    return Intervention(*told, about.said, "back", to, *lowered(config))
