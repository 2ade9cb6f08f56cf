"""An audit finds out what was planted, says nothing that it cannot know, and its numbers are what they say."""

import json
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from evaluate.planted import Planted, drawn

from vergence.audit import conditions as audit
from vergence.audit import findings, probes
from vergence.audit.altered import changed, in_words, swapped, with_facts, without_image
from vergence.audit.conditions import conditions, listen
from vergence.audit.findings import find, moves
from vergence.audit.probes import POSITIONS, claims, cut, preference, seen
from vergence.audit.reduction import reduction
from vergence.audit.shares import per_question, ratio
from vergence.audit.subject import Subject, of_policy
from vergence.audit.written import as_json, write
from vergence.chance import dice
from vergence.evaluate import suite
from vergence.evaluate.interval import Estimate
from vergence.models.policy import load
from vergence.scenes import embedded
from vergence.scenes.follow import follow
from vergence.types import Gold, Scene, UserError

SCENES = [drawn(f"{world}/tune/0/{index}").scene for index in range(6) for world in embedded.WORLDS]
HOW = {"samples": 2, "seed": 0, "temperature": 1.0, "max_tokens": 64, "wording": "short"}


@pytest.fixture(scope="module")
def policy():
    return load("seedling")


def from_caption(asked, *, temperature, max_tokens):
    """A reasoner that carries the question out on the caption, and says nothing where that is not enough."""
    from vergence.scenes.speech import read_facts

    answers = []
    for one in asked:
        question = next(scene.question for scene in SCENES if scene.question in one.text)
        found = follow(question, read_facts(one.text))
        answers.append(f"<think></think>\\boxed{{{found.answer}}}")
    return answers


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def heard(policy, monkeypatch_module):
    """Fault -> everything that a model with that fault was heard to say, asked as any policy is."""
    found = {}
    for name in ("jitter", "perspective", "rotate", "noise"):  # one view of five is enough here
        monkeypatch_module.delitem(audit.KEPT, name)
    for fault in ("ignores", "adds", "misreads", ""):
        planted = Planted(fault, policy.reader, SCENES)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(suite, "sampler_of", lambda policy, at_once=256, planted=planted: planted)
            subject = of_policy(policy, **HOW)._replace(prefer=planted.prefer)
            found[fault] = listen(subject, SCENES, reasoner=from_caption)
    return found


@pytest.mark.parametrize(
    ("fault", "verdict", "error"),
    [
        ("ignores", "does not look: ", "perception"),
        ("adds", "looks, calculates wrongly: 100%", "calculation"),
        ("misreads", "looks, misreads: 100%", "perception"),
        ("", "looks, and answers everything rightly", None),
    ],
)
def test_a_planted_model_is_recognised(heard, fault, verdict, error):
    assert find(heard[fault]).verdict.startswith(verdict)
    shown = ("image", "facts", "words", "swapped", "changed", "blur")  # all but nothing
    kinds = [record["error"] for name in shown for record in heard[fault].records[name]]
    assert len(kinds) >= 400
    wrong = [kind for kind in kinds if kind]
    assert wrong.count(error) >= 0.99 * len(wrong)


def measured(found, *names):
    return [found.measure(name).mean for name in names]


def test_the_numbers_of_one_who_sees_all(heard):
    found = find(heard[""])
    names = (
        "accuracy",
        "both of a pair",
        "follows another image",
        "moved by another image",
        "accuracy, facts for the image",
    )
    assert measured(found, *names) == [1.0] * 5
    names = ("keeps its own answer", "oracle gap", "shortcut", "under blur", "forgetting")
    assert measured(found, *names) == [0.0] * 5
    assert found.measure("blind gap").low > 0.5
    assert all(value.mean == 1.0 for _, value in found.probes)
    assert found.left_out == ()


def test_the_numbers_of_one_who_sees_nothing(heard):
    found = find(heard["ignores"])
    gaps = [one.name for one in found.measures if "gap" in one.name or one.name.startswith("under")]
    assert measured(found, *gaps) == [0.0] * len(gaps)
    moved = found.measure("moved by another image")
    assert moved.low <= 0.0 <= moved.high
    assert all(value.low <= 0.0 <= value.high for _, value in found.probes)
    assert found.measure("follows another image").mean < 0.3


