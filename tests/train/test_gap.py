"""How far sampler and trainer are apart, what is logged of it, when a run stops for it, and what a correction makes of
it: against plain Python, by expectations that are taken over every outcome, and in real rounds."""

import math
import random
from dataclasses import replace

import pytest
import torch
from laws.cases import CASES, make
from train.follower import Follower, followed_by

import vergence.train.rounds as rounds
from vergence.guards.catalogue import raised
from vergence.objectives.terms import clip_fraction, surrogate
from vergence.train.ask import ask
from vergence.train.backend import ONE
from vergence.train.config import Config
from vergence.train.gap import GapTooWide, anchored, gap, importance, refuse_wide, weighed
from vergence.train.loop import train, update
from vergence.train.parts import assemble
from vergence.train.run import read_lines
from vergence.train.step import reshaped as reshaped_by
from vergence.types import UserError

TINY = Config(
    method="grpo", steps=2, scenes_per_batch=2, siblings=4, token_budget=800, max_tokens=24, watch_every=0, warmup=0
)
HUGE = 1e9


def drawn(rows=4, width=9, seed=0):
    """Log-probabilities of the trainer and of a sampler that is some way from it, and a ragged mask; float64."""
    chance = torch.Generator().manual_seed(seed)
    trainer_BT = -3 * torch.rand(rows, width, generator=chance, dtype=torch.float64)
    sampler_BT = trainer_BT + torch.randn(rows, width, generator=chance, dtype=torch.float64)
    mask_BT = torch.arange(width) < torch.randint(1, width + 1, (rows, 1), generator=chance)
    return trainer_BT, sampler_BT, mask_BT


def weight_by_hand(trainer, sampler, correction, cap):
    rho = math.exp(trainer - sampler)
    if correction == "truncate":
        return min(rho, cap)
    return rho if 1 / cap <= rho <= cap else 0.0


# ---------------------------------------------------------------------------------------------------- the functions


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cap", [1.0, 1.3, 2.0, 5.0])
@pytest.mark.parametrize("correction", ["truncate", "mask"])
def test_a_weight_is_what_is_computed_by_hand(correction, cap, seed):
    trainer_BT, sampler_BT, _ = drawn(seed=seed)
    weight_BT = importance(trainer_BT, sampler_BT, correction=correction, cap=cap)
    for row in range(4):
        for at in range(9):
            by_hand = weight_by_hand(trainer_BT[row, at].item(), sampler_BT[row, at].item(), correction, cap)
            assert weight_BT[row, at].item() == pytest.approx(by_hand, rel=1e-12)
    assert weight_BT.min() >= 0
    assert weight_BT.max() <= cap


@pytest.mark.parametrize("seed", range(3))
def test_what_is_logged_is_what_is_computed_by_hand(seed):
    trainer_BT, sampler_BT, mask_BT = drawn(seed=seed)
    trainer_BT[~mask_BT] = torch.nan
    d = [t - s for t, s in zip(trainer_BT[mask_BT].tolist(), sampler_BT[mask_BT].tolist(), strict=True)]
    by_hand = {
        "sampler/gap_mean": sum(map(abs, d)) / len(d),
        "sampler/gap_max": max(map(abs, d)),
        "sampler/kl": sum(math.exp(one) - one - 1 for one in d) / len(d),
        "sampler/ratio_mean": sum(map(math.exp, d)) / len(d),
        "sampler/ratio_outside": sum(math.exp(one) > 1.5 or math.exp(one) < 1 / 1.5 for one in d) / len(d),
        "sampler/gap_of_most": sum(map(abs, d)) / len(d) / 0.25,
    }
    seen = gap(trainer_BT, sampler_BT, mask_BT, cap=1.5, most=0.25)
    assert seen == pytest.approx(by_hand, rel=1e-12)
    assert list(gap(trainer_BT, sampler_BT, mask_BT, cap=1.5)) == list(by_hand)[:-1]


