"""Looking without training: what it says of a token is what plain forward passes say; and how that is shown."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from vergence import views
from vergence.evaluate.looking import SHOWS, look, sentence, values_of, words_of
from vergence.models.policy import load
from vergence.objectives.terms import k3
from vergence.report.coloured import CIVIDIS, PUOR, Scale, coloured, highest, legend, scale_of
from vergence.rollout.render import render, render_text
from vergence.scenes.embedded import draw_many
from vergence.types import ORIGINAL, Blank, Gold, UserError

POLICY = load("seedling")
SCENES = draw_many(("digits", "bars"), "report", 4)
ANSWER = "<think>top row: 1 2 3. 1+2=3, 3+3=6.</think>\\boxed{6}"


@pytest.fixture(scope="module")
def looks():
    return look(POLICY, SCENES, samples=2)


def plain(prompt, tokens):
    """log p (T, V) of a response by one forward pass."""
    token_BT = torch.tensor([tokens])
    with torch.no_grad():
        return (
            POLICY.logits([prompt], token_BT, torch.ones_like(token_BT, dtype=torch.bool))[0].double().log_softmax(-1)
        )


def test_every_statistic_is_that_of_plain_forward_passes():
    (record,) = look(POLICY, SCENES[:1], response=ANSWER)
    tokens = POLICY.reader.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    p_TV = plain(render(POLICY.reader, SCENES[0], ORIGINAL, 0), tokens)
    at = torch.arange(len(tokens)), torch.tensor(tokens)
    for name, show in SHOWS.items():
        if show is None:
            prompt = render_text(POLICY.reader, SCENES[0].question)
        else:
            prompt = render(POLICY.reader, SCENES[0], show, record["view_key"][name])
        q_TV = plain(prompt, tokens)
        H, other = (-(one.exp() * one).sum(-1) for one in (p_TV, q_TV))
        want = {
            "entropy": H,
            f"kl {name}": (p_TV.exp() * (p_TV - q_TV)).sum(-1),
            f"k3 {name}": k3(p_TV[at][None], q_TV[at][None], limit=10.0)[0],
            f"log ratio {name}": p_TV[at] - q_TV[at],
            f"entropy gain {name}": other - H,
        }
        for key, value_T in want.items():
            got = torch.tensor(record["stats"][key], dtype=torch.float64)
            torch.testing.assert_close(got, value_T, rtol=2e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


def test_given_text_is_scored_as_it_is_and_judged():
    (record,) = look(POLICY, [replace(SCENES[0], gold=Gold("6", "integer"))], response=ANSWER)
    assert "".join(record["tokens"]) == record["response"] == ANSWER
    assert record["extracted"] == "6"
    assert record["status"] == "right"
    assert record["advantage"] is None
    assert sum(record["looks"]) == 3
    nobody = look(POLICY, [replace(SCENES[0], gold=Gold("", "word"), facts=())], response=ANSWER)[0]
    assert nobody["status"] is None
    assert nobody["reward"] is None
    assert nobody["looks"] is None


@pytest.mark.parametrize(("text", "said"), [("", "empty"), ("a <|image_pad|>", "image token")])
def test_what_cannot_be_a_response_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        look(POLICY, SCENES[:1], response=text)


def test_records_are_those_of_training(looks):
    assert [record["sibling"] for record in looks] == [0, 1] * 4
    for record in looks:
        assert record["views"] == ["image", *SHOWS]
        assert {len(values) for values in record["stats"].values()} == {len(record["tokens"])}
        assert record["status"] in ("right", "wrong", "unparsed")
    assert look(POLICY, SCENES[:1], samples=2, seed=1) != looks[:2]
    assert look(POLICY, SCENES[:1], samples=2) == looks[:2]


def test_a_view_can_be_drawn_again(looks):
    spec = views.choose(SHOWS["removed"], looks[0]["view_key"]["removed"], 0)
    shown = views.show(spec, SCENES[0].images[0], looks[0]["view_key"]["removed"], 0)
    again = POLICY.reader.prompt("?", [shown])
    made = render(POLICY.reader, SCENES[0], SHOWS["removed"], looks[0]["view_key"]["removed"])
    assert torch.equal(again.pixels, made.pixels)


def test_what_does_not_look_is_told_from_what_does():
    """A picture that is blank already: making it blank moves no word at all."""
    grey = replace(SCENES[0], images=(Image.new("RGB", (48, 48), (128, 128, 128)),))
    (record,) = look(POLICY, [grey], {"blank": Blank(128)}, response=ANSWER)
    assert max(record["stats"]["kl blank"]) < 1e-5
    assert sentence(record, "kl blank").startswith("No word")
    (seen,) = look(POLICY, SCENES[:1], {"blank": Blank(128)}, response=ANSWER)
    top = max(words_of(seen, "kl blank"), key=lambda word: word.value)
    assert top.text in "123"


def test_words_add_up_to_their_tokens(looks):
    for record in looks:
        for by in ("kl masked", "log ratio removed"):
            words = words_of(record, by)
            assert "".join(word.text for word in words) == "".join("".join(record["tokens"]).split())
            assert sum(word.value for word in words) == pytest.approx(sum(values_of(record, by)), abs=1e-9)


def test_the_sentence_names_the_fewest_words_that_have_half():
    record = {"tokens": ["a", " b", " c", " d"], "stats": {"kl masked": [3.0, 2.0, 4.0, 1.0]}}
    assert (
        sentence(record)
        == 'Of 4 words, 2 depend most on the picture: "c" (4.00), "a" (3.00); they have 70 % of all kl masked.'
    )
    many = {"tokens": [f" w{n}" for n in range(40)], "stats": {"kl masked": [1.0] * 40}}
    assert sentence(many).count('"') == 16
    with pytest.raises(UserError, match="take one of 'kl masked'"):
        sentence(record, "kl nothing")


def luminance(colour: str) -> float:
    return sum(weight * int(colour[at : at + 2], 16) for weight, at in ((0.299, 1), (0.587, 3), (0.114, 5)))


def test_the_ramp_rises_in_brightness_and_the_sign_has_two_sides():
    scale = Scale("kl masked", 0.0, 10.0)
    shown = [scale.colour(value) for value in (0.5, 2.0, 4.0, 6.0, 8.0, 10.0, 99.0)]
    assert shown[0] == ""
    bright = [luminance(colour) for colour in shown[1:]]
    assert bright == sorted(bright)
    assert shown[-1] == CIVIDIS[-1]
    signed = Scale("log ratio masked", -4.0, 4.0)
    assert [signed.colour(value) for value in (-4.0, -1.0, 0.0, 1.0, 4.0)] == [PUOR[0], PUOR[1], "", PUOR[2], PUOR[3]]


def test_a_scale_is_of_all_that_is_shown_and_rounding_is_no_sign():
    records = [{"tokens": list("ab"), "stats": {"kl v": values}} for values in ([-1e-9, 1.0], [2.0, 3.0])]
    assert scale_of(records, "kl v").low == 0.0
    assert 2.9 < scale_of(records, "kl v").high <= 3.0
    records[0]["stats"]["kl v"][0] = -2.0
    assert scale_of(records, "kl v").signed
    with pytest.raises(UserError, match="--by takes 'kl v'"):
        scale_of(records, "kl w")


def test_hostile_text_stays_text():
    tokens = ["\x1b[2J", "\u202eevil", "<script>", " [bold]7[/bold]", "\r\n", "é" * 9000]
    record = {"tokens": tokens, "stats": {"kl masked": [1.0, 2.0, 3.0, 4.0, None, 0.1]}, "looks": None}
    scale = scale_of([record], "kl masked")
    text = coloured(record, scale).plain
    assert not {"\x1b", "\u202e", "\r"} & set(text)
    assert "[bold]7[/bold]" in text
    assert "<script>" in text
    assert len(text) < 6500
    assert highest(record, "kl masked").startswith("[bold]7[/bold] 4.00, <script> 3.00")


def test_values_are_told_without_colour(looks):
    record = looks[0]
    scale = scale_of(looks, "kl masked")
    assert coloured(record, scale).plain == "".join(record["tokens"])
    assert legend(scale).plain.startswith("kl masked, nats:  0.00 ")
    assert f"{scale.high:.2f}" in legend(scale).plain
    best = max(record["stats"]["kl masked"])
    assert f"{best:.2f}" in highest(record, "kl masked").split(",")[0]
    marked = [span for span in coloured(record, scale).spans if "underline" in str(span.style)]
    assert len(marked) == sum(record["looks"])
    assert not math.isnan(scale.high)
