"""The truth about which tokens look, against counterfactual scenes; rules measured by hand; JS by its definition."""

import math
import re
from dataclasses import replace

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from vergence.audit import tokens
from vergence.audit.grounding import CELLS, black, cell_words, grounded
from vergence.audit.tokens import RULES, Truth, by_question, derived_spans, estimates, found_by, perception_tokens
from vergence.chance import dice
from vergence.models.policy import load
from vergence.scenes import embedded
from vergence.scenes.embedded import TRAINED, WORLDS, Drawn, draw, draw_many, say
from vergence.scenes.speech import value_spans
from vergence.scoring.divergence import js
from vergence.types import Fact, Gold, Scene, UserError

POLICY = load("seedling")
LN2 = math.log(2)


def parts_of(text: str) -> list[str]:
    """Words and signs, each apart, as no tokenizer would cut finer."""
    return re.findall(r"[a-z0-9]+|[A-Z][a-z]*|\s|[^\sA-Za-z0-9]", text)


def changed(before: list[str], after: list[str]) -> set[int]:
    """Which parts of the one text are not the other's; none are told apart where one has more parts ("empty" is one
    word, "red cross" are two)."""
    if len(before) != len(after):
        return set()
    return {at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other}


@pytest.mark.parametrize("world", [*TRAINED, "mosaic", "novel"])
def test_what_a_counterfactual_changes_are_the_tokens_that_look_and_what_follows_from_them(world):
    """The same response, its words drawn with the same dice, about the scene with one fact changed: it differs only in
    what the truth calls looking or derived; and whatever looks is changed by one counterfactual or another."""
    reached = wanted = 0
    for index in range(8):
        drawn = draw(world, "tune", index, partner=False)
        text = say(drawn, world, dice("say", index))
        pieces = parts_of(text)
        of, seen = tokens.truth(pieces), set()
        for other in range(30):
            content = WORLDS[world].change(drawn.content, dice("change", index, other))
            twin = Drawn(replace(drawn.scene, gold=WORLDS[world].pose(content)[1]), content)
            apart = changed(pieces, parts_of(say(twin, world, dice("say", index))))
            allowed = {at for at, (looks, derived) in enumerate(zip(*of, strict=True)) if looks or derived}
            signs = {at for at in apart if not pieces[at].strip(" ,")}  # "empty" for "red cross" has a blank less
            assert apart - signs <= allowed, (text, [pieces[at] for at in apart - allowed])
            seen |= apart
        looks = {at for at, one in enumerate(of.looks) if one}
        reached, wanted = reached + len(looks & seen), wanted + len(looks)
    # these counterfactuals also turn the answer: none changes the shape of a cell whose colour is counted, or the kind
    # of a figure; where every fact counts, every token that looks is reached
    assert reached >= (1.0 if world in ("digits", "bars", "mosaic") else 0.5) * wanted > 0


@pytest.mark.parametrize("world", TRAINED)
def test_the_partner_of_a_scene_says_its_facts_with_other_values_alone(world):
    """`Scene.counterfactual`, as evaluation has it: captions in the same words but for one fact's value."""
    told = 0
    for index in range(12):
        scene = draw(world, "tune", index).scene
        twin = scene.counterfactual
        differ = [(one, other) for one, other in zip(scene.facts, twin.facts, strict=True) if one != other]
        assert len(differ) == 1
        before, after = parts_of(scene.caption), parts_of(twin.caption)
        looks = {at for at, one in enumerate(tokens.truth(before).looks) if one}
        apart = changed(before, after)
        assert apart <= looks
        assert {before[at] for at in apart} <= set(differ[0][0].value.split())
        told += bool(apart)
    assert told >= 6


def test_what_is_derived():
    text = "<think>left angle: 40. right angle is 60. Now 60+40=100, x=180-100=80. red=2, blue=0.</think>\\boxed{80}"
    found = [text[start:end] for start, end in derived_spans(text)]
    assert found == ["60", "40", "100", "180", "100", "80", "2", "0", "80"]
    assert not set(value_spans(text)) & set(derived_spans(text))
    assert derived_spans("a-b, 3 4, top row: 1 2 3") == []
    assert derived_spans("1=" * 100_000 + "\\boxed{" * 10_000) is not None  # and in linear time