def test_true_facts_in_words_mend_what_was_misread(heard):
    found = find(heard["misreads"])
    assert found.measure("accuracy").mean + found.measure("oracle gap").mean == pytest.approx(1.0)
    assert find(heard["adds"]).measure("oracle gap").mean == 0.0
    assert find(heard["misreads"]).measure("own caption suffices").mean < 0.7
    assert find(heard["adds"]).measure("own caption suffices").mean == 1.0


def test_one_who_misreads_always_is_known_to_look(policy, monkeypatch):
    scenes = SCENES[:24]
    planted = Planted("misreads", policy.reader, scenes, often=1.0)
    monkeypatch.setattr(audit, "KEPT", {})
    monkeypatch.setattr(suite, "sampler_of", lambda policy, at_once=256: planted)
    subject = of_policy(policy, **HOW | {"samples": 3})._replace(prefer=planted.prefer)
    heard = listen(subject, scenes)
    found = find(heard)
    assert found.measure("accuracy").mean < 0.1  # no better than blind
    assert found.verdict.startswith("looks, misreads")
    right_alone = tuple(one for one in found.measures if one.name != "moved by another image")
    assert not findings.verdict(found._replace(measures=right_alone)).startswith("looks")  # what accuracy alone says
    assert {"what": "shortcut", "why": "no reasoner was given to answer from captions"} in found.left_out


def test_the_verdict_needs_its_rules(heard):
    found = find(heard["adds"])
    wide = Estimate(0.0, -0.3, 0.3, 10)
    undecided = [
        one._replace(value=wide) if one.name in ("blind gap", "moved by another image") else one
        for one in found.measures
    ]
    assert findings.verdict(found._replace(measures=tuple(undecided))).startswith("cannot be told")
    unsorted = found._replace(errors=())
    assert findings.verdict(unsorted).startswith("looks, reasons wrongly: true facts in words would mend 0%")
    assert findings.verdict(find(heard["misreads"])._replace(errors=())).startswith("looks, misreads: true facts")
    even = tuple(one._replace(of_wrong=Estimate(0.4, 0.3, 0.5, 9)) for one in found.errors)
    assert findings.verdict(found._replace(errors=even)).startswith("looks; no kind of error is most")


def test_what_is_not_known_is_left_out_and_said():
    bare = [
        Scene(key=str(number), world="mine", images=scene.images, question=f"What is it? {number}", gold=scene.gold)
        for number, scene in enumerate(SCENES[:8])
    ]
    found = conditions(bare)
    assert [one.name for one in found.conditions][:4] == ["image", "blank", "none", "swapped"]
    assert {one["what"] for one in found.out} == {"facts", "words", "changed"}

    def says_five(scenes, show, told):
        five = {"response": "\\boxed{5}", "extracted": "5", "status": "wrong", "finish": "stop"}
        return [
            five | {"scene": one.key, "sample": sample, "gold": one.gold.text} for one in scenes for sample in (0, 1)
        ]

    told = find(listen(Subject(says_five, lambda scenes: list(scenes), lambda asked: []), bare))
    assert told.verdict.startswith("cannot be told") or told.verdict.startswith("does not look")
    assert told.errors == ()
    assert told.probes == ()
    assert {one["what"] for one in told.left_out} >= {"kinds of errors", "probes", "shortcut", "facts", "changed"}
    with pytest.raises(UserError, match="no questions"):
        listen(Subject(says_five, list, list), [])
    with pytest.raises(UserError, match="same key"):
        listen(Subject(says_five, list, list), [bare[0], bare[0]])


def test_altered_scenes_are_right_for_what_they_show():
    for scene in SCENES:
        twin, other = changed(scene), swapped(scene, SCENES)
        assert follow(scene.question, twin.facts).answer == twin.gold.text != scene.gold.text
        if other:
            assert follow(scene.question, other.facts).answer == other.gold.text != scene.gold.text
            assert other.images != scene.images
            assert any(other.images == one.images and other.facts == one.facts for one in SCENES)
        assert without_image(scene).images == in_words(scene).images == ()
        assert with_facts(scene).images == scene.images
        assert scene.caption in with_facts(scene).question
    assert sum(swapped(scene, SCENES) is not None for scene in SCENES) >= 24
    assert changed(replace(SCENES[0], key="elsewhere/1", counterfactual=None)) is None
    assert changed(replace(SCENES[0], counterfactual=None)).facts == changed(SCENES[0]).facts
    assert with_facts(Scene(key="a", world="w", images=(), question="?", gold=Gold("1", "integer"))) is None


