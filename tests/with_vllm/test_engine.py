"""vLLM beside the trainer: it says what the trainer would say, of the weights of now, whatever happens to it."""

import os
import threading
import time

import pytest
import torch
from with_vllm.held import CLOSE, FAR, asked, gaps, moved, prompts, trainer

from vergence.models.adapters import adapt
from vergence.models.policy import load
from vergence.rollout import vllm_engine, vllm_request, vllm_weights
from vergence.rollout.vllm import SamplerDown, open_vllm
from vergence.types import Asked, UserError

HOW = {"temperature": 1.0, "max_tokens": 24}


class Held:
    """A policy and a sampler that follows it."""

    def __init__(self, **how):
        self.policy = load("seedling")
        self.sampler = open_vllm("vllm", self.policy, **how)
        self.sampler.follow(self.policy)


@pytest.fixture(scope="module")
def one():
    held = Held()
    yield held
    held.sampler.close()


@pytest.fixture
def held(one):
    """As if it were new."""
    one.policy.model.load_state_dict(load("seedling").model.state_dict())
    one.sampler.follow(one.policy)
    return one


# ------------------------------------------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize(("seed", "siblings", "length"), [(1, 8, 24), (2, 3, 1), (3, 5, 3), (4, 2, 64)])
def test_log_probabilities_are_the_trainers_before_and_after_a_push(held, seed, siblings, length):
    rows, how = asked(siblings, seed), {"temperature": 1.0, "max_tokens": length}
    drawn = held.sampler(rows, **how)
    assert max(gaps(held.policy, rows, drawn)) < CLOSE
    assert all(one.entropy == tuple(-logp for logp in one.logp) for one in drawn)
    for step in range(2):
        held.sampler.rest()
        moved(held.policy, 10 * seed + step)
        with pytest.raises(UserError, match="follow"):
            held.sampler(rows, **how)
        held.sampler.follow(held.policy)
        drawn = held.sampler(rows, **how)
        assert max(gaps(held.policy, rows, drawn)) < CLOSE
        if length > 1:  # a first token is the same for nearly any weights
            assert max(gaps(load("seedling"), rows, drawn)) > FAR  # other weights would be noticed


def test_each_single_weight_follows(held):
    """Whatever the trainer changes arrives: of the tower, of the merger, of the language model, one after another."""
    rows = asked(1)[1:2]
    for name, weight in held.policy.model.named_parameters():
        with torch.no_grad():
            weight.mul_(1.5).add_(0.02)
        held.sampler.follow(held.policy)
        assert max(gaps(held.policy, rows, held.sampler(rows, temperature=1.0, max_tokens=4))) < CLOSE, name


def test_without_a_push_the_old_weights_sample(held):
    rows = asked(2)
    moved(held.policy, 5)
    drawn = held.sampler(rows, **HOW)  # as when it samples ahead
    assert max(gaps(load("seedling"), rows, drawn)) < CLOSE
    assert max(gaps(held.policy, rows, drawn)) > FAR


def test_the_caches_have_to_be_reset(held, monkeypatch):
    """Else keys and values of the old weights are gone on from; or vLLM looks for what a new one has thrown away."""
    llm, reader, starts = held.sampler.engine._llm, held.policy.reader, []
    start = held.sampler.engine.start
    monkeypatch.setattr(held.sampler.engine, "start", lambda policy: starts.append(policy) or start(policy))
    words = asked(3, of=[reader.prompt("How much is two and three, and how much is that and four? " * 3, ())])
    assert len(words[0].prompt.tokens) > 64  # two blocks

    def follow_without(*caches):
        moved(held.policy, 6 + len(starts))
        with monkeypatch.context() as without:
            if "prefix" in caches:
                without.setattr(llm, "reset_prefix_cache", lambda: True)
            without.setattr(llm, "reset_mm_cache", lambda: None)
            without.setattr(llm.llm_engine, "reset_encoder_cache", lambda: None)
            held.sampler.follow(held.policy)

    held.sampler(words, **HOW)
    follow_without("prefix", "images")
    assert max(gaps(held.policy, words, held.sampler(words, **HOW))) > FAR
    held.sampler.follow(held.policy)
    assert max(gaps(held.policy, words, held.sampler(words, **HOW))) < CLOSE
    assert not starts
    rows = asked(3)
    held.sampler(rows, **HOW)
    follow_without("images")
    assert max(gaps(held.policy, rows, held.sampler(rows, **HOW))) < CLOSE
    assert len(starts) == 1  # the engine had died of it, and another one answered


def test_a_weight_with_two_names_has_to_come_under_both(held, monkeypatch):
    rows, whole = asked(2), vllm_weights.tensors
    moved(held.policy, 7)
    with monkeypatch.context() as once:
        once.setattr(
            vllm_engine, "tensors", lambda policy: (kept for kept in whole(policy) if "lm_head" not in kept[0])
        )
        held.sampler.follow(held.policy)
        assert max(gaps(held.policy, rows, held.sampler(rows, **HOW))) > FAR
    held.sampler.follow(held.policy)
    assert max(gaps(held.policy, rows, held.sampler(rows, **HOW))) < CLOSE


