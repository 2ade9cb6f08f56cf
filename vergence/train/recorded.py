"""What the lines of our own files must hold to be read again: a folder may come from anywhere, and may be damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, get_args

from vergence.scenes.question import shown
from vergence.train.run import about_gold
from vergence.types import B, Rollout, UserError, Verdict

LARGEST = 10**12
"""Of a whole number: no run has so many steps."""
STATUSES = get_args(Verdict.__annotations__["status"]) or ("right", "wrong", "unparsed", "timed out")


class Field(NamedTuple):
    """What a field must be."""

    what: str
    """In words: "must be ..."."""
    holds: Callable[[Any], bool]
    needed: bool = True
    """Whether it must be there."""


def _is_whole(value: Any) -> bool:
    return type(value) is int and -LARGEST <= value <= LARGEST


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_whole(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


STEP = Field("a whole number of 0 or more", lambda value: _is_whole(value) and value >= 0)
TEXT = Field("a text", _is_text)
STATUS = Field(f"one of {', '.join(STATUSES)}", lambda value: _is_text(value) and value in STATUSES)
COUNT = Field("a whole number, or null", _or_null(_is_whole))

FINITE = Field("a finite number", lambda value: _is_number(value) and isfinite(value))

METRICS: Mapping[str, Field] = {"step": STEP}
"""Of metrics.jsonl; its other numbers are looked at by `checked` too."""
TUNED = ("eval/accuracy", "eval/accuracy_low", "eval/accuracy_high", "eval/questions")
"""What a line of metrics.jsonl has of an evaluation, which a card tells."""
ROLLOUT: Mapping[str, Field] = {
    "step": STEP,
    "scene": TEXT,
    "world": TEXT,
    "question": TEXT,
    "gold": TEXT,
    "response": TEXT,
    "extracted": Field("a text, or null", _or_null(_is_text)),
    "status": TEXT,
    "reward": FINITE,
    "advantage": FINITE,
    "finish": TEXT,
    "tokens": STEP,
}
"""Of rollouts.jsonl."""
ANSWER: Mapping[str, Field] = {
    "scene": TEXT,
    "world": TEXT,
    "status": STATUS,
    "false_facts": COUNT,
    "error": Field("a text, or null", _or_null(_is_text), needed=False),
}
"""Of the answers of an evaluation, what their tables are made of."""
PUT: Mapping[str, Field] = {
    "scene": TEXT,
    "status": STATUS,
    "world": TEXT._replace(needed=False),
    "wording": TEXT._replace(needed=False),
    "shown": TEXT._replace(needed=False),
    "max_tokens": STEP._replace(needed=False),
    "temperature": FINITE._replace(needed=False),
}
"""Of the answers of an evaluation, what a card tells of them; older ones say less."""
_NUMBER = Field("a number, or null", _or_null(_is_number))
INTERVENTION: Mapping[str, Field] = {
    "step": STEP,
    "since": STEP,
    "guard": TEXT,
    "said": TEXT,
    "action": Field("stop or back", lambda value: value in ("stop", "back")),
    "to": COUNT,
    "option": Field("a text, or null", _or_null(_is_text)),
    "from_value": _NUMBER,
    "to_value": _NUMBER,
}
"""Of interventions.jsonl."""


def checked(
    records: Iterable[dict[str, Any]], path: Path, fields: Mapping[str, Field], *, first: int = 1
) -> Iterator[dict[str, Any]]:
    """The records, each as it must be.

    >>> list(checked([{"step": 1, "reward": 0.5}], Path("metrics.jsonl"), METRICS))
    [{'step': 1, 'reward': 0.5}]
    >>> list(checked([{"step": "1"}], Path("metrics.jsonl"), METRICS))
    Traceback (most recent call last):
    vergence.types.UserError: metrics.jsonl, line 1: 'step' must be a whole number of 0 or more, got "1"; mend it

    Args:
        first: the number of the first line.

    Raises:
        UserError: a field is missing, or is something else than it must be; or a number is too large for any of them.
    """
    for number, record in enumerate(records, first):
        for name, field in fields.items():
            if name not in record:
                if field.needed:
                    raise UserError(f"{path}, line {number}: there is no {name!r}; put the file back from a copy")
            elif not field.holds(record[name]):
                raise UserError(
                    f"{path}, line {number}: {name!r} must be {field.what}, got {shown(record[name])}; mend it"
                )
        for name, value in record.items():
            if type(value) is int and abs(value) >= 2**63:
                raise UserError(
                    f"{path}, line {number}: {shown(name)} is a number of {value.bit_length()} bits; mend it"
                )
        yield record


def rollout_records(step: int, rollouts: Iterable[Rollout], advantage_B: B) -> Iterator[dict[str, Any]]:
    """Lines of rollouts.jsonl."""
    for rollout, advantage in zip(rollouts, advantage_B.tolist(), strict=True):
        yield {
            "step": step,
            "scene": rollout.scene.key,
            "world": rollout.scene.world,
            "sibling": rollout.sibling,
            "question": rollout.scene.question,
            "gold": rollout.scene.gold.text,
            **about_gold(rollout.scene.gold),
            "response": rollout.text,
            "extracted": rollout.verdict.extracted,
            "status": rollout.verdict.status,
            "reward": rollout.verdict.reward,
            "advantage": advantage,
            "finish": rollout.sampled.finish,
            "tokens": len(rollout.sampled.tokens),
        }