def test_claims_are_new_to_the_answer_and_true_and_false():
    number = 0
    for scene in SCENES:
        response = embedded.say(drawn(scene.key), scene.world, dice("said", scene.key))
        for claim in claims(scene, response, SCENES):
            about, value = claim.true.strip().rstrip(".").split(": ")
            assert any((fact.about, fact.value) == (about, value) for fact in scene.facts)
            assert f"{about}:" not in response
            assert claim.false != claim.true
            assert claim.false.split(": ")[0] == claim.true.split(": ")[0]
            assert response.startswith(claim.before)
            number += 1
    assert number > 30 * len(POSITIONS)


def test_claims_are_fair_to_one_who_guesses():
    """Whoever prefers the likelier value, whatever is shown, prefers the true one half of the time."""
    scenes = embedded.draw_many(list(embedded.WORLDS), "tune", 150)
    asked = [claim for scene in scenes for claim in claims(scene, "", scenes)[:1]]
    liked = {"empty": 3.0, "7": 2.0}
    value = lambda text: liked.get(text.split(": ")[1].rstrip("."), len(text) / 100)  # noqa: E731
    scores = seen(asked, [value(claim.true) - value(claim.false) for claim in asked])[0.0]
    assert abs(fmean(scores.values())) < 0.16


def test_a_thought_is_cut_where_a_sentence_ends():
    thought = "<think>Let me look. top row: 3 8 1. So 3+8=11, 11+1=12."
    assert [cut(thought, position) for position in (0.0, 0.2, 0.45, 0.7, 1.0)] == [
        "<think>",
        "<think>",
        "<think>Let me look.",
        "<think>Let me look. top row: 3 8 1.",
        thought,
    ]
    assert cut("no end", 0.5) == ""


