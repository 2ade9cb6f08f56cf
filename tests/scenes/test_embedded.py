"""Laws of the embedded worlds. Gold is computed here a second time, from the question in words and the stated facts."""

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from vergence.chance import dice
from vergence.rewards.verify import verify
from vergence.scenes import embedded
from vergence.scenes.canvas import CELL, NOVEL_COLOUR, NOVEL_SHAPE, handwriting
from vergence.scenes.embedded import TRAINED, WORLDS, Drawn, draw, draw_many, of_key, say
from vergence.scenes.source import Embedded, open_source
from vergence.scenes.speech import false_facts, read_facts
from vergence.scenes.split import SPLITS, content_hash, refuse_overlap
from vergence.types import Scene, UserError

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
SOME = 60


@cache
def drawn(world: str) -> tuple[Drawn, ...]:
    return tuple(draw(world, "train", index, seed=5) for index in range(SOME))


@cache
def lone(world: str, split: str) -> tuple[Scene, ...]:
    """Scenes without partners and with empty pictures, which are quicker to draw: more of the worlds that have so few
    contents that splits would share some, if nothing kept them apart."""
    number = 300 if world in ("bars", "geometry") else 100
    unpainted = WORLDS[world]._replace(paint=lambda *_: Image.new("RGB", (1, 1)))
    with patch.dict(WORLDS, {world: unpainted}):
        return tuple(draw(world, split, index, seed=6, partner=False).scene for index in range(number))


def facts_of(scene: Scene) -> dict[str, str]:
    return {fact.about: fact.value for fact in scene.facts}


def line_of(question: str, facts: dict[str, str]) -> list[str]:
    """The cells of the row or column that a question names, forward."""
    name, kind = re.search(r"(\w+) (row|column)", question).groups()
    return [
        facts[f"{name} {other}" if kind == "row" else f"{other} {name}"]
        for other in (COLUMNS if kind == "row" else ROWS)
    ]


def answer_of(question: str, facts: dict[str, str]) -> str:
    """The right answer, from the words of the question and the facts alone."""
    if found := re.fullmatch(r"What is at the (\w+ \w+)\?", question):
        return facts[found[1]]
    if re.fullmatch(r"What is the sum of the \w+ (row|column)\?", question):
        return str(sum(int(value) for value in line_of(question, facts)))
    if found := re.fullmatch(r"How many shapes in the \w+ (?:row|column) are (\w+)\?", question):
        return str(sum(found[1] == value.split()[0] for value in line_of(question, facts)))
    if found := re.fullmatch(r"Which is more often in the \w+ (?:row|column), (\w+) or (\w+)\?", question):
        counts = [sum(value.endswith(shape) for value in line_of(question, facts)) for shape in found.groups()]
        return "same" if counts[0] == counts[1] else found[1 + (counts[1] > counts[0])]
    if found := re.fullmatch(r"What is the (\w+ bar) (plus|minus) the (\w+ bar)\?", question):
        first, second = int(facts[found[1]]), int(facts[found[3]])
        return str(first + second if found[2] == "plus" else first - second)
    assert question == "Find x."
    labels = {name: int(value) for name, value in facts.items() if name not in ("figure", "lines")}
    return str(
        {
            "segment": lambda: labels["whole"] - labels["part"],
            "triangle": lambda: 180 - labels["left angle"] - labels["right angle"],
            "rectangle": lambda: labels["width"] * labels["height"],
        }[facts["figure"]]()
    )


def needed_by(question: str, facts: dict[str, str]) -> set[str]:
    """The names of the facts that a question needs."""
    if question == "Find x.":
        return set(facts) - {"lines"}  # their colour is there to be seen, and of no use
    if " bar " in question:
        return set(re.findall(r"\w+ bar", question))
    if found := re.fullmatch(r"What is at the (\w+ \w+)\?", question):
        return {found[1]}
    where = re.search(r"(\w+) (?:row|column)", question)[1]
    return {name for name in facts if where in name.split()}


def law_partner_differs_in_one_needed_fact(scene: Scene, twin: Scene) -> None:
    facts, others = facts_of(scene), facts_of(twin)
    assert facts.keys() == others.keys()
    changed = [name for name in facts if facts[name] != others[name]]
    assert len(changed) == 1
    assert changed[0] in needed_by(scene.question, facts)
    assert scene.question == twin.question
    assert scene.gold.text != twin.gold.text
    assert twin.gold.text == answer_of(twin.question, others)


