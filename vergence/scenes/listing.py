"""What `data check` writes: lists with one JSON object to a line, and a sheet. Nothing else is ever written over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from vergence.disk import put_in_place
from vergence.types import UserError

MADE_BY = "vergence data check"
"""What a sheet says of itself, as PNG's "Software"."""
LONGEST = 2**20
"""Bytes of the first line that are looked at."""


def check_output(path: Path, fields: Sequence[str] = ()) -> None:
    """Refuse to write over a file that is not an earlier output of the same kind; an empty one has nothing to lose.

    Args:
        path: What is to be written.
        fields: Of each line, if it is a list; else it is a sheet.

    Raises:
        UserError: such a file is there, or there is no such folder.
    """
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.absolute().parent}")
    if path.is_dir():
        raise UserError(f"{path} cannot be written: it is a folder; name a file in it")
    if path.is_file() and path.stat().st_size and not (_is_list(path, fields) if fields else _is_sheet(path)):
        what = "list" if fields else "sheet"
        raise UserError(f"{path} is there and is no {what} of data check's; name another file, or take it away first")


def check_apart(paths: Iterable[Path | None]) -> None:
    """Refuse outputs of which one would be written over another.

    Raises:
        UserError: two of them are the same file.
    """
    found = [path.resolve() for path in paths if path]
    if len(set(found)) < len(found):
        raise UserError(f"{found[0]} is named for two outputs; name a file for each")


def write_list(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one object to a line.

    Raises:
        UserError: it cannot be written.
    """
    with writing_list(path) as write:
        for line in lines:
            write(line)


@contextmanager
def writing_list(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What is called with each object to be written to a line: none is kept. The file is in its place at the end.

    Args:
        path: None has nothing written.

    Raises:
        UserError: it cannot be written.
    """
    if path is None:
        yield lambda line: None
        return
    as_it_is = path.is_symlink() or (path.exists() and not path.is_file())  # a pipe; /dev/stdout, whatever is behind it
    partial = path if as_it_is else path.with_name(f".{path.name}.partial")
    try:
        # half of a surrogate pair: as JSON has it
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield lambda line: print(json.dumps(line, ensure_ascii=False), file=file)
        if not as_it_is:
            put_in_place(partial, path)
    except OSError as reason:
        raise UserError(f"{path} cannot be written ({reason.strerror})") from reason
    finally:
        if not as_it_is:
            with suppress(OSError):
                partial.unlink()


def _is_list(path: Path, fields: Sequence[str]) -> bool:
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(LONGEST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and list(first) == list(fields)


def _is_sheet(path: Path) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get("Software") == MADE_BY
    except Exception:  # Pillow's readers raise whatever the bytes lead them to
        return False
