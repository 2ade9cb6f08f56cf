"""The reference sampler: exact, repeatable, and nobody's noise depends on who else is in the batch."""

import math
from collections import Counter

import pytest
import torch

from vergence import chance
from vergence.models.policy import load
from vergence.rollout import generate
from vergence.rollout.generate import Generate, KeyedNoise
from vergence.rollout.render import render
from vergence.scenes import embedded
from vergence.types import Asked, Original


@pytest.fixture(scope="module")
def policy():
    return load("seedling")


@pytest.fixture(scope="module")
def asked(policy):
    scenes = embedded.draw_many(embedded.TRAINED, "tune", 4)
    prompts = [render(policy.reader, scene, Original(), 0) for scene in scenes]
    return [
        Asked(prompt, chance.key("test", row, sibling)) for row, prompt in enumerate(prompts) for sibling in range(2)
    ]


def the_cut_does_not_matter(policy, asked):
    whole = Generate(policy)(asked, temperature=1.0, max_tokens=24)
    cut = Generate(policy, at_once=3)(asked, temperature=1.0, max_tokens=24)
    assert [one.tokens for one in whole] == [one.tokens for one in cut]
    alone = Generate(policy)(asked[5:6], temperature=1.0, max_tokens=24)
    assert alone[0].tokens == whole[5].tokens


def test_the_same_key_gives_the_same_response_however_the_batch_is_cut(policy, asked):
    the_cut_does_not_matter(policy, asked)
    once, again = (Generate(policy)(asked, temperature=1.0, max_tokens=24) for _ in range(2))
    assert once == again


class NoiseByRow(KeyedNoise):
    """Wrong: noise belongs to a place in the batch."""

    def __init__(self, key_B, *more):
        super().__init__(torch.arange(len(key_B)), *more)


class LoggedAfterTheBan(KeyedNoise):
    """Wrong: logs the log-probability among the tokens that were left."""

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, [*self.banned, *range(0, scores.shape[-1], 2)]] = -torch.inf
        return super().__call__(input_ids, scores)


def test_the_laws_catch_wrong_samplers(policy, asked, monkeypatch):
    monkeypatch.setattr(generate, "KeyedNoise", NoiseByRow)
    with pytest.raises(AssertionError):
        the_cut_does_not_matter(policy, asked)
    monkeypatch.setattr(generate, "KeyedNoise", LoggedAfterTheBan)
    with pytest.raises(AssertionError):
        test_logged_log_probabilities_are_those_of_teacher_forcing(policy, asked)


def test_a_models_own_sampling_defaults_change_nothing(policy, asked):
    """Released Qwen-VL checkpoints come with a repetition penalty, which would make the logged probabilities untrue."""
    want = Generate(policy)(asked, temperature=1.0, max_tokens=24)
    own = policy.model.generation_config
    policy.model.generation_config = type(own)(**{**own.to_dict(), "repetition_penalty": 1.5, "top_k": 2})
    try:
        assert Generate(policy)(asked, temperature=1.0, max_tokens=24) == want
        assert policy.model.generation_config.repetition_penalty == 1.5
    finally:
        policy.model.generation_config = own


def test_siblings_differ(policy, asked):
    drawn = Generate(policy)(asked, temperature=1.0, max_tokens=24)
    assert len({one.tokens for one in drawn}) > len(drawn) // 2


def test_logged_log_probabilities_are_those_of_teacher_forcing(policy, asked):
    drawn = Generate(policy)(asked, temperature=1.0, max_tokens=24)
    for one, sampled in zip(asked, drawn, strict=True):
        token_BT = torch.tensor([sampled.tokens])
        with torch.no_grad():
            logits_BTV = policy.logits([one.prompt], token_BT, torch.ones_like(token_BT, dtype=torch.bool))
        logp_BTV = logits_BTV.log_softmax(-1)
        want = logp_BTV.gather(-1, token_BT[..., None])[0, :, 0]
        torch.testing.assert_close(torch.tensor(sampled.logp), want, atol=2e-4, rtol=0)
        entropy = torch.special.entr(logp_BTV.exp()).sum(-1)[0]
        torch.testing.assert_close(torch.tensor(sampled.entropy), entropy, atol=2e-3, rtol=0)


def test_greedy_is_generate_s_own_greedy(policy, asked):
    drawn = Generate(policy)(asked, temperature=0.0, max_tokens=24)
    inputs = policy.inputs([one.prompt for one in asked])
    out = policy.model.generate(
        **inputs, do_sample=False, max_new_tokens=24, suppress_tokens=list(policy.reader.banned)
    )[:, inputs["input_ids"].shape[1] :]
    for sampled, row in zip(drawn, out.tolist(), strict=True):
        assert list(sampled.tokens) == row[: len(sampled.tokens)]


def test_length_and_stop_are_told_apart(policy, asked):
    short = Generate(policy)(asked, temperature=1.0, max_tokens=3)
    assert {one.finish for one in short} == {"length"}
    long = Generate(policy)(asked, temperature=1.0, max_tokens=64)
    assert all(one.tokens[-1] == policy.reader.eos_id for one in long if one.finish == "stop")
    assert any(one.finish == "stop" for one in long)


def chosen(noise: KeyedNoise, logits_BV: torch.Tensor) -> list[int]:
    return noise(torch.zeros(len(logits_BV), 1, dtype=torch.long), logits_BV).argmax(-1).tolist()


def test_frequencies_are_the_distribution_and_banned_tokens_never_come():
    """20,000 draws from four tokens: within four standard errors of p, the banned one's share going to the others."""
    number, p = 20_000, torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits_BV = p.log().expand(number, 4)
    free = Counter(chosen(KeyedNoise(torch.arange(number), 1.0, []), logits_BV))
    for token, share in enumerate(p.tolist()):
        assert abs(free[token] / number - share) < 4 * math.sqrt(share * (1 - share) / number)
    noise = KeyedNoise(torch.arange(number), 1.0, [0])
    banned = Counter(chosen(noise, logits_BV))
    assert banned[0] == 0
    assert abs(banned[1] / number - 0.6) < 4 * math.sqrt(0.6 * 0.4 / number)
    assert {round(value, 4) for value in noise.logp[0].exp().tolist()} == {0.3, 0.15, 0.05}  # raw: before the ban


def test_positions_of_one_key_are_independent_draws():
    noise = KeyedNoise(torch.arange(4000), 1.0, [])
    flat = torch.zeros(4000, 2)
    first, second = chosen(noise, flat), chosen(noise, flat)
    agree = sum(a == b for a, b in zip(first, second, strict=True)) / 4000
    assert abs(agree - 0.5) < 4 * math.sqrt(0.25 / 4000)
