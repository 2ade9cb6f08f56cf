"""Two records, and two files of them, beside each other: where they first part, and how far apart they are there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vergence.types import UserError

LONGEST = 2**26
"""Bytes of a line that is read; a longer one is refused."""
DEEPEST = 16
"""Lists within lists that are looked into; what is deeper is compared as text."""
AROUND = 24
"""Characters that are shown before and after the place where two texts part."""
NOT_THERE = "(not there)"
"""In the place of a value that one side does not have."""
NAMING = ("scene", "sibling", "sample", "guard")
"""What names a record among those of its step."""


class Field(NamedTuple):
    """One value that differs. Of a list it is the first element that does; of a text, what stands around that place."""

    name: str
    """Where it stands in the record: "reward", "stats/entropy[3]"."""
    one: Any
    other: Any
    apart: float | None = None
    """Of two numbers |one - other|; inf where one of them is not finite."""
    at: int | None = None
    """Of two texts the first character that differs, from 0."""


class Place(NamedTuple):
    """Where two files of records first part."""

    line: int
    """From 1."""
    step: int | None
    """The record's, if it has one; where both tell one, the earlier."""
    which: str
    """What names the record: its scene, sibling or sample."""
    fields: tuple[Field, ...]
    told: str
    """In words, where it is not a matter of fields: one file ends, or a line is torn."""


class Lines(NamedTuple):
    """Two files of records beside each other, line by line."""

    whole: tuple[int, int]
    """Lines of each, without a torn last one."""
    unlike: int
    """How many of the lines that both have differ."""
    first: Place | None


def fields(one: Any, other: Any, name: str = "", depth: int = 0) -> Iterator[Field]:
    """What differs between two values as JSON has them, mappings by their keys, in the order of the first.

    >>> [*fields({"reward": 1.0, "text": "a 7", "to": [1, 2, 3]}, {"reward": 0.5, "text": "a 8", "to": [1, 5, 9]})]
    [Field(name='reward', one=1.0, other=0.5, apart=0.5, at=None), Field(name='text', one='a 7', other='a 8', \
apart=None, at=2), Field(name='to[1]', one=2, other=5, apart=3.0, at=None)]
    >>> [*fields({"a": 1}, {})], [*fields(float("nan"), float("nan"))]
    ([Field(name='a', one=1, other='(not there)', apart=None, at=None)], [])
    """
    if depth > DEEPEST:
        one, other = json.dumps(one), json.dumps(other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys((*one, *other)):
            own = f"{name}/{key}" if name else str(key)
            yield from fields(one.get(key, NOT_THERE), other.get(key, NOT_THERE), own, depth + 1)
    elif _is_list(one) and _is_list(other):
        yield from _of_lists(one, other, name, depth)
    elif isinstance(one, str) and isinstance(other, str):
        if one != other and NOT_THERE not in (one, other):
            at = next(
                (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(map(len, (one, other)))
            )
            yield Field(name, around(one, at), around(other, at), at=at)
        elif one != other:
            yield Field(name, around(one, 0), around(other, 0))
    elif repr(one) != repr(other):
        yield Field(name, one, other, distance(one, other))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _of_lists(one: Sequence[Any], other: Sequence[Any], name: str, depth: int) -> Iterator[Field]:
    """The first element that differs; or else, how many there are."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if found := list(fields(a, b, f"{name}[{index}]", depth + 1)):
            yield from found
            return
    if len(one) != len(other):
        yield Field(f"{name}, its length", len(one), len(other), float(abs(len(one) - len(other))))


def distance(one: Any, other: Any) -> float | None:
    """|one - other| of two numbers, inf where one of them is not finite; None of anything else.

    >>> distance(1, 3.5), distance(1.0, float("nan")), distance(True, 2), distance(10**400, 1)
    (2.5, inf, None, inf)
    """
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (one, other)):
        return None
    try:
        return abs(float(one) - float(other)) if isfinite(one) and isfinite(other) else inf
    except OverflowError:
        return inf


def around(text: str, at: int) -> str:
    """What stands around a place in a text.

    >>> around("0123456789" * 9, 45)
    '…123456789012345678901234567890123456789012345678…'
    """
    start, end = max(0, at - AROUND), at + AROUND
    return "…" * (start > 0) + text[start:end] + "…" * (end < len(text))


def lines_apart(one: Path, other: Path) -> Lines:
    """Two files of JSON lines beside each other; of each, one line is held at a time.

    Raises:
        UserError: a line that differs is no record, and is not the last one; or it is too long to be read.
    """
    whole, unlike, first = [0, 0], 0, None
    with one.open("rb") as a, other.open("rb") as b:
        for number, (mine, theirs) in enumerate(_beside(a, b), 1):
            torn = [_is_torn(line) for line in (mine, theirs)]
            whole = [count + bool(line) - cut for count, line, cut in zip(whole, (mine, theirs), torn, strict=True)]
            if mine == theirs:
                continue
            unlike += bool(mine) and bool(theirs)
            if first is None:
                first = _place(
                    number,
                    [
                        None if cut else _record(path, number, line)
                        for path, line, cut in ((one, mine, torn[0]), (other, theirs, torn[1]))
                    ],
                    torn,
                )
    return Lines((whole[0], whole[1]), unlike, first)


def _beside(one: BinaryIO, other: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """A line of each; b"" where there is none any more."""
    while True:
        mine, theirs = one.readline(LONGEST + 1), other.readline(LONGEST + 1)
        if not (mine or theirs):
            return
        yield mine, theirs


def _is_torn(line: bytes) -> bool:
    """Whether a line, which has no end, was not written to its end: it is then no record either."""
    if not line or line.endswith(b"\n") or len(line) > LONGEST:
        return False
    try:
        return not isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return True


def _record(path: Path, number: int, line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where the file has ended."""
    if not line:
        return None
    if len(line) > LONGEST:
        raise UserError(f"{path}, line {number} is longer than {LONGEST:,} bytes: that is no file of records")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        told = str(error) or type(error).__name__
        raise UserError(f"{path}, line {number} is not JSON: {told}; the file was damaged") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}, line {number} holds no record, but {type(found).__name__}; give another file")
    return found


def _place(number: int, records: Sequence[dict[str, Any] | None], torn: Sequence[bool]) -> Place:
    there = [record for record in records if record is not None]
    steps = [record["step"] for record in there if type(record.get("step")) is int]
    which = ", ".join(f"{name} {there[0][name]}" for name in NAMING if name in there[0]) if there else ""
    if any(torn):
        whose = " and ".join(side for side, cut in zip(("the first", "the second"), torn, strict=True) if cut)
        told = f"{whose} ends in a torn line: its process died while it wrote, and --resume goes on from there"
        return Place(number, min(steps, default=None), which, (), told)
    if len(there) < 2:
        ended = "the first" if records[0] is None else "the second"
        return Place(number, min(steps, default=None), which, (), f"{ended} ends before this")
    found = tuple(fields(*there))
    return Place(number, min(steps, default=None), which, found, "" if found else "the same values, written otherwise")
