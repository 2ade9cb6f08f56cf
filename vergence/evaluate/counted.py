"""What answers come to: avg@k, pass@k and maj@k with intervals, and beside them what could not be counted as right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from vergence.evaluate.accelerated import stratified, together
from vergence.evaluate.errors import ERRORS
from vergence.evaluate.interval import Estimate, pass_at
from vergence.evaluate.majority import majority
from vergence.evaluate.suite import Record, by_question, by_world, perception_errors


class Counted(NamedTuple):
    """The answers to some questions, each with as many."""

    accuracy: Estimate
    """avg@k: the share of answers that are right."""
    passes: dict[int, Estimate]
    """pass@j for j = 1, 2, 4, ... and k: the chance that one of j answers is right."""
    majority: Estimate
    """maj@k: `majority`."""
    samples: int
    """k; where questions have different numbers of answers, the least."""
    unparsed: float
    """Share of the answers in which nothing could be read as one."""
    cut_off: float
    """Share that came to the limit of tokens."""
    timed_out: float
    """Share whose comparison with the gold took too long."""
    perception_errors: float | None
    """Share that states a false fact; None where nobody knows the facts."""
    errors: dict[str, float] | None
    """Share of each of `errors.ERRORS`; None where nobody knows, or an older file does not say."""


def counted(records: Sequence[Record]) -> Counted:
    """What these come to. Questions are resampled within their world; each counts alike.

    Raises:
        UserError: there are no records.
    """
    worlds = [by_question_of(those) for those in by_world(records).values()] or [{}]
    least = min((len(those) for world in worlds for those in world.values()), default=1)
    tried = sorted({2**power for power in range(least.bit_length())} | {least})

    def scores(those: list[Record]) -> list[float]:
        right = sum(one["status"] == "right" for one in those)
        return [right / len(those), majority(those), *(pass_at(k, len(those), right) for k in tried)]

    rows = {str(at): {scene: scores(those) for scene, those in world.items()} for at, world in enumerate(worlds)}
    mean, most, *passes = together(rows)
    return Counted(
        mean,
        dict(zip(tried, passes, strict=True)),
        most,
        least,
        fmean(one["status"] == "unparsed" for one in records),
        fmean(one["finish"] == "length" for one in records),
        fmean(one["status"] == "timed out" for one in records),
        None if any(one["false_facts"] is None for one in records) else perception_errors(records),
        errors(records),
    )


def by_question_of(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Scene -> its answers, in their order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["scene"], []).append(record)
    return found


def errors(records: Sequence[Record]) -> dict[str, float] | None:
    """The share of answers that is wrong by each of `errors.ERRORS`; None where it is not known of all.

    >>> errors([{"status": "right", "error": None}, {"status": "wrong", "error": "perception"}])["perception"]
    0.5
    """
    if any(one["status"] != "right" and one.get("error") is None for one in records):
        return None
    if all("error" not in one or one.get("false_facts", 0) is None for one in records):
        return None
    number = Counter(one.get("error") for one in records)
    return {name: number[name] / len(records) for name in ERRORS}


def macro(records: Sequence[Record]) -> Estimate:
    """The mean of the worlds' accuracies, all worlds alike, however many questions each has."""
    return stratified({world: by_question(those) for world, those in by_world(records).items()}, macro=True)


def as_json(one: Counted) -> dict[str, Any]:
    """The same as plain data: {"accuracy": {"mean", "low", "high", "n"}, "pass": {"1": {...}}, ...}."""
    return one._asdict() | {
        "accuracy": one.accuracy._asdict(),
        "passes": {str(k): estimate._asdict() for k, estimate in one.passes.items()},
        "majority": one.majority._asdict(),
    }


def columns(samples: int, *, caption: bool = False) -> list[str]:
    """The head of the table whose lines `cells` are."""
    at = [f"{name}@{samples} [95 %]" for name in ("avg", "pass", "maj")]
    false = "caption false" if caption else "false fact"
    return ["", "n", *at, "unparsed", "cut off", "timed out", false]


def cells(name: str, one: Counted) -> list[str]:
    """A line of the table."""
    told = [f"{x.mean:.3f} [{x.low:.3f}, {x.high:.3f}]" for x in (one.accuracy, one.passes[one.samples], one.majority)]
    wrong = [f"{share:.3f}" for share in (one.unparsed, one.cut_off, one.timed_out)]
    false = "unknown" if one.perception_errors is None else f"{one.perception_errors:.3f}"
    return [name, str(one.accuracy.n), *told, *wrong, false]


def tables(records: Sequence[Record]) -> Mapping[str, Counted]:
    """For each world, and "overall"."""
    worlds = by_world(records)
    return {world: counted(those) for world, those in worlds.items()} | {"overall": counted(records)}
