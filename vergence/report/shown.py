"""Which rollouts the page shows, with their images, and where what they say is not so."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL.Image import Image

from vergence.scenes.source import Source
from vergence.scenes.speech import false_facts, read_facts
from vergence.types import Fact, Scene, UserError

Record = Mapping[str, Any]
"""One line of rollouts.jsonl."""

LONGEST = 6000
"""Characters of a response that are shown."""
LARGEST = 640
"""Pixels of the longer side of an image in the page; embedded scenes have 48."""
_VERB = re.compile(r"(?::| is| shows) ")


class Piece(NamedTuple):
    """Some text of a response."""

    text: str
    false: bool


class Slip(NamedTuple):
    """A false fact beside the true one."""

    about: str
    said: str
    true: str | None
    """None: there is no such thing."""


class Picture(NamedTuple):
    """An image inside the page."""

    uri: str
    small: bool
    """Drawn enlarged, pixel by pixel."""


class Shown(NamedTuple):
    """A rollout as the page shows it."""

    record: Record
    pictures: list[Picture]
    pieces: list[Piece]
    slips: list[Slip]
    facts_known: bool
    left_out: int
    """Characters of the response beyond the longest that is shown."""
    trouble: str
    """Why the scene could not be drawn again; empty if it could."""


def ends(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """The rollouts of the first step and those of the last; empty where there is only one. The rest is let go of.

    >>> ends([{"step": 1}, {"step": 3}, {"step": 5}, {"step": 5}])
    ([{'step': 1}], [{'step': 5}, {'step': 5}])
    """
    first: list[Record] = []
    last: list[Record] = []
    for record in records:
        if not first or record["step"] == first[0]["step"]:
            first.append(record)
        elif last and record["step"] == last[0]["step"]:
            last.append(record)
        else:
            last = [record]
    return first, last


def choose(records: Sequence[Record], number: int) -> list[Record]:
    """Some rollouts by a fixed rule: other scenes first, then the world that was taken least often, then right and not
    right in turn, then the order of the file.

    >>> lines = [("digits", "a", "right"), ("digits", "b", "wrong"), ("bars", "c", "right"), ("bars", "d", "wrong")]
    >>> records = [{"world": world, "scene": scene, "status": status} for world, scene, status in lines]
    >>> [record["scene"] for record in choose(records, 3)]
    ['a', 'd', 'c']
    """
    left, chosen = list(records), []
    worlds: Counter[str] = Counter()
    scenes: Counter[str] = Counter()
    while left and len(chosen) < number:
        want_right = len(chosen) % 2 == 0
        best = min(
            left, key=lambda one: (scenes[one["scene"]], worlds[one["world"]], (one["status"] == "right") != want_right)
        )
        left.remove(best)
        chosen.append(best)
        worlds[best["world"]] += 1
        scenes[best["scene"]] += 1
    return chosen


def show(record: Record, source: Source) -> Shown:
    """A rollout with its scene drawn again. A scene that cannot be had any more leaves the image out and says why."""
    scene, trouble = _scene(record, source)
    facts = scene.facts if scene else ()
    text = record["response"][:LONGEST]
    truth = {fact.about: fact.value for fact in facts}
    return Shown(
        record=record,
        pictures=[picture(image) for image in scene.images] if scene else [],
        pieces=mark(text, facts) if facts else [Piece(text, False)],
        slips=[Slip(*fact, truth.get(fact.about)) for fact in dict.fromkeys(false_facts(text, facts))] if facts else [],
        facts_known=bool(facts),
        left_out=len(record["response"]) - len(text),
        trouble=trouble,
    )


def mark(text: str, facts: Sequence[Fact]) -> list[Piece]:
    """The text in pieces, the values of false facts each a piece of their own.

    >>> mark("red bar: 7. blue bar: 2.", [Fact("red bar", "7"), Fact("blue bar", "3")])
    [Piece(text='red bar: 7. blue bar: ', false=False), Piece(text='2', false=True), Piece(text='.', false=False)]
    """
    pieces: list[Piece] = []
    # no statement reaches over one of these characters
    for clause in re.split(r"(?<=[.;\n<>])", text):
        for piece in _mark_clause(clause, facts):
            if pieces and pieces[-1].false == piece.false:
                pieces[-1] = Piece(pieces[-1].text + piece.text, piece.false)
            elif piece.text:
                pieces.append(piece)
    return pieces


def picture(image: Image) -> Picture:
    """An image as a PNG inside a data URI, made smaller if it is large.

    >>> from PIL import Image
    >>> picture(Image.new("RGB", (48, 48))).uri[:22]
    'data:image/png;base64,'
    """
    image = image.convert("RGB")
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Picture(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", max(image.size) <= 160)


def _mark_clause(clause: str, facts: Sequence[Fact]) -> list[Piece]:
    stated, wrong = read_facts(clause), set(false_facts(clause, facts))
    if not wrong:
        return [Piece(clause, False)]
    # "I see this: " has the look of a verb, but nothing is lost without it
    verbs = [verb for verb in _VERB.finditer(clause) if read_facts(clause[verb.end() :]) != stated]
    if len(verbs) != 1:  # several statements without a stop between them: no telling which value is whose
        return [Piece(clause, True)]
    pieces, done = [], 0
    at = verbs[0].end()
    for fact in stated:
        start = clause.find(fact.value, at)
        at = start + len(fact.value)
        if fact in wrong:
            pieces += [Piece(clause[done:start], False), Piece(clause[start:at], True)]
            done = at
    return [*pieces, Piece(clause[done:], False)]


def _scene(record: Record, source: Source) -> tuple[Scene | None, str]:
    try:
        return source.scene(record["scene"]), ""
    except UserError as error:
        return None, str(error)