def law_partner_differs_near_the_fact(scene: Scene, twin: Scene) -> None:
    """Within its cell, its column of bars, or the place of one label."""
    facts, others = facts_of(scene), facts_of(twin)
    (about,) = (name for name in facts if facts[name] != others[name])
    before, after = (np.asarray(each.images[0]) for each in (scene, twin))
    rows, columns = np.nonzero((before != after).any(-1))
    assert len(rows)
    if about.split()[0] in ROWS:
        row, column = about.split()
        assert set(rows // CELL) == {ROWS.index(row)}
        assert set(columns // CELL) == {COLUMNS.index(column)}
    elif about.endswith(" bar"):
        assert set(columns // CELL) == {list(facts).index(about)}
    else:
        assert rows.max() - rows.min() < 7
        assert columns.max() - columns.min() < 12


@pytest.mark.parametrize("world", WORLDS)
class TestEveryWorld:
    """One law to a method, over some scenes of each kind."""

    def test_gold_follows_from_the_facts(self, world):
        for scene, _ in drawn(world):
            assert scene.gold.text == answer_of(scene.question, facts_of(scene))

    def test_a_key_gives_its_scene(self, world):
        for scene, _ in drawn(world)[:12]:
            again = of_key(scene.key)
            assert (again.key, again.question, again.gold) == (scene.key, scene.question, scene.gold)
            assert (again.facts, again.caption) == (scene.facts, scene.caption)
            assert [image.tobytes() for image in again.images] == [image.tobytes() for image in scene.images]

    def test_pictures_are_rgb_and_differ(self, world):
        scenes = [scene for scene, _ in drawn(world)]
        assert {(image.size, image.mode) for scene in scenes for image in scene.images} == {((48, 48), "RGB")}
        assert len({scene.images[0].tobytes() for scene in scenes}) == SOME

    def test_partner(self, world):
        for scene, _ in drawn(world):
            law_partner_differs_in_one_needed_fact(scene, scene.counterfactual)
            law_partner_differs_near_the_fact(scene, scene.counterfactual)

    def test_captions_are_true_and_enough(self, world):
        for scene, _ in drawn(world):
            stated = read_facts(scene.caption)
            assert not false_facts(scene.caption, scene.facts)
            assert needed_by(scene.question, facts_of(scene)) == {fact.about for fact in stated}

    def test_worked_responses_are_right(self, world):
        for number, each in enumerate(drawn(world)):
            for repeat in range(3):
                response = say(each, world, dice("say", number, repeat))
                verdict = verify(response, each.scene.gold)
                assert (verdict.status, verdict.format) == ("right", 1.0), response
                assert not false_facts(response, each.scene.facts), response
                stated = {fact.about for fact in read_facts(response)}
                assert stated == needed_by(each.scene.question, facts_of(each.scene))

    def test_misread_responses_are_wrong(self, world):
        for number, each in enumerate(drawn(world)):
            response = say(each, world, dice("misread", number), misread=True)
            verdict = verify(response, each.scene.gold)
            assert (verdict.status, verdict.format) == ("wrong", 1.0), response
            assert len(false_facts(response, each.scene.facts)) == 1, response

    def test_everything_visible_can_be_said_and_read_back(self, world):
        for scene, content in drawn(world):
            assert sorted(read_facts(WORLDS[world].survey(content) + ".")) == sorted(scene.facts)

    def test_a_tour_is_true(self, world):
        for number, (scene, content) in enumerate(drawn(world)):
            tour = WORLDS[world].tour(content, dice("tour", number)) + "."
            assert len(set(read_facts(tour))) >= 3
            assert not false_facts(tour, scene.facts)

    def test_cells_name_what_is_there(self, world):
        for scene, content in drawn(world):
            words = WORLDS[world].cells(content)
            assert len(words) == 9
            said = " ".join(" ".join(fact) for fact in scene.facts).split()
            assert all(word in said for cell in words for word in cell.split())


@pytest.mark.parametrize("world", WORLDS)
def test_no_two_splits_share_content(world):
    scenes = {split: lone(world, split) for split in SPLITS}
    contents = {split: {content_hash(scene) for scene in those} for split, those in scenes.items()}
    assert not contents["train"] & contents["tune"]
    assert not contents["train"] & contents["report"]
    assert not contents["tune"] & contents["report"]
    refuse_overlap(scenes["train"], scenes["report"])


def test_handwriting_is_disjoint():
    images = {
        split: [strokes.tobytes() for those in handwriting(split).values() for strokes in those] for split in SPLITS
    }
    assert sum(map(len, images.values())) == 1797
    for one, other in (("train", "tune"), ("train", "report"), ("tune", "report")):
        assert not set(images[one]) & set(images[other])
    assert all(len(those) >= 10 for split in SPLITS for those in handwriting(split).values())


def test_what_is_left_out_is_never_trained_on():
    for scene in (each.scene for world in TRAINED for each in drawn(world)):
        for each in (scene, scene.counterfactual):
            words = " ".join((each.question, each.gold.text, each.caption, *map(str, each.facts)))
            assert NOVEL_COLOUR not in words
            assert NOVEL_SHAPE not in words
    assert not {"mosaic", "novel"} & set(TRAINED)


def test_novel_questions_are_about_what_is_left_out():
    for scene, _ in drawn("novel"):
        needed = needed_by(scene.question, facts_of(scene))
        words = " ".join((scene.question, *(facts_of(scene)[about] for about in needed)))
        assert NOVEL_COLOUR in words or NOVEL_SHAPE in words


@pytest.mark.parametrize("world", WORLDS)
def test_guessing_is_poor(world):
    assert embedded.guess_accuracy(lone(world, "tune"))[world] < 0.40


def test_no_answer_of_a_question_is_commoner_than_half():
    answers: dict[str, Counter] = {}
    for world in WORLDS:
        for index in range(900):
            question, gold = WORLDS[world].pose(WORLDS[world].draft(dice("common", world, index)))
            answers.setdefault(re.sub(r"\b(" + "|".join(ROWS + COLUMNS) + r")\b", "some", question), Counter())[
                gold.text
            ] += 1
    for question, counted in answers.items():
        if counted.total() >= 100:
            assert counted.most_common(1)[0][1] / counted.total() < 0.5, question


# ---------------------------------------------------------------------------------------------- keys and sources


@pytest.mark.parametrize(
    "key",
    [
        "",
        "bars",
        "bars/tune/0",
        "bars/tune/0/x",
        "bars/nowhere/0/1",
        "pies/tune/0/1",
        "bars/tune/0/1/old",
        "a/b/c/d/e/f",
    ],
)
def test_other_keys_are_refused(key):
    with pytest.raises(UserError, match="is not the key of an embedded scene"):
        of_key(key)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"no world 'pies'; the embedded worlds are digits, .*mosaic"):
        draw("pies", "train", 0)
    with pytest.raises(UserError, match="no world 'pies'"):
        Embedded(("bars", "pies"))


def test_a_source_does_not_depend_on_how_it_is_cut():
    source = open_source("embedded", ["bars", "geometry", "digits"])
    whole = [scene.key for scene in source.train(0, 20, seed=3)]
    parts = [scene.key for start, number in ((0, 7), (7, 1), (8, 12)) for scene in source.train(start, number, seed=3)]
    assert whole == parts
    assert [scene.key for scene in source.held_out("tune", 4, seed=3)] == [
        f"{world}/tune/3/{index}" for world, index in (("bars", 0), ("geometry", 0), ("digits", 0), ("bars", 1))
    ]
    assert source.scene(whole[3]).question == source.train(3, 1, seed=3)[0].question


def test_seeds_and_positions_give_different_scenes():
    keys = [
        scene.images[0].tobytes()
        for seed in (0, 1)
        for start in (0, 8)
        for scene in draw_many(("digits", "bars"), "train", 8, start=start, seed=seed)
    ]
    assert len(set(keys)) == 32


# ---------------------------------------------------------------------------------------------- wrong variants


def test_laws_of_the_partner_fail_on_wrong_partners():
    for world in ("digits", "bars", "geometry"):
        scene, other = drawn(world)[0].scene, drawn(world)[1].scene
        with pytest.raises(AssertionError):
            law_partner_differs_in_one_needed_fact(scene, scene)
        with pytest.raises(AssertionError):
            law_partner_differs_in_one_needed_fact(scene, other)


def test_a_partner_that_is_drawn_anew_differs_everywhere():
    """Jitter keyed by the whole scene's name, not by the element's: what the law of nearness guards against."""
    scene, content = drawn("shapes")[0]
    changed = WORLDS["shapes"].change(content, dice("partner", scene.key))
    anew = replace(scene.counterfactual, images=(WORLDS["shapes"].paint(changed, "train", "another name"),))
    with pytest.raises(AssertionError):
        law_partner_differs_near_the_fact(scene, anew)
