"""avg@k, pass@k and maj@k by hand, and what stands beside them."""

import itertools

import numpy as np
import pytest

from vergence.evaluate.counted import as_json, counted, errors, macro, tables
from vergence.evaluate.majority import majority, same_answer
from vergence.evaluate.suite import accuracy
from vergence.types import Gold, UserError


def record(scene, sample, status, extracted="", world="w", **more):
    return {
        "scene": scene,
        "world": world,
        "sample": sample,
        "status": status,
        "extracted": None if status == "unparsed" else extracted,
        "finish": "stop",
        "gold": "7",
        "kind": "integer",
        "response": "",
        "false_facts": None,
        **more,
    }


def answers(scene, said, world="w", **more):
    """ "7" is right, "?" cannot be read, "!" takes too long, everything else is wrong."""
    status = {"7": "right", "?": "unparsed", "!": "timed out"}
    return [record(scene, at, status.get(one, "wrong"), one, world, **more) for at, one in enumerate(said)]


def test_by_hand():
    found = counted([*answers("a", "7787"), *answers("b", "88?7"), *answers("c", "!9??")])
    assert found.samples == 4
    assert found.accuracy.mean == pytest.approx((3 / 4 + 1 / 4 + 0) / 3)
    assert found.passes.keys() == {1, 2, 4}
    assert found.passes[1] == found.accuracy
    assert found.passes[2].mean == pytest.approx((1 + (1 - 3 / 6) + 0) / 3)
    assert found.passes[4].mean == pytest.approx(2 / 3)
    assert found.majority.mean == pytest.approx(1 / 3)
    assert (found.unparsed, found.cut_off, found.timed_out) == (3 / 12, 0.0, 1 / 12)
    assert found.perception_errors is None
    assert found.accuracy.n == 3
    assert as_json(found)["passes"]["2"]["mean"] == found.passes[2].mean


def test_pass_at_k_is_not_whether_one_of_the_first_k_is_right():
    """Its mean over all orders of the answers is; from one order it would depend on luck."""
    said = "7888"
    orders = [["7" in order[:2]] for order in itertools.permutations(said)]
    assert counted(answers("a", said)).passes[2].mean == pytest.approx(np.mean(orders))
    assert counted(answers("a", "8887")).passes == counted(answers("a", said)).passes


def test_the_commonest_answer():
    def most(said, **more):
        return majority(answers("a", said, **more))

    assert most("777889") == 1.0
    assert most("778888") == 0.0
    assert most("7788") == 0.5  # a tie is the chance of each
    assert most("778899") == pytest.approx(1 / 3)
    assert most("7?????") == 1.0  # what could not be read has no vote
    assert most("??") == 0.0
    assert most("!!7") == 0.0  # what took too long has one
    assert most("89") == 0.0


def test_answers_are_the_same_where_the_verifier_says_so():
    """1/2 and 0.5 are one answer with two votes; as they are spelled, 7 would have as many as either."""
    half = [record("a", at, "wrong", said) for at, said in enumerate(("1/2", "0.5", "0.50"))]
    assert majority([*half, *answers("a", "77")]) == 0.0
    seven = [record("a", at, "right", said) for at, said in enumerate(("7", "7.0", "\\frac{14}{2}"))]
    assert majority([*seven, *answers("a", "88")]) == 1.0
    for kind, one, other, same in (
        ("choice", "(b)", "B.", True),
        ("choice", "B", "C", False),
        ("word", "Red circle", "red  circle", True),
        ("word", "red circle", "blue circle", False),
        ("number", "1/2", "0.5", True),
        ("expression", "2x", "2 x", True),
        ("expression", "x+1", "x+2", False),
    ):
        assert same_answer(one, other, Gold("A" if kind == "choice" else "3", kind)) is same
    assert not same_answer("x" * 5000, "y" * 5000, Gold("3", "expression"))


def test_hostile_answers_end():
    deep = [record("a", at, "wrong", "(" * 3000 + str(at)) for at in range(40)]
    towers = [record("a", at, "wrong", f"9**9**9**9**{at}") for at in range(40)]
    assert majority([*deep, *towers, record("a", 90, "right", "7")]) in (0.0, pytest.approx(1 / 81))


def test_each_world_and_all():
    easy, hard = answers("a", "7777", "easy", error=None), answers("b", "8887", "hard", error="perception")
    more = answers("c", "7777", "easy", error=None)
    found = tables([*easy, *hard, *more])
    assert list(found) == ["easy", "hard", "overall"]
    assert found["easy"].accuracy.mean == 1.0
    assert found["overall"].accuracy.mean == pytest.approx(2.25 / 3) == accuracy([*easy, *hard, *more])
    assert macro([*easy, *hard, *more]).mean == pytest.approx((1 + 0.25) / 2)


def test_questions_with_fewer_answers_lower_k():
    found = counted([*answers("a", "7888"), *answers("b", "78")])
    assert (found.samples, set(found.passes)) == (2, {1, 2})


def test_errors_are_told_where_all_are_known():
    wrong = answers("a", "8", error="perception", false_facts=1)
    right = answers("b", "7", error=None, false_facts=0)
    assert errors([*wrong, *right])["perception"] == 0.5
    assert errors(answers("a", "8", error=None)) is None  # nobody knows the facts
    assert errors(answers("a", "7")) is None  # an older file
    assert counted([*wrong, *right]).perception_errors == 0.5


def test_nothing_comes_to_nothing():
    with pytest.raises(UserError, match="no questions"):
        counted([])