P, Q = [0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.1, 0.4]
"""Of the trainer and of the sampler, over four tokens."""


def test_the_kl_that_is_logged_is_of_the_sampler_to_the_trainer():
    """In the mean over what the sampler draws, exactly; and the mean ratio is 1."""
    p_BT, q_BT = (torch.tensor([one], dtype=torch.float64).log() for one in (P, Q))
    each = [gap(p_BT[:, at : at + 1], q_BT[:, at : at + 1], torch.ones(1, 1).bool(), cap=2.0) for at in range(4)]
    kl = sum(q * math.log(q / p) for p, q in zip(P, Q, strict=True))
    assert sum(q * one["sampler/kl"] for q, one in zip(Q, each, strict=True)) == pytest.approx(kl, rel=1e-12)
    assert sum(q * one["sampler/ratio_mean"] for q, one in zip(Q, each, strict=True)) == pytest.approx(1, rel=1e-12)
    assert kl != pytest.approx(sum(p * math.log(p / q) for p, q in zip(P, Q, strict=True)), rel=0.1)


def expected_gradient(weight_BT, logit_V, advantage_BT):
    """Of the surrogate at its first step, over all four tokens as the sampler draws them."""
    logit_V = logit_V.clone().requires_grad_()
    logp_BT = logit_V.log_softmax(-1)[None]
    value_BT = surrogate(logp_BT, logp_BT.detach(), advantage_BT * weight_BT, clip=(0.2, 0.2))
    (torch.tensor([Q], dtype=torch.float64) * value_BT).sum().backward()
    return logit_V.grad


@pytest.mark.parametrize(
    ("correction", "cap", "unbiased"),
    [("truncate", HUGE, True), ("mask", HUGE, True), ("truncate", 1.5, False), ("mask", 1.5, False)],
)
def test_without_a_bound_the_gradient_is_the_trainers_own(correction, cap, unbiased):
    """E_q [w grad] = E_p [grad], by going through every token; a bound makes it another. Uncorrected, it is another."""
    p_BT, q_BT = (torch.tensor([one], dtype=torch.float64).log() for one in (P, Q))
    advantage_BT = torch.tensor([[1.0, -0.5, 2.0, -1.0]], dtype=torch.float64)
    weight_BT = importance(p_BT, q_BT, correction=correction, cap=cap)
    found = expected_gradient(weight_BT, p_BT[0], advantage_BT)
    own = expected_gradient((p_BT - q_BT).exp(), p_BT[0], advantage_BT)
    by_hand = [
        -sum(P[token] * advantage_BT[0, token].item() * ((token == at) - P[at]) for token in range(4))
        for at in range(4)
    ]
    assert own.tolist() == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
    assert torch.allclose(found, own, rtol=1e-10, atol=1e-12) == unbiased
    assert not torch.allclose(expected_gradient(torch.ones_like(p_BT), p_BT[0], advantage_BT), own, atol=1e-2)


def test_a_simulation_says_the_same():
    """Means over 200000 draws of the sampler, within four standard errors; the uncorrected mean is far from it."""
    chance, worth = random.Random(0), [1.0, -0.5, 2.0, -1.0]
    tokens = chance.choices(range(4), Q, k=200_000)
    p_BT, q_BT = (torch.tensor([one], dtype=torch.float64).log() for one in (P, Q))
    weight = importance(p_BT, q_BT, correction="truncate", cap=HUGE)[0].tolist()
    each = torch.tensor([weight[token] * worth[token] for token in tokens], dtype=torch.float64)
    own = sum(p * one for p, one in zip(P, worth, strict=True))
    assert abs(each.mean().item() - own) < 4 * each.std().item() / len(tokens) ** 0.5
    assert abs(sum(worth[token] for token in tokens) / len(tokens) - own) > 0.3


# ----------------------------------------------------------------------------------- laws, over the whole catalogue


def reshaped(method, batch, frozen):
    """As a round does it, in one process."""
    return reshaped_by(method, batch, frozen, ONE)


