"""The policy in the package: real classes, small, and made again from its seed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vergence.evaluate.suite import accuracy, answer, perception_errors
from vergence.models.policy import SEEDLING, Policy, load
from vergence.models.seedling import build, build_reader
from vergence.rollout.generate import Generate
from vergence.rollout.render import render, render_text
from vergence.scenes import embedded
from vergence.scenes.canvas import NOVEL_COLOUR, NOVEL_SHAPE
from vergence.scenes.speech import false_facts, read_facts
from vergence.train.warm_start import CURRICULUM, WarmStart, corpus, examples, raise_seedling
from vergence.types import Asked, Blank, Original, UserError

MIXED = CURRICULUM[-1]
SHORT = WarmStart(
    vision_steps=3,
    vision_batch=16,
    batch=4,
    curriculum=(CURRICULUM[0]._replace(steps=3, examples=64), MIXED._replace(steps=3, examples=32)),
)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load("seedling")


def test_it_is_small_and_in_bfloat16():
    assert sum(path.stat().st_size for path in SEEDLING.iterdir()) < 4 * 2**20
    with safe_open(SEEDLING / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118


def test_hugging_face_loads_the_weights_and_the_tokenizer(policy):
    from transformers import AutoModelForImageTextToText, AutoTokenizer, Qwen3VLForConditionalGeneration

    model = AutoModelForImageTextToText.from_pretrained(SEEDLING)
    assert type(model) is Qwen3VLForConditionalGeneration
    assert model.config.text_config.head_dim >= 32
    assert AutoTokenizer.from_pretrained(SEEDLING)("red circle")["input_ids"]
    assert json.loads((SEEDLING / "video_preprocessor_config.json").read_text())["patch_size"] == 8


def test_the_tokenizer_is_made_again_byte_for_byte(policy, tmp_path):
    build_reader(corpus()).tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (SEEDLING / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    "text", ["top row: 3 8 1. Größe <think>£9</think>\\boxed{orange diamond}", "\n \t", "x=180-120=60"]
)
def test_any_text_goes_through_the_tokenizer_unharmed(policy, text):
    assert policy.reader.text(policy.reader.tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_every_word_is_one_token(policy):
    for word in ("red", NOVEL_COLOUR, NOVEL_SHAPE, "empty", "7"):
        assert len(policy.reader.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1


def digest(policy: Policy) -> str:
    state = policy.model.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


@pytest.mark.slow
def test_the_first_steps_are_the_same_bits_and_another_seed_is_another_seedling():
    first = digest(raise_seedling(SHORT))
    assert digest(raise_seedling(SHORT)) == first
    assert digest(raise_seedling(replace(SHORT, seed=1))) != first


def test_building_leaves_the_global_generator_alone(policy):
    before = torch.random.get_rng_state()
    build(policy.reader, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_is_left_out_of_training_is_left_out_of_the_warm_start(policy):
    shown = examples(policy.reader, MIXED._replace(examples=400), seed=0)
    text = " ".join(policy.reader.text(example.prompt.tokens + example.response) for example in shown)
    assert NOVEL_COLOUR not in text
    assert NOVEL_SHAPE not in text


# ------------------------------------------------------------------------------------------------------ four ways


def ask(policy: Policy, prompts: list, temperature: float = 0.0) -> list[str]:
    drawn = Generate(policy)(
        [Asked(prompt, row) for row, prompt in enumerate(prompts)], temperature=temperature, max_tokens=64
    )
    return [policy.reader.text(one.tokens) for one in drawn]


@pytest.fixture(scope="module")
def scenes():
    return embedded.draw_many(embedded.TRAINED, "tune", 80)


def test_from_the_image_it_thinks_then_boxes_and_is_right_about_half_the_time(policy, scenes):
    records = answer(policy, scenes, samples=2)
    right = accuracy(records)
    assert 0.30 < right < 0.60  # 0.35 to 0.55 on many questions; these are 80
    assert accuracy(answer(policy, scenes, samples=2, show=Blank())) < right - 0.15
    wrong = [record for record in records if record["status"] != "right"]
    assert perception_errors(wrong) > 0.5, "most of its errors are misreadings"


def test_asked_for_a_caption_it_describes_and_does_not_answer(policy, scenes):
    texts = ask(policy, [render(policy.reader, scene, Original(), 0, ask="caption") for scene in scenes])
    assert not any("\\boxed" in text for text in texts)
    assert sum(bool(read_facts(text)) for text in texts) > 0.9 * len(texts)
    true = sum(bool(read_facts(text)) and not false_facts(text, s.facts) for text, s in zip(texts, scenes, strict=True))
    assert true > 0.4 * len(texts)


def test_from_a_caption_it_answers_without_an_image(policy, scenes):
    texts = ask(policy, [render_text(policy.reader, scene.question, scene.caption) for scene in scenes])
    right = sum(f"\\boxed{{{scene.gold.text}}}" in text for text, scene in zip(texts, scenes, strict=True))
    assert right > 0.6 * len(texts)


def test_without_image_or_caption_it_guesses_and_says_so(policy, scenes):
    texts = ask(policy, [render_text(policy.reader, scene.question) for scene in scenes])
    assert sum("no picture" in text and "\\boxed" in text for text in texts) > 0.9 * len(texts)


# ------------------------------------------------------------------------------------------------------ bad input


def test_a_missing_or_foreign_model_is_told(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="holds a 'bert' model"):
        load(tmp_path)


def test_a_damaged_model_is_told(tmp_path):
    for path in SEEDLING.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(Path(SEEDLING / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot load the model"):
        load(tmp_path)


def test_weights_that_do_not_fit_their_config_are_told(tmp_path):
    for path in SEEDLING.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="are not those of its config"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot load the model"):
        load(tmp_path)


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(UserError, match="give --device cpu"):
        load("seedling", device="cuda:99")


def test_an_image_token_in_a_question_is_refused(policy):
    with pytest.raises(UserError, match=r"literal <\|image_pad\|>"):
        policy.reader.prompt("what is <|image_pad|>?", [])


@pytest.mark.slow
def test_the_seedling_raised_again_is_as_good(tmp_path):
    """Minutes: the whole warm start from its seed."""
    again = raise_seedling(WarmStart())
    scenes = embedded.draw_many(embedded.TRAINED, "tune", 200)
    assert 0.33 < accuracy(answer(again, scenes, samples=2)) < 0.57


def test_whoever_may_read_its_config_may_read_its_weights(policy, tmp_path):
    policy.save(tmp_path)
    modes = {path.stat().st_mode for path in tmp_path.iterdir() if path.is_file()}
    assert len(modes) == 1