def test_how_a_rule_is_measured_by_hand():
    """Ranks: looks, wording, looks, derived, wording: AP = (1/1 + 2/3) / 2, and of 4 pairs 3 are in the right order."""
    score, of = [5.0, 4.0, 3.0, 2.0, 1.0], Truth([1, 0, 1, 0, 0], [0, 0, 0, 1, 0])
    found = found_by(score, [1, 1, 0, 1, 0], of)
    assert found == pytest.approx(
        {
            "AP": (1 + 2 / 3) / 2,
            "AUROC": 3 / 4,
            "precision": 1 / 2,
            "recall": 1 / 2,
            "precision at number": 1 / 2,
            "selected": 3 / 5,
            "derived": 1 / 3,
        }
    )
    negative = found_by(score, [1, 1, 0, 1, 0], of, derived="negative")
    assert negative["precision"] == pytest.approx(1 / 3)
    assert negative["AUROC"] == pytest.approx(5 / 6)
    assert found_by([3.0, 2.0, 1.0], [0] * 3, Truth([1, 0, 0], [0] * 3))["precision at number"] == 1.0
    nothing = found_by(score, [0] * 5, of)
    assert nothing["precision"] is None
    assert nothing["recall"] == 0
    assert found_by(score, [1] * 5, Truth([0] * 5, [0] * 5))["AP"] is None


@pytest.fixture(scope="module")
def measured():
    return perception_tokens(POLICY, draw_many(TRAINED, "report", 12), samples=2, at_once=12)


def test_the_records_hold_every_token_and_rule(measured):
    assert len(measured) >= 20
    for record in measured:
        T = len(record["tokens"])
        assert record["rules"].keys() == RULES.keys()
        assert len(record["looks"]) == len(record["derived"]) == T
        assert not any(one and other for one, other in zip(record["looks"], record["derived"], strict=True))
        for of in record["rules"].values():
            assert len(of["score"]) == len(of["selected"]) == T
        share = sum(record["rules"]["JS"]["selected"]) / T
        assert share == pytest.approx(math.ceil(0.4 * T) / T)
        assert all(0 <= value <= LN2 + 1e-5 for value in record["rules"]["JS"]["score"])


def test_rules_are_the_methods_own(measured):
    """VPPO's selection from its own function, and CPPO's, on what the records say of their scores."""
    from vergence.objectives.selecting import top_share

    for record in measured:
        score_BT = torch.tensor([record["rules"]["k3 (VPPO, PAPO)"]["score"]])
        want = top_share(score_BT, torch.ones_like(score_BT, dtype=torch.bool), 0.4)
        got = record["rules"]["k3 (VPPO, PAPO)"]["selected"]
        ties = len(set(score_BT[0].tolist())) < len(got)  # equals after rounding to four digits
        assert ties or got == want[0].int().tolist()
        rises = [score > 0 for score in record["rules"]["entropy shift, CPPO for AReaL"]["score"]]
        assert sum(record["rules"]["entropy shift, CPPO for AReaL"]["selected"]) == math.ceil(sum(rises) / 2)


def test_what_sees_finds_the_tokens_that_look_and_chance_does_not(measured):
    found = estimates(measured)
    assert found["full KL"]["AP"].low > found["random"]["AP"].high
    assert found["JS"]["AUROC"].mean > 0.85
    assert found["random"]["AUROC"].low < 0.5 < found["random"]["AUROC"].high
    assert found["random"]["selected"].mean == pytest.approx(0.42, abs=0.03)
    for rule in RULES:
        assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in found[rule].values())


def test_a_mean_is_over_responses_then_questions(measured):
    rule, measure = "random", "recall"
    values = by_question(measured, rule, measure)
    for scene, value in values.items():
        own = [record["rules"][rule]["found"][measure] for record in measured if record["scene"] == scene]
        assert value == pytest.approx(sum(own) / len(own))
    assert estimates(measured)[rule][measure].mean == pytest.approx(sum(values.values()) / len(values))


