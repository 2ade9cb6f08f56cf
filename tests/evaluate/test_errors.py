"""Why an answer is wrong: models whose fault is known are recognised by it, and each rule is shown to matter."""

import re
import time

import pytest
from evaluate.planted import content_of, misadded, turnable

from vergence.chance import dice
from vergence.evaluate import errors
from vergence.evaluate.errors import ERRORS, error_of, explain
from vergence.rewards.verify import verify
from vergence.scenes import embedded
from vergence.types import Fact

SCENES = embedded.draw_many(list(embedded.WORLDS), "tune", 480)
DRAWN = [embedded.Drawn(scene, content_of(scene)) for scene in SCENES]


def _said(fault: str, drawn: embedded.Drawn, number: int) -> str:
    """A response with one fault; the same for the same number."""
    die, world = dice("planted", fault, number), drawn.scene.world
    response = embedded.say(drawn, world, die, misread=fault == "misreads" and turnable(world, drawn.content))
    if fault == "adds":
        return misadded(response, die)
    if fault == "contradicts":
        wrong = "17" if drawn.scene.gold.kind == "integer" and drawn.scene.gold.text != "17" else "nothing"
        return re.sub(r"boxed\{.*\}", f"boxed{{{wrong}}}", response)
    if fault == "reasons":  # true steps, of other numbers
        return re.sub(r"[^.]*=[^.]*\.</think>\\boxed\{.*\}", " Now 40+59=99.</think>\\\\boxed{99}", response)
    if fault == "overlooks":  # it looks elsewhere
        return "<think>lines: red.</think>\\boxed{nothing}"
    return response if fault != "breaks off" else response[: response.index("</think>")]


def found(fault: str, most: int = 480) -> list[str | None]:
    """What the wrong answers of a planted model are taken for."""
    kinds = []
    for number, drawn in enumerate(DRAWN[:most]):
        response = _said(fault, drawn, number)
        status = verify(response, drawn.scene.gold, wording="short").status
        finish = "length" if fault == "breaks off" else "stop"
        if status != "right":
            kinds.append(error_of(response, status, finish, drawn.scene))
    return kinds


PLANTED = {
    "misreads": ("perception", 400),
    "overlooks": ("perception", 400),
    "adds": ("calculation", 200),
    "reasons": ("reasoning", 200),
    "breaks off": ("format", 400),
}
"""Fault -> the error that it is, and the least number of wrong answers: where seeing is all, nothing is added."""


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault):
    kind, least = PLANTED[fault]
    kinds = found(fault)
    assert len(kinds) >= least
    assert kinds.count(kind) >= 0.99 * len(kinds)


def test_a_planted_contradiction_is_found_where_there_is_something_to_contradict():
    for number, drawn in enumerate(DRAWN):
        response = _said("contradicts", drawn, number)
        assert error_of(response, "wrong", "stop", drawn.scene) == "inconsistency"


def test_right_answers_have_no_error():
    for number, drawn in enumerate(DRAWN[:240]):
        response = _said("", drawn, number)
        assert verify(response, drawn.scene.gold, wording="short").status == "right"
        assert error_of(response, "right", "stop", drawn.scene) is None
        explained = explain(response, "wrong", "stop", drawn.scene)  # taken for wrong, nothing is found but the verdict
        assert explained.follows is not None
        assert not explained.false
        assert not explained.also


def test_what_was_misread_explains_the_answer_alone():
    for number, drawn in enumerate(DRAWN):
        if turnable(drawn.scene.world, drawn.content):
            explained = explain(_said("misreads", drawn, number), "wrong", "stop", drawn.scene)
            assert (explained.how, explained.alone, explained.also) == ("misread", True, ())
            assert len(explained.false) == 1


