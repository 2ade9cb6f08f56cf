"""Prompts read once and decoded by many siblings give what the reference sampler gives, for the whole family."""

import copy
import math
from collections import Counter

import pytest
import torch

from vergence import chance
from vergence.models.policy import Policy, load
from vergence.rollout import decode, siblings
from vergence.rollout.decode import Decode
from vergence.rollout.generate import Generate
from vergence.rollout.render import render, render_text
from vergence.rollout.sampler import Sampler
from vergence.scenes import embedded
from vergence.types import Asked, Original, UserError

HOW = {"temperature": 1.0, "max_tokens": 16}


def tiny(family: str, reader) -> Policy:
    """A Qwen-VL of random weights that reads with the seedling's reader, and is not indifferent between tokens."""
    import transformers

    ids = {"image_token_id": reader.image_id, "video_token_id": reader.banned[1]}
    tokens = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    ids |= {f"{name}_token_id": reader.tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}
    text = {"vocab_size": len(reader.tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3]}}
    text |= {"initializer_range": 0.2}
    if family == "Qwen2_5_VL":
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
        vision |= {"window_size": 32, "fullatt_block_indexes": [1]}
    else:
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 2}
    vision |= {"patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2}
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision, **ids)
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Policy(getattr(transformers, f"{family}ForConditionalGeneration")(config).eval(), reader)


@pytest.fixture(scope="module")
def seedling():
    return load("seedling")


@pytest.fixture(scope="module", params=["seedling", "Qwen2_5_VL", "Qwen2VL"])
def policy(request, seedling):
    """In float64, so that what is compared differs by the model's own steps through float32 alone."""
    made = seedling if request.param == "seedling" else tiny(request.param, seedling.reader)
    return Policy(copy.deepcopy(made.model).double(), made.reader)


@pytest.fixture(scope="module")
def asked(seedling):
    """Prompts with an image, two, three and none, of unlike lengths; unlike numbers of siblings, not all adjacent."""
    reader, scenes = seedling.reader, embedded.draw_many(embedded.TRAINED, "tune", 5)
    prompts = [
        render(reader, scenes[0], Original(), 0),
        render_text(reader, scenes[1].question, scenes[1].caption),
        reader.prompt(scenes[2].question, [scenes[2].images[0], scenes[0].images[0]]),
        reader.prompt("And now?", [scenes[3].images[0]] * 3),
        render(reader, scenes[4], Original(), 0),
    ]
    order = (0, 0, 1, 2, 2, 2, 3, 0, 4, 4, 0)
    return [Asked(prompts[which], chance.key("test", row)) for row, which in enumerate(order)]


def same(got, want, tolerance=1e-5):
    assert [one.tokens for one in got] == [one.tokens for one in want]
    assert [one.finish for one in got] == [one.finish for one in want]
    for one, other in zip(got, want, strict=True):
        assert one.logp == pytest.approx(other.logp, rel=tolerance / 10, abs=tolerance)
        assert one.entropy == pytest.approx(other.entropy, rel=tolerance / 10, abs=tolerance)


def is_generate_s(policy, asked, **how):
    same(Decode(policy)(asked, **HOW | how), Generate(policy)(asked, **HOW | how))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_tokens_log_probabilities_and_entropies_are_those_of_the_reference(policy, asked, temperature):
    assert isinstance(Decode(policy), Sampler)
    is_generate_s(policy, asked, temperature=temperature)
    is_generate_s(policy, asked[:2], temperature=temperature)  # no padding at all


def is_teacher_forcing_s(policy, asked):
    for one, sampled in zip(asked, Decode(policy)(asked, **HOW), strict=True):
        token_BT = torch.tensor([sampled.tokens])
        with torch.no_grad():
            logits_BTV = policy.logits([one.prompt], token_BT, torch.ones_like(token_BT, dtype=torch.bool))
        logp_TV = logits_BTV[0].log_softmax(-1)
        assert sampled.logp == pytest.approx(logp_TV.gather(-1, token_BT.mT)[:, 0].tolist(), abs=1e-5)
        assert sampled.entropy == pytest.approx(torch.special.entr(logp_TV.exp()).sum(-1).tolist(), abs=1e-5)


