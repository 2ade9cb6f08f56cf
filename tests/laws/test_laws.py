"""Every law, over the whole catalogue. A new method is tested by adding its name to METHODS."""

from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch

from laws.cases import CASES, Case, make, step
from laws.laws import LAWS
from vergence.objectives import METHODS, method
from vergence.types import Stats

COEFFICIENTS = {"gamma": {"perception"}, "beta": {"reference_kl"}, "eta": {"entropy", "masked_entropy"}}

BASES = {
    "papo-grpo@release": {"mean": "token", "clip_high": 0.3, "dual": 3.0, "beta": 0.01, "kl_cap": 10.0},
    "papo-grpo@paper": {"mean": "sequence", "clip_high": 0.3, "beta": 0.01},
    "papo-grpo@full": {"mean": "token", "clip_high": 0.3, "dual": 3.0, "beta": 0.01, "kl_cap": 10.0},
}
"""What each method is without its own terms: these options of grpo."""


def test_every_method_is_in_the_cases():
    assert set(METHODS) <= set(CASES)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", CASES)
def test_law(name, law):
    law(CASES[name])


@pytest.mark.parametrize("name", METHODS)
def test_a_coefficient_of_zero_drops_the_terms_and_what_only_they_looked_at(name):
    options = dict.fromkeys(COEFFICIENTS.keys() & signature(METHODS[name]).parameters.keys(), 0.05)
    everything = method(name, **options)
    for option in options:
        without = method(name, **{**options, option: 0.0})
        assert everything.objective.keys() - without.objective.keys() == COEFFICIENTS[option]
    bare = method(name, **dict.fromkeys(options, 0.0))
    assert list(bare.objective) == ["surrogate"]
    assert list(bare.views) == ["image"]


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("seed", range(3))
def test_without_its_own_terms_a_method_is_its_base_bit_for_bit(name, seed):
    bare, base = method(name, gamma=0.0, eta=0.0), method("grpo", **BASES[name])
    assert bare.views == base.views
    case = make(base, seed, wild=True)
    ours, theirs = step(bare, case), step(base, case)
    assert ours.loss == theirs.loss
    assert all(torch.equal(grad_BT, theirs.grads[key]) for key, grad_BT in ours.grads.items())
    reward_SG = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(bare.credit(reward_SG), base.credit(reward_SG))


@pytest.mark.parametrize("name", CASES)
def test_a_model_in_float32_gets_its_gradients_in_float32(name):
    """The sum is wide; the values and the gradients are the model's."""
    exact, narrow = make(CASES[name], 0), make(CASES[name], 0)
    batch = replace(
        narrow.batch,
        sampled_logp_BT=narrow.batch.sampled_logp_BT.float(),
        advantage_B=narrow.batch.advantage_B.float(),
    )
    frozen, live = (
        Stats({key: value_BT.detach().float() for key, value_BT in stats.value.items()})
        for stats in (narrow.frozen, narrow.live)
    )
    narrow = Case(batch, frozen, live, {key: live.value[key].requires_grad_() for key in narrow.leaves})
    want, got = step(CASES[name], exact), step(CASES[name], narrow)
    assert got.loss == pytest.approx(want.loss, abs=1e-6)
    for key, grad_BT in got.grads.items():
        assert grad_BT.dtype == torch.float32
        torch.testing.assert_close(grad_BT.double(), want.grads[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_in_the_index_of_papers(name):
    index = (Path(__file__).parents[2] / "docs" / "papers.md").read_text(encoding="utf-8")
    about = method(name).about
    assert f"`{name}`" in index
    assert about.paper in index
    assert about.title
    assert about.deviations
