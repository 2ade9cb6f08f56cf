"""What follows from facts is what the worlds say follows; steps are read as they are meant."""

import time

import pytest

from vergence.chance import dice
from vergence.scenes import embedded
from vergence.scenes.follow import claimed, follow
from vergence.scenes.steps import read_steps
from vergence.types import Fact


@pytest.mark.parametrize("world", embedded.WORLDS)
def test_the_facts_of_a_scene_give_its_answer_and_name_what_is_needed(world):
    functions = embedded.WORLDS[world]
    for index in range(150):
        content = functions.draft(dice("follow", world, index))
        for shown in (content, functions.change(content, dice("changed", world, index))):
            question, gold = functions.pose(shown)
            everything, needed = functions.facts(shown)
            for facts in (everything, needed):
                found = follow(question, facts)
                assert found.answer == gold.text
                assert set(found.needs) == {fact.about for fact in needed}


@pytest.mark.parametrize("world", embedded.WORLDS)
def test_without_a_needed_fact_nothing_follows(world):
    functions = embedded.WORLDS[world]
    for index in range(20):
        content = functions.draft(dice("follow", world, index))
        question = functions.pose(content)[0]
        everything, needed = functions.facts(content)
        for left_out in needed:
            kept = [fact for fact in everything if fact.about != left_out.about]
            implied = left_out.about == "figure"  # its labels tell which figure it is
            assert (follow(question, kept).answer is None) != implied


def test_what_cannot_be_calculated_with_gives_nothing():
    row = [Fact("top left", "3"), Fact("top center", "empty"), Fact("top right", "1")]
    assert follow("What is the sum of the top row?", row).answer is None
    assert (
        follow("What is the red bar plus the blue bar?", [Fact("red bar", "x"), Fact("blue bar", "1")]).answer is None
    )
    assert follow("Find x.", [Fact("figure", "circle")]).answer is None
    assert follow("Find x.", []).answer is None


def test_no_other_question_is_read():
    for question in ("Find y.", "What is the sum of the fourth row?", "What is the red bar times the blue bar?", ""):
        assert follow(question, [Fact("red bar", "1"), Fact("blue bar", "1")]) is None


def test_the_later_statement_holds():
    assert claimed([Fact("red bar", "7"), Fact("red bar", "5")]) == {"red bar": "5"}


def test_every_step_that_the_worlds_write_is_right_and_ends_in_what_follows():
    for world, functions in embedded.WORLDS.items():
        for index in range(60):
            content = functions.draft(dice("steps", world, index))
            said, (question, gold) = functions.reason(content, dice("said", index)), functions.pose(content)
            steps = read_steps(said)
            assert bool(steps) == bool(said)
            assert all(step.right for step in steps)
            follows = follow(question, functions.facts(content)[0])
            assert all(follows.count(name) == step.value for step in steps for name in step.names if name != "x")
            if steps and len(follows.words) < 2:
                assert str(steps[-1].value) == gold.text


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("3+8=11", True),
        ("3 + 8 = 12", False),
        ("x=180-110=70", True),
        ("x=180-110=71", False),
        ("2+3*4=14", True),
        ("2+3*4=20", False),
        ("10\N{MINUS SIGN}3=7", True),
        ("3\N{MULTIPLICATION SIGN}4=12", True),
        ("60+50=*20=180", False),
        ("-2+5=3", True),
    ],
)
def test_steps_are_done_again(said, right):
    assert all(step.right for step in read_steps(said)) == right


def test_what_is_no_step_is_not_read():
    assert read_steps("x=y, the row is red. 3+8 3.5=4 <think>") == []


@pytest.mark.parametrize(
    "text", ["1+" * 500_000, "1=" * 500_000, "a=" * 500_000, "9" * 10**6, "\N{MINUS SIGN}=" * 10**5]
)
def test_reading_steps_of_hostile_text_takes_no_time(text):
    started = time.perf_counter()
    read_steps(text)
    assert time.perf_counter() - started < 1.0
