"""Several runs on the same questions: each against the first, with interval, p, and Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from vergence.evaluate.accelerated import stratified
from vergence.evaluate.compare import Comparison, refuse_unlike
from vergence.evaluate.errors import ERRORS
from vergence.evaluate.interval import Estimate, holm, sign_flip_p
from vergence.evaluate.suite import Record, by_question, by_world
from vergence.report.headline import (
    MOST_WORLDS,
    Score,
    clear,
    difference,
    errors_by_question,
    in_world,
    kind_by_question,
    share,
)
from vergence.types import UserError

Answers = Mapping[str, Sequence[Record]]
"""Run -> the answers of its trained model."""


class Line(NamedTuple):
    """One run in one group of a table."""

    group: str
    """A world, a kind of error; "" where a table has no groups."""
    run: str
    value: Estimate
    against: Comparison | None
    """The run less the first one, on the same questions; None of the first itself."""


class Table(NamedTuple):
    """Some lines that are corrected together."""

    title: str
    groups: str
    """What the groups are; empty where there are none."""
    lines: list[Line]
    tests: int
    """Over how many tests Holm's correction is."""


def tables(answers: Answers) -> list[Table]:
    """What can be compared: accuracy over all and by world, answers that state a false fact, kinds of error.

    A difference is a run's score less the first run's, on the same questions, which are resampled within their worlds
    (as `evaluate.compare` does it); p is `sign_flip_p` of the same differences.

    Raises:
        UserError: two runs were not asked alike, or not the same questions: both are named.
    """
    first, *others = answers
    for other in others:
        try:
            refuse_unlike(answers[first], answers[other])
        except UserError as error:
            raise UserError(f"{other} cannot be compared with {first}: {error}") from error
    worlds = list(by_world(answers[first]))
    found = [table("Accuracy", "", {"": (answers, by_question)})]
    if 1 < len(worlds) <= MOST_WORLDS:
        parts = {world: {run: in_world(records, world) for run, records in answers.items()} for world in worlds}
        found.append(
            table("Accuracy by world", "world", {world: (those, by_question) for world, those in parts.items()})
        )
    unknown = {one["scene"] for records in answers.values() for one in records if one["false_facts"] is None}
    seeing = {run: [one for one in records if one["scene"] not in unknown] for run, records in answers.items()}
    if all(seeing.values()):
        found.append(table("Answers that state a false fact", "", {"": (seeing, errors_by_question)}))
        if told := clear(seeing):
            kinds = {kind: (told, partial(kind_by_question, kind=kind)) for kind in ERRORS}
            found.append(table("Why answers are wrong (share of all answers)", "error", kinds))
    return found


def table(title: str, groups: str, parts: Mapping[str, tuple[Answers, Score]]) -> Table:
    """For each group and run its score, and the difference from the first run's.

    >>> right, wrong = ({"scene": "a", "world": "w", "status": status} for status in ("right", "wrong"))
    >>> found = table("Accuracy", "", {"": ({"one": [wrong], "two": [right]}, by_question)})
    >>> [(line.run, line.value.mean, line.against and line.against.difference.mean) for line in found.lines]
    [('one', 0.0, None), ('two', 1.0, 1.0)]

    Args:
        parts: group -> the answers that it is about, and what is found of each question.
    """
    lines: list[Line] = []
    for group, (answers, score) in parts.items():
        first = next(iter(answers))
        for run, records in answers.items():
            against = None if run == first else _against(answers[first], records, score)
            lines.append(Line(group, run, share(records, score), against))
    p = {str(place): line.against.p for place, line in enumerate(lines) if line.against}
    for place, adjusted in holm(p).items():
        line = lines[int(place)]
        lines[int(place)] = line._replace(against=line.against and line.against._replace(holm=adjusted))
    return Table(title, groups, lines, len(p))


def _against(was: Sequence[Record], now: Sequence[Record], score: Score) -> Comparison:
    by_scene = difference(was, now, score)
    p = sign_flip_p({scene: value for those in by_scene.values() for scene, value in those.items()})
    return Comparison(stratified(by_scene, least=-1.0), p, None)


def as_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The tables as JSON: a line for each run and group, with `against` the first run."""
    return [
        {
            "measure": table.title,
            "group": line.group or None,
            "run": line.run,
            **line.value._asdict(),
            "difference": line.against.difference._asdict() if line.against else None,
            "p": line.against.p if line.against else None,
            "holm": line.against.holm if line.against else None,
            "tests": table.tests,
        }
        for table in tables
        for line in table.lines
    ]
