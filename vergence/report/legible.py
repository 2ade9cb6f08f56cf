"""Text that a model wrote, made fit to be looked at: nothing in it is invisible, and nothing turns the line around."""

from __future__ import annotations

import unicodedata
from typing import Any

_KEPT = "\n\t"


def legible(text: str) -> str:
    """The text with every character seen: what has no form of its own, or changes its neighbours', is named instead.

    Control characters stand as their pictures, and marks of direction, characters of width zero, halves of surrogate
    pairs and the like as their code. Line breaks and tabs stay. Letters of any script stay as they are.

    >>> legible("a\\x00b\\u202ec"), legible("\\ud800"), legible("one\\ntwo אב")
    ('a␀b⟨U+202E⟩c', '⟨U+D800⟩', 'one\\ntwo אב')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_legible, text))


def bounded(value: Any, most: int) -> str:
    """At most `most` characters of a value as legible text, with a word on how many there are more.

    >>> bounded("abcdef", 4), bounded(None, 4), bounded(7, 4)
    ('abcd … and 2 more characters', '', '7')
    """
    text = "" if value is None else str(value)
    more = len(text) - most
    return legible(text[:most]) + (f" … and {more:,} more characters" if more > 0 else "")


def _legible(one: str) -> str:
    if one in _KEPT or one.isprintable():
        return one
    code = ord(one)
    if code < 0x20:
        return chr(0x2400 + code)
    if unicodedata.category(one) == "Zs":  # a space of another width is a space
        return " "
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
