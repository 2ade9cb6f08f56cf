"""How many fewer perception errors one model makes than another, on the same questions, counted as PAPO counts.

PAPO (arXiv:2507.06448) takes 200 wrong answers of a GRPO model and finds, by hand, 134 of them wrong in perception;
after PAPO 73 are: 30.5 points, 45.5 % fewer. Answers that were picked because they are wrong are wrong less often when
they are given anew, by whatever model. So what the first model itself comes to in its other answers to the same
questions is told beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vergence.audit.shares import per_question, ratio, right
from vergence.evaluate.interval import Estimate, bootstrap, paired_difference
from vergence.evaluate.suite import Record
from vergence.types import UserError


class Reduction(NamedTuple):
    """From the model that is compared with ("before") to the one that is audited ("after")."""

    before: Estimate
    """Share of all answers that are perception errors."""
    after: Estimate
    points: Estimate
    """before - after, paired over questions."""
    fewer: Estimate | None
    """(before - after) / before."""
    picked_before: Estimate | None
    """Of the first model's wrong answers, the share that are perception errors (PAPO: 67 %)."""
    picked_after: Estimate | None
    """The same questions and samples, answered by the other model (PAPO: 36.5 %)."""
    picked_points: Estimate | None
    """Their difference (PAPO: 30.5 points)."""
    picked_fewer: Estimate | None
    """The difference as a share of the first (PAPO: 45.5 %)."""
    picked_again: Estimate | None
    """The first model's own other answers to the same questions: what picking wrong answers does alone."""


def reduction(before: Sequence[Record], after: Sequence[Record]) -> Reduction:
    """The perception errors of two models on the same questions, samples side by side.

    Args:
        before, after: records with `error`, of the same questions and as many samples each.

    Raises:
        UserError: the questions or the samples are not the same, or an error is unknown.

    >>> records = [{"scene": "a", "sample": i, "status": "wrong", "error": "perception"} for i in (0, 1)]
    >>> better = [{**records[0], "error": "calculation"}, records[1]]
    >>> found = reduction(records, better)
    >>> found.points.mean, found.fewer.mean, found.picked_points.mean, found.picked_again.mean
    (0.5, 0.5, 0.5, 1.0)
    """
    ours, theirs = _by_answer(before), _by_answer(after)
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise UserError(f"{len(odd)} answer(s) have no counterpart, e.g. {odd[0]}; compare the same questions")
    was, now = per_question(before, _misseen), per_question(after, _misseen)
    points = paired_difference(now, was)
    wrong = per_question(before, lambda record: 1.0 - right(record))
    picked = [record for record in before if not right(record)]
    least: dict[str, Any] = {"least": -1.0}
    samples = {scene: sum(record["scene"] == scene for record in before) for scene in wrong}

    def over_picked(score: Any) -> dict[str, float]:
        found = dict.fromkeys(wrong, 0.0)
        for record in picked:
            found[record["scene"]] += score(record) / samples[record["scene"]]
        return found

    then = over_picked(_misseen)
    later = over_picked(lambda record: _misseen(theirs[record["scene"], record["sample"]]))
    lost = {scene: then[scene] - later[scene] for scene in wrong}
    several = {scene: wrong[scene] if samples[scene] > 1 else 0.0 for scene in wrong}
    again = over_picked(lambda record: _elsewhere(record, was, samples))
    return Reduction(
        bootstrap(was),
        bootstrap(now),
        points,
        ratio({scene: was[scene] - now[scene] for scene in was}, was, **least),
        ratio(then, wrong),
        ratio(later, wrong),
        ratio(lost, wrong, **least),
        ratio(lost, then, **least),
        ratio(again, several),
    )


def _by_answer(records: Sequence[Record]) -> dict[tuple[str, int], Record]:
    for record in records:
        if "error" not in record or (record["error"] is None and not right(record)):
            raise UserError(
                f"why the answer to {record['scene']!r} is wrong is not known: perception errors are counted where a "
                "scene's facts are known, as in the embedded worlds"
            )
    return {(record["scene"], record["sample"]): record for record in records}


def _misseen(record: Record) -> float:
    return float(record["error"] == "perception")


def _elsewhere(record: Record, share: dict[str, float], samples: dict[str, int]) -> float:
    """The share of perception errors among the other answers to the same question."""
    k = samples[record["scene"]]
    return (share[record["scene"]] * k - _misseen(record)) / (k - 1) if k > 1 else 0.0
