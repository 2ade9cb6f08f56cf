"""How facts are said, and read back out of a response.

The embedded scenes are talked about in a small English of their own. A fact can be said in several wordings and orders,
all right: what a model is unsure of in a response is then not only what it sees.

    row 2 from left: 3 8 1          the cells of a row or column, in a stated direction
    row 2 column 3: red circle      one cell
    red bar: 7                      anything else
"""

import re
from collections.abc import Iterable, Sequence
from random import Random

from vergence.types import Fact

OPENINGS = ("", "Let me look. ", "I see this: ", "First, the picture. ")
VERBS = (":", " is", " shows")
LINKS = ("", "So ", "Then ", "Now ")

_SENTENCE = re.compile(
    r"(?P<line>(?:row|column) [1-3]) from (?P<start>left|right|top|bottom)(?::| is| shows) (?P<cells>[a-z0-9 ,]+)"
    r"|(?P<one>(?:row|column) [1-3] (?:row|column) [1-3])(?::| is| shows) (?P<cell>[a-z0-9 ]+)"
    r"|(?P<about>(?:[a-z]+ bar)|figure|left angle|right angle|whole|part|width|height)(?::| is| shows) (?P<value>[a-z0-9 ]+)"
)
_MOST = 4096
"""Characters of a response that are read. A response of ours has about 100; model output is bounded before any regex."""


def say_fact(fact: Fact, die: Random) -> str:
    """One fact, in one of its wordings.

    >>> say_fact(Fact("red bar", "7"), Random(0))
    'red bar is 7'
    """
    about = fact.about
    if about.startswith("row ") and " column " in about and die.random() < 0.3:
        row, column = about.split(" column ")
        about = f"column {column} {row}"
    return f"{about}{die.choice(VERBS)} {fact.value}"


def say_line(line: str, values: Sequence[str], die: Random) -> str:
    """A row or column, read in one of its two directions.

    >>> say_line("row 2", ["3", "8", "1"], Random(3))
    'row 2 from left shows 3 8 1'
    >>> say_line("column 1", ["red circle", "empty", "blue cross"], Random(0))
    'column 1 from bottom is blue cross, empty, red circle'
    """
    near, far = ("left", "right") if line.startswith("row") else ("top", "bottom")
    start = near if die.random() < 0.7 else far
    return line_as_read(line, start, die.choice(VERBS), list(values) if start == near else list(values)[::-1])


def line_as_read(line: str, start: str, verb: str, ordered: Sequence[str]) -> str:
    """A row or column in words, its cells in the order in which they are read.

    >>> line_as_read("row 2", "left", ":", ["3", "8", "1"])
    'row 2 from left: 3 8 1'
    """
    comma = ", " if any(" " in value or value == "empty" for value in ordered) else " "
    return f"{line} from {start}{verb} {comma.join(ordered)}"


def read_facts(text: str) -> list[Fact]:
    """The facts that a text states, each cell of a row or column its own, in the order they are said.

    Facts about cells are named "row R column C", whichever way they were said.

    >>> read_facts("column 3 from bottom is 1 8 3. row 1 column 2: empty. So red bar shows 7.")  # doctest: +ELLIPSIS
    [Fact(about='row 3 column 3', value='1'), Fact(about='row 2 column 3', value='8'), ...]
    """
    return [fact for found in _SENTENCE.finditer(text[:_MOST]) for fact in _facts(found)]


def _facts(found: re.Match[str]) -> Iterable[Fact]:
    if found["line"]:
        axis, number = found["line"].split()
        cells = found["cells"].strip()
        values = [value.strip() for value in (cells.split(",") if "," in cells else cells.split())]
        places = (1, 2, 3) if found["start"] in ("left", "top") else (3, 2, 1)
        for place, value in zip(places, values, strict=False):
            row, column = (number, place) if axis == "row" else (place, number)
            yield Fact(f"row {row} column {column}", value)
    elif found["one"]:
        words = found["one"].split()
        where = {words[0]: words[1], words[2]: words[3]}
        if len(where) == 2:
            yield Fact(f"row {where['row']} column {where['column']}", found["cell"].strip())
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