def corrected(method, batch, frozen, trainer_BT, sampler_BT, correction="truncate", cap=2.0):
    """As a round does it: anchored, reshaped, weighed."""
    batch = reshaped(method, anchored(replace(batch, sampled_logp_BT=sampler_BT), trainer_BT), frozen)
    return weighed(batch, sampler_BT, correction=correction, cap=cap)


@pytest.mark.parametrize("name", CASES)
def test_without_a_gap_a_correction_changes_no_bit(name):
    case = make(CASES[name], seed=1)
    mask_BT, own_BT = case.batch.mask_BT, case.batch.sampled_logp_BT
    plain = reshaped(CASES[name], case.batch, case.frozen)
    for correction in ("truncate", "mask"):
        same = corrected(CASES[name], case.batch, case.frozen, own_BT, own_BT, correction)
        assert torch.equal(plain.advantage_B, same.advantage_B)
        assert torch.equal(plain.advantage_BT[mask_BT], same.advantage_BT[mask_BT])
        assert torch.equal(plain.sampled_logp_BT[mask_BT], same.sampled_logp_BT[mask_BT])


@pytest.mark.parametrize("name", CASES)
def test_a_correction_weighs_what_the_trainer_makes_of_it(name):
    """Advantages are reshaped by the trainer's own numbers, whatever the sampler said; then each is weighed. Signs stay
    where there is a weight, and so do gates and what is clipped."""
    case, method = make(CASES[name], seed=2), CASES[name]
    mask_BT, trainer_BT = case.batch.mask_BT, case.batch.sampled_logp_BT
    _, shift_BT, _ = drawn(*mask_BT.shape, seed=3)
    sampler_BT = trainer_BT + shift_BT.to(trainer_BT.dtype)
    own = reshaped(method, case.batch, case.frozen)
    for correction in ("truncate", "mask"):
        found = corrected(method, case.batch, case.frozen, trainer_BT, sampler_BT, correction)
        weight_BT = importance(trainer_BT, sampler_BT, correction=correction, cap=2.0)
        torch.testing.assert_close(found.advantage_BT[mask_BT], (own.advantage_BT * weight_BT)[mask_BT])
        assert torch.equal(found.advantage_B, own.advantage_B)
        assert torch.equal(found.sampled_logp_BT[mask_BT], own.sampled_logp_BT[mask_BT])
        kept_BT = mask_BT & (weight_BT > 0)
        assert torch.equal(found.advantage_BT[kept_BT].sign(), own.advantage_BT[kept_BT].sign())
        assert (weight_BT[mask_BT] != 1).any()
        moved_BT = trainer_BT + 0.5
        clipped = [
            clip_fraction(moved_BT, one.sampled_logp_BT, one.advantage_BT, clip=(0.2, 0.2)) for one in (found, own)
        ]
        assert torch.equal(clipped[0].high_BT[kept_BT], clipped[1].high_BT[kept_BT])


def test_the_order_matters():
    """The law above can fail: advantages reshaped by the sampler's numbers, or after being weighed, are others."""
    method = CASES["vppo-grpo"]
    case = make(method, seed=2)
    trainer_BT = case.batch.sampled_logp_BT
    sampler_BT = trainer_BT + drawn(*trainer_BT.shape, seed=3)[1].to(trainer_BT.dtype)
    right = corrected(method, case.batch, case.frozen, trainer_BT, sampler_BT)
    by_sampler = weighed(
        anchored(reshaped(method, replace(case.batch, sampled_logp_BT=sampler_BT), case.frozen), trainer_BT),
        sampler_BT,
        correction="truncate",
        cap=2.0,
    )
    before = weighed(anchored(case.batch, trainer_BT), sampler_BT, correction="truncate", cap=2.0)
    for wrong in (by_sampler, reshaped(method, before, case.frozen)):
        assert not torch.allclose(wrong.advantage_BT, right.advantage_BT)


