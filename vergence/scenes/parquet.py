"""Rows in parquet files, read page by page: a file of many gigabytes takes megabytes of memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from vergence.scenes.tables import Entry, Fields, Refused
from vergence.types import UserError

AT_ONCE = 2**23
"""Bytes that are decoded at once, about: 8 MiB."""
MOST_AT_ONCE = 2**28
"""Bytes that as many rows may have at most, where they may all repeat one value: 256 MiB, unless one row has more."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A parquet file; `read_parquet` makes it. `at` is the number of the row."""

    file: str
    folder: Path
    starts: tuple[int, ...]
    """The first row of each row group, and one past the last row."""
    footer: Any = field(repr=False, compare=False)
    unit: str = "row"
    at_once: dict[int, int] = field(default_factory=dict, repr=False, compare=False)
    """Row group -> how many rows are decoded at once, of those that have been looked at."""

    @property
    def size(self) -> int:
        """See `Table`."""
        return self.starts[-1]

    def rows(self) -> Iterator[Entry]:
        """See `Table`. Rows of a row group that is damaged are refused from the damage on."""
        for group, (number, end) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            try:
                for batch in self._batches(group):
                    for fields in batch.to_pylist():
                        yield Entry(number, number, fields)
                        number += 1
            except (OSError, ValueError) as reason:  # what Arrow raises
                for lost in range(number, end):
                    yield Entry(lost, lost, self._damaged(lost, reason))

    def row(self, at: int) -> Fields | Refused:
        """See `Table`."""
        group = bisect_right(self.starts, at) - 1
        start = self.starts[group]
        try:
            for batch in self._batches(group):
                if at < start + batch.num_rows:
                    return batch.slice(at - start, 1).to_pylist()[0]
                start += batch.num_rows
        except (OSError, ValueError) as reason:
            return self._damaged(at, reason)
        return self._damaged(at, EOFError("it is shorter than it says"))

    def _batches(self, group: int) -> Iterator[Any]:
        from pyarrow.parquet import ParquetFile

        with ParquetFile(self.file, metadata=self.footer, buffer_size=2**20) as file:
            if group not in self.at_once:
                # raises where a column is not as the footer says; to ask `group.column` for it would end the process
                next(file.iter_batches(1, row_groups=[group], use_threads=False), None)
                self.at_once[group] = _at_once(self.footer.row_group(group))
            yield from file.iter_batches(self.at_once[group], row_groups=[group], use_threads=False)

    def _damaged(self, number: int, reason: Exception) -> Refused:
        said = " ".join(str(reason).split())[:200]
        return Refused(self.file, number, "", f"cannot be read ({said})", "write the file again, or copy it again")


def _at_once(group: Any) -> int:
    """How many of a row group's rows are decoded at once."""
    size, repeated = max(1, group.total_byte_size), max(1, _repeated(group))
    return max(1, min(64, AT_ONCE * group.num_rows // size, MOST_AT_ONCE // repeated))


def _repeated(group: Any) -> int:
    """How many bytes one row may have at most by values that stand once in the file and are named in many rows."""
    columns = (group.column(number) for number in range(group.num_columns))
    return sum(one.total_uncompressed_size for one in columns if any("DICTIONARY" in coded for coded in one.encodings))


def read_parquet(path: Path) -> Shard:
    """A parquet file, of which the footer is read.

    Raises:
        UserError: it is none.
    """
    from pyarrow.parquet import read_metadata

    try:
        footer = read_metadata(path)
    except (OSError, ValueError) as reason:
        said = " ".join(str(reason).split())[:200]
        raise UserError(f"{path} is not a parquet file ({said}); is it complete?") from reason
    counts = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
    return Shard(str(path), path.parent.resolve(), tuple(accumulate(counts, initial=0)), footer)
