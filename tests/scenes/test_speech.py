"""Every wording of a fact is read back as the fact."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from vergence.scenes.canvas import COLOURS, SHAPES
from vergence.scenes.speech import OPENINGS, false_facts, read_facts, say_fact, say_line
from vergence.types import Fact

THINGS = st.one_of(
    st.sampled_from("0123456789"),
    st.builds("{} {}".format, st.sampled_from(tuple(COLOURS)), st.sampled_from(SHAPES)),
    st.just("empty"),
)
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
PLACES = st.builds("{} {}".format, st.sampled_from(ROWS), st.sampled_from(COLUMNS))
NAMED = st.sampled_from(("left angle", "right angle", "whole", "part", "width", "height", "red bar", "blue bar"))
FACTS = st.one_of(
    st.builds(Fact, PLACES, THINGS),
    st.builds(Fact, NAMED, st.integers(0, 200).map(str)),
    st.builds(Fact, st.just("figure"), st.sampled_from(("segment", "triangle", "rectangle"))),
)
DICE = st.integers(0, 2**32).map(Random)


@given(st.lists(FACTS, max_size=5), DICE, st.sampled_from(OPENINGS))
def test_facts_are_read_back(facts, die, opening):
    text = opening + "".join(f"{say_fact(fact, die)}. " for fact in facts)
    assert read_facts(text) == facts


@given(
    st.sampled_from([f"{name} row" for name in ROWS] + [f"{name} column" for name in COLUMNS]),
    st.lists(st.sampled_from("0123456789"), min_size=3, max_size=3) | st.lists(THINGS, min_size=3, max_size=3),
    DICE,
)
def test_lines_are_read_back(line, values, die):
    text = f"{say_line(line, values, die)}. So 3+8=11."
    name, kind = line.split()
    names = [f"{name} {column}" for column in COLUMNS] if kind == "row" else [f"{row} {name}" for row in ROWS]
    truth = [Fact(about, value) for about, value in zip(names, values, strict=True)]
    assert sorted(read_facts(text)) == sorted(truth)
    assert not false_facts(text, truth)


@given(st.lists(FACTS, min_size=1, max_size=4, unique_by=lambda fact: fact.about), DICE)
def test_a_false_fact_is_found(facts, die):
    wrong = facts[0]._replace(value="17")
    said = ". ".join(say_fact(fact, die) for fact in (wrong, *facts[1:]))
    assert false_facts(said, facts) == ([] if wrong == facts[0] else [wrong])
    assert wrong in false_facts(said, facts[1:])


@given(st.text() | st.text("top middle row column123center left backward:,.is ", max_size=300))
def test_garbage_is_read_without_complaint(text):
    read_facts(text)