def test_padding_has_no_part_in_it():
    """A NaN where there is no token reaches nothing."""
    case = make(CASES["grpo"], seed=4)
    mask_BT, trainer_BT = case.batch.mask_BT, case.batch.sampled_logp_BT
    holes_BT = trainer_BT.where(mask_BT, torch.nan)
    found = weighed(anchored(case.batch, trainer_BT), holes_BT, correction="truncate", cap=2.0)
    assert not mask_BT.all()
    assert found.advantage_BT.isfinite().all()


# -------------------------------------------------------------------------------------------------- in real rounds


@pytest.mark.parametrize("name", ["papo", "vppo"])
def test_our_own_sampler_has_no_gap(tmp_path, name):
    """The sampler decodes, the scorer reads, and they agree; here with every method's own frozen reads beside."""
    train(replace(TINY, method=name, most_gap=1e-4, steps=1), tmp_path / "run")
    (line,) = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert 0 < line["sampler/gap_mean"] <= 1e-5
    assert line["sampler/gap_max"] <= 1e-4
    assert abs(line["sampler/kl"]) < 1e-9
    assert line["sampler/ratio_outside"] == 0
    assert line["sampler/gap_of_most"] == pytest.approx(line["sampler/gap_mean"] / 1e-4)


def test_reading_the_gap_changes_no_other_number(tmp_path):
    for most_gap in (0.0, 0.1):
        train(replace(TINY, most_gap=most_gap, steps=1), tmp_path / f"{most_gap}")
    plain, seen = (list(read_lines(tmp_path / name / "metrics.jsonl")) for name in ("0.0", "0.1"))
    assert not any(name.startswith("sampler/") for line in plain for name in line)
    assert plain == [{name: one for name, one in line.items() if not name.startswith("sampler/")} for line in seen]


@pytest.mark.parametrize(("correction", "weight"), [("none", 1.0), ("truncate", math.exp(-0.3)), ("mask", 0.0)])
def test_a_round_of_a_sampler_that_is_off_is_weighed(tmp_path, monkeypatch, correction, weight):
    """Every log-probability of the sampler is 0.3 nats too high. The bound of the mask is 1.2, exp(-0.3) = 0.74."""
    followed_by(monkeypatch, off=0.3)
    config = replace(TINY, sampler="vllm", correction=correction, correction_cap=1.2, max_tokens=40)
    parts = assemble(config, tmp_path)
    parts.sampler.follow(parts.policy)
    asked = ask(parts, 0, 0)
    prompts = rounds.render_views(parts, [rollout.scene for rollout in asked.rollouts[::4]], 0, {})
    pending = rounds.freeze_round(parts, asked.rollouts, prompts)
    mask_BT, batch = pending.batch.mask_BT, pending.batch
    expected_BT = (batch.advantage_B[:, None] * weight).expand(mask_BT.shape)
    torch.testing.assert_close(batch.advantage_BT[mask_BT], expected_BT[mask_BT], rtol=1e-4, atol=1e-6)
    assert batch.advantage_B.abs().max() > 0
    seen = rounds.watched_gap(parts, asked.rollouts, pending)
    assert seen["sampler/gap_mean"] == pytest.approx(0.3, abs=1e-4)
    assert seen["sampler/ratio_mean"] == pytest.approx(math.exp(-0.3), abs=1e-4)
    metrics = update(parts, pending, prompts, 0)
    assert (metrics["clip_ratio/low"] > 0.1) == (correction == "none")  # the trainer's own ratio is 1 at the first step
    assert (metrics["grad_norm"] == pytest.approx(0.0, abs=1e-7)) == (correction == "mask")


