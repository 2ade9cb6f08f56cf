"""Hostile values, drawn by one small protocol, so that Hypothesis and atheris make the same inputs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

MARKUP = (
    "<script>alert(1)</script>",
    "</script><img src=https://evil.example/x onerror=alert(2)>",
    "\"'><svg onload=alert(3)>",
    "<!--",
    "]]>",
    "{{ 7 * 7 }}{% for x in y %}",
    "<image>",
    "[/red]",
    "[bold]x[link=https://evil.example]",
)
CONTROLS = ("\x00", "\x1b[31m", "\x1b]8;;https://evil.example\x07", "\r", "\x7f", "\x85", "\x9b2J", "\b\b", "\x0c")
INVISIBLE = ("\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\u2029", "\u00ad", "\U000e0041")
BROKEN = ("\ud800", "\udfff", "\udc80")
"""Halves of surrogate pairs: legal in JSON, and in no file."""
WORDS = (
    "",
    " ",
    "a",
    "7",
    "red bar",
    "step",
    "é",
    "漢字",
    "אב",
    "\U0001f600",
    "e\u0301" * 3,
    "-0",
    "1e5",
    "nan",
    "null",
    "~",
)
LONG = ("a" * 5000, "\u202e" * 700, "<b>" * 900, "a/b" * 400, "$x^" * 300)
TEXTS = (*MARKUP, *CONTROLS, *INVISIBLE, *BROKEN, *WORDS, *LONG)
NUMBERS: tuple[Any, ...] = (0, -1, 1, 2, 7, 10**6, -(10**9), 2**31, 2**63, 10**400, -(10**400), True, False)
NUMBERS += (0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf)


class Draw(Protocol):
    """Where choices come from."""

    def below(self, limit: int) -> int:
        """A whole number from 0 up to `limit`, without it."""
        ...

    def blob(self) -> bytes:
        """Some bytes."""
        ...


class FromBytes:
    """Choices read from bytes one after the other, as atheris makes them; what is beyond the end is 0."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def below(self, limit: int) -> int:
        """See `Draw`."""
        size = 1 if limit <= 256 else 4
        read = int.from_bytes(self.data[self.at : self.at + size])
        self.at += size
        return read % limit

    def blob(self) -> bytes:
        """See `Draw`: up to 255 bytes, or all that are left."""
        size = self.below(256)
        start, self.at = self.at, len(self.data) if size == 255 else self.at + size
        return self.data[start : self.at]


def one_of(draw: Draw, these: Sequence[T]) -> T:
    """One of several."""
    return these[draw.below(len(these))]


def text(draw: Draw, parts: Sequence[str] = TEXTS) -> str:
    """A text: pieces of `parts`, or bytes read as UTF-8, halves of surrogate pairs included."""
    if draw.below(2):
        return draw.blob().decode("utf-8", "surrogateescape" if draw.below(2) else "replace")
    return "".join(one_of(draw, parts) for _ in range(draw.below(9)))


def number(draw: Draw) -> Any:
    """A number, mostly one that nobody expects."""
    return one_of(draw, NUMBERS)


def value(draw: Draw, depth: int = 0) -> Any:
    """Anything that JSON can say, and NaN."""
    match draw.below(10 if depth < 3 else 6):
        case 0:
            return None
        case 1 | 2:
            return number(draw)
        case 3 | 4 | 5:
            return text(draw)
        case 6 | 7:
            return [value(draw, depth + 1) for _ in range(draw.below(4))]
        case 8:
            return {text(draw): value(draw, depth + 1) for _ in range(draw.below(4))}
        case _:
            return nested(draw.below(2000) if draw.below(8) == 0 else draw.below(8))


def nested(depth: int) -> Any:
    """Lists in lists, so many of them."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def changed(draw: Draw, one: Any) -> Any:
    """A value of JSON with something in it replaced, taken out, put in, renamed or nested."""
    match one:
        case dict() if one and draw.below(8):
            found, name = dict(one), one_of(draw, list(one))
            match draw.below(8):
                case 0:
                    del found[name]
                case 1:
                    found[text(draw)] = value(draw)
                case 2:
                    found[text(draw)] = found.pop(name)
                case 3 | 4:
                    found[name] = value(draw)
                case _:
                    found[name] = changed(draw, found[name])
            return found
        case list() if one and draw.below(8):
            found, at = list(one), draw.below(len(one))
            match draw.below(6):
                case 0:
                    del found[at]
                case 1:
                    found.insert(at, value(draw))
                case 2:
                    found.append(found[at])
                case 3:
                    found[at] = value(draw)
                case _:
                    found[at] = changed(draw, found[at])
            return found
        case str() if draw.below(4):
            at = draw.below(len(one) + 1)
            return one[:at] + text(draw) + one[at:]
    return value(draw)


def some(draw: Draw, one: Any, most: int = 3) -> Any:
    """The value with up to so many changes."""
    for _ in range(draw.below(most + 1)):
        one = changed(draw, one)
    return one


def written(one: Any) -> str:
    """A value as Python writes JSON: NaN, and halves of surrogate pairs as escapes, included."""
    try:
        return json.dumps(one)
    except (ValueError, RecursionError):  # too many digits, or nested too deeply for Python's own writer
        return "[" * 3000 + "]" * 3000


def torn(draw: Draw, data: bytes) -> bytes:
    """The bytes of a file with something done to them as a whole: cut, a byte changed, another encoding, line ends."""
    at = draw.below(len(data) + 1)
    match draw.below(14):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + draw.blob() + data[at:]
        case 2:
            return data[:at] + draw.blob() + data[at + 3 :]
        case 3:
            return b"\xef\xbb\xbf" + data
        case 4:
            return data.decode("utf-8", "replace").encode("utf-16")
        case 5:
            return data.replace(b"\n", b"\r\n")
        case 6:
            return data + data[:at]
        case 7:
            return data[:at] + b"\0" * draw.below(50)
        case 8:
            return data[:at] + b"9" * 5000 + data[at:]
        case 9:
            return data[:at] + b"[" * 3000 + data[at:]
    return data
