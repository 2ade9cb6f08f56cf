"""Two checkpoints: paired on the same questions, asked alike, or refused."""

import numpy as np
import pytest

from vergence.evaluate.accelerated import stratified
from vergence.evaluate.compare import compare, detectable
from vergence.evaluate.interval import holm, sign_flip_p, smallest_detectable
from vergence.types import UserError

HOW = {
    "wording": "short",
    "max_tokens": 64,
    "temperature": 1.0,
    "shown": "image",
    "verifier": "v",
    "pixels": [256, 9216],
}


def side(right, world="w", **more):
    """right: for each question, of its 4 answers so many."""
    return [
        {
            "scene": f"{world}/{at}",
            "world": world,
            "sample": sample,
            "status": "right" if sample < number else "wrong",
            "question": f"What is {at}?",
            "gold": "1",
            "image_sha": ["aa"],
            **HOW,
            **more,
        }
        for at, number in enumerate(right)
        for sample in range(4)
    ]


BEFORE = [*side([0, 1, 2, 3, 4, 1]), *side([2, 2, 2], "other")]
AFTER = [*side([2, 2, 4, 4, 4, 3]), *side([2, 3, 1], "other")]


def test_by_hand():
    found = compare(BEFORE, AFTER)
    assert list(found) == ["w", "other", "overall"]
    difference = {f"w/{at}": value / 4 for at, value in enumerate((2, 1, 2, 1, 0, 2))}
    others = {f"other/{at}": value / 4 for at, value in enumerate((0, 1, -1))}
    assert found["w"].difference == stratified({"": difference}, least=-1.0)
    assert found["w"].difference.mean == pytest.approx(8 / 24)
    assert found["w"].p == 2 / 2**5  # five differ, all upwards
    assert found["other"].p == 1.0
    assert (found["w"].holm, found["other"].holm) == (2 * 2 / 2**5, 1.0)
    assert (found["w"].holm, found["other"].holm) == tuple(holm({"a": found["w"].p, "b": found["other"].p}).values())
    assert found["overall"].holm is None
    assert found["overall"].p == sign_flip_p(difference | others)
    assert found["overall"].difference == stratified({"w": difference, "other": others}, least=-1.0)
    values = [*difference.values(), *others.values()]
    assert detectable(BEFORE, AFTER) == pytest.approx(smallest_detectable(np.std(values, ddof=1), 9))


def test_the_other_way_round_is_the_negative():
    there, back = compare(BEFORE, AFTER), compare(AFTER, BEFORE)
    for name in there:
        assert there[name].difference.mean == pytest.approx(-back[name].difference.mean)
        assert there[name].p == back[name].p


def test_pairing_finds_what_two_intervals_side_by_side_do_not():
    """40 questions, half impossible and half certain but for one of four answers more on one side."""
    before, after = side([0] * 20 + [3] * 20), side([0] * 20 + [4] * 20)
    assert compare(before, after)["overall"].p < 1e-4
    assert compare(before, after)["overall"].difference.low > 0.05


def test_k_and_seed_may_differ_but_nothing_else():
    fewer = [record | {"seed": 5, "samples": 2} for record in BEFORE if record["sample"] < 2]
    assert compare(fewer, AFTER)["w"].difference.n == 6
    old = [{name: value for name, value in record.items() if name not in HOW} for record in BEFORE]
    assert compare(old, AFTER)  # what an older file does not tell is not compared
    for change, told in (
        ({"wording": "think"}, "wording is short on the one side and think on the other"),
        ({"max_tokens": 9}, "max_tokens is 64"),
        ({"temperature": 0.0}, "temperature is 1.0"),
        ({"shown": "blank"}, "shown is image"),
        ({"pixels": [256, 1024]}, r"pixels is \[256, 9216\] on the one side"),
        ({"verifier": "w"}, "verifier is v"),
        ({"caption": "red bar: 1"}, "one side answered by itself"),
        ({"question": "Why?"}, "w/0 is not the same question on both sides: its question differs"),
        ({"gold": "2"}, "its gold differs"),
        ({"image_sha": ["bb"]}, "its image_sha differs"),
    ):
        with pytest.raises(UserError, match=told):
            compare(BEFORE, [record | change for record in AFTER])
    weak, strong = ([one | {"caption": "", "reasoner": name} for one in BEFORE] for name in ("weak", "strong"))
    with pytest.raises(UserError, match="reasoner is weak"):
        compare(weak, strong)
    mixed = [one | {"wording": "think"} if one["sample"] else one for one in AFTER]
    with pytest.raises(UserError, match="wording is short on the one side and short, think on the other"):
        compare(BEFORE, mixed)


def test_other_questions_are_refused():
    with pytest.raises(UserError, match=r"3 question\(s\) were put to one side only, e\.g\. other/0"):
        compare(BEFORE, side([1] * 6))
    with pytest.raises(UserError, match="no answers to compare"):
        compare([], AFTER)


def test_where_nothing_differs_nothing_is_said_of_what_could_be_found():
    assert detectable(BEFORE, BEFORE) is None
    assert detectable(side([1]), side([2])) is None
    assert compare(BEFORE, BEFORE)["overall"].p == 1.0
