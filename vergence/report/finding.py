"""How well rules find the tokens that look, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vergence.audit.tokens import MEASURES
from vergence.report.table import print_table

APART = tuple((measure, group) for measure in ("AP", "precision", "recall") for group in ("right", "wrong"))
"""The measures that are told of right and of wrong responses."""
Found = Mapping[str, Any]
"""What `vergence tokens` says of one checkpoint."""


def print_found(found: Sequence[Found]) -> None:
    """Print of one checkpoint every measure of every rule, and some for right and wrong responses apart; of several
    checkpoints the average precision of every rule. Below stands how many responses there were.
    """
    if len(found) == 1:
        groups = found[0]["groups"]
        _print("all responses", {(measure, "all"): measure for measure in MEASURES}, groups)
        _print("right and wrong responses", {(what, group): f"{what}, {group}" for what, group in APART}, groups)
    else:
        rules = list(next((one["groups"]["all"]["rules"] for one in found if one["responses"]), {}))
        rows = [
            [_name(one), *(_put(one["groups"]["all"]["rules"].get(rule, {}).get("AP")) for rule in rules)]
            for one in found
        ]
        print_table("average precision", ["checkpoint", *rules], rows)
    for one in found:
        print(told(one))


def _print(title: str, columns: Mapping[tuple[str, str], str], groups: Mapping[str, Any]) -> None:
    rules = groups["all"]["rules"]
    rows = [[rule, *(_put(groups[of]["rules"].get(rule, {}).get(what)) for what, of in columns)] for rule in rules]
    print_table(title, ["rule", *columns.values()], rows)


def told(one: Found) -> str:
    """How many responses there were, how many of their tokens look, and what was grounded, in words.

    >>> told({"model": "seedling", "step": 0, "responses": 2, "questions": 1, "looks": 0.1, "derived": 0.25})
    'seedling: 2 responses to 1 questions; 10 % of their tokens look, 25 % are derived.'
    """
    looks, derived = one.get("looks", 0.0), one.get("derived", 0.0)
    shares = f"; {100 * looks:.0f} % of their tokens look, {100 * derived:.0f} % are derived"
    text = f"{_name(one)}: {one['responses']} responses to {one['questions']} questions{shares * ('looks' in one)}."
    if cells := one.get("grounding"):
        own, others, most = (_put(cells[what]) for what in ("own", "others", "most"))
        text += f" A word that states a cell is moved by {own} nats when that cell is black, by {others} when another"
        text += f" is; of all nine its own moves it most in {most} (1/9 by chance)."
    return text


def _name(one: Found) -> str:
    return f"{one['model']}, step {one['step']}" if one["step"] else one["model"]


def _put(one: Mapping[str, float] | None) -> str:
    return "" if one is None else f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
