"""The numbers on top of the page: the same questions before and after, paired, each with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from vergence.evaluate.errors import ERRORS
from vergence.evaluate.interval import Estimate, bootstrap, paired_difference
from vergence.evaluate.suite import Record, by_question, by_world
from vergence.train.run import read_lines

FILES = {"before": "before.jsonl", "after": "after.jsonl", "blind": "after-blind.jsonl"}
"""In `evaluation/` of a run folder: the starting model, the trained one, and the trained one without the image."""

Asked = Mapping[str, list[Record]]
"""before, after, blind -> the records; empty where nobody asked."""
Score = Callable[[Sequence[Record]], dict[str, float]]
"""Records -> the score of each question."""


class Row(NamedTuple):
    """One line of a table: a world, or all of them; or a kind of error."""

    world: str
    n: int
    """Questions."""
    before: Estimate | None
    after: Estimate | None
    difference: Estimate | None
    """Paired: after - before on the same questions."""
    blind: Estimate | None


class Headline(NamedTuple):
    """What the evaluation found. The first row of each table is over all worlds."""

    accuracy: list[Row]
    errors: list[Row]
    """Share of answers that state a false fact; empty where no scene knows its facts."""
    kinds: list[Row]
    """Share of answers that are wrong by each kind of error; empty where no record says which."""
    samples: int
    """Answers to each question: the k of avg@k. 0 if questions have different numbers of answers."""
    missing: list[str]
    """Files that are not there, or empty."""


def headline(run: Path) -> Headline:
    """What `evaluation/` of a run folder says.

    Raises:
        UserError: a file is damaged, or before and after were not asked the same questions.
    """
    asked = answers(run)
    seeing = {name: [one for one in records if one["false_facts"] is not None] for name, records in asked.items()}
    return Headline(
        accuracy=table(asked, by_question),
        errors=table({**seeing, "blind": []}, errors_by_question),
        kinds=kinds({**seeing, "blind": []}),
        samples=_samples(asked["before"], asked["after"]),
        missing=[f"evaluation/{file}" for name, file in FILES.items() if not asked[name]],
    )


def answers(run: Path) -> dict[str, list[Record]]:
    """before, after, blind -> the records of a run's evaluation; empty where nobody asked.

    Raises:
        UserError: a file is damaged.
    """
    return {name: _read(run / "evaluation" / file) for name, file in FILES.items()}


def kinds(asked: Asked) -> list[Row]:
    """A row for each kind of error, over all worlds; [] where the records do not say: see `clear`.

    Raises:
        UserError: before and after were not asked the same questions.
    """
    told = clear(asked)
    return [_row(kind, told, partial(kind_by_question, kind=kind)) for kind in ERRORS] if told else []


def clear(asked: Mapping[str, Sequence[Record]]) -> dict[str, list[Record]]:
    """The records of the questions of which every wrong answer's kind of error is told, on all sides.

    {} where there are none, or where some records do not say (those of older evaluations).

    >>> told = {"scene": "a", "status": "wrong", "error": "format"}, {"scene": "b", "status": "wrong", "error": None}
    >>> [one["scene"] for one in clear({"after": told})["after"]]
    ['a']
    """
    every = [record for records in asked.values() for record in records]
    if any("error" not in record for record in every):
        return {}
    unclear = {one["scene"] for one in every if one["status"] != "right" and one["error"] is None}
    told = {name: [one for one in records if one["scene"] not in unclear] for name, records in asked.items()}
    return told if any(told.values()) else {}


def kind_by_question(records: Sequence[Record], kind: str) -> dict[str, float]:
    """Scene -> the share of its answers whose error is of this kind.

    >>> kind_by_question([{"scene": "a", "error": "format"}, {"scene": "a", "error": None}], "format")
    {'a': 0.5}
    """
    answers: dict[str, list[bool]] = {}
    for record in records:
        answers.setdefault(record["scene"], []).append(record["error"] == kind)
    return {scene: fmean(those) for scene, those in answers.items()}


def table(asked: Asked, score: Score) -> list[Row]:
    """A row over all worlds, then (if there is more than one) a row for each.

    Raises:
        UserError: before and after were not asked the same questions.
    """
    if not any(asked.values()):
        return []
    parts = {name: by_world(records) for name, records in asked.items()}
    worlds = list(dict.fromkeys(world for part in parts.values() for world in part))
    rows = [_row("all", asked, score)]
    if len(worlds) > 1:
        rows += [_row(world, {name: part.get(world, []) for name, part in parts.items()}, score) for world in worlds]
    return rows


def errors_by_question(records: Sequence[Record]) -> dict[str, float]:
    """Scene -> the share of its answers that state at least one false fact.

    >>> errors_by_question([{"scene": "a", "false_facts": 2}, {"scene": "a", "false_facts": 0}])
    {'a': 0.5}
    """
    answers: dict[str, list[bool]] = {}
    for record in records:
        answers.setdefault(record["scene"], []).append(record["false_facts"] > 0)
    return {scene: fmean(wrong) for scene, wrong in answers.items()}


def _row(world: str, asked: Asked, score: Score) -> Row:
    scores = {name: score(records) for name, records in asked.items()}
    means = {name: bootstrap(those) if those else None for name, those in scores.items()}
    both = scores["before"] and scores["after"]
    difference = paired_difference(scores["before"], scores["after"]) if both else None
    n = max(len(those) for those in scores.values())
    return Row(world, n, means["before"], means["after"], difference, means["blind"])


def _samples(*files: Sequence[Record]) -> int:
    numbers = {number for records in files for number in Counter(record["scene"] for record in records).values()}
    return numbers.pop() if len(numbers) == 1 else 0


def _read(path: Path) -> list[Record]:
    return list(read_lines(path)) if path.is_file() else []