def test_logged_log_probabilities_are_those_of_teacher_forcing(policy, asked):
    is_teacher_forcing_s(policy, asked)


def test_after_another_call_nothing_of_it_is_left(policy, asked):
    """A model remembers positions of what it generated last: they must not be used here, nor changed."""
    want = Decode(policy)(asked, **HOW)
    Generate(policy)(asked[3:5], **HOW)
    left = policy.model.model.rope_deltas
    same(Decode(policy)(asked, **HOW), want, tolerance=0)
    assert policy.model.model.rope_deltas is left


def neither_cut_nor_company_matters(policy, asked):
    whole = Decode(policy)(asked, **HOW)
    for at_once in (1, 4):
        same(Decode(policy, at_once=at_once)(asked, **HOW), whole)
    for row in (2, 6):
        same(Decode(policy)(asked[row : row + 1], **HOW), whole[row : row + 1])
    same(Decode(policy)(asked[::-1], **HOW), whole[::-1])


def test_neither_cut_nor_company_matters(policy, asked):
    neither_cut_nor_company_matters(policy, asked)


def test_rows_that_ended_are_dropped_and_room_grows(seedling, asked, monkeypatch):
    kept, keep = [], siblings.Siblings.keep
    monkeypatch.setattr(siblings.Siblings, "keep", lambda *given: kept.append(len(given[1])) or keep(*given))
    how = {"temperature": 1.0, "max_tokens": 64}
    want = Generate(seedling)(asked, **how)
    assert len({len(one.tokens) for one in want}) > 3
    same(Decode(seedling)(asked, **how), want)
    assert kept == sorted(set(kept), reverse=True)
    assert kept[0] > kept[-1]
    assert kept[-1] < 4
    monkeypatch.setattr(decode, "ROOM", 3)
    same(Decode(seedling)(asked, **how), want)
    monkeypatch.setattr(decode, "WORTH", 0)  # none is dropped but where room grows
    same(Decode(seedling)(asked, **how), want)


def test_length_and_stop_are_told_apart(seedling, asked):
    short = Decode(seedling)(asked, temperature=1.0, max_tokens=3)
    assert {(one.finish, len(one.tokens)) for one in short} == {("length", 3)}
    long = Decode(seedling)(asked, temperature=1.0, max_tokens=64)
    eos = seedling.reader.eos_id
    assert all((one.tokens[-1] == eos) == (one.finish == "stop") and eos not in one.tokens[:-1] for one in long)
    assert any(one.finish == "stop" for one in long)


# ---------------------------------------------------------------------------------------------------- distribution


def surprise(count: Counter, p: list[float]) -> float:
    """How many standard deviations a chi-square is above its mean; tokens that are expected under 5 times are one."""
    number = count.total()
    common = [token for token, share in enumerate(p) if share * number >= 5]
    cells = [(count[token], number * p[token]) for token in common]
    rest = number - sum(seen for seen, _ in cells), number - sum(expected for _, expected in cells)
    cells += [rest] if rest[1] >= 5 else []
    chi2 = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    return (chi2 - (len(cells) - 1)) / math.sqrt(2 * (len(cells) - 1))


def test_frequencies_are_the_distribution(seedling, asked):
    """4000 first tokens of one prompt, against the exact distribution without the banned tokens."""
    prompt, banned = asked[0].prompt, list(seedling.reader.banned)
    flat = Policy(
        copy.deepcopy(seedling.model), seedling.reader
    )  # the seedling itself is nearly sure of its first word
    flat.model.lm_head.register_forward_hook(lambda *given: given[-1] / 4)
    with torch.no_grad():
        p_V = flat.logits([prompt], torch.zeros(1, 1).long(), torch.ones(1, 1).bool())[0, 0].double().softmax(-1)
    drawn = Decode(flat)([Asked(prompt, key) for key in range(4000)], temperature=1.0, max_tokens=1)
    count = Counter(one.tokens[0] for one in drawn)
    assert not any(count[token] for token in banned)
    p_V[banned] = 0
    p = (p_V / p_V.sum()).tolist()
    assert surprise(count, p) < 4
    assert surprise(count, p[1:] + p[:1]) > 4
    for one in drawn[:50]:
        assert one.entropy == pytest.approx(drawn[0].entropy, abs=1e-5)