def test_a_gap_that_is_too_wide_stops_the_run_and_keeps_it(tmp_path, monkeypatch):
    made = followed_by(monkeypatch, off=0.0)
    config = replace(TINY, sampler="vllm", steps=3, most_gap=0.05)
    takes, took = rounds.ask, []

    def off_in_the_third(parts, round_, position):
        made[-1].off = 0.2 if round_ == 2 and not took else 0.0
        took.extend([1] * (round_ == 2))
        return takes(parts, round_, position)

    monkeypatch.setattr(rounds, "ask", off_in_the_third)
    with pytest.raises(GapTooWide) as stopped:
        train(config, tmp_path / "run")
    told = str(stopped.value)
    for part in ("(vllm)", "by 0.2 nats", "most_gap=0.05", "other pixels", "precision", "cache", "--resume"):
        assert part in told, part
    assert "a batch older" not in told
    assert [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    assert (tmp_path / "run" / "checkpoints" / "step-000002").is_dir()
    assert made[0].closed == 1
    train(config, tmp_path / "run", resume=True)
    assert sum(1 for _ in read_lines(tmp_path / "run" / "metrics.jsonl")) == 3


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_log_probability_that_is_no_number_stops_the_run(broken):
    trainer_BT, sampler_BT, mask_BT = drawn()
    sampler_BT[0, 0] = broken
    with pytest.raises(GapTooWide, match=r"not finite.*Go back to a checkpoint"):
        refuse_wide(gap(trainer_BT, sampler_BT, mask_BT, cap=2.0), Config(sampler="vllm"), tokens=9)
    refuse_wide(gap(*drawn(), cap=2.0), Config(sampler="vllm"), tokens=9)  # without a bound, only that is refused


@pytest.mark.slow
def test_weights_that_did_not_arrive_are_told(tmp_path, monkeypatch):
    """The fault that the bound is for: an engine that keeps its first weights. It is right in the first round only."""
    monkeypatch.setattr(Follower, "follow", lambda self, policy: None)
    followed_by(monkeypatch)
    with pytest.raises(GapTooWide, match="they did not reach it"):
        train(replace(TINY, sampler="vllm", steps=6, lr=3e-3, most_gap=1e-3), tmp_path / "run")
    first, *_ = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert first["sampler/gap_mean"] < 1e-5


# --------------------------------------------------------------------------------------------------------- the guard


def log(means, most=0.0):
    """Lines of a log with these gaps."""
    share = (lambda mean: {"sampler/gap_of_most": mean / most}) if most else (lambda mean: {})
    return [{"step": step, "sampler/gap_mean": mean, **share(mean)} for step, mean in enumerate(means, 1)]


def test_the_guard_speaks_before_the_run_is_stopped():
    warned = raised(log([0.01] * 10 + [0.03, 0.06, 0.06, 0.09], most=0.1))
    assert [(one.step, one.name) for one in warned] == [(13, "sampler gap")]
    assert "60% of what most_gap allows" in warned[0].said
    assert raised(log([0.02] * 10 + [0.06, 0.03] * 4, most=0.1)) == []


def test_the_guard_tells_a_gap_that_grows():
    assert raised(log([0.004] * 40 + [0.015] * 20)) == []  # small all the same
    (one,) = raised(log([0.01] * 40 + [0.06] * 20))
    assert "from 0.01 to 0.06" in one.said
    assert raised(log([0.05] * 60)) == []  # a steady one is what two engines have


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"sampler": "sglang"}, r"sampler must be own, vllm, vllm-server or a url, got sglang"),
        ({"ahead": 1}, r'ahead must be 0 with the sampler "own"'),
        ({"ahead": 2, "sampler": "vllm"}, r"ahead must be 0 or 1"),
        ({"correction_cap": 0.5}, r"correction_cap must be at least 1"),
        ({"correction_cap": math.inf}, r"correction_cap must be .*finite"),
        ({"correction": "mask", "correction_cap": 1.0}, r"correction_cap must be above 1"),
        ({"most_gap": -1.0}, r"most_gap must be 0 or more"),
        ({"most_gap": math.nan}, r"most_gap must be 0 or more"),
        ({"sampler": "http://user:secret@host"}, r"."),
    ],
)
def test_what_cannot_be_is_told(fields, told):
    with pytest.raises(UserError, match=told) as refused:
        Config(**fields)
    assert "secret" not in str(refused.value)
