"""Some traces of a file that may have gigabytes: which ones is decided from their places, and those alone are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vergence.report.viewer import MOST, MOST_TOKENS
from vergence.types import UserError

_BEGINNING = re.compile(rb'\{"step": (\d{1,18}), "scene": ("(?:[^"\\]|\\.)*")[,}]')
"""As `train.traces` writes a line."""


class Group(NamedTuple):
    """Lines of one step and scene that stand together: siblings."""

    start: int
    """Of the first, in bytes."""
    number: int


class Sampled(NamedTuple):
    """Some traces, and how many there are."""

    traces: list[dict[str, Any]]
    of: int


def sampled(path: Path, *, most: int = MOST, tokens: int = MOST_TOKENS) -> Sampled:
    """Traces of a file by a fixed rule: whole groups of siblings, evenly spaced over it, the first among them.

    All of them, where there are no more than `most`, with no more than `tokens` tokens. A torn last line is left out.
    Of a line that is not shown no more is read than its beginning and its end.

    Raises:
        UserError: a line before the last is no JSON object.
    """
    with path.open("rb") as file:
        groups = list(_groups(file, path))
        of, number = sum(group.number for group in groups), len(groups)
        sizes: dict[int, int] = {}
        while number:
            places = [place * len(groups) // number for place in range(number)]
            some, size = sum(groups[place].number for place in places), 0
            if number == 1 or some <= most:
                sizes |= {at: _tokens(_read(file, path, groups[at])) for at in places if at not in sizes}
                size = sum(sizes[at] for at in places)
                if number == 1 or size <= tokens:
                    chosen = [trace for at in places for trace in _read(file, path, groups[at])]
                    return Sampled(chosen[:most], of)
            number = max(1, min(number - 1, int(number * min(most / some, tokens / max(1, size)))))
    return Sampled([], 0)


def _groups(file: BinaryIO, path: Path) -> Iterator[Group]:
    at, group, last = 0, None, None
    torn: UserError | None = None
    for number, line in enumerate(file, 1):
        if torn is not None:
            raise torn
        found = _BEGINNING.match(line)
        if found is not None and line.endswith(b"}\n"):
            key: Any = found.groups()
        else:
            try:
                key = _key(_parsed(line))
            except ValueError as error:
                torn = UserError(f"{path}, line {number} is no trace: {error}; the file was damaged")
                if line.endswith(b"\n"):  # not torn: each line is written whole
                    raise torn from error
                continue
        if group is not None and key == last:
            group = group._replace(number=group.number + 1)
        else:
            if group is not None:
                yield group
            group, last = Group(at, 1), key
        at += len(line)
    if group is not None:
        yield group


def _key(trace: dict[str, Any]) -> tuple[bytes, bytes]:
    """What `_BEGINNING` would have found."""
    return json.dumps(trace.get("step")).encode(), json.dumps(trace.get("scene")).encode()


def _read(file: BinaryIO, path: Path, group: Group) -> list[dict[str, Any]]:
    file.seek(group.start)
    try:
        return [_parsed(file.readline()) for _ in range(group.number)]
    except ValueError as error:
        raise UserError(f"{path}, at byte {group.start:,}, is no trace: {error}; the file was damaged") from error


def _parsed(line: bytes) -> dict[str, Any]:
    """The object of a line.

    Raises:
        ValueError: it holds none.
    """
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON, {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(type(error).__name__) from error
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}, not an object")
    return found


def _tokens(traces: list[dict[str, Any]]) -> int:
    found = (trace.get("tokens") for trace in traces)
    return sum(len(tokens) for tokens in found if isinstance(tokens, list))
