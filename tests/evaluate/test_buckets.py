"""Vision dependency: as declared, or by answers that are not counted."""

import numpy as np
import pytest

from vergence.evaluate.asked import level_of
from vergence.evaluate.buckets import blind_seed, buckets_as_json, by_level, halves, level_measured
from vergence.evaluate.suite import accuracy


def said(scene, right, **more):
    """One answer for each of `right`."""
    return [
        {
            "scene": scene,
            "world": "w",
            "sample": at,
            "status": "right" if one else "wrong",
            "extracted": str(one),
            "finish": "stop",
            "gold": "1",
            "kind": "integer",
            "response": "",
            "false_facts": None,
            **more,
        }
        for at, one in enumerate(right)
    ]


BY_HAND = {
    0: ("high", "high", "medium", "low", "low"),
    1: ("high", "high", "medium", "low", "low"),
    2: ("high", "high", "high", "medium", "low"),
    4: ("high", "high", "high", "low", "low"),
}
"""Options -> the level where 0 to 4 of 4 deciding answers are right. None are known, or one: nothing to guess."""


@pytest.mark.parametrize(
    ("right", "options", "level"),
    [(right, options, level) for options, levels in BY_HAND.items() for right, level in enumerate(levels)],
)
def test_the_level_by_hand(right, options, level):
    """4 deciding answers; with 4 options a guess is right once in them: 1 - (2/4 - 1/4) / (3/4) = 2/3 is high."""
    more = {"kind": "choice", "choices": [str(at) for at in range(options)]} if options else {}
    assert level_measured(said("a", [1] * right + [0] * (4 - right), **more)) == level


def test_half_of_the_blind_answers_decide_and_only_the_others_are_counted():
    seeing = [*said("needs", [1, 1, 1, 0]), *said("guessed", [1, 1, 0, 0]), *said("told", [1, 1, 1, 1])]
    blind = [*said("needs", [0, 0, 1, 1]), *said("guessed", [1, 0, 0, 0]), *said("told", [1, 1, 0, 1])]
    found = by_level(seeing, blind)
    assert list(found) == ["low", "medium", "high"]
    assert (found["high"].seeing.accuracy.mean, found["high"].blind.mean, found["high"].gain.mean) == (0.75, 1.0, -0.25)
    assert (found["medium"].blind.mean, found["low"].blind.mean) == (0.0, 0.5)
    decide, aside = halves(blind)
    assert [len(those) for those in (*decide.values(), *aside.values())] == [2] * 6
    told = buckets_as_json(found, measured=True)
    assert told["by"] == "measured"
    assert told["high"]["gain"]["mean"] == -0.25
    one = by_level(said("a", [1]), said("a", [0]))["high"]
    assert (one.blind, one.gain) == (None, None)  # with one answer there is none to put aside


def test_a_model_that_does_not_look_is_as_good_without_the_picture_in_every_bucket():
    """600 questions that it answers by luck of 0.5. Were the deciding answers counted, low would be far above high."""
    generator = np.random.default_rng(0)
    seeing, blind = ([], [])
    for at in range(600):
        seeing += said(f"{at:03}", generator.random(8) < 0.5)
        blind += said(f"{at:03}", generator.random(8) < 0.5)
    found = by_level(seeing, blind)
    for level in found.values():
        assert level.seeing.accuracy.mean == pytest.approx(0.5, abs=0.05)
        assert level.blind.mean == pytest.approx(0.5, abs=0.06)
        assert level.gain.low < 0 < level.gain.high
    decide, _ = halves(blind)
    low = [one for those in decide.values() if level_measured(those) == "low" for one in those]
    assert accuracy(low) > 0.75  # the luck that is put aside


def test_the_blind_answers_have_other_noise():
    assert blind_seed(3) == blind_seed(3)
    assert len({blind_seed(seed) for seed in range(9)} | set(range(9))) == 18


def test_as_the_data_declares_it():
    seeing = [*said("a", [1, 1], level="high"), *said("b", [0, 1], level="low"), *said("c", [0, 0], level=None)]
    found = by_level([*seeing, *said("d", [1, 1])])  # of an older file
    assert list(found) == ["low", "high"]
    assert found["low"].seeing.accuracy.mean == 0.5
    assert found["low"].blind is None
    assert by_level(said("a", [1])) == {}
    assert buckets_as_json(found, measured=False)["by"] == "declared"


def test_what_a_column_declares():
    assert [level_of({"vision_dependency": text}) for text in ("LOW", " medium ", "", "7")] == [
        "low",
        "medium",
        None,
        None,
    ]
    names = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only", "Text Only")
    assert [level_of({"problem_version": name}) for name in names] == ["low", "medium", "medium", "high", "high", None]
    assert level_of({"vd_level": "low", "problem_version": "Vision Only"}) == "low"
    assert level_of({"vd_level": None, "problem_version": ["x"]}) is None
