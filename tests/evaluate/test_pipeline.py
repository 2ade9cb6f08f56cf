"""Caption, tentative answer, joint prompt, reasoner: the records, and that a better reasoner answers better."""

import pytest
from PIL import Image

from vergence.evaluate.errors import error_of
from vergence.evaluate.pipeline import Answered, answer_by_reasoner, answer_one
from vergence.evaluate.suite import accuracy, answer, summary
from vergence.models.policy import load
from vergence.rewards.form import last_boxed
from vergence.rewards.judge import leaks
from vergence.rewards.reasoner import ReasonerDown, question
from vergence.rollout.reason import load_reasoner
from vergence.scenes import embedded
from vergence.scenes.speech import false_facts
from vergence.types import UserError


class Says:
    """A reasoner that says one thing, remembers what it was asked, and goes down after so many calls."""

    def __init__(self, line="<think>so</think>\\boxed{7}", calls=99):
        self.line, self.calls, self.asked = line, calls, []

    def __call__(self, asked, *, temperature, max_tokens):
        if self.calls == 0:
            raise ReasonerDown("nobody there")
        self.calls -= 1
        self.asked += asked
        return [self.line] * len(asked)


@pytest.fixture(scope="module")
def policy():
    return load("seedling")


@pytest.fixture(scope="module")
def scenes():
    return embedded.draw_many(embedded.TRAINED, "tune", 60)


@pytest.fixture(scope="module")
def by_strong(policy, scenes):
    return answer_by_reasoner(policy, load_reasoner("strong"), scenes, samples=2)


def test_strong_beats_weak_with_the_same_captions(policy, scenes, by_strong):
    by_weak = answer_by_reasoner(policy, load_reasoner("weak"), scenes, samples=2)
    assert [one["caption"] for one in by_weak] == [one["caption"] for one in by_strong]
    assert [one["tentative"] for one in by_weak] == [one["tentative"] for one in by_strong]
    assert accuracy(by_strong) > accuracy(by_weak) + 0.05


def test_records_are_the_suite_s_and_more(policy, scenes, by_strong):
    own = answer(policy, scenes[:2], samples=1, max_tokens=8)[0]
    assert own.keys() <= by_strong[0].keys()
    assert by_strong[0].keys() - own.keys() == {"caption", "tentative", "caption_leaks", "reasoner"}
    assert [(one["scene"], one["sample"]) for one in by_strong] == [(s.key, i) for s in scenes for i in range(2)]
    known = {scene.key: scene for scene in scenes}
    for one in by_strong:
        scene = known[one["scene"]]
        assert (one["world"], one["question"], one["gold"]) == (scene.world, scene.question, scene.gold.text)
        assert one["finish"] == "stop"
        assert one["extracted"] == last_boxed(one["response"])
        assert one["false_facts"] == len(false_facts(one["caption"], scene.facts))
        assert one["caption_leaks"] is leaks(one["caption"], scene)
        said = policy.reader.tokenizer(one["caption"] + one["tentative"], add_special_tokens=False)["input_ids"]
        assert abs(one["tokens"] - len(said) - 2) <= 2  # and the two that end them
        assert one["prompt"].count("Describe") == 1
        assert one["error"] == error_of(one["caption"] + "\n" + one["response"], one["status"], "stop", scene)
    assert set(summary(by_strong)) == {*embedded.TRAINED, "overall"}


def test_the_reasoner_is_right_where_the_caption_is(by_strong):
    true = [one for one in by_strong if one["false_facts"] == 0]
    assert accuracy(true) > 0.75
    assert len(true) > 20


def test_a_record_depends_on_its_scene_and_sample_alone(policy, scenes, by_strong):
    again = answer_by_reasoner(policy, load_reasoner("strong"), scenes[5:8], samples=2, at_once=5)
    assert again == by_strong[10:16]


def test_what_the_reasoner_is_asked(policy, scenes):
    reasoner = Says()
    records = answer_by_reasoner(policy, reasoner, scenes[:4], samples=1)
    assert [one.text for one in reasoner.asked] == [
        question(one["caption"], one["question"], last_boxed(one["tentative"]) or "") for one in records
    ]
    alone = Says()
    without = answer_by_reasoner(policy, alone, scenes[:4], samples=1, tentative=False)
    assert [one["caption"] for one in without] == [one["caption"] for one in records]
    assert {one["tentative"] for one in without} == {""}
    assert not any("Guess" in one.text for one in alone.asked)
    joint = Says()
    think = answer_by_reasoner(policy, joint, scenes[:2], samples=1, wording="think")
    assert all(one["tentative"].strip() in ask.text for one, ask in zip(think, joint.asked, strict=True))


def test_what_was_finished_is_kept_when_the_reasoner_goes_down(policy, scenes):
    kept, told = [], []
    with pytest.raises(ReasonerDown):
        answer_by_reasoner(
            policy,
            Says(calls=2),
            scenes[:6],
            samples=2,
            at_once=4,
            max_tokens=8,
            keep=kept.extend,
            told=lambda done, of: told.append((done, of)),
        )
    assert [(one["scene"], one["sample"]) for one in kept] == [(s.key, i) for s in scenes[:4] for i in range(2)]
    assert told == [(4, 12), (8, 12)]
    going_on = answer_by_reasoner(policy, Says(), scenes[:6], samples=2, at_once=4, max_tokens=8, done=kept)
    assert going_on == answer_by_reasoner(policy, Says(), scenes[:6], samples=2, at_once=4, max_tokens=8)
    assert going_on[:8] == kept


def test_an_answer_without_a_box_is_unparsed(policy, scenes):
    records = answer_by_reasoner(policy, Says("it is 7"), scenes[:2], samples=1, max_tokens=8)
    assert {(one["status"], one["extracted"]) for one in records} == {("unparsed", None)}


def test_one_question_about_an_image(policy, scenes):
    scene = scenes[0]
    got = answer_one(policy, load_reasoner("strong"), scene.images, scene.question, temperature=0.0)
    assert isinstance(got, Answered)
    assert got == answer_one(policy, load_reasoner("strong"), scene.images, scene.question, temperature=0.0)
    assert got.extracted == last_boxed(got.response)
    assert got.caption
    assert got.tentative
    assert answer_one(policy, Says(), [], "What is it?", tentative=False, max_tokens=8)[1:] == (
        "",
        "<think>so</think>\\boxed{7}",
        "7",
    )


def test_bad_input_is_told(policy, scenes):
    for bad in ({"samples": 0}, {"max_tokens": 0}, {"at_once": 0}, {"temperature": -1.0}):
        with pytest.raises(UserError, match=r"at least 1|0 or more"):
            answer_by_reasoner(policy, Says(), scenes[:1], **bad)
    with pytest.raises(UserError, match="question is empty"):
        answer_one(policy, Says(), [Image.new("RGB", (48, 48))], " ")
    with pytest.raises(UserError, match="gave 0 answers"):
        answer_one(policy, lambda asked, **_: [], [Image.new("RGB", (48, 48))], "What?", max_tokens=4)
    assert answer_by_reasoner(policy, Says(), []) == []
