"""Shares of a whole that is itself random: of the wrong answers, those of one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np

from vergence.evaluate.interval import ALIKE, Estimate, bootstrap, exact, resampled
from vergence.evaluate.suite import Record

Score = Callable[[Record], float]


def per_question(records: Sequence[Record], score: Score) -> dict[str, float]:
    """Scene -> the mean score of its answers.

    >>> per_question([{"scene": "a", "status": "right"}, {"scene": "a", "status": "wrong"}], right)
    {'a': 0.5}
    """
    answers: dict[str, list[float]] = {}
    for record in records:
        answers.setdefault(record["scene"], []).append(float(score(record)))
    return {scene: fmean(scores) for scene, scores in answers.items()}


def right(record: Record) -> float:
    """1 for a right answer, else 0."""
    return float(record["status"] == "right")


def ratio(part: Mapping[str, float], whole: Mapping[str, float], *, least: float = 0.0) -> Estimate | None:
    """sum(part) / sum(whole) over questions, with its percentile bootstrap interval; None where the whole is 0.

    Both are resampled with the same questions; those with nothing of either change nothing and are left out, and so is
    a resample without any of the whole. n counts the questions that have some of the whole. Where each question has the
    same share, every resample does too: then the interval is `interval.exact`'s.

    >>> print(ratio({"a": 0.5, "b": 0.0, "c": 0.0}, {"a": 1.0, "b": 1.0, "c": 0.0}))
    0.250 [0.000, 0.500] n=2
    >>> ratio({"a": 0.5, "b": -0.5}, {"a": 1.0, "b": 0.0}, least=-1.0).mean
    0.0

    Args:
        part: question -> a share of its answers.
        whole: question -> the share that the part is taken of.
        least: the lowest that the ratio can be: -1 of a difference.
    """
    names = [name for name in sorted(whole) if whole[name] > 0 or part[name] != 0]
    n = sum(whole[name] > 0 for name in names)
    if not n:
        return None
    both = np.array([[part[name], whole[name]] for name in names])
    value = float(both[:, 0].sum() / both[:, 1].sum())
    if n == len(names) and np.ptp(both[:, 0] / both[:, 1]) < ALIKE:
        return exact(value, n, least)
    drawn = resampled(both)
    drawn = drawn[drawn[:, 1] > 0]
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)


def errors(records: Sequence[Record], names: Sequence[str]) -> list[tuple[str, Estimate, Estimate | None]]:
    """For each error its share of all answers, and of the wrong ones (None where there are none).

    >>> errors([{"scene": "a", "status": "wrong", "error": "format"}], ["format"])[0][2].mean
    1.0
    """
    wrong = per_question(records, lambda record: 1.0 - right(record))
    found = []
    for name in names:
        of = per_question(records, lambda record, name=name: record["error"] == name)
        found.append((name, bootstrap(of), ratio(of, wrong)))
    return found
