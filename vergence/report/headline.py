"""The numbers on top of the page: the same questions before and after, paired, each with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from vergence.evaluate.accelerated import stratified
from vergence.evaluate.compare import refuse_unlike
from vergence.evaluate.errors import ERRORS
from vergence.evaluate.interval import Estimate
from vergence.evaluate.suite import Record, by_question, by_world
from vergence.train.recorded import ANSWER, checked
from vergence.train.run import read_lines
from vergence.types import UserError

FILES = {"before": "before.jsonl", "after": "after.jsonl", "blind": "after-blind.jsonl"}
"""In `evaluation/` of a run folder: the starting model, the trained one, and the trained one without the image."""

MOST_WORLDS = 50
"""Worlds that have a row each, in a page."""

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
        UserError: as `answers`.
    """
    asked = answers(run)
    unknown = {one["scene"] for records in asked.values() for one in records if one["false_facts"] is None}
    seeing = {name: [one for one in records if one["scene"] not in unknown] for name, records in asked.items()}
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
        UserError: a file is damaged, or before and after were not asked the same questions in the same way.
    """
    asked = {name: _read(run / "evaluation" / file) for name, file in FILES.items()}
    if asked["before"] and asked["after"]:
        try:
            refuse_unlike(asked["before"], asked["after"])
        except UserError as error:
            both = " and ".join(FILES[name] for name in ("before", "after"))
            raise UserError(f"{run / 'evaluation'}: {both} cannot be compared: {error}") from error
    return asked


def kinds(asked: Asked) -> list[Row]:
    """A row for each kind of error, over all worlds; [] where the records do not say: see `clear`."""
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
    """A row over all worlds, then (if there is more than one, and no more than `MOST_WORLDS`) a row for each.

    Before and after must be of the same questions, as `answers` has made sure.
    """
    if not any(asked.values()):
        return []
    worlds = dict.fromkeys(record["world"] for records in asked.values() for record in records)
    rows = [_row("all", asked, score)]
    if 1 < len(worlds) <= MOST_WORLDS:
        for world in worlds:
            rows.append(_row(world, {name: in_world(records, world) for name, records in asked.items()}, score))
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


def share(records: Sequence[Record], score: Score) -> Estimate:
    """The mean score with the interval of `vergence eval`: BCa, questions resampled within their worlds.

    >>> right, wrong = ({"scene": name, "world": "w", "status": name} for name in ("right", "wrong"))
    >>> print(share([right, wrong], by_question))
    0.500 [0.000, 1.000] n=2

    Raises:
        UserError: there are no records.
    """
    # the worlds' places name their draws, as in `evaluate.counted`: the same digits then stand in both
    return stratified({str(place): score(those) for place, those in enumerate(by_world(records).values())})


def difference(was: Sequence[Record], now: Sequence[Record], score: Score) -> dict[str, dict[str, float]]:
    """World -> scene -> how much its score differs: `now` less `was`.

    >>> right, wrong = ({"scene": "a", "world": "w", "status": status} for status in ("right", "wrong"))
    >>> difference([wrong], [right], by_question)
    {'w': {'a': 1.0}}
    """
    before, after = score(was), score(now)
    return {
        world: {one["scene"]: after[one["scene"]] - before[one["scene"]] for one in those}
        for world, those in by_world(now).items()
    }


def in_world(records: Sequence[Record], world: str) -> list[Record]:
    """The records of one world, as of none: `vergence eval` resamples them so where it shows a world by itself.

    >>> in_world([{"scene": "a", "world": "bars"}, {"scene": "b", "world": "mosaic"}], "bars")
    [{'scene': 'a', 'world': ''}]
    """
    return [one | {"world": ""} for one in records if one["world"] == world]


def _row(name: str, asked: Asked, score: Score) -> Row:
    means = {which: share(records, score) if records else None for which, records in asked.items()}
    points = None
    if asked["before"] and asked["after"]:
        points = stratified(difference(asked["before"], asked["after"], score), least=-1.0)
    n = max(one.n for one in means.values() if one)
    return Row(name, n, means["before"], means["after"], points, means["blind"])


def _samples(*files: Sequence[Record]) -> int:
    numbers = {number for records in files for number in Counter(record["scene"] for record in records).values()}
    return numbers.pop() if len(numbers) == 1 else 0


def _read(path: Path) -> list[Record]:
    return list(checked(read_lines(path), path, ANSWER)) if path.is_file() else []