def test_cutting_into_batches_changes_nothing(measured):
    again = perception_tokens(POLICY, draw_many(TRAINED, "report", 2), samples=2, at_once=1)
    for one, other in zip(again, measured, strict=False):
        assert one["response"] == other["response"]
        assert one["rules"]["full KL"]["score"] == pytest.approx(other["rules"]["full KL"]["score"], abs=2e-3)
        assert one["rules"]["random"] == other["rules"]["random"]


def test_questions_of_which_nobody_knows_the_facts_are_refused():
    (scene,) = draw_many(("digits",), "report", 1)
    with pytest.raises(UserError, match="what is to be seen"):
        perception_tokens(POLICY, [replace(scene, facts=())])


def test_js_is_scipys_and_lies_between_0_and_log_2():
    logits = torch.randn(2, 40, 5, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6
    p_BTV, q_BTV = logits.log_softmax(-1)
    found_BT = js(p_BTV, q_BTV)
    want = torch.from_numpy(jensenshannon(p_BTV.exp().numpy(), q_BTV.exp().numpy(), axis=-1) ** 2)
    torch.testing.assert_close(found_BT, want, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found_BT, js(q_BTV, p_BTV), rtol=1e-12, atol=1e-15)
    assert (found_BT >= 0).all()
    assert (found_BT <= LN2).all()
    apart = torch.tensor([[[0.0, -800.0], [-800.0, 0.0]]], dtype=torch.float64).log_softmax(-1)
    assert js(apart, apart.flip(1))[0].tolist() == pytest.approx([LN2, LN2])
    assert js(p_BTV, p_BTV).abs().max() < 1e-15


def test_one_cell_is_black_and_no_other_pixel_changes():
    (scene,) = draw_many(("digits",), "report", 1)
    image = scene.images[0]
    covered = set()
    for cell in CELLS:
        shown = black(image, cell)
        pixels = {(x, y) for x in range(48) for y in range(48) if shown.getpixel((x, y)) != image.getpixel((x, y))}
        assert len(pixels) > 200
        assert all(shown.getpixel(pixel) == (0, 0, 0) for pixel in pixels)
        assert not covered & pixels
        covered |= pixels
    changed_cells = set()
    for n in range(8):  # a fact stands in its own cell, and in no other pixel
        drawn = embedded.draw("digits", "report", n, partner=False)
        content = WORLDS["digits"].change(drawn.content, dice(n))
        twin = WORLDS["digits"].paint(content, "report", drawn.scene.key)
        at = next(cell for cell, a, b in zip(CELLS, drawn.content.cells, content.cells, strict=True) if a != b)
        assert black(twin, at).tobytes() == black(drawn.scene.images[0], at).tobytes()
        changed_cells.add(at)
    assert changed_cells - {"top left", "middle center", "bottom right"}  # where rows and columns cannot be mixed up


def test_which_words_state_which_cell():
    text = "top row backward is empty, red cross, blue circle. left middle: 7."
    found = cell_words(parts_of(text))
    parts = parts_of(text)
    stated = {cell: [piece for piece, one in zip(parts, mask, strict=True) if one] for cell, mask in found.items()}
    assert stated == {
        "top right": ["empty"],
        "top center": ["red", "cross"],
        "top left": ["blue", "circle"],
        "middle left": ["7"],
    }
    assert cell_words(parts_of("top row: 1 2 3 4.")) is None


def test_the_seedling_is_grounded_and_what_is_no_grid_is_refused():
    found = grounded(POLICY, draw_many(("digits", "bars"), "report", 8))
    assert found["own"].mean > 10 * found["others"].mean
    assert found["most"].mean > 0.8
    assert found["own"].n == 4
    flat = Scene(key="x", world="x", images=(), question="?", gold=Gold("1", "integer"), facts=(Fact("red bar", "1"),))
    with pytest.raises(UserError, match="grid"):
        grounded(POLICY, [flat])
