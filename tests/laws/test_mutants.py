"""Each law, and each oracle, is shown to fail on a wrong variant. A law that nothing breaks would be decoration."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from oracles.compare import ORACLES, agrees_with

from laws import laws as law
from laws.cases import Case, reshaped, step
from vergence.objectives import method, terms
from vergence.objectives.selecting import at_least_top_share, positive, top_share
from vergence.objectives.vppo import shaped
from vergence.objectives.weighting import PER_SEQUENCE, PER_TOKEN, Mean, share_of_row
from vergence.types import BT, Batch, Mask, Method, Stats

GRPO = method("grpo")
RELEASE, PAPER = method("papo", eta=0.05), method("papo@paper", eta=0.05)
DAPO, VPPO = method("dapo"), method("vppo")


def swap(base: Method, name: str, **parts: Callable) -> Method:
    """The method with parts of one term replaced."""
    return base._replace(objective={**base.objective, name: base.objective[name]._replace(**parts)})


def over(mean: Mean, base: Method, name: str) -> Method:
    """The method with another mean in one term."""
    return swap(base, name, weigh=lambda b, f, v: mean.weigh(b.mask_BT), total=lambda b, f: mean.total(b.mask_BT))


def surrogate(function: Callable[..., BT], base: Method = GRPO) -> Method:
    """The method whose surrogate is function(logp, sampled logp, advantage)."""

    def value(batch: Batch, frozen: Stats, live: Stats) -> BT:
        return function(live.logp("image"), batch.sampled_logp_BT, batch.advantage_BT)

    return swap(base, "surrogate", value=value)


def perception(estimate: Callable[[BT, BT], BT], base: Method = RELEASE) -> Method:
    """The method whose perception term has this estimator."""

    def value(batch: Batch, frozen: Stats, live: Stats) -> BT:
        return -0.02 * estimate(live.logp("image"), (live if base is PAPER else frozen).logp("masked"))

    return swap(base, "perception", value=value)


clipped = partial(terms.surrogate, clip=(0.2, 0.2))
capped = partial(terms.k3, limit=10.0)
EVERYWHERE = Mean(
    weigh=lambda mask_BT: torch.ones(mask_BT.shape, dtype=torch.float64),
    total=lambda mask_BT: torch.tensor(mask_BT.numel(), dtype=torch.float64),
)


def inverted(logp_BT: BT, sampled_logp_BT: BT, advantage_BT: torch.Tensor) -> BT:
    return clipped(2 * sampled_logp_BT - logp_BT, sampled_logp_BT, advantage_BT)


def with_bonus(logp_BT: BT, sampled_logp_BT: BT, advantage_BT: torch.Tensor) -> BT:
    return clipped(logp_BT, sampled_logp_BT, advantage_BT) - logp_BT


def boundless(logp_BT: BT, sampled_logp_BT: BT, advantage_BT: torch.Tensor) -> BT:
    return -advantage_BT * (logp_BT - sampled_logp_BT).exp()


def first_counts_more(batch: Batch, frozen: Stats, live: Stats) -> BT:
    return PER_SEQUENCE.weigh(batch.mask_BT) / (1 + torch.arange(len(batch.key_B)))[:, None]


def mean_of_means(shares: list) -> list:
    return [{name: total * len(shares) for name, total in share.items()} for share in shares]


def each_its_own(shares: list) -> list:
    return shares


def times_the_mask(values, weights, totals):
    return sum((weights[name] * values[name]).sum() / totals[name].clamp(min=1) for name in values)


def zero_over_zero(values, weights, totals):
    return sum((weights[name] * values[name]).sum() / totals[name] for name in values)


def vppo(dependence: Callable[[BT, BT], BT], select: Callable[[BT, Mask, float], Mask] = top_share) -> Method:
    """VPPO with another dependence(sampled logp, masked logp), or another choice of tokens; deaf to other ranks."""

    def advantage(batch: Batch, frozen: Stats, everywhere: Callable) -> BT:
        mask_BT = batch.mask_BT
        value_BT = dependence(batch.sampled_logp_BT, frozen.logp("masked")).where(mask_BT, 0.0)
        score_B = (share_of_row(mask_BT) * value_BT).sum(-1)
        alpha_B = shaped(score_B, score_B[mask_BT.any(-1)], low=0.9)
        return (alpha_B * batch.advantage_B)[:, None].where(select(value_BT, mask_BT, 0.4), 0.0)

    return VPPO._replace(reshape=VPPO.reshape._replace(advantage=advantage))


def kept_only(batch: Batch, frozen: Stats) -> torch.Tensor:
    return VPPO.reshape.select(batch, frozen).sum().double()


def each_part_reshaped(method: Method, case: Case, parts: list | None = None) -> NamedTuple:
    """A trainer that normalises over a micro-batch, as the released code of VPPO does."""
    seen_BT = torch.zeros_like(case.batch.advantage_BT)
    for part in parts or [slice(None)]:
        rows = Case(case.batch.rows(part), case.frozen.rows(part), case.live, {})
        seen_BT[part] = reshaped(method, rows, [slice(None)]).batch.advantage_BT
    return step(method, case, parts, reshaped=lambda *_: case._replace(batch=replace(case.batch, advantage_BT=seen_BT)))


def gated(base: Method, view: str) -> Method:
    """The method with a gate in front of one view, of which its terms know nothing."""
    return base._replace(views={**base.views, view: base.views[view]._replace(gate=positive)})


def one_right(correct_SG: torch.Tensor) -> torch.Tensor:
    return correct_SG.amax(-1) > 0


def above_the_mean(correct_SG: torch.Tensor) -> torch.Tensor:
    return (correct_SG.mean(-1) < 1) & (correct_SG.mean(-1) > correct_SG.mean() / 2 - 0.1)


def everything(batch: Batch, frozen: Stats) -> Mask:
    return torch.ones_like(batch.mask_BT)


class Mutant(NamedTuple):
    what: str
    caught_by: Callable
    method: Method
    step: Callable = step


MUTANTS = [
    Mutant("mean of micro-batch means", law.cuts_do_not_matter, GRPO, partial(step, combine=mean_of_means)),
    Mutant("mean of the ranks' means", law.ranks_do_not_matter, RELEASE, partial(step, combine=mean_of_means)),
    Mutant("ranks do not add totals", law.ranks_do_not_matter, GRPO, partial(step, combine=each_its_own)),
    Mutant("padding counted", law.padding_does_not_matter, over(EVERYWHERE, GRPO, "surrogate")),
    Mutant("row 0 first", law.order_of_siblings_does_not_matter, swap(GRPO, "surrogate", weigh=first_counts_more)),
    Mutant("masked trained", law.what_is_masked_does_not_matter, over(EVERYWHERE, surrogate(clipped), "surrogate")),
    Mutant("NaN times 0", law.what_is_masked_does_not_matter, surrogate(clipped), partial(step, reduce=times_the_mask)),
    Mutant("NaN gradient times 0", law.what_is_masked_does_not_matter, perception(terms.k2)),
    Mutant("bonus on top", law.no_advantage_no_surrogate, surrogate(with_bonus)),
    Mutant("ratio inverted", law.on_policy_the_surrogate_is_reinforce, surrogate(inverted)),
    Mutant("0 / 0", law.nothing_selected_is_zero, PAPER, partial(step, reduce=zero_over_zero)),
    Mutant("image constant", law.gradients_are_those_of_the_values, perception(lambda p, q: terms.k3(p.detach(), q))),
    Mutant("undeclared", law.what_is_read_is_declared, swap(GRPO, "surrogate", value=lambda b, f, v: v.logp("masked"))),
    Mutant("a view nobody reads", law.what_is_read_is_declared, GRPO._replace(views=RELEASE.views)),
    Mutant("k1 against a constant", law.views_that_look_the_same_teach_nothing, method("papo", estimator="k1")),
    Mutant("perception minimised", law.each_term_pulls_its_way, method("papo", gamma=-0.02)),
    Mutant("reference KL maximised", law.each_term_pulls_its_way, method("grpo", beta=-0.04)),
    Mutant("full entropy maximised", law.each_term_pulls_its_way, method("papo@full", eta=-0.05)),
    Mutant("policy's entropy maximised", law.each_term_pulls_its_way, method("grpo", entropy=-0.05)),
    Mutant("shaped by micro-batch", law.cuts_do_not_matter, VPPO, each_part_reshaped),
    Mutant("shaped by rank", law.ranks_do_not_matter, vppo(capped)),
    Mutant("padding selected", law.only_response_tokens_are_selected, swap(GRPO, "surrogate", select=everything)),
    Mutant("gate not looked at", law.what_a_gate_keeps_out_does_not_count, gated(RELEASE, "masked")),
    Mutant("one right is enough", law.what_is_kept_depends_on_correctness_alone, DAPO._replace(keep=one_right)),
    Mutant("better than the rest", law.what_is_kept_depends_on_correctness_alone, DAPO._replace(keep=above_the_mean)),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_law_catches(mutant):
    with pytest.raises(AssertionError):
        mutant.caught_by(mutant.method, step=mutant.step)


def test_every_law_catches_something():
    assert {mutant.caught_by for mutant in MUTANTS} == set(law.LAWS)


class Impostor(NamedTuple):
    what: str
    claims_to_be: str
    method: Method
    options: dict


DE = {"eta": 0.05}
FULL_ENTROPY = {"entropy": 0.06, "entropy_of": "full"}
SEQUENCE = {"mean": "sequence", "eta": 0.05}
BY_SEQUENCE = method("papo", **SEQUENCE)

IMPOSTORS = [
    Impostor("ratio inverted", "grpo", surrogate(inverted), {}),
    Impostor("no clip, no clamp", "grpo", surrogate(boundless), {}),
    Impostor("token mean", "grpo", method("grpo", mean="token"), {}),
    Impostor("no reference KL", "grpo", method("grpo", beta=0.0), {}),
    Impostor("dual clip missing", "papo-grpo@release", method("papo", dual=0.0), {}),
    Impostor("clip not higher", "papo-grpo@release", method("papo", clip_high=0.2), {}),
    Impostor("KL(masked || image)", "papo-grpo@release", perception(lambda p, q: capped(q, p)), DE),
    Impostor("KL not capped", "papo-grpo@release", perception(terms.k3), DE),
    Impostor("KL added", "papo-grpo@release", method("papo", gamma=-0.02), {}),
    Impostor("entropy sign flipped", "papo-grpo@release", method("papo", eta=-0.05), DE),
    Impostor(
        "sequence entropy", "papo-grpo@release", over(PER_SEQUENCE, method("papo", **SEQUENCE), "entropy"), SEQUENCE
    ),
    Impostor("masked constant", "papo-grpo@paper", perception(lambda p, q: terms.k3(p, q.detach()), PAPER), DE),
    Impostor("KL capped", "papo-grpo@paper", perception(capped, PAPER), DE),
    Impostor("printed estimator", "papo-grpo@paper", method("papo@paper", estimator="k3-printed"), {}),
    Impostor("gamma doubled", "papo-grpo@full", method("papo@full", gamma=0.04), {}),
    Impostor("full entropy sign flipped", "papo-grpo@full", method("papo@full", eta=-0.05), DE),
    Impostor("both entropies", "papo-grpo@paper", PAPER, {**DE, "entropies": "single"}),
    Impostor("k3 for k2", "grpo", GRPO, {"kl": "k2"}),
    Impostor("k2 for k1", "grpo", method("grpo", kl="k2"), {"kl": "k1"}),
    Impostor("full KL maximised", "grpo", method("grpo", kl="full", beta=-0.04), {"kl": "full"}),
    Impostor("entropy maximised", "grpo", method("grpo", entropy=-0.06), {"entropy": 0.06}),
    Impostor("full entropy maximised", "grpo", method("grpo", entropy=-0.06, entropy_of="full"), FULL_ENTROPY),
    Impostor(
        "sequence mean of the entropy",
        "grpo",
        over(PER_SEQUENCE, method("grpo", **FULL_ENTROPY), "policy_entropy"),
        FULL_ENTROPY,
    ),
    Impostor("clip not higher", "dapo", method("dapo", clip_high=0.2), {}),
    Impostor("sequence mean", "dapo", method("dapo", mean="sequence"), {}),
    Impostor("reference kept", "dapo", method("dapo", beta=0.04), {"beta": 0.01}),
    Impostor("token mean", "drgrpo", over(PER_TOKEN, method("drgrpo"), "surrogate"), {}),
    Impostor("divided by its own length", "drgrpo", over(PER_SEQUENCE, method("drgrpo"), "surrogate"), {}),
    Impostor("coefficients of GRPO", "papo-dapo@release", method("papo-dapo", gamma=0.02, eta=0.0), {}),
    Impostor("sequence mean", "papo-dapo@paper", method("papo-dapo@paper", mean="sequence"), {}),
    Impostor("clip of GRPO", "papo-dapo@full", method("papo-dapo@full", clip_high=0.3), {}),
    Impostor("rollouts not shaped", "vppo-dapo", method("vppo", low=1.0), {}),
    Impostor("tokens not selected", "vppo-dapo", method("vppo", top=1.0), {}),
    Impostor("share rounded down", "vppo-dapo", vppo(capped, at_least_top_share), {}),
    Impostor("dependence not held to 10 nats", "vppo-dapo", vppo(terms.k3), {}),
    Impostor("KL(masked || image)", "vppo-dapo", vppo(lambda p, q: capped(q, p)), {}),
    Impostor("tokens that need the image least", "vppo-dapo", vppo(lambda p, q: -capped(p, q)), {}),
    Impostor("mean over the kept tokens", "vppo-dapo", swap(VPPO, "surrogate", total=kept_only), {}),
    Impostor("entropy maximised", "vppo-grpo", method("vppo-grpo", entropy=-0.06), {}),
]


@pytest.mark.parametrize("impostor", IMPOSTORS, ids=lambda impostor: impostor.what)
def test_an_oracle_catches(impostor):
    with pytest.raises(AssertionError):
        agrees_with(impostor.claims_to_be, impostor.method, **impostor.options)


def test_every_oracle_catches_something():
    """The impostors of a method whose oracle has a test file of its own are there."""
    folder = Path(__file__).parents[1] / "oracles"
    here = {name for name in ORACLES if not (folder / f"test_{name.split('-')[0]}.py").exists()}
    assert {impostor.claims_to_be for impostor in IMPOSTORS} == here


def test_what_mutants_are_made_of_is_right():
    """The helpers, given the right function, make methods that pass: nothing above fails because of its wrapping."""
    agrees_with("grpo", surrogate(clipped))
    agrees_with("papo-grpo@release", perception(capped), **DE)
    agrees_with("papo-grpo@paper", perception(terms.k3, PAPER), **DE)
    agrees_with("vppo-dapo", vppo(capped))
    law.cuts_do_not_matter(GRPO, step=each_part_reshaped)
    law.nothing_selected_is_zero(GRPO, step=partial(step, reduce=times_the_mask))