MUTANTS = {
    "a step is always so": ("_is_so", lambda step, follows: True, "adds", "calculation"),
    "a count is a step like others": ("_is_so", lambda step, follows: step.right, "adds", "calculation"),
    "nothing is stated": ("read_facts", lambda text: [], "adds", "calculation"),
    "the box is not read": ("_boxed", lambda response: None, "misreads", "perception"),
    "steps are not read": ("read_steps", lambda text: [], "adds", "calculation"),
    "facts are taken as they are": ("claimed", lambda facts: {}, "reasons", "reasoning"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_rule_is_found(mutant, monkeypatch):
    name, wrong, fault, kind = MUTANTS[mutant]
    monkeypatch.setattr(errors, name, wrong)
    kinds = found(fault, 120)
    assert kinds.count(kind) < 0.9 * len(kinds)


BARS = embedded.of_key("bars/tune/0/0")  # green 5 minus yellow 2; purple 4
NEEDED = "green bar: 5. yellow bar: 2."


@pytest.mark.parametrize(
    ("said", "error", "how"),
    [
        ("green bar: 5. yellow bar: 2. 5-2=4 \\boxed{4}", "calculation", "arithmetic"),
        ("green bar: 6. yellow bar: 2. 6-2=5 \\boxed{5}", "perception", "misread"),  # seeing comes first
        (
            "green bar: 6. Now green bar: 5. yellow bar: 2. 5-2=4 \\boxed{4}",
            "calculation",
            "arithmetic",
        ),
        ("purple bar: 9. green bar: 5. yellow bar: 2. 5-2=4 \\boxed{4}", "calculation", "arithmetic"),  # not needed
        ("green bar: 5. red bar: 2. 5-2=3 \\boxed{4}", "perception", "hallucinated"),
        ("green bar: 5. purple bar: 4. 5-4=1 \\boxed{1}", "perception", "missed"),
        ("\\boxed{4}", "perception", "unsaid"),
        (f"{NEEDED} \\boxed{{4}}", "reasoning", "no step"),
        (f"{NEEDED} 5+2=7 \\boxed{{7}}", "reasoning", "other step"),
        (f"{NEEDED} 5-2=3 \\boxed{{4}}", "inconsistency", "answer"),
        (f"{NEEDED} 9-2=6, 5-2=3 \\boxed{{4}}", "inconsistency", "answer"),  # the wrong step did no harm
        (f"{NEEDED} 5-2=4 \\boxed{{9}}", "calculation", "arithmetic"),
        (f"{NEEDED} 5-2=3", "format", "no answer"),
        ("", "format", "no answer"),
    ],
)
def test_the_first_cause_counts(said, error, how):
    explained = explain(said, "wrong", "stop", BARS)
    assert (explained.error, explained.how) == (error, how)
    assert error in ERRORS


def test_what_else_is_wrong_is_told_too():
    explained = explain("green bar: 6. yellow bar: 2. 6-2=5 \\boxed{9}", "wrong", "stop", BARS)
    assert explained.also == ("calculation", "inconsistency")
    assert not explained.alone
    assert explained.false == (Fact("green bar", "6"),)
    assert explained.wrong_step == "6-2=5"
    assert (explained.follows, explained.concludes, explained.answer) == ("4", "5", "9")


def test_how_an_answer_is_missing():
    assert explain("green bar", "unparsed", "length", BARS).how == "cut off"
    assert explain("\\boxed{4}", "timed out", "length", BARS).how == "timed out"
    # an answer that cannot be read is one of another kind, unless something else is wrong
    assert explain(f"{NEEDED} 5-2=3 \\boxed{{three}}", "unparsed", "stop", BARS).error == "format"
    assert explain("green bar: 9. yellow bar: 2. \\boxed{red}", "unparsed", "stop", BARS).error == "perception"


def test_where_facts_are_unknown_nothing_is_said():
    from dataclasses import replace

    assert explain("\\boxed{4}", "wrong", "stop", replace(BARS, facts=())) is None
    assert explain("\\boxed{4}", "wrong", "stop", replace(BARS, question="How tall is the tree?")) is None


def test_an_answer_in_tags_is_read():
    assert error_of(f"<think>{NEEDED} 5-2=3</think><answer>4</answer>", "wrong", "stop", BARS) == "inconsistency"


@pytest.mark.parametrize(
    "text",
    [
        "top row: " * 100_000,
        "\\boxed{" * 100_000,
        "1+" * 300_000 + "\\boxed{1}",
        "\u202e</style>\\boxed{\u0000}",
        "=" * 10**6,
    ],
)
def test_hostile_responses_are_sorted_in_no_time(text):
    started = time.perf_counter()
    assert error_of(text, "wrong", "stop", BARS) in ERRORS
    assert time.perf_counter() - started < 2.0
