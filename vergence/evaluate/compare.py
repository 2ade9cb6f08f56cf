"""Two checkpoints on the same questions: the paired difference, its interval, and whether chance would do it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev
from typing import NamedTuple

from vergence.evaluate.accelerated import stratified
from vergence.evaluate.interval import ALIKE, Estimate, holm, sign_flip_p, smallest_detectable
from vergence.evaluate.suite import Record, by_question, by_world
from vergence.types import UserError

CONDITIONS = ("wording", "max_tokens", "temperature", "shown", "reasoner", "verifier", "pixels")
"""What must be the same on both sides. The seed need not, nor k: the mean of more answers is no other mean."""
QUESTION = ("question", "gold", "image_sha")
"""What must be the same of one question, as far as both sides tell it."""


class Comparison(NamedTuple):
    """How far two checkpoints differ on the same questions."""

    difference: Estimate
    """Paired: of each question after - before; the interval is over questions."""
    p: float
    """`sign_flip_p` of these differences."""
    holm: float | None
    """p as it counts among the worlds that are compared (`holm`); None for the line over all, which is one test."""


def compare(before: Sequence[Record], after: Sequence[Record]) -> dict[str, Comparison]:
    """For each world, and "overall": avg@k after - before on the same questions.

    The line over all resamples questions within their worlds, and is a test of its own; the worlds' tests are as many
    as there are worlds, and Holm's correction is over these.

    Raises:
        UserError: there are no answers, or the two were not asked alike, or not the same questions: the first thing
            that differs is named.
    """
    refuse_unlike(before, after)
    was, now = by_question(before), by_question(after)
    difference = {
        world: {scene: now[scene] - was[scene] for scene in by_question(those)}
        for world, those in by_world(after).items()
    }
    p = {world: sign_flip_p(those) for world, those in difference.items()}
    whole = sign_flip_p({scene: value for those in difference.values() for scene, value in those.items()})
    adjusted = holm(p)
    found = {
        world: Comparison(stratified({"": those}, least=-1.0), p[world], adjusted[world])
        for world, those in difference.items()
    }
    return found | {"overall": Comparison(stratified(difference, least=-1.0), whole, None)}


def detectable(before: Sequence[Record], after: Sequence[Record]) -> float | None:
    """The true difference that so many questions would show with 80 % probability.

    It is `smallest_detectable` for the standard deviation of the questions' differences that was found; None where that
    says nothing: for fewer than two questions, or where all differ alike.
    """
    was, now = by_question(before), by_question(after)
    difference = [now[scene] - was[scene] for scene in now.keys() & was.keys()]
    if len(difference) < 2 or max(difference) - min(difference) < ALIKE:
        return None
    return smallest_detectable(stdev(difference), len(difference))


def refuse_unlike(before: Sequence[Record], after: Sequence[Record]) -> None:
    """Raise unless both are answers to the same questions, asked alike.

    What an older file does not tell is not compared.

    Raises:
        UserError: see `compare`.
    """
    if not before or not after:
        raise UserError("there are no answers to compare; evaluate both checkpoints first")
    if len({"caption" in record for record in (*before, *after)}) > 1:
        raise UserError(
            "one side answered by itself, the other by a reasoner; evaluate both with --reasoner, or both not"
        )
    for name in CONDITIONS:
        found = [
            {str(record[name]) for record in records if record.get(name) is not None} for records in (before, after)
        ]
        if len(found[0] | found[1]) > 1:
            told = [", ".join(sorted(one)) or "not told" for one in found]
            raise UserError(
                f"the two were not asked alike: {name} is {told[0]} on the one side and {told[1]} on the other; "
                f"evaluate both under the same conditions"
            )
    was, now = ({record["scene"]: record for record in records} for records in (before, after))
    if odd := sorted(was.keys() ^ now.keys()):
        raise UserError(
            f"{len(odd)} question(s) were put to one side only, e.g. {odd[0]}; compare answers to the same questions "
            f"(the same --split, --number, --seed and data)"
        )
    for scene in was:
        for name in QUESTION:
            one, other = was[scene].get(name), now[scene].get(name)
            if one is not None and other is not None and one != other:
                raise UserError(f"{scene} is not the same question on both sides: its {name} differs; ask both anew")
