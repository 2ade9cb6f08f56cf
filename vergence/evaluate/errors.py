"""Why a wrong answer is wrong, by rule: PAPO sorts 200 of them by hand into these kinds (arXiv:2507.06448, section 2).

A response states facts, calculates, and answers. What it states is compared with what is there; the question is carried
out on what it *states* (`scenes.follow`), and each step of its calculation is done again (`scenes.steps`). What is said
in the words of the embedded scenes is read exactly, so that no judge is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from vergence.rewards.form import MOST_CHARACTERS, extracted
from vergence.scenes.follow import Follows, claimed, follow, more_often
from vergence.scenes.speech import read_facts
from vergence.scenes.steps import Step, read_steps
from vergence.types import Fact, Scene

ERRORS = ("perception", "reasoning", "calculation", "inconsistency", "format")
"""What a wrong answer can be wrong by; each is of exactly one of these."""


_UNREAD = {"timed out": "timed out", "unparsed": "no answer", "wrong": "no answer"}


class Explained(NamedTuple):
    """Why one answer is wrong."""

    error: str
    """One of `ERRORS`: the first in the chain from seeing to answering."""
    how: str
    """perception: "misread" (a needed fact is stated otherwise than it is), "hallucinated" (of what is needed something
    is not stated, and something is that is not there), "missed" (not stated) or "unsaid" (no fact is stated at all);
    calculation: "arithmetic" or "count"; reasoning: "no step" or "other step"; inconsistency: "answer";
    format: "timed out", "cut off" or "no answer"."""
    false: tuple[Fact, ...] = ()
    """The stated facts that are not so, needed or not."""
    missed: tuple[str, ...] = ()
    """What the question needs and nobody states."""
    wrong_step: str | None = None
    """The first step that is not so."""
    follows: str | None = None
    """What follows from the stated facts; None if they are not enough."""
    concludes: str | None = None
    """What its own last step says; None if it takes none."""
    answer: str | None = None
    """What it answers."""
    alone: bool = False
    """Seeing alone explains it: the answer is what follows from the stated facts."""
    also: tuple[str, ...] = ()
    """What else is wrong with it."""


def error_of(response: str, status: str, finish: str, scene: Scene) -> str | None:
    """Which of `ERRORS` an answer is; None where it is right, or nobody knows the facts: see `explain`.

    >>> from vergence.scenes.embedded import of_key
    >>> scene = of_key("bars/tune/0/0")
    >>> scene.question, *map(str, scene.facts)
    ('What is the green bar minus the yellow bar?', 'yellow bar: 2', 'purple bar: 4', 'green bar: 5')
    >>> stated = "green bar: 5. yellow bar: 2."
    >>> for said in ("green bar: 5. yellow bar: 1. 5-1=4 \\\\boxed{4}", f"{stated} 5-2=2 \\\\boxed{{2}}",
    ...              f"{stated} 5+2=7 \\\\boxed{{7}}", f"{stated} 5-2=3 \\\\boxed{{5}}"):
    ...     print(error_of(said, "wrong", "stop", scene))
    perception
    calculation
    reasoning
    inconsistency
    """
    explained = explain(response, status, finish, scene)
    return explained.error if explained else None


def explain(response: str, status: str, finish: str, scene: Scene) -> Explained | None:
    """Why an answer is wrong; None where it is right, or the scene's facts are unknown, or its question is of no world.

    The rules, the first that holds:

    1. There is no answer, or it could not be compared in time: format. So it is where what stands in the box cannot be
       read as an answer of its kind, and nothing else is wrong.
    2. Of what the question needs, something is stated otherwise than it is, or is not stated: perception. A fact that
       is stated twice counts as last stated; a false one that is not needed explains nothing.
    3. What its own last step says is right, and the answer is another: inconsistency.
    4. A step is not so, a sum, a difference, a product or a count of what it stated: calculation.
    5. Else reasoning: facts and steps are right, and the conclusion is wrong.

    `also` holds what of these holds besides. Where several do, the one is taken that comes first on the way from seeing
    to answering, as a later one works on what is wrong already; rule 3 stands before 4, as a wrong step does no harm
    where what comes out is right.

    Args:
        response: as the model wrote it; read is the beginning, and of the answer the end.
        status: the verifier's, `Verdict.status`.
        finish: how sampling ended, `Sampled.finish`.
        scene: what was shown and asked.
    """
    truth = follow(scene.question, scene.facts) if scene.facts and status != "right" else None
    if truth is None:
        return None
    answer = _boxed(response)
    if status == "timed out" or answer is None:
        return Explained("format", "cut off" if finish == "length" and status != "timed out" else _UNREAD[status])
    facts, steps = read_facts(response), read_steps(response)
    stated, real = claimed(facts), {fact.about: fact.value for fact in scene.facts}
    follows = follow(scene.question, [Fact(*fact) for fact in stated.items()])
    assert follows  # the question is the same
    false = tuple(Fact(about, value) for about, value in stated.items() if real.get(about) != value)
    missed = tuple(need for need in truth.needs if need not in stated)
    wrong = [step for step in steps if not _is_so(step, follows)]
    concludes = _conclusion(follows, steps)
    astray = concludes is not None and not same(concludes, answer)
    holds = {
        "perception": bool(missed) or any(fact.about in truth.needs for fact in false),
        "inconsistency": astray and same(concludes, follows.answer),
        "calculation": bool(wrong),
    }
    error = next((name for name, so in holds.items() if so), "reasoning")
    if error == "inconsistency" and status == "unparsed":  # it may well mean the same
        return Explained("format", "no answer", false, answer=answer, follows=follows.answer, concludes=concludes)
    holds["inconsistency"] = astray
    return Explained(
        error,
        _how(error, _misseen(false, missed, real, truth, facts), wrong, steps),
        false,
        missed,
        wrong[0].said if wrong else None,
        follows.answer,
        concludes,
        answer,
        alone=error == "perception" and same(follows.answer, answer),
        also=tuple(name for name in ERRORS if holds.get(name) and name != error),
    )


def _how(error: str, misseen: str, wrong: Sequence[Step], steps: Sequence[Step]) -> str:
    """In which way: `Explained.how`."""
    return {
        "perception": misseen,
        "inconsistency": "answer",
        "calculation": "count" if wrong and wrong[0].right else "arithmetic",
        "reasoning": "other step" if steps else "no step",
    }[error]


def same(one: str | None, other: str | None) -> bool:
    """Whether two answers of the embedded worlds, numbers or words, are the same; None is like nothing.

    >>> same("12", "12.0"), same("Red circle", "\\\\text{red circle}"), same("12", None), same("1", "one")
    (True, True, False, False)
    """
    return one is not None and other is not None and _plain(one) == _plain(other)


def _plain(answer: str) -> str:
    answer = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", answer[:200]).strip(" $.°").lower()
    return str(float(answer)) if re.fullmatch(r"-?[0-9]{1,12}(?:\.[0-9]{1,6})?", answer) else answer


def _boxed(response: str) -> str | None:
    """The answer, in a box or in tags, behind the thoughts."""
    return extracted(response[-MOST_CHARACTERS:]) or extracted(response[-MOST_CHARACTERS:], "answer")


def _is_so(step: Step, follows: Follows) -> bool:
    """Whether a step's sides are the same, and a count is what was stated."""
    if not follows.words or not step.right:
        return step.right
    return all(follows.count(name) in (None, step.value) for name in step.names)


def _conclusion(follows: Follows, steps: Sequence[Step]) -> str | None:
    """What the last step says, or where seeing is all, what was stated; None if nothing does."""
    if follows.kind == "cell":
        return follows.answer
    if not follows.words:
        return str(steps[-1].value) if steps else None
    counted = {name: step.value for step in steps for name in step.names if name in follows.words}
    if len(counted) < len(follows.words):
        return None
    if len(counted) == 1:
        return str(counted[follows.words[0]])
    return more_often({word: counted[word] for word in follows.words})


def _misseen(
    false: Sequence[Fact], missed: Sequence[str], real: dict[str, str], truth: Follows, facts: Sequence[Fact]
) -> str:
    """In which way something was not seen as it is."""
    if any(fact.about in truth.needs for fact in false):
        return "misread"
    if not facts:
        return "unsaid"
    return "hallucinated" if any(fact.about not in real for fact in false) else "missed"
