"""Scenes from files, folders and the Hub: checked once from end to end, read again when they are asked for.

Rows and pictures stay where they are. What is kept of a row is where it stands and which split it belongs to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vergence.chance import rng
from vergence.scenes.columns import check_columns
from vergence.scenes.digests import Digests
from vergence.scenes.heads import Heads
from vergence.scenes.picture import open_picture
from vergence.scenes.places import parts_of
from vergence.scenes.refusals import Refusals
from vergence.scenes.rows import Part, Reading, Row, digest, look, read_row
from vergence.scenes.split import SPLITS, Split
from vergence.scenes.spots import At, Spots, order_of
from vergence.scenes.stored import folder_of
from vergence.scenes.tables import Entry, Held, Items, Refused
from vergence.sources.known import Known
from vergence.types import Kind, Scene, UserError


@dataclass(frozen=True, slots=True)
class Survey:
    """All rows of a source, one after the other; nothing is kept of them. `survey` makes it."""

    parts: tuple[Part, ...]
    reading: Reading
    said: tuple[str, ...] = ()
    """Which files or splits are read, and which are not, where there are several."""

    @property
    def files(self) -> tuple[str, ...]:
        """What is read."""
        return tuple(part.table.file for part in self.parts)

    @property
    def known(self) -> tuple[tuple[str, Known], ...]:
        """The files that belong to a known data set."""
        return tuple((part.table.file, part.known) for part in self.parts if part.known)

    @property
    def expected_rows(self) -> int | None:
        """How many rows there will be, if that is known before they are read."""
        sizes = [part.table.size for part in self.parts]
        return sum(sizes) if all(sizes) else None

    def __iter__(self) -> Iterator[Row | Refused]:
        return (row for _, row in self.placed())

    def placed(self) -> Iterator[tuple[At, Row | Refused]]:
        """The same with their places."""
        heads = Heads()
        several = len({part.split for part in self.parts}) > 1
        first: dict[str, tuple[Split, str]] | None = {} if several else None
        for number, part in enumerate(self.parts):
            for entry in part.table.rows():
                row = read_row(part, entry, self.reading)
                if isinstance(row, Row):
                    row = look(row, part, heads)
                if isinstance(row, Row) and first is not None:
                    row = _in_one_split(row, first)
                yield At(number, entry.number, entry.at), row


@dataclass(frozen=True, slots=True)
class Files:
    """The scenes of files, folders and the Hub: a `source.Source`; `read` makes it."""

    name: str
    """As the user wrote it."""
    parts: tuple[Part, ...]
    reading: Reading
    rows: Mapping[Split, Spots]
    """The rows of each split, in the order of the files."""
    refusals: Refusals
    """The rows that cannot be used."""
    kinds: Mapping[Kind, int]
    """How many answers are of each kind."""
    declared: int
    """Of how many answers the data says the kind."""
    content: str
    """A hash of all rows that are used, in whatever order (`split.fingerprint`)."""
    said: tuple[str, ...] = ()
    """See `Survey`."""

    @property
    def refused(self) -> tuple[Refused, ...]:
        """The first of the rows that cannot be used."""
        return tuple(self.refusals.first)

    def train(self, start: int, number: int, *, seed: int) -> list[Scene]:
        """`number` scenes of the train split from position `start` on; each passage through it has its own order.

        Raises:
            UserError: no row belongs to the train split, or a picture cannot be decoded.
        """
        rows = self._some("train")
        size = len(rows)
        epochs = range(start // size, (start + number - 1) // size + 1)
        order = {epoch: order_of(seed, epoch, size) for epoch in epochs}
        return [self._scene(rows[int(order[at // size][at % size])]) for at in range(start, start + number)]

    def held_out(self, split: Split, number: int, *, seed: int) -> list[Scene]:
        """The first `number` scenes of a split in an order that the seed decides; fewer, if there are no more.

        Raises:
            UserError: no row belongs to this split, or a picture cannot be decoded.
        """
        rows = self._some(split)
        return [self._scene(rows[at]) for at in rng("order", split, seed).permutation(len(rows))[:number].tolist()]

    def scene(self, key: str) -> Scene:
        """The scene of that key: name of the file / number of the row.

        Raises:
            UserError: there is no such row, or its picture cannot be decoded.
        """
        name, _, number = key.rpartition("/")
        for part, found in enumerate(self.parts):
            if found.name == name and number.isascii() and number.isdigit():
                for rows in self.rows.values():
                    place = bisect_left(rows, (part, int(number)))
                    if place < len(rows) and rows[place][:2] == (part, int(number)):
                        return self._scene(rows[place])
        names = ", ".join(part.name for part in self.parts[:3])
        raise UserError(f"{self.name} has no scene {key!r}; its keys are name/number of the row, of the name {names}")

    def counts(self) -> str:
        """How many scenes each split has, in words."""
        return ", ".join(f"{split} {len(self.rows[split])}" for split in SPLITS)

    def _some(self, split: Split) -> Spots:
        if not self.rows[split]:
            raise UserError(
                f"{self.name}: no scene belongs to the split {split!r} ({self.counts()}). The content of a scene "
                "decides, 8 in 10 for train and 1 in 10 for each other: add more rows, or name a file that is for it, "
                f"FILE#{split}"
            )
        return self.rows[split]

    def _scene(self, place: At) -> Scene:
        part = self.parts[place.part]
        row = read_row(part, Entry(place.number, place.at, part.table.row(place.at)), self.reading)
        if isinstance(row, Refused):  # the file is not what it was
            raise UserError(str(row))
        return scene_of(row)


def scene_of(row: Row) -> Scene:
    """The scene that a row is, its pictures decoded.

    Raises:
        UserError: see `images_of`.
    """
    return Scene(
        key=row.key,
        world=row.world,
        images=images_of(row),
        question=row.question,
        gold=row.gold,
        facts=row.facts,
        caption=row.caption,
        columns=row.columns,
    )


def images_of(row: Row) -> tuple[Image.Image, ...]:
    """The pictures of a row, decoded, in the order of its question.

    Raises:
        UserError: one of them cannot be decoded; file, row and field are named.
    """
    try:
        return tuple(map(open_picture, row.pictures))
    except UserError as problem:
        raise UserError(f"{row.file}, {row.unit} {row.row}, field {row.images_column!r}: {problem}") from problem


def survey(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    tolerance: float = 0.0,
    pictures: str | Path = "",
    fetch: bool = True,
) -> Survey:
    """All rows of a source, to be gone through; see `places` for how it is written.

    Args:
        source: What is to be read.
        columns: Ours -> theirs, where the names are not in `columns.NAMES`.
        tolerance: Of numbers among the answers, relative.
        pictures: A folder besides the data's own that pictures may be read from; paths count from it too.
        fetch: Whether a data set of the Hub may be fetched. Else it is had from this machine or not at all.

    Raises:
        UserError: there is no such source, no such folder, or no such field of ours.
    """
    check_columns(columns or {})
    parts, said = parts_of(str(source), fetch=fetch)
    return Survey(parts, Reading(dict(columns or {}), tolerance, folder_of(pictures)), said)


def read(source: str | Path, **how: Any) -> Files:
    """The scenes of a source, read as `survey` says. Each row is in the split that its content decides, or refused.

    Raises:
        UserError: see `survey`; or there are no rows.
    """
    return _files(str(source), survey(source, **how))


def read_rows(
    rows: Items | Iterable[Any],
    name: str = "rows",
    *,
    folder: Path | None = None,
    columns: Mapping[str, str] | None = None,
    tolerance: float = 0.0,
) -> Files:
    """The scenes of rows in memory: dictionaries, or a `datasets.Dataset`. Images may be Pillow's. What cannot be used
    is not raised: it stands in `Files.refused`, with the reason and what to do.

    >>> read_rows([{"question": "How many?", "answer": "3"}]).counts() in ("train 1, tune 0, report 0",
    ...     "train 0, tune 1, report 0", "train 0, tune 0, report 1")
    True

    Args:
        rows: What would stand in a file; what can be gone through only once is kept as a list.
        name: What keys of scenes start with.
        folder: Where paths count from, if there are any.
        columns: See `survey`.
        tolerance: As there.

    Raises:
        UserError: no such field of ours; or there are no rows.
    """
    check_columns(columns or {})
    if not isinstance(rows, Items):
        rows = list(rows)
    elif hasattr(rows, "features"):
        from vergence.scenes.hub import undecoded

        rows = undecoded(rows)
    folder = folder and folder.resolve()
    part = Part(Held(name, folder, rows), name, name, folder)
    return _files(name, Survey((part,), Reading(dict(columns or {}), tolerance)))


def _in_one_split(row: Row, first: dict[str, tuple[Split, str]]) -> Row | Refused:
    """Where the user says which file is for what, a scene could be in two splits: only content keeps them apart."""
    split, key = first.setdefault(row.content, (row.split, row.key))
    if split == row.split:
        return row
    said = f"the same question about the same images is in the split {split!r} ({key})"
    return Refused(row.file, row.row, "", said, "take it out of one of the two", row.unit)


def _files(name: str, survey: Survey) -> Files:
    rows = {split: Spots() for split in SPLITS}
    refusals, digests = Refusals(), Digests()
    kinds: Counter[Kind] = Counter()
    declared = 0
    for place, row in survey.placed():
        if isinstance(row, Refused):
            refusals.add(row)
            continue
        rows[row.split].add(place)
        digests.add(digest(row))
        kinds[row.gold.kind] += 1
        declared += row.declared
    if not len(digests) and not refusals.number:
        raise UserError(f"{name} is empty; write one row for each question, with image, question and answer")
    return Files(
        name=name,
        parts=survey.parts,
        reading=survey.reading,
        rows=rows,
        refusals=refusals,
        kinds=dict(kinds),
        declared=declared,
        content=digests.fingerprint(),
        said=survey.said,
    )
