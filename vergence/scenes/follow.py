"""What a question of the embedded worlds needs to have seen, and what follows from what was seen, true or not.

The question is read back out of its words and carried out on any facts: those of the scene, which gives the right
answer, or those that a response states, which gives the answer that it should have come to. So an error of seeing can
be told from an error of thinking without a judge.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vergence.scenes.geometry import NAMES
from vergence.scenes.speech import COLUMNS, ROWS, cell_name
from vergence.types import Fact

_LINE = rf"(?P<line>(?:{'|'.join(ROWS)}) row|(?:{'|'.join(COLUMNS)}) column)"
_FORMS = {
    "cell": re.compile(rf"What is at the (?P<cell>(?:{'|'.join(ROWS)}) (?:{'|'.join(COLUMNS)}))\?"),
    "sum": re.compile(rf"What is the sum of the {_LINE}\?"),
    "count": re.compile(rf"How many shapes in the {_LINE} are (?P<word>[a-z]+)\?"),
    "compare": re.compile(rf"Which is more often in the {_LINE}, (?P<word>[a-z]+) or (?P<other>[a-z]+)\?"),
    "bars": re.compile(r"What is the (?P<first>[a-z]+ bar) (?P<how>plus|minus) the (?P<second>[a-z]+ bar)\?"),
    "find": re.compile(r"Find x\."),
}


class Follows(NamedTuple):
    """A question, carried out on facts."""

    kind: str
    """"cell", "sum", "count", "compare", "bars" or "find"."""
    needs: tuple[str, ...]
    """What it has to be known about; of a figure that nobody names, "figure" alone."""
    values: tuple[str, ...] | None
    """What is there, in the order of `needs`; None if something is missing."""
    answer: str | None
    """What follows; None if something is missing, or cannot be calculated with."""
    words: tuple[str, ...] = ()
    """What is counted."""

    def count(self, word: str) -> int | None:
        """How many of the things that are asked about are called so; None if something is missing.

        >>> seen = [Fact("top left", "red circle"), Fact("top center", "empty"), Fact("top right", "red cross")]
        >>> follow("How many shapes in the top row are red?", seen).count("cross")
        1
        """
        return None if self.values is None else sum(word in value.split() for value in self.values)


def follow(question: str, facts: Iterable[Fact]) -> Follows | None:
    """What a question needs, and what follows from these facts; None if it is no question of the embedded worlds.

    Of a fact that is stated twice the later statement holds (`claimed`). For a scene's own facts the answer is the gold
    one.

    >>> follow("What is the red bar minus the blue bar?", [Fact("red bar", "7"), Fact("blue bar", "9")]).answer
    '-2'
    >>> follow("What is the sum of the top row?", [Fact("top left", "3")])
    Follows(kind='sum', needs=('top left', 'top center', 'top right'), values=None, answer=None, words=())
    >>> follow("Is it larger?", [])
    """
    question, seen = question.strip(), claimed(facts)
    for kind, form in _FORMS.items():
        if found := form.fullmatch(question):
            return _carried_out(kind, found.groupdict(), seen)
    return None


def claimed(facts: Iterable[Fact]) -> dict[str, str]:
    """What is stated of each thing, at last; and the figure, where nobody names it but its two labels are named.

    >>> claimed([Fact("width", "3"), Fact("height", "5"), Fact("width", "4")])
    {'width': '4', 'height': '5', 'figure': 'rectangle'}
    """
    seen = {fact.about: fact.value for fact in facts}
    if "figure" not in seen:
        named = [figure for figure, labels in NAMES.items() if all(label in seen for label in labels)]
        seen |= {"figure": named[0]} if len(named) == 1 else {}
    return seen


def _carried_out(kind: str, asked: Mapping[str, str], seen: Mapping[str, str]) -> Follows:
    if kind == "cell":
        needs: tuple[str, ...] = (asked["cell"],)
    elif kind == "bars":
        needs = (asked["first"], asked["second"])
    elif kind == "find":
        needs = ("figure", *NAMES.get(seen.get("figure", ""), ()))
    else:
        name, axis = asked["line"].split()
        row_or_column = (ROWS if axis == "row" else COLUMNS).index(name)
        needs = tuple(cell_name(*((row_or_column, i) if axis == "row" else (i, row_or_column))) for i in range(3))
    words = tuple(asked[name] for name in ("word", "other") if name in asked)
    if not all(need in seen for need in needs):
        return Follows(kind, needs, None, None, words)
    follows = Follows(kind, needs, tuple(seen[need] for need in needs), None, words)
    return follows._replace(answer=_answer(follows, asked.get("how", "")))


def _answer(follows: Follows, how: str) -> str | None:
    values = follows.values or ()
    match follows.kind:
        case "cell":
            return values[0]
        case "count":
            return str(follows.count(follows.words[0]))
        case "compare":
            return more_often({word: follows.count(word) or 0 for word in follows.words})
    figure, numbers = (values[0], values[1:]) if follows.kind == "find" else ("", values)
    if not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        return None
    known = [int(number) for number in numbers]
    if follows.kind == "sum":
        return str(sum(known))
    if len(known) != 2:
        return None
    a, b = known
    by = {"plus": a + b, "minus": a - b, "segment": a - b, "triangle": 180 - a - b, "rectangle": a * b}
    return str(by[how or figure])


def more_often(counts: Mapping[str, int]) -> str:
    """Which of two words is counted more often, or "same".

    >>> more_often({"circle": 2, "square": 1}), more_often({"circle": 1, "square": 1})
    ('circle', 'same')
    """
    first, second = counts
    return first if counts[first] > counts[second] else second if counts[second] > counts[first] else "same"
