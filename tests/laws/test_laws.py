"""Every law, over the whole catalogue. A new method is tested by adding its name to METHODS."""

from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch

from laws.cases import CASES, OFF, Case, make, step
from laws.laws import LAWS
from vergence.objectives import METHODS, method
from vergence.types import Method, Stats

COEFFICIENTS = {
    "gamma": {"perception"},
    "beta": {"reference_kl"},
    "eta": {"entropy", "masked_entropy"},
    "entropy": {"policy_entropy"},
    "coefficient": {"contrast", "consistency"},
}
"""What each coefficient multiplies, in the methods that have it."""


def test_every_method_with_a_base_can_be_switched_off():
    assert OFF.keys() == {name for name in METHODS if CASES[name].about.base}


def base_of(name: str) -> Method:
    """The base under that method, with the settings that it has there."""
    base = CASES[name].about.base
    settings = {option: one.default for option, one in signature(METHODS[name]).parameters.items()}
    return method(base, **{option: settings[option] for option in signature(METHODS[base]).parameters})


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
        dropped = everything.objective.keys() - without.objective.keys()
        assert dropped == COEFFICIENTS[option] & everything.objective.keys() != set()
    bare = method(name, **dict.fromkeys(options, 0.0))
    assert list(bare.objective) == ["surrogate"]
    reshaping = {read.view for read in bare.reshape.reads} if bare.reshape else set()
    assert set(bare.views) == {"image"} | reshaping


@pytest.mark.parametrize("name", OFF)
def test_without_its_own_part_a_method_is_its_base_bit_for_bit(name):
    bare, base = method(name, **OFF[name]), base_of(name)
    assert bare.views == base.views
    assert bare.reshape is None
    assert bare.keep is base.keep
    for seed in range(3):
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
    numbers = ("sampled_logp_BT", "chance_BT", "correct_B", "advantage_B", "advantage_BT")
    batch = replace(narrow.batch, **{name: getattr(narrow.batch, name).float() for name in numbers})
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
    about = CASES[name].about
    assert f"`{name}`" in index
    assert about.paper in index
    assert about.title
    assert about.deviations
