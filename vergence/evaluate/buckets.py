"""Accuracy by vision dependency: how much of a question can be answered without its picture.

The level is declared by the data (`asked.level_of`), or measured: the same checkpoint is asked with a grey picture.

**How a question gets its measured level.** Of its k answers to the grey picture the first half *decide*, the others are
put aside. With b the share of the deciding answers that is right, and g the chance of a blind guess (1 / number of
options where these are known, else 0), its dependency is d = 1 - max(0, b - g) / (1 - g): high from 2/3, low up to 1/3.

**Why that is not circular.** A level never looks at an answer that is counted in it: neither at the answers to the
picture, whose noise is another's (the seed of the grey ones is its own key), nor at the grey answers that were put
aside, from which alone the blind accuracy of the level is taken. Had the same answers decided and been counted, a level
would keep its own luck: questions that nobody can answer would seem to be of every level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vergence import chance
from vergence.evaluate.accelerated import stratified
from vergence.evaluate.asked import LEVELS, Level
from vergence.evaluate.counted import Counted, as_json, by_question_of, counted
from vergence.evaluate.interval import Estimate
from vergence.evaluate.suite import Record, by_question, by_world


class Bucket(NamedTuple):
    """The questions of one level."""

    seeing: Counted
    """With the picture."""
    blind: Estimate | None
    """avg without it, of the answers that did not decide; None where the level is declared, or k is 1."""
    gain: Estimate | None
    """What the picture adds, paired on the same questions."""


def blind_seed(seed: int) -> int:
    """The seed of the answers to the grey picture: their noise is not that of the answers to the picture.

    >>> blind_seed(0) == blind_seed(0) != blind_seed(1)
    True
    """
    return chance.key(seed, "blind")


def level_measured(deciding: Sequence[Record]) -> Level:
    """The level of a question by its deciding answers to a grey picture: see the module.

    >>> said = lambda *right: [{"status": "right" if one else "wrong", "kind": "integer"} for one in right]
    >>> level_measured(said(0, 0, 0, 1)), level_measured(said(0, 1, 0, 1)), level_measured(said(1, 1, 0, 1))
    ('high', 'medium', 'low')
    >>> level_measured([one | {"kind": "choice", "choices": ["a", "b"]} for one in said(0, 1, 0, 1)])
    'high'
    """
    first = deciding[0]
    options = first.get("choices") if first.get("kind") == "choice" else None
    guess = 1 / len(options) if options and len(options) > 1 else 0.0
    right = sum(one["status"] == "right" for one in deciding) / len(deciding)
    depends = 1 - max(0.0, right - guess) / (1 - guess)
    return "high" if depends >= 2 / 3 - 1e-9 else "low" if depends <= 1 / 3 + 1e-9 else "medium"


def halves(blind: Sequence[Record]) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    """Scene -> the answers that decide, and scene -> those that are put aside (none where there is but one)."""
    each = by_question_of(blind)
    cut = {scene: max(1, len(those) // 2) for scene, those in each.items()}
    return (
        {scene: those[: cut[scene]] for scene, those in each.items()},
        {scene: those[cut[scene] :] for scene, those in each.items()},
    )


def by_level(records: Sequence[Record], blind: Sequence[Record] = ()) -> dict[Level, Bucket]:
    """The levels that there are, from low to high: measured where there are `blind` answers, else as declared.

    Questions of no level are in none; without any there is none.

    Args:
        records: the answers to the picture.
        blind: the same checkpoint's to a grey one, of the same questions, asked with `blind_seed`.
    """
    deciding, aside = halves(blind)
    level: Mapping[str, Level | None] = (
        {scene: level_measured(those) for scene, those in deciding.items()}
        if blind
        else {record["scene"]: record.get("level") for record in records}
    )
    found: dict[Level, Bucket] = {}
    for one in LEVELS:
        seeing = [record for record in records if level.get(record["scene"]) == one]
        if not seeing:
            continue
        left = [answer for record in seeing if record["sample"] == 0 for answer in aside.get(record["scene"], ())]
        found[one] = Bucket(counted(seeing), *_without(seeing, left))
    return found


def _without(seeing: Sequence[Record], left: Sequence[Record]) -> tuple[Estimate | None, Estimate | None]:
    """The accuracy of the answers that were put aside, and how much better those to the picture are."""
    if not left:
        return None, None
    score = by_question(seeing)
    blind = {world: by_question(those) for world, those in by_world(left).items()}
    gain = {world: {one: score[one] - value for one, value in those.items()} for world, those in blind.items()}
    return stratified(blind), stratified(gain, least=-1.0)


def buckets_as_json(found: Mapping[Level, Bucket], *, measured: bool) -> dict[str, Any]:
    """The same as plain data, with "by": "measured" or "declared"."""
    levels = {
        level: as_json(one.seeing)
        | {"blind": one.blind and one.blind._asdict(), "gain": one.gain and one.gain._asdict()}
        for level, one in found.items()
    }
    return {"by": "measured" if measured else "declared", **levels}