def test_adapters_are_merged():
    policy = adapt(load("seedling"), adapter="lora", rank=4, alpha=8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    sampler, rows = open_vllm("vllm", policy), asked(2)
    try:
        sampler.follow(policy)
        drawn = sampler(rows, **HOW)
        assert max(gaps(policy, rows, drawn)) < CLOSE
        assert max(gaps(load("seedling"), rows, drawn)) > FAR
        with torch.no_grad():
            for name, weight in policy.model.named_parameters():
                if "lora_B" in name:
                    weight.mul_(-1)
        sampler.follow(policy)
        assert max(gaps(policy, rows, sampler(rows, **HOW))) < CLOSE
    finally:
        sampler.close()


# ----------------------------------------------------------------------------------------------------- what is said


@torch.no_grad()
def tempted(policy):
    """A policy to which an image token is as likely as the end of the turn, which ends its answers, and one of a video
    as likely as a digit: the output layer's weights are the embedding."""
    embedding, reader = policy.model.get_input_embeddings().weight, policy.reader
    (digit,) = reader.tokenizer("2")["input_ids"]
    embedding[reader.image_id] = embedding[reader.eos_id]
    embedding[reader.banned[1]] = embedding[digit]
    return policy


@torch.no_grad()
def share_of_banned(policy, rows, drawn, temperature=1.0):
    """The most probability that the policy gives to the banned tokens."""
    shares = []
    for one, said in zip(rows, drawn, strict=True):
        token_BT = torch.tensor([said.tokens])
        logits = policy.logits([one.prompt], token_BT, torch.ones_like(token_BT, dtype=torch.bool))[0]
        shares.append((logits / temperature).softmax(-1)[:, list(policy.reader.banned)].sum(-1))
    return torch.cat(shares).max().item()


def test_image_tokens_are_never_sampled(held, monkeypatch):
    tempted(held.policy)
    held.sampler.follow(held.policy)
    rows = asked(16)
    drawn = held.sampler(rows, **HOW)  # one that is sampled is an error
    assert share_of_banned(held.policy, rows, drawn) > 0.3
    assert max(gaps(held.policy, rows, drawn)) < CLOSE  # of the distribution before the ban
    with monkeypatch.context() as unbanned:
        unbanned.setattr(vllm_request, "BIAS", 0.0)
        with pytest.raises(UserError, match="a token of images"):
            held.sampler(rows, **HOW)


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_at_other_temperatures_too(temperature):
    held = Held(temperature=temperature)
    try:
        tempted(held.policy)
        held.sampler.follow(held.policy)
        rows = asked(8)
        drawn = held.sampler(rows, temperature=temperature, max_tokens=24)
        assert share_of_banned(held.policy, rows, drawn, temperature) > 0.3
        assert max(gaps(held.policy, rows, drawn, temperature)) < CLOSE
        assert max(gaps(held.policy, rows, drawn)) > FAR  # they are not those of temperature 1
        assert max(gaps(held.policy, rows, held.sampler(rows, **HOW))) < CLOSE
    finally:
        held.sampler.close()


def test_the_likeliest_token(held):
    rows = asked(1)
    drawn = held.sampler(rows, temperature=0.0, max_tokens=12)
    assert max(gaps(held.policy, rows, drawn)) < CLOSE
    for one, said in zip(rows, drawn, strict=True):
        token_BT = torch.tensor([said.tokens])
        logits = held.policy.logits([one.prompt], token_BT, torch.ones_like(token_BT, dtype=torch.bool))[0]
        logits[:, list(held.policy.reader.banned)] = -torch.inf
        assert logits.argmax(-1).tolist() == list(said.tokens)


def test_the_noise_is_the_keys(held):
    rows = asked(6)
    drawn = held.sampler(rows, **HOW)
    assert held.sampler(rows, **HOW) == drawn
    other = held.sampler([one._replace(key=one.key + 10**6) for one in rows], **HOW)
    assert [one.tokens for one in other] != [one.tokens for one in drawn]
    (prompt, *_) = prompts()
    siblings = held.sampler([Asked(prompt, 3 + at) for at in range(8)], **HOW)
    assert len({one.tokens for one in siblings}) > 1


def test_frequencies_are_the_distribution(held):
    """First tokens of 1024 siblings, by a chi-square that a right sampler passes at this seed."""
    from scipy.stats import chisquare

    with torch.no_grad():  # less sure of itself
        held.policy.model.get_decoder().norm.weight.mul_(0.2)
    held.sampler.follow(held.policy)
    (prompt, *_) = prompts()
    rows = [Asked(prompt, 17 * at) for at in range(1024)]
    drawn = held.sampler(rows, temperature=1.0, max_tokens=1)
    token_11 = torch.tensor([drawn[0].tokens])
    logits = held.policy.logits([prompt], token_11, torch.ones_like(token_11, dtype=torch.bool))[0, 0].detach()
    share_V = logits.double().softmax(-1)
    enough = (share_V * 1024 > 5).nonzero().flatten().tolist()
    seen = torch.tensor([sum(one.tokens[0] == token for one in drawn) for token in enough])
    expected = share_V[enough] * seen.sum() / share_V[enough].sum()
    assert len(enough) > 3
    assert chisquare(seen, expected).pvalue > 1e-3


def test_an_image_is_looked_at_once_for_all_its_siblings(held):
    patches = []

    def watch(module, given, kwargs, out):
        patches.append((given[0] if given else next(iter(kwargs.values()))).shape[0])

    handle = held.sampler.engine._llm.apply_model(
        lambda model: model.visual.register_forward_hook(watch, with_kwargs=True)
    )
    (prompt, *_) = prompts()
    try:
        held.sampler([Asked(prompt, at) for at in range(16)], **HOW)
    finally:
        handle[0].remove()
    assert sum(patches) == len(prompt.pixels)


def test_a_prompt_that_is_read_otherwise_is_refused(held, monkeypatch):
    monkeypatch.setattr(vllm_engine, "folded", lambda prompt, **how: vllm_request.folded(prompt, **how)[:-1])
    with pytest.raises(UserError, match="its processor differs"):
        held.sampler(asked(1), **HOW)


# ---------------------------------------------------------------------------------------------------- what may happen


def breaking(monkeypatch, sampler, after, times=1):
    """The engine raises in its step after so many steps, so many times; what was asked of it is kept."""
    calls, counted, left = [], [0], [times]
    whole_ask, whole_engine = sampler.engine.ask, vllm_engine.engine

    def ask(requests, wanted):
        calls.append(list(requests))
        return whole_ask(requests, wanted)

    def break_step(llm):
        step = llm.llm_engine.step

        def broken():
            counted[0] += 1
            if left[0] and counted[0] > after:
                left[0], counted[0] = left[0] - 1, 0
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return step()

        monkeypatch.setattr(llm.llm_engine, "step", broken)
        return llm

    monkeypatch.setattr(sampler.engine, "ask", ask)
    monkeypatch.setattr(vllm_engine, "engine", lambda *a, **how: break_step(whole_engine(*a, **how)))
    break_step(sampler.engine._llm)
    return calls


def test_an_engine_that_raises_is_started_again_for_what_is_unfinished(held, monkeypatch):
    short = prompts()[3]
    moved(held.policy, 8)
    held.sampler.follow(held.policy)
    rows = [Asked(short, 3), *asked(4, of=prompts()[:3])]
    calls = breaking(monkeypatch, held.sampler, after=30)
    how = {"temperature": 1.0, "max_tokens": 60}
    drawn = held.sampler(rows, **how)
    assert len(calls) == 2
    finished = len(calls[0]) - len(calls[1])
    assert 0 < len(calls[1]) < len(calls[0]), f"{finished} of {len(calls[0])} were finished when it died"
    assert max(gaps(held.policy, rows, drawn)) < CLOSE  # with the pushed weights, not those that it was made with


def test_an_engine_that_always_raises_is_given_up(monkeypatch):
    held = Held()
    monkeypatch.setattr("vergence.rollout.vllm.RESTARTS", 1)
    try:
        breaking(monkeypatch, held.sampler, after=0, times=99)
        with pytest.raises(SamplerDown, match="illegal memory access"):
            held.sampler(asked(1), **HOW)
    finally:
        held.sampler.close()
    assert not torch.distributed.is_initialized()


def test_an_engine_that_dies_while_the_policy_trains_on_is_given_up(monkeypatch):
    held = Held()
    monkeypatch.setattr("vergence.rollout.vllm.RESTARTS", 1)
    try:
        moved(held.policy, 9)  # sampling ahead: the weights of the last push are no longer there
        breaking(monkeypatch, held.sampler, after=0)
        with pytest.raises(SamplerDown, match="trained on"):
            held.sampler(asked(1), **HOW)
    finally:
        held.sampler.close()


def test_closing_ends_a_call_in_another_thread():
    held, raised, begun = Held(), [], threading.Event()
    step = held.sampler.engine._llm.llm_engine.step

    def slow():
        begun.set()
        time.sleep(0.2)
        return step()

    held.sampler.engine._llm.llm_engine.step = slow

    def call():
        try:
            held.sampler(asked(8), temperature=1.0, max_tokens=400)
        except UserError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(60)
    held.sampler.close()
    thread.join(60)
    assert [type(error) for error in raised] == [SamplerDown]


def test_it_leaves_training_as_it_was(held):
    """Gradients and the default type. (PyTorch's global generators are not left alone; nothing of ours reads them.)"""
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    rows = asked(1)[:1]
    (drawn,) = held.sampler(rows, **HOW)
    token_BT = torch.tensor([drawn.tokens])
    logp = held.policy.logits([rows[0].prompt], token_BT, torch.ones_like(token_BT, dtype=torch.bool)).log_softmax(-1)
    logp.gather(2, token_BT[..., None]).sum().backward()
    assert all(weight.grad is not None for weight in held.policy.model.parameters())
    held.policy.model.zero_grad()
    assert trainer(held.policy, rows[0], drawn).shape == (len(drawn.tokens),)
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
