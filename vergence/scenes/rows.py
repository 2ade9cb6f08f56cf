"""From a row as it is written to a question with its images and its answer, checked; or a word on why not."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from vergence.scenes.answers import CHOSEN, read_answer
from vergence.scenes.columns import NAMES, Unfit, find, has, others
from vergence.scenes.jsonl import unquoted
from vergence.scenes.picture import MOST_TOGETHER, Head, Stored, examine
from vergence.scenes.question import Form, place, read_prompt, read_text, with_choices
from vergence.scenes.split import Split, assign, content_hash
from vergence.scenes.stored import Place, looks_like_images, pictures
from vergence.scenes.tables import Entry, Fields, Refused, Table
from vergence.sources.known import Known
from vergence.types import IMAGE, Fact, Gold, Scene, UserError


@dataclass(frozen=True, slots=True)
class Part:
    """A table among those that a source is made of, and what holds for its rows."""

    table: Table
    name: str
    """What keys of scenes start with."""
    world: str
    """Of rows that name none."""
    root: Path | None = None
    """The folder that the user named, without links: no picture is read from outside of it, or `Reading.pictures`."""
    known: Known | None = None
    """The data set whose columns these are."""
    split: Split | None = None
    """What all of it is for; None: each row's content decides."""
    hint: str = ""
    """What to do if a picture is missing, where that is special."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the user says about all rows."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Ours -> theirs."""
    tolerance: float = 0.0
    """Of numbers among the answers, relative."""
    pictures: Path | None = None
    """A folder besides the data's own that pictures may be read from, absolute and without links."""


class Row(NamedTuple):
    """A row, checked. Its images are where they were stored."""

    file: str
    row: int
    unit: str
    """See `Refused`."""
    key: str
    world: str
    question: str
    """See `Scene`."""
    gold: Gold
    declared: bool
    """Whether the data says of which kind the answer is; else its text did."""
    facts: tuple[Fact, ...]
    caption: str
    images_column: str
    pictures: tuple[Stored, ...]
    """In the order of the question."""
    columns: Mapping[str, Any]
    placeholders: int
    """How many there were."""
    form: Form
    heads: tuple[Head, ...] = ()
    """What `look` saw of the pictures."""
    content: str = ""
    """From `look`: a hash of the question, and of the facts or, where none are known, of the image files."""
    split: Split = "train"
    """From `look`."""


def read_row(part: Part, entry: Entry, reading: Reading) -> Row | Refused:
    """The row, its pictures found and not opened; or why it cannot be used."""
    if isinstance(entry.fields, Refused):
        return entry.fields._replace(row=entry.number)
    try:
        return _row(part, entry.number, entry.fields, reading)
    except Unfit as problem:
        return _refused(part.table.file, entry.number, part.table.unit, problem.field, str(problem))


def look(row: Row, part: Part, heads: MutableMapping[Path, Head]) -> Row | Refused:
    """The same with what the heads of its pictures say, and the split it belongs to; or why they cannot be used.

    Args:
        row: From `read_row`.
        part: As there.
        heads: Of the files that were looked at already; a picture often serves many questions.
    """
    try:
        seen = tuple(_head(picture, heads) for picture in row.pictures)
    except UserError as problem:
        return _refused(row.file, row.row, row.unit, row.images_column, str(problem))
    pixels = sum(head.width * head.height for head in seen)
    if pixels > MOST_TOGETHER:
        said = f"its pictures have {pixels:,} pixels in all, more than the {MOST_TOGETHER:,} that go"
        return Refused(row.file, row.row, row.images_column, said, "shrink them", row.unit)
    scene = Scene(key="", world="", images=(), question=row.question, gold=row.gold, facts=row.facts)
    content = content_hash(scene)
    if not row.facts:
        content = sha256("".join((content, *(head.digest for head in seen))).encode()).hexdigest()
    return row._replace(heads=seen, content=content, split=part.split or assign(content))


def digest(row: Row) -> str:
    """A hash of what a row says: its content and its answer. Of those of all rows `split.fingerprint` makes one."""
    return sha256(json.dumps([row.content, row.gold.kind, row.gold.text, row.gold.choices]).encode()).hexdigest()


def by_reason(refused: Iterable[Refused]) -> Counter[str]:
    """How many rows were refused for which reason, what is peculiar to a row left out of it.

    >>> rows = [Refused("a", n, "image", f"there is no file 'red{n}.png'", "copy it") for n in (1, 2)]
    >>> by_reason(rows)
    Counter({"image: there is no file '...'": 2})
    """
    plain = (re.sub(r"'[^']*'", "'...'", re.sub(r" \(.*\)| at line .*|, got .*", "", one.reason)) for one in refused)
    named = ((one.field, _MEASURE.sub("N", text)) for one, text in zip(refused, plain, strict=True))
    return Counter(f"{field}: {text}" if field else text for field, text in named)


