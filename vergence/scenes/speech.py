"""How facts are said, and read back out of a response.

The embedded scenes are talked about in a small English of their own. A fact can be said in several wordings and orders,
all right: what a model is unsure of in a response is then not only what it sees.

    top row: 3 8 1                  the cells of a row or column; "top row backward" reads them the other way round
    middle right: red circle        one cell; "right middle" is the same one
    red bar: 7                      anything else
"""

import re
from collections.abc import Iterable, Sequence
from random import Random

from vergence.types import Fact

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
OPENINGS = ("", "Let me look. ", "I see this: ", "First, the picture. ")
VERBS = (":", " is", " shows")
LINKS = ("", "So ", "Then ", "Now ")

_ROW, _COLUMN = "|".join(ROWS), "|".join(COLUMNS)
_VERB = "(?:" + "|".join(VERBS) + ")"
_SENTENCE = re.compile(
    rf"\b(?P<line>(?:{_ROW}) row|(?:{_COLUMN}) column)(?P<back> backward)?{_VERB} (?P<cells>[a-z0-9 ,]+)"
    rf"|\b(?P<cell>(?:{_ROW}) (?:{_COLUMN})|(?:{_COLUMN}) (?:{_ROW})){_VERB} (?P<held>[a-z0-9 ]+)"
    rf"|\b(?P<about>[a-z]+ bar|figure|lines|left angle|right angle|whole|part|width|height){_VERB} "
    r"(?P<value>[a-z0-9 ]+)"
)
_MOST = 4096
"""Characters of a response that are read: ours have about 100, and model output is bounded before any regex."""


def cell_name(row: int, column: int) -> str:
    """What a cell is called; rows and columns count from 0.

    >>> cell_name(1, 2)
    'middle right'
    """
    return f"{ROWS[row]} {COLUMNS[column]}"


def say_fact(fact: Fact, die: Random) -> str:
    """One fact, in one of its wordings.

    >>> say_fact(Fact("red bar", "7"), Random(0))
    'red bar is 7'
    """
    about = fact.about
    first, _, second = about.partition(" ")
    if first in ROWS and second in COLUMNS and die.random() < 0.3:
        about = f"{second} {first}"
    return f"{about}{die.choice(VERBS)} {fact.value}"


def say_line(line: str, values: Sequence[str], die: Random) -> str:
    """A row or column, read forward (to the right, or down) or backward.

    >>> say_line("top row", ["3", "8", "1"], Random(3))
    'top row shows 3 8 1'
    >>> say_line("left column", ["red circle", "empty", "blue cross"], Random(0))
    'left column backward is blue cross, empty, red circle'
    """
    backward = die.random() > 0.7
    name = f"{line} backward" if backward else line
    return line_as_read(name, die.choice(VERBS), list(values)[::-1] if backward else list(values))


def line_as_read(name: str, verb: str, ordered: Sequence[str]) -> str:
    """A row or column in words, its cells in the order in which they are read.

    >>> line_as_read("top row", ":", ["3", "8", "1"])
    'top row: 3 8 1'
    """
    comma = ", " if any(" " in value or value == "empty" for value in ordered) else " "
    return f"{name}{verb} {comma.join(ordered)}"


def read_facts(text: str) -> list[Fact]:
    """The facts that a text states, each cell of a row or column its own, in the order they are said.

    >>> for fact in read_facts("right column backward is 1 8 3. center top: empty. So red bar shows 7."):
    ...     print(fact)
    bottom right: 1
    middle right: 8
    top right: 3
    top center: empty
    red bar: 7
    """
    return [fact for found in _SENTENCE.finditer(text[:_MOST]) for fact in _facts(found)]


def value_spans(text: str) -> list[tuple[int, int]]:
    """Where a text states what is seen: (start, end) of each word of each fact's value, in characters.

    >>> text = "top row: 3 8 1. red bar is 7"
    >>> [text[start:end] for start, end in value_spans(text)]
    ['3', '8', '1', '7']
    """
    spans = []
    for found in _SENTENCE.finditer(text[:_MOST]):
        start, end = next(found.span(name) for name in ("cells", "held", "value") if found[name] is not None)
        spans += [(start + word.start(), start + word.end()) for word in re.finditer(r"[a-z0-9]+", text[start:end])]
    return spans


def _facts(found: re.Match[str]) -> Iterable[Fact]:
    if found["line"]:
        name, kind = found["line"].split()
        cells = found["cells"].strip()
        values = [value.strip() for value in (cells.split(",") if "," in cells else cells.split())]
        others = COLUMNS if kind == "row" else ROWS
        for other, value in zip(others[::-1] if found["back"] else others, values, strict=False):
            yield Fact(f"{name} {other}" if kind == "row" else f"{other} {name}", value)
    elif found["cell"]:
        first, second = found["cell"].split()
        yield Fact(f"{first} {second}" if first in ROWS else f"{second} {first}", found["held"].strip())
    else:
        yield Fact(found["about"], found["value"].strip())


def false_facts(text: str, facts: Iterable[Fact]) -> list[Fact]:
    """The facts that a text states and that are not so: another value is there, or there is no such thing.

    >>> false_facts("red bar: 7. blue bar: 2.", [Fact("red bar", "7"), Fact("blue bar", "3")])
    [Fact(about='blue bar', value='2')]
    """
    truth = {fact.about: fact.value for fact in facts}
    return [stated for stated in read_facts(text) if truth.get(stated.about) != stated.value]


def add_up(numbers: Sequence[int]) -> str:
    """A sum, step by step.

    >>> add_up([3, 8, 1])
    '3+8=11, 11+1=12'
    """
    total, steps = numbers[0], []
    for number in numbers[1:]:
        steps.append(f"{total}+{number}={total + number}")
        total += number
    return ", ".join(steps)
