"""Rows in comma- or tab-separated values."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from vergence.scenes.tables import Entry, Fields, Refused, unread
from vergence.types import UserError

T = TypeVar("T")

MOST_BYTES = 2**24
"""Of a line: 16 MiB."""

MOST_CHARACTERS = 2**17
"""Of a value; the limit that Python's csv has when nobody has changed it."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Values under a line of names; an empty cell is null. `at` is the place of a row's first byte."""

    file: str
    folder: Path
    separator: str = ","
    unit: str = "line"
    size: int = 0

    def rows(self) -> Iterator[Entry]:
        """See `Table`."""
        with Path(self.file).open("rb") as file:
            lines = _Lines(file)
            reader = self._reader(lines)
            try:
                names = self._names(reader)
            except UserError as problem:
                yield Entry(1, 0, unread(self.file, str(problem)))
                return
            while True:
                at, number = lines.at, lines.number + 1
                try:
                    cells = within(MOST_CHARACTERS, reader)
                except StopIteration:
                    return
                except csv.Error as reason:  # a quote that is not closed swallows the lines after it
                    upto = f" up to line {lines.number}" if lines.number > number else ""
                    remedy = "mend its quotes, or keep what is long in files"
                    yield Entry(number, at, self._refuse(number, f"cannot be read{upto} ({reason})", remedy))
                    continue
                if cells:
                    yield Entry(number, at, self._fields(names, cells, number))

    def row(self, at: int) -> Fields | Refused:
        """See `Table`."""
        with Path(self.file).open("rb") as file:
            names = self._names(self._reader(_Lines(file)))
            file.seek(at)
            return self._fields(names, within(MOST_CHARACTERS, self._reader(_Lines(file))), 0)

    def _reader(self, lines: _Lines) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.separator, strict=True)

    def _names(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            names = [name.strip() for name in within(MOST_CHARACTERS, reader)]
        except StopIteration:
            names = []
        except csv.Error as reason:
            raise UserError(f"cannot be read ({reason}); its first line must name the columns") from reason
        if "\0" in "".join(names) or not _is_utf8(names):
            raise UserError("not UTF-8; save it as UTF-8")
        if not all(names) or len(set(names)) < len(names):
            said = str(names)[:400].replace(";", ",")
            raise UserError(f"its first line says {said}; it must name the columns, each once")
        return names

    def _fields(self, names: list[str], cells: list[str], number: int) -> Fields | Refused:
        if len(cells) != len(names):
            said = f"{len(cells)} cells under {len(names)} names"
            return self._refuse(number, said, "put what holds a separator in quotes")
        if not _is_utf8(cells):
            return self._refuse(number, "not UTF-8", "save the file as UTF-8")
        return {name: cell or None for name, cell in zip(names, cells, strict=True)}

    def _refuse(self, number: int, reason: str, remedy: str) -> Refused:
        return Refused(self.file, number, "", reason, remedy, "line")


def within(characters: int, rows: Iterator[T]) -> T:
    """The next row of a `csv.reader` whose values have so many characters at most.

    csv keeps its limit for the whole process, and other packages raise it; so it is set for this row and put back.

    >>> within(3, csv.reader(["a,bcd"]))
    ['a', 'bcd']
    >>> within(3, csv.reader(["abcd"]))
    Traceback (most recent call last):
    _csv.Error: field larger than field limit (3)

    Raises:
        StopIteration: there is none.
        csv.Error: it cannot be read.
    """
    before = csv.field_size_limit(characters)
    try:
        return next(rows)
    finally:
        csv.field_size_limit(before)


def separator_of(path: Path) -> str:
    """What stands between the values of a .csv file, by its first line: commas, or the semicolons of some countries.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        first = file.readline(MOST_BYTES)
    return ";" if b";" in first and b"," not in first else ","


def _is_utf8(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


class _Lines:
    """The lines of a file, and where the next one starts; what is not UTF-8 is kept for `_fields` to see."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.at, self.number = file, file.tell(), 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.file.readline(MOST_BYTES)
        if not line:
            raise StopIteration
        if self.at == 0:
            line, self.at = line.removeprefix(codecs.BOM_UTF8), len(line) - len(line.removeprefix(codecs.BOM_UTF8))
        self.at += len(line)
        self.number += 1
        return line.decode(errors="surrogateescape")
