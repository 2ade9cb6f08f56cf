"""What a vLLM engine is asked, and what is believed of what it says: no engine is needed for that."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vergence.models.policy import load
from vergence.rollout.render import put
from vergence.rollout.vllm import open_vllm
from vergence.rollout.vllm_arguments import arguments, flags, refuse_missing
from vergence.rollout.vllm_request import (
    BIAS,
    Answer,
    Broken,
    Request,
    Said,
    Wanted,
    believed,
    folded,
    patience,
    pictures,
    refuse_temperature,
    requests,
    settings,
    unbanned,
)
from vergence.rollout.vllm_weights import tensors, write_model
from vergence.types import IMAGE, Asked, Prompt, UserError

POLICY = load("seedling")
READER = POLICY.reader
EOS, IMAGE_ID = READER.eos_id, READER.image_id
WANTED = Wanted(1.0, 8, "run-1", POLICY.model.config.text_config.vocab_size, processed=False)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


SHAPES = [((48, 48),), ((291, 117),), ((17, 200), (64, 32)), ((33, 35), (33, 35), (120, 61))]


# ------------------------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize("sizes", SHAPES)
def test_pictures_are_what_the_policy_sees(sizes):
    images = [noise(*size, seed) for seed, size in enumerate(sizes)]
    prompt = READER.prompt(put("How many?"), images)
    shown = pictures(prompt, READER.image_processor)
    assert [one.size for one in shown] == [READER.as_seen(image).size for image in images]
    again = READER.prompt(put("How many?"), shown, resize=False)
    assert again.tokens == prompt.tokens
    assert torch.equal(again.pixels, prompt.pixels)
    assert torch.equal(again.grid, prompt.grid)


def test_every_level_of_grey_comes_back():
    levels = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 3)))
    prompt = READER.prompt("?", [READER.as_seen(levels)], resize=False)
    assert np.array_equal(np.asarray(pictures(prompt, READER.image_processor)[0]), np.asarray(READER.as_seen(levels)))


def test_pixels_of_no_picture_are_refused():
    prompt = READER.prompt("?", [noise(48, 48)])
    for odd in (prompt.pixels + 0.001, prompt.pixels * 9):
        with pytest.raises(UserError, match="8 bits"):
            pictures(prompt._replace(pixels=odd), READER.image_processor)
    moving = prompt.pixels.clone()
    moving.view(len(moving), 3, READER.image_processor.temporal_patch_size, -1)[:, :, 1] *= -1
    with pytest.raises(UserError, match="8 bits"):
        pictures(prompt._replace(pixels=moving), READER.image_processor)


@pytest.mark.parametrize("sizes", SHAPES)
def test_an_image_is_one_token_for_the_engine(sizes):
    prompt = READER.prompt(put(f"Is {IMAGE * len(sizes)} it?"), [noise(*size) for size in sizes])  # side by side
    tokens = folded(prompt, image_id=IMAGE_ID, merge=READER.image_processor.merge_size)
    assert tokens.count(IMAGE_ID) == len(sizes)
    per_image = iter((prompt.grid.prod(-1) // READER.image_processor.merge_size**2).tolist())
    spread = [one for token in tokens for one in ([token] * next(per_image) if token == IMAGE_ID else [token])]
    assert tuple(spread) == prompt.tokens


def test_text_is_left_as_it_is():
    prompt = READER.prompt("What is 2+3?", [])
    assert folded(prompt, image_id=IMAGE_ID, merge=2) == list(prompt.tokens)
    assert pictures(prompt, READER.image_processor) == []


def test_siblings_are_one_request_and_nobody_is_lost():
    first, second = Prompt((1, 2)), Prompt((1, 2))  # equal, but asked apart
    asked = [Asked([first, second][row % 2], 2**62 + row) for row in range(150)]
    wanted = requests(asked)
    assert [len(one.rows) for one in wanted] == [64, 11, 64, 11]
    assert sorted(row for one in wanted for row in one.rows) == [*range(150)]
    assert all(asked[row].prompt is one.prompt for one in wanted for row in one.rows)
    assert all(one.seed == asked[one.rows[0]].key % 2**31 and 0 <= one.seed < 2**31 for one in wanted)
    assert {len(one.rows) for one in requests(asked, together=1)} == {1}


def test_what_is_asked_of_the_sampling():
    request = Request((4, 5, 6), Prompt((1,)), seed=17)
    asked = settings(request, WANTED, READER)
    assert (asked["n"], asked["seed"], asked["logprobs"]) == (3, 17, 0)
    assert set(asked["logit_bias"]) == set(READER.banned)
    assert EOS not in asked["logit_bias"]
    assert (asked["ignore_eos"], asked["stop_token_ids"]) == (True, [EOS])
    assert "logprob_token_ids" not in asked
    also = settings(request, WANTED._replace(processed=True, temperature=0.7), READER)
    assert also["logprob_token_ids"][:2] == list(READER.banned)
    assert also["logprobs"] == len(also["logprob_token_ids"]) == 3  # vLLM refuses other numbers


def test_who_may_say_more_may_take_longer():
    assert patience(WANTED._replace(max_tokens=2**14)) > patience(WANTED) + 3000


@pytest.mark.parametrize(("temperature", "processed"), [(0.01, True), (5.0, True), (0.7, False), (1.5, False)])
def test_a_temperature_whose_log_probabilities_are_not_to_be_had_is_refused(temperature, processed):
    with pytest.raises(UserError, match="temperature"):
        refuse_temperature(temperature, processed=processed)


@pytest.mark.parametrize(
    ("temperature", "processed"), [(1.0, False), (0.0, False), (0.7, True), (1.0, True), (4.0, True)]
)
def test_other_temperatures_are_taken(temperature, processed):
    refuse_temperature(temperature, processed=processed)


# --------------------------------------------------------------------------------------------- what is believed


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("lift", [-5.0, 0.0, 6.0])
def test_the_ban_is_taken_out_again(temperature, lift):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50, generator=generator, dtype=torch.float64)
    banned = [4, 9]
    logits[banned] += lift
    before = (logits / temperature).log_softmax(-1)
    biased = logits.clone()
    biased[banned] += BIAS
    after = (biased / temperature).log_softmax(-1)
    for token in set(range(50)) - set(banned):
        told = unbanned(after[token].item(), [after[one].item() for one in banned], temperature)
        assert math.isclose(told, before[token].item(), abs_tol=1e-9)
    if lift > 0:  # leaving the ban in would be seen
        assert (after - before)[[0, 1, 2]].min() > 0.05


OWN = READER.prompt(put("How many?"), [noise(48, 48)])
A, B, C = READER.tokenizer("2+3")["input_ids"]


def said(**changed) -> Said:
    whole = {"tokens": [A, B, EOS], "logp": [-0.5, -1.0, -0.1], "banned_logp": [[], [], []]}
    return Said(**{**whole, "finish": "stop", "versions": ["run-1"], **changed})


def judged(*every: Said, prompt: tuple[int, ...] = OWN.tokens, wanted: Wanted = WANTED):
    return believed(Answer(list(prompt), every), Request(tuple(range(len(every))), OWN, 0), wanted, READER)


def test_an_answer_is_what_our_sampler_would_say():
    cut = said(tokens=[A] * 8, logp=[-0.25] * 8, finish="length", versions=["run-1", "run-1"])
    first, second = judged(said(), cut)
    assert (first.tokens, first.finish) == ((A, B, EOS), "stop")
    assert first.logp == (-0.5, -1.0, -0.1)
    assert first.entropy == (0.5, 1.0, 0.1)
    assert (second.tokens, second.finish) == ((A,) * 8, "length")
    assert judged(said(logp=[1e-7, -1.0, -0.1]))[0].logp[0] == 0.0  # rounding above certainty


def test_with_the_ban_in_them_log_probabilities_are_put_right():
    wanted = WANTED._replace(processed=True)
    (told,) = judged(said(logp=[0.0] * 3, banned_logp=[[BIAS, -500.0]] * 3), wanted=wanted)
    assert told.logp == pytest.approx([math.log(0.5)] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tokens": []}, "no tokens"),
        ({"tokens": [A, 10**6, EOS]}, "no tokens"),
        ({"tokens": [A, -1, EOS]}, "no tokens"),
        ({"tokens": [A, True, EOS]}, "no tokens"),
        ({"tokens": [A, IMAGE_ID, EOS]}, "a token of images"),
        ({"tokens": [A, EOS, EOS]}, "after its end"),
        ({"tokens": [EOS, A, B]}, "after its end"),
        ({"finish": "length"}, "its end is 'length'"),
        ({"finish": "abort"}, "its end is 'abort'"),
        ({"finish": None}, "its end is None"),
        ({"tokens": [A] * 9, "logp": [-1.0] * 9, "finish": "length"}, "more than 8"),
        ({"tokens": [A, B, C], "finish": "length"}, "max_model_len"),
        ({"logp": [-0.5, -1.0]}, "one log-probability a token"),
        ({"logp": [-0.5, math.nan, -0.1]}, "log-probability is none"),
        ({"logp": [-0.5, -math.inf, -0.1]}, "log-probability is none"),
        ({"logp": [-0.5, -9999.0, -0.1]}, "log-probability is none"),
        ({"logp": [-0.5, 0.5, -0.1]}, "log-probability is none"),
        ({"logp": [-0.5, None, -0.1]}, "log-probability is none"),
        ({"banned_logp": [[], [1e300], []]}, "a banned token's is none"),
        ({"finish": "x" * 10**6}, r"its end is 'x{39}\.\.\."),
    ],
)
def test_what_cannot_be_is_not_believed(changed, told):
    with pytest.raises(UserError, match=told):
        judged(said(), said(**changed))


@pytest.mark.parametrize("versions", [[], ["run-0"], ["run-0", "run-1"]])
def test_what_other_weights_said_is_not_taken(versions):
    with pytest.raises(Broken, match="should have"):
        judged(said(versions=versions))


@pytest.mark.parametrize("other", [OWN.tokens[:-1], (*OWN.tokens, IMAGE_ID), (), OWN.tokens[::-1]])
def test_a_prompt_read_otherwise_is_refused_with_the_counts(other):
    with pytest.raises(UserError, match=rf"prompt 1 as {len(other)} tokens \({other.count(IMAGE_ID)} of images\)"):
        judged(said(), prompt=other)


def test_responses_that_are_missing_are_noticed():
    with pytest.raises(UserError, match="1 responses to prompt 1, of which 2"):
        believed(Answer(OWN.tokens, [said()]), Request((0, 1), OWN, 0), WANTED, READER)


# --------------------------------------------------------------------------------------------------- the engine


def test_a_model_is_written_with_every_name_of_its_weights(tmp_path):
    write_model(POLICY, tmp_path, shard=200_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    read = {name: tensor for file in files for name, tensor in load_file(file).items()}
    own = POLICY.model.state_dict()
    assert read.keys() == own.keys()
    assert "lm_head.weight" in read  # the embedding's own tensor, under its other name
    assert all(torch.equal(read[name], tensor) for name, tensor in own.items())
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(POLICY.model).__name__]


def test_weights_are_given_as_they_are():
    assert all(tensor.data_ptr() == POLICY.model.state_dict()[name].data_ptr() for name, tensor in tensors(POLICY))


def test_weights_in_shares_are_refused_and_not_waited_for(monkeypatch):
    """One process alone could not put them together."""
    monkeypatch.setattr("vergence.rollout.vllm_weights.DTensor", torch.nn.Parameter)
    monkeypatch.setattr("vergence.rollout.vllm_weights.merged", lambda model, device: Shares())
    with pytest.raises(UserError, match="embed is shared out"):
        list(tensors(POLICY))


class Shares:
    def state_dict(self):
        return {"embed": torch.nn.Parameter(torch.zeros(2))}


def test_a_gpu_that_is_not_the_first_is_refused(monkeypatch):
    monkeypatch.setattr(type(POLICY), "device", torch.device("cuda", 1))
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
        open_vllm("vllm-server", POLICY)
    assert open_vllm("http://localhost:8000", POLICY).version == 0


def test_arguments_on_a_cpu(tmp_path):
    given = arguments(tmp_path, POLICY, memory=0.4, processed=False)
    assert given["dtype"] == "float32"
    assert given["mm_processor_kwargs"] == {"do_resize": False}
    assert "gpu_memory_utilization" not in given
    assert f"--model={tmp_path}" in flags(given)
    assert arguments(tmp_path, POLICY, memory=0.4, processed=True)["logprobs_mode"] == "processed_logprobs"


def test_without_vllm_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("vergence.rollout.vllm_arguments.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"vergence\[vllm\]"):
        refuse_missing()
    for name in ("vllm", "vllm-server"):
        with pytest.raises(UserError, match="not installed"):
            open_vllm(name, POLICY)
    assert open_vllm("http://localhost:8000", POLICY).version == 0  # a server elsewhere needs none here


@pytest.mark.parametrize("name", ["vlm", "localhost:8000", "http://me:secret@host:1", "ftp://host"])
def test_what_is_no_engine_is_refused_and_no_secret_is_shown(name):
    with pytest.raises(UserError) as refusal:
        open_vllm(name, POLICY)
    assert "secret" not in str(refusal.value)


def test_a_model_of_another_family_is_refused():
    import copy

    other = load("seedling")
    object.__setattr__(other, "model", copy.copy(other.model))
    other.model.config = copy.deepcopy(other.model.config)
    other.model.config.model_type = "llava"
    with pytest.raises(UserError, match="'llava'"):
        open_vllm("http://localhost:8000", other)
