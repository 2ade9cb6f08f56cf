"""maj@k: what most of the answers to a question say, and whether that is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from vergence.rewards.letters import read_choice
from vergence.rewards.settle import Unsettled, settle
from vergence.rewards.spelling import plain, squeezed
from vergence.types import Gold

MOST_WAYS, LONGEST = 16, 200
"""Different answers to one question, and characters of each, that are compared; what is more counts as spelled."""


def majority(records: Sequence[Mapping[str, Any]]) -> float:
    """Whether the commonest of the answers to one question is right; of n that are as common, the share that is.

    An answer that could not be read has no vote, one whose comparison took too long has one, and is not right. Answers
    that the verifier calls right are the same answer; the others are where `same_answer` says so. Without any vote
    it is 0.

    >>> said = lambda answer, status: {"extracted": answer, "status": status, "gold": "7", "kind": "integer"}
    >>> seven, eight, none = said("7", "right"), said("8", "wrong"), said(None, "unparsed")
    >>> majority([seven, seven, eight]), majority([seven, eight]), majority([none, none, seven]), majority([none])
    (1.0, 0.5, 1.0, 0.0)
    >>> majority([said("8", "wrong"), said("8.0", "wrong"), seven])
    0.0
    """
    gold = gold_of(records[0])
    votes: Counter[str] = Counter()
    spelled = Counter(one["extracted"] or "" for one in records if one["status"] in ("wrong", "timed out"))
    for answer, number in spelled.items():
        known = [way for way in [*votes][:MOST_WAYS] if max(len(way), len(answer)) <= LONGEST]
        votes[next((way for way in known if same_answer(answer, way, gold)), answer)] += number
    right = sum(one["status"] == "right" for one in records)
    most = max(right, *votes.values()) if votes else right
    if not most:
        return 0.0
    return fmean([0.0] * sum(number == most for number in votes.values()) + [1.0] * (right == most))


def gold_of(record: Mapping[str, Any]) -> Gold:
    """The gold answer that a record tells of."""
    return Gold(
        record["gold"],
        record.get("kind", "word"),
        tuple(record.get("choices", ())),
        float(record.get("tolerance", 0.0)),
    )


def same_answer(one: str, other: str, gold: Gold) -> bool:
    """Whether two answers to a question are the same, read as its gold is; what needs algebra is compared as spelled.

    >>> same_answer("0.5", "1/2", Gold("3", "number")), same_answer("(b)", "B.", Gold("A", "choice"))
    (True, True)
    """
    if gold.kind == "choice":
        letter = read_choice(one, gold.choices)
        return letter is not None and letter == read_choice(other, gold.choices)
    try:
        return bool(settle(one, other, gold.kind, gold.choices, gold.tolerance))
    except Unsettled:
        return squeezed(plain(one)) == squeezed(plain(other))
