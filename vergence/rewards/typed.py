"""A first verifier for typed answers: integers, numbers, words, choices. It reads text and never runs it.

Whatever a model says, a verifier returns a verdict: it does not raise, and its work is bounded by the length it reads.
"""

import math
import re
from fractions import Fraction

from vergence.types import Gold, RewardSpec, Verdict

MOST_CHARACTERS = 20_000
"""A response is read up to here from its end, where the answer is."""
MOST_DIGITS = 64
"""A longer numeral is not an answer to anything and is not converted."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:/\d+)?")
_WELL_FORMED = re.compile(r"<think>.*</think>.*\\boxed\{.*\}.*", re.DOTALL)


def verify(response: str, gold: Gold, spec: RewardSpec = RewardSpec()) -> Verdict:
    """Whether the last boxed answer of a response is the gold answer, and the reward for that.

    reward = spec.accuracy * [right] + spec.format * [<think> ... </think> ... \\boxed{...}], PAPO's 0.9 and 0.1
    (arXiv:2507.06448; reward_function/math.py of the released code).

    >>> verify("<think>3+8=11</think>\\\\boxed{11}", Gold("11", "integer"))
    Verdict(status='right', extracted='11', accuracy=1.0, format=1.0, reward=1.0)
    >>> verify("\\\\boxed{a red  Circle.}", Gold("red circle", "word")).status
    'wrong'
    >>> verify("it is 11", Gold("11", "integer"))
    Verdict(status='unparsed', extracted=None, accuracy=0.0, format=0.0, reward=0.0)
    """
    tail = response[-MOST_CHARACTERS:]
    extracted = last_boxed(tail)
    formed = float(well_formed(tail))
    answer = None if extracted is None else parse(extracted, gold)
    if answer is None:
        return Verdict("unparsed", extracted, 0.0, formed, spec.format * formed)
    right = float(answer == parse(gold.text, gold))
    return Verdict("right" if right else "wrong", extracted, right, formed, spec.accuracy * right + spec.format * formed)


def well_formed(response: str) -> bool:
    """Whether a response thinks inside its tags and then boxes an answer; space around the tags does not matter.

    >>> well_formed("<think> so </think> \\\\boxed{4}"), well_formed("\\\\boxed{4}")
    (True, False)
    """
    return _WELL_FORMED.fullmatch(response.strip()) is not None


def last_boxed(response: str) -> str | None:
    """What stands in the last \\boxed{...} that is closed, braces balanced; None if there is none or it is empty.

    >>> last_boxed("\\\\boxed{1} or \\\\boxed{\\\\frac{1}{2}}"), last_boxed("\\\\boxed{ }"), last_boxed("\\\\boxed{1")
    ('\\\\frac{1}{2}', None, None)
    """
    end = len(response)
    while (start := response.rfind("\\boxed{", 0, end)) != -1:
        depth = 0
        for position in range(start + len("\\boxed"), end):
            depth += {"{": 1, "}": -1}.get(response[position], 0)
            if depth == 0:
                return response[start + len("\\boxed{") : position].strip() or None
        end = start  # never closed: the one before; what follows was looked at once, so this stays linear
    return None


def parse(text: str, gold: Gold) -> Fraction | str | None:
    """An answer in a form that can be compared, by the type of the gold answer; None if it is not of that type.

    >>> parse("1,234", Gold("7", "integer")), parse("2.50", Gold("7", "number")), parse("9**9", Gold("7", "number"))
    (Fraction(1234, 1), Fraction(5, 2), None)
    >>> parse("(b)", Gold("B", "choice")), parse("five", Gold("B", "choice", ("four", "five"))), parse("E", Gold("B", "choice"))
    ('B', 'B', 'E')
    """
    text = " ".join(text.replace("$", "").split()).rstrip(".")
    if gold.type == "word":
        return text.lower() or None
    if gold.type == "choice":
        return _choice(text, gold)
    number = _number(text)
    if gold.type == "integer" and number is not None and number.denominator != 1:
        return number  # comparable, and never equal to an integer: wrong, not unparsed
    return number


def _number(text: str) -> Fraction | None:
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text).replace("°", "").removesuffix("%").strip()
    if len(text) > MOST_DIGITS or not _NUMBER.fullmatch(text):
        return None
    numerator, _, denominator = text.partition("/")
    if denominator and int(denominator) == 0:
        return None
    value = Fraction(numerator) / (int(denominator) if denominator else 1)
    return value if math.isfinite(value) else None


def _choice(text: str, gold: Gold) -> str | None:
    letter = text.strip("()[]. ").upper()
    if len(letter) == 1 and "A" <= letter <= "Z":
        return letter
    named = [chr(ord("A") + i) for i, choice in enumerate(gold.choices) if choice.strip().lower() == text.lower()]
    return named[0] if len(named) == 1 else None