def test_image_tokens_are_never_sampled_even_if_the_model_wants_them(seedling, asked):
    wants = Policy(copy.deepcopy(seedling.model), seedling.reader)
    image, video = seedling.reader.banned
    wish = torch.zeros(len(seedling.reader.tokenizer))
    wish[image], wish[video] = 60.0, 50.0
    wants.model.lm_head.register_forward_hook(lambda *given: given[-1] + wish)
    for temperature in (0.0, 1.0):
        drawn = Decode(wants)(asked, temperature=temperature, max_tokens=8)
        assert not {image, video} & {token for one in drawn for token in one.tokens}
        assert max(max(one.logp) for one in drawn) < -10  # raw: the banned ones have it all
        same(drawn, Generate(wants)(asked, temperature=temperature, max_tokens=8))


def test_a_token_that_cannot_come_leaves_the_entropy_a_number():
    drawn = decode.draw(torch.tensor([[0.0, -torch.inf, 0.0]]), torch.tensor([1]), 0, 1.0, [])
    assert drawn[2].tolist() == pytest.approx([math.log(2)])


# ---------------------------------------------------------------------------------------------------- once, and back


def test_the_tower_sees_each_image_once_and_the_language_model_each_prompt_once(policy, asked):
    seen = {"patches": 0, "passes": [], "tokens": 0}
    language, tower = policy.model.model.language_model, policy.model.model.visual

    def passed(_, args, kwargs):
        rows, length = kwargs["inputs_embeds"].shape[:2]
        seen["passes"].append(rows)
        seen["tokens"] += rows * length if length > 1 else 0

    hooks = [
        tower.register_forward_pre_hook(lambda _, args: seen.__setitem__("patches", seen["patches"] + len(args[0]))),
        language.register_forward_pre_hook(passed, with_kwargs=True),
    ]
    distinct = list({id(one.prompt): one.prompt for one in asked}.values())
    patches = sum(len(prompt.pixels) for prompt in distinct if prompt.pixels is not None)
    longest = max(len(prompt.tokens) for prompt in distinct)
    try:
        drawn = Decode(policy)(asked, **HOW)
        assert seen["patches"] == patches
        assert seen["tokens"] == len(distinct) * longest
        # then one token a row, of rows that have not ended and a few that have
        steps, alive = (
            seen["passes"][1:],
            [sum(len(one.tokens) > at for one in drawn) for at in range(1, HOW["max_tokens"])],
        )
        assert all(
            some <= rows <= max(some + len(asked) // 8, some * 8 / 7) for some, rows in zip(alive, steps, strict=False)
        )
        Decode(policy, at_once=2)(asked, **HOW)  # more siblings than that: still one pass through the prompt
        assert seen["patches"] == 2 * patches
    finally:
        for hook in hooks:
            hook.remove()


def test_the_model_is_left_as_it_was_even_after_an_error(seedling, asked, monkeypatch):
    mine = Policy(copy.deepcopy(seedling.model), seedling.reader)
    mine.model.train()
    mine.model.model.visual.eval()
    text, vision = mine.model.config.text_config, mine.model.config.vision_config
    before = [part.training for part in mine.model.modules()]
    during = []
    free = decode.draw

    def looked_at(*given):
        during.append((mine.model.training, text._attn_implementation, vision._attn_implementation))
        if len(during) == 3:
            raise KeyboardInterrupt
        return free(*given)

    monkeypatch.setattr(decode, "draw", looked_at)
    with pytest.raises(KeyboardInterrupt):
        Decode(mine)(asked, **HOW)
    assert during == [(False, decode.ATTENTION, "sdpa")] * 3
    assert (text._attn_implementation, vision._attn_implementation) == ("sdpa", "sdpa")
    assert [part.training for part in mine.model.modules()] == before
    monkeypatch.setattr(decode, "draw", free)
    same(Decode(mine)(asked, **HOW), Decode(seedling)(asked, **HOW), tolerance=0)
    mine.model(**mine.inputs([asked[0].prompt]), use_cache=False).logits.sum().backward()  # and can be trained


def test_what_cannot_be_shared_exactly_is_refused(policy):
    model = copy.deepcopy(policy.model)
    model.config.get_text_config().layer_types = ["full_attention", "sliding_attention", "full_attention"]
    with pytest.raises(UserError, match=r"sliding_attention layers.*take the sampler Generate"):
        Decode(Policy(model, policy.reader))


def test_what_only_training_minds_is_not_refused(seedling, asked):
    mine = Policy(copy.deepcopy(seedling.model), seedling.reader)
    mine.model.gradient_checkpointing_enable()
    for layer in mine.model.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    mine.model.config.text_config.attention_dropout = 0.5
    mine.model.train()
    same(Decode(mine)(asked, **HOW), Decode(seedling)(asked, **HOW), tolerance=0)


# ---------------------------------------------------------------------------------------------------- wrong variants

READ, DRAW, SLOTS = Decode._read, decode.draw, siblings.slots


def read_with(**wrong):
    def read(self, prompts):
        known = READ(self, prompts)
        return known._replace(**{name: change(getattr(known, name)) for name, change in wrong.items()})

    return read


def after_the_ban(logits_BV, key_B, position, temperature, banned):
    logits_BV = logits_BV.clone()
    logits_BV[:, [*banned, *range(0, logits_BV.shape[1], 2)]] = -torch.inf
    return DRAW(logits_BV, key_B, position, temperature, banned)


WRONG = {
    "positions start anew": (Decode, "_read", read_with(position_S=torch.zeros_like)),
    "positions skip one": (Decode, "_read", read_with(position_S=lambda first_S: first_S + 1)),
    "padding is attended to": (Decode, "_read", read_with(bias_S11P=lambda bias: None)),
    "prompts are mixed up": (
        Decode,
        "_read",
        read_with(layers=lambda layers: [(keys.roll(1, 0), values) for keys, values in layers]),
    ),
    "rows are mixed up": (siblings, "slots", lambda prompt_B: (SLOTS(prompt_B)[0].flip(0), SLOTS(prompt_B)[1])),
    "noise of the place": (
        decode,
        "draw",
        lambda logits, key_B, *more: DRAW(logits, torch.arange(len(key_B)), *more),
    ),
    "noise of no position": (decode, "draw", lambda logits, key_B, at, *more: DRAW(logits, key_B, 0, *more)),
    "logged after the ban": (decode, "draw", after_the_ban),
}


@pytest.fixture(scope="module")
def reference(seedling, asked):
    """The seedling in float64, and what the reference sampler lets it say; which a right one says too."""
    double = Policy(copy.deepcopy(seedling.model).double(), seedling.reader)
    want = Generate(double)(asked, **HOW)
    same(Decode(double)(asked, **HOW), want)
    return double, want


@pytest.mark.parametrize("wrong", WRONG)
def test_what_would_be_wrong_is_caught(reference, asked, monkeypatch, wrong):
    double, want = reference
    monkeypatch.setattr(*WRONG[wrong])
    with pytest.raises(AssertionError):
        same(Decode(double)(asked, **HOW), want)
    if wrong.startswith(("positions", "padding", "logged")):
        with pytest.raises(AssertionError):
            is_teacher_forcing_s(double, asked)
    if wrong in ("noise of the place", "padding is attended to"):
        with pytest.raises(AssertionError):
            neither_cut_nor_company_matters(double, asked)


def test_the_count_of_passes_catches_a_sampler_that_reads_again(policy, asked, monkeypatch):
    monkeypatch.setattr(decode, "batches", lambda prompts, at_once: iter([[row] for row in range(len(prompts))]))
    with pytest.raises(AssertionError):
        test_the_tower_sees_each_image_once_and_the_language_model_each_prompt_once(policy, asked)