_MEASURE = re.compile(r"(?<!the )\b[0-9][0-9,]*(?= (?:characters|bytes|tokens|images,|cells)\b)")
"""A number that is a row's own: what is measured is named behind it, and it is not "the 64", a limit."""


def _row(part: Part, number: int, fields: Fields, reading: Reading) -> Row:
    fields, columns, exact = _adapted(part, fields, reading)
    asked = find(fields, "question", columns, exact=exact)
    question, inside = read_prompt(asked.column, asked.value, answered=has(fields, "answer", columns, exact=exact))
    question = read_text(asked.column, question)
    place_of = Place(part.table.folder, part.root, part.table.file, part.hint, reading.pictures)
    column, stored = _images(place_of, fields, columns, inside, asked.column, exact=exact)
    gold, declared = read_answer(fields, columns, reading.tolerance, exact=exact)
    if gold.kind in CHOSEN and gold.choices:
        question = with_choices(question, gold.choices)
    try:
        placed = place(question, len(stored))
    except UserError as problem:
        raise Unfit(asked.column, str(problem)) from problem
    if not placed.question.replace(IMAGE, "").strip():
        raise Unfit(asked.column, "empty; write the question")
    world = find(fields, "world", columns, exact=exact)
    return Row(
        file=part.table.file,
        row=number,
        unit=part.table.unit,
        key=f"{part.name}/{number}",
        world=part.world if world.value in (None, "") else read_text(world.column, world.value),
        question=placed.question,
        gold=gold,
        declared=declared,
        facts=_facts(*find(fields, "facts", columns, exact=exact)),
        caption=_caption(*find(fields, "caption", columns, exact=exact)),
        images_column=column,
        pictures=tuple(stored[at] for at in placed.order),
        columns=others(fields, (asked.column, column)),
        placeholders=placed.placeholders,
        form=placed.form,
    )


def _adapted(part: Part, fields: Fields, reading: Reading) -> tuple[Fields, Mapping[str, str], bool]:
    """The row as a known data set's adapter makes it, the map that is left, and whether our names alone count now."""
    if part.known is None or part.known.adapt is None:
        return fields, {**(part.known.columns if part.known else {}), **reading.columns}, False
    for name in part.known.schema:
        if name not in fields:
            there = ", ".join(list(fields)[:40])
            raise Unfit(
                name, f"{part.known.title} has this column, here are {there}; name the data without {part.known.name!r}"
            )
    made = part.known.adapt(fields)
    return made | {ours: find(fields, ours, reading.columns).value for ours in reading.columns}, {}, True


def _images(
    place: Place, fields: Fields, columns: Mapping[str, str], inside: list[Any], asked: str, *, exact: bool
) -> tuple[str, tuple[Stored, ...]]:
    found = find(fields, "images", columns, exact=exact)
    if not (inside or exact or "images" in columns or any(name.lower() in NAMES["images"] for name in fields)):
        maybe = [name for name in looks_like_images(fields) if name != asked]
        if maybe:
            raise Unfit(maybe[0], f"may hold the images; say --columns images={maybe[0]}, or images= if there are none")
    if found.value is not None and inside:
        raise Unfit(found.column, f"there are images in {asked!r} too; say --columns images= to take those alone")
    column = asked if inside else found.column
    return column, pictures(column, inside or found.value, place)


def _facts(column: str, value: Any) -> tuple[Fact, ...]:
    facts = unquoted(value) or []
    if not isinstance(facts, list) or not all(isinstance(fact, list | tuple) and len(fact) == 2 for fact in facts):
        raise Unfit(column, 'must be a list of pairs; write e.g. [["red bar", "7"]]')
    return tuple(Fact(*(read_text(column, part) for part in fact)) for fact in facts)


def _caption(column: str, value: Any) -> str:
    caption = "" if value is None else read_text(column, value)
    try:
        return place(caption, 0).question  # it is shown in the place of images
    except UserError as problem:
        raise Unfit(column, str(problem)) from problem


def _head(picture: Stored, heads: MutableMapping[Path, Head]) -> Head:
    if not isinstance(picture, Path):
        return examine(picture)
    if picture not in heads:
        heads[picture] = examine(picture)
    return heads[picture]


def _refused(file: str, number: int, unit: str, field: str, problem: str) -> Refused:
    """Messages end in what to do, after a semicolon."""
    reason, _, remedy = problem.rpartition("; ")
    return Refused(file, number, field, reason or remedy, remedy if reason else "correct it", unit)
