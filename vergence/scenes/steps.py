"""The steps of a calculation, read out of a response: "3+8=11", "x=180-110=70", "red=2"."""

import re
from itertools import pairwise
from typing import NamedTuple

_MOST = 4096
"""Characters that are read, as of facts: `scenes.speech`."""
_NUMBER = r"-?[0-9]{1,9}(?![0-9])"
_TERMS = rf"{_NUMBER}(?: ?[-+*] ?{_NUMBER}){{0,8}}"
_SIDE = rf"(?:{_TERMS}|[a-z]{{1,12}}(?![a-z]))"
_CHAIN = re.compile(rf"(?<![\w.]){_SIDE}(?: ?= ?{_SIDE}){{1,4}}")
_SIGNS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": "*", "\N{DOT OPERATOR}": "*"})
_TERM = re.compile(rf" ?(?P<sign>[-+*]?) ?(?P<number>{_NUMBER})")


class Step(NamedTuple):
    """One equation, or a chain of them."""

    said: str
    names: tuple[str, ...]
    """The words on its sides: of "red=2" what is counted, of "x=19-3=16" the unknown."""
    value: int
    """The last number: what it comes to."""
    right: bool
    """All its sides that are numbers are the same one."""


def read_steps(text: str) -> list[Step]:
    """The steps of a response in order; a word alone says nothing, so a side must be a number.

    >>> for step in read_steps("So 3+8=11, 11+1=13. x=180-110=70, red=2"):
    ...     print(step)
    Step(said='3+8=11', names=(), value=11, right=True)
    Step(said='11+1=13', names=(), value=13, right=False)
    Step(said='x=180-110=70', names=('x',), value=70, right=True)
    Step(said='red=2', names=('red',), value=2, right=True)
    """
    found = []
    for chain in _CHAIN.finditer(text[:_MOST].translate(_SIGNS)):
        sides = [side.strip() for side in chain[0].split("=")]
        values = [_value(side) for side in sides if not side.isalpha()]
        if values:
            names = tuple(side for side in sides if side.isalpha())
            found.append(Step(chain[0], names, values[-1], all(a == b for a, b in pairwise(values))))
    return found


def _value(side: str) -> int:
    """What a sum of products comes to."""
    terms: list[int] = []
    for term in _TERM.finditer(side):
        number = int(term["number"])
        if term["sign"] == "*":
            terms[-1] *= number
        else:
            terms.append(-number if term["sign"] == "-" else number)
    return sum(terms)
