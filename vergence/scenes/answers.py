"""The right answer of a row: as text, of a kind, among choices where there are some; nothing is read two ways."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, get_args

import numpy as np

from vergence.rewards.form import extracted
from vergence.rewards.kinds import read_gold
from vergence.rewards.spelling import folded
from vergence.scenes.columns import Unfit, find
from vergence.scenes.jsonl import Numeral, unquoted
from vergence.scenes.question import read_text, shown
from vergence.scenes.tables import Fields
from vergence.types import Gold, Kind, UserError

MOST_CHOICES = 26
CHOSEN = ("choice", "choices")
"""Kinds of answers that are letters."""


def read_answer(fields: Fields, columns: Mapping[str, str], tolerance: float, *, exact: bool) -> tuple[Gold, bool]:
    """The gold answer of a row, and whether the data says of which kind it is.

    >>> read_answer({"answer": "Bo", "choices": ["Ann", "Bo"]}, {}, 0.0, exact=False)
    (Gold(text='B', kind='choice', choices=('Ann', 'Bo'), tolerance=0.0), False)

    Args:
        fields: The row.
        columns: Ours -> theirs.
        tolerance: Of numbers, for rows that have none of their own.
        exact: Whether the row is what a known data set's adapter made of it: see `columns.find`.

    Raises:
        Unfit: there is none; it is not of its kind; or beside choices it picks none of them, or more than one.
    """
    answer = find(fields, "answer", columns, exact=exact)
    kind = find(fields, "kind", columns, exact=exact)
    choices = _choices(*find(fields, "choices", columns, exact=exact))
    tolerance = _tolerance(*find(fields, "tolerance", columns, exact=exact)) or tolerance
    if kind.value not in (None, "", *get_args(Kind)):
        remedy = f"write one of them, or say --columns kind= if {kind.column!r} is about something else"
        raise Unfit(
            kind.column, f"no kind of answer {shown(kind.value)} (they are {', '.join(get_args(Kind))}); {remedy}"
        )
    if kind.value and kind.value not in CHOSEN:
        choices = ()  # it is answered freely
    text = read_text(answer.column, _numeral(answer.value), "text or a number, text")
    tagged = re.fullmatch(r".*<answer>(.*?)</answer>\s*", text, re.DOTALL)  # as R1-V's and TRL's data write it
    text = tagged[1] if tagged else text
    unsure = choices and not (exact and kind.value)
    if unsure:
        text = _as_choice(answer.column, text, choices)
    try:
        gold = read_gold(text, choices=choices, kind=kind.value or None, tolerance=tolerance)
    except UserError as problem:
        raise Unfit(answer.column, str(problem)) from problem
    if unsure and gold.kind not in CHOSEN:
        raise Unfit(
            answer.column,
            f"{text[:80]!r} is neither a letter of the {len(choices)} choices nor the text of exactly one; write the "
            "letter (A for the first, which is 0 where choices are counted from 0), or the text, or say "
            "--columns choices= if the question is answered freely",
        )
    return gold, bool(kind.value)


def _as_choice(column: str, text: str, choices: Sequence[str]) -> str:
    """The answer, in the words of the choice that it is but for spaces and a letter; else as it came.

    Raises:
        Unfit: it may be read two ways: choices may be equal, and may themselves be letters.
    """
    text = ((extracted(text, several=True) if "\\boxed" in text else None) or text).strip()
    said = folded(text)
    named = [at for at, choice in enumerate(choices) if said and folded(choice) == said]
    if said and not named:
        bare = "".join(said.split())
        named = [at for at, choice in enumerate(choices) if _bare(choice, at) == bare]
    if len(named) > 1:
        raise Unfit(column, f"{text[:80]!r} is the text of {len(named)} choices; write the letter of the one")
    letter = re.fullmatch(r"[(\[]?([A-Za-z])[)\]]?[.:]?", text)
    at = ord(letter[1].upper()) - ord("A") if letter else len(choices)
    if named and at < len(choices) and named != [at]:
        one = chr(ord("A") + named[0])
        raise Unfit(
            column,
            f"{text[:80]!r} is the letter of one choice and the text of another; write both, e.g. "
            f"'{one}. {choices[named[0]]}' or '{chr(ord('A') + at)}. {choices[at]}'",
        )
    return choices[named[0]] if named else text


def _bare(choice: str, at: int) -> str:
    """Without spaces, and without its letter."""
    letter = chr(ord("A") + at)
    return "".join(folded(re.sub(rf"^\({letter}\)|^{letter}[.:)]", "", choice.strip())).split())


def _tolerance(column: str, value: Any) -> float:
    try:
        tolerance = float(value or 0)
    except (TypeError, ValueError, OverflowError):
        tolerance = -1.0
    if not 0 <= tolerance < 1:
        raise Unfit(column, f"must be a number in [0, 1), got {shown(value)}; write a share, or null")
    return tolerance


def _choices(column: str, value: Any) -> tuple[str, ...]:
    value = unquoted(value)
    if isinstance(value, Mapping):
        value = {name: text for name, text in value.items() if text is not None}
        letters = [chr(ord("A") + at) for at in range(len(value))]
        value = [value[letter] for letter in letters] if sorted(value) == letters else value
    if value in (None, "") or value == []:
        return ()
    if not isinstance(value, list | tuple) or len(value) > MOST_CHOICES:
        raise Unfit(
            column, f"must be a list of up to {MOST_CHOICES} texts, for A, B, C, ..., got {shown(value)}; write one"
        )
    return tuple(read_text(column, _numeral(choice)) for choice in value)


def _numeral(value: Any) -> Any:
    """Numbers as text, as they were written where that is known."""
    if isinstance(value, Numeral):
        return value.text
    number = isinstance(value, int | float | Decimal | np.integer | np.floating) and not isinstance(value, bool)
    return str(value) if number else value