def test_a_preference_is_the_difference_of_log_probabilities(policy):
    """Against plain forward passes of one text at a time."""
    from vergence import chance
    from vergence.rollout.render import render
    from vergence.types import ORIGINAL

    asked = [
        claim for scene in SCENES[:3] for claim in claims(scene, "<think>I see this: 1. So 2.</think>", SCENES)[:3]
    ]
    expected = []
    for claim in asked:
        prompt = render(policy.reader, claim.scene, ORIGINAL, chance.key(0, "probe", claim.scene.key))
        logp = []
        for said in (claim.true, claim.false):
            tokens = policy.reader.tokenizer(claim.before + said, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                token_BT = torch.tensor([tokens])
                logits = policy.logits([prompt], token_BT, torch.ones_like(token_BT, dtype=torch.bool))[0].double()
            logp.append(sum(row.log_softmax(-1)[token].item() for row, token in zip(logits, tokens, strict=True)))
        expected.append(logp[0] - logp[1])
    assert preference(policy, asked, at_once=4) == pytest.approx(expected, abs=1e-4)


def test_how_far_answers_move_has_no_bias():
    """Two answers drawn from each of two distributions: the mean is half the squared distance of these."""
    one, other, draws = (0.7, 0.3), (0.2, 0.8), 1500

    def records(share, name):
        die = dice("moves", name)
        return [
            {"scene": str(scene), "sample": i, "extracted": "3" if die.random() < share else "4"}
            for scene in range(draws)
            for i in (0, 1)
        ]

    found = fmean(moves(records(one[0], "one"), records(other[0], "other")).values())
    assert found == pytest.approx(sum((p - q) ** 2 for p, q in zip(one, other, strict=True)) / 2, abs=0.05)
    assert fmean(moves(records(0.7, "a"), records(0.7, "b")).values()) == pytest.approx(0.0, abs=0.05)


def test_a_reduction_counts_as_papo_counts():
    """134 of 200 picked wrong answers, then 73 of the same: 30.5 points, 45.5 % fewer."""
    before = [
        {"scene": str(q), "sample": 0, "status": "wrong", "error": "perception" if q < 134 else "reasoning"}
        for q in range(200)
    ]
    after = [
        one | {"error": "perception"} if q < 73 else one | {"status": "right", "error": None}
        for q, one in enumerate(before)
    ]
    found = reduction(before, after)
    assert found.picked_before.mean == pytest.approx(0.67)
    assert found.picked_points.mean == pytest.approx(0.305)
    assert found.picked_fewer.mean == pytest.approx(61 / 134)
    assert found.points.mean == pytest.approx(0.305)
    assert found.fewer.mean == pytest.approx(61 / 134)
    assert found.picked_again is None  # there was but one answer to each
    with pytest.raises(UserError, match="no counterpart"):
        reduction(before, after[1:])
    with pytest.raises(UserError, match="not known"):
        reduction([before[0] | {"error": None}], after[:1])


def test_picking_wrong_answers_alone_makes_them_fewer():
    """A model against itself: its other answers to the questions it had wrong are wrong less often."""
    die = dice("again")
    one, again = (
        [
            {
                "scene": str(q),
                "sample": i,
                **(
                    {"status": "wrong", "error": "perception"}
                    if die.random() < 0.5
                    else {"status": "right", "error": None}
                ),
            }
            for q in range(200)
            for i in (0, 1)
        ]
        for _ in (0, 1)
    )
    found = reduction(one, again)
    assert found.points.low < 0 < found.points.high
    assert found.picked_points.mean > 0.4
    assert found.picked_after.mean == pytest.approx(found.picked_again.mean, abs=0.08)


def test_a_ratio_is_that_of_the_sums():
    part, whole = {"a": 0.5, "b": 0.5, "c": 0.0}, {"a": 1.0, "b": 0.5, "c": 0.0}
    found = ratio(part, whole)
    assert (found.mean, found.n) == (pytest.approx(2 / 3), 2)
    assert ratio({"a": -0.5, "b": 0.5}, {"a": 0.0, "b": 1.0}, least=-1.0).mean == 0.0
    assert ratio({"a": 0.0}, {"a": 0.0}) is None


def test_the_interval_of_a_ratio_covers():
    """Of 120 studies, 91 to 99 % of the intervals hold the true share."""
    die, hits = dice("coverage"), 0
    for _ in range(120):
        whole = {str(q): die.choice((0.0, 0.5, 1.0)) for q in range(60)}
        part = {q: sum(die.random() < 0.4 for _ in range(round(2 * value))) / 2 for q, value in whole.items()}
        found = ratio(part, whole)
        hits += found.low <= 0.4 <= found.high
    assert 0.91 <= hits / 120 <= 0.99


def test_what_is_written_can_be_read_again(heard, tmp_path):
    found = find(heard["adds"])
    told = as_json(found, None, model="planted", samples=2)
    where = write(tmp_path, heard["adds"], told)
    read = json.loads(where.read_text())
    assert where == tmp_path / "evaluation" / "audit.json"
    assert read == told
    assert {"name", "about", "mean", "low", "high", "n"} == set(read["measures"][0])
    assert [one["position"] for one in read["probes"]] == list(POSITIONS)
    lines = [json.loads(line) for line in (tmp_path / "audit" / "changed.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * len(SCENES)
    assert {line["scene"] for line in lines} == {scene.key for scene in SCENES}
    again = per_question(lines, lambda record: record["status"] == "right")
    image = per_question(heard["adds"].records["image"], lambda record: record["status"] == "right")
    assert found.measure("both of a pair").mean == pytest.approx(fmean(again[key] * image[key] for key in again))


def test_the_command_writes_into_a_folder(tmp_path, capsys):
    from vergence.cli import main

    main(
        ["audit", "seedling", "--number", "3", "--samples", "2", "--reasoner", "weak", "--out", str(tmp_path), "--json"]
    )
    told = json.loads(capsys.readouterr().out)
    assert told["questions"] == 3
    assert told["verdict"]
    assert json.loads((tmp_path / "evaluation" / "audit.json").read_text())["measures"] == told["measures"]
    assert (tmp_path / "audit" / "image.jsonl").is_file()


def test_probes_know_where_they_stand():
    assert probes.thinking("<think>a</think>b") == "<think>a"
    assert probes.thinking("so 3 \\boxed{3}") == "so 3"
