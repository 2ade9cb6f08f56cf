"""RACRO: the loss is GRPO's, with its settings; what is its own is what is asked and what is rewarded."""

import pytest
import torch

from oracles.compare import agrees_with
from vergence.objectives import method
from vergence.objectives.credit import mixed
from vergence.types import RewardSpec

OPTIONS = [
    ("racro-grpo", {}),
    ("racro-grpo", {"samples": 4, "leak": 0.5, "beta": 0.0, "clip_high": 0.28}),
    ("racro-dapo", {}),
    ("racro-dapo", {"beta": 0.001}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_loss_and_gradients_are_those_of_the_definition(name, options):
    agrees_with(name, **options)


IMPOSTORS = [
    ("GRPO as printed", "racro-grpo", "grpo", {}),
    ("no dual clip", "racro-grpo", "racro-grpo", {"dual": 0.0}),
    ("no bound on the KL", "racro-grpo", "racro-grpo", {"kl_cap": 0.0, "beta": 1.0}),
    ("no clip-higher", "racro-dapo", "racro-dapo", {"clip_high": 0.2}),
]


@pytest.mark.parametrize(("what", "name", "other", "options"), IMPOSTORS, ids=lambda one: one if one else "")
def test_an_oracle_catches(what, name, other, options):
    with pytest.raises(AssertionError):
        agrees_with(name, method(other, **options), **({"beta": 1.0} if "beta" in options else {}))


@pytest.mark.parametrize(
    ("rewards", "want"),
    [
        ([1, 0, 0, 1], [0.8660239038, -0.8660239038, -0.8660239038, 0.8660239038]),
        ([1, 1, 1, 1], [0, 0, 0, 0]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([0, 0, 0, 1], [-0.499999, -0.499999, -0.499999, 1.499997]),
    ],
)
def test_o10_credit(rewards, want):
    got = method("racro").credit(torch.tensor([rewards], dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor([want], dtype=torch.float64), rtol=0.0, atol=1e-6)


def test_what_is_asked_and_rewarded():
    racro = method("racro")
    assert racro.ask == "caption"
    assert racro.reward == RewardSpec(accuracy=1.0, format=0.0, judge="reasoner", samples=1, leak=0.0)
    assert list(racro.views) == ["image", "reference"]
    assert racro.keep is racro.reshape is None
    assert method("racro", samples="4", leak="0.5").reward == RewardSpec(
        accuracy=1.0, format=0.0, judge="reasoner", samples=4, leak=0.5
    )
    # Stage 2 is plain GRPO on answers.
    assert method("grpo").ask == "answer"
    assert method("grpo").reward.judge == "verifier"


def test_on_dapo_it_keeps_what_dapo_has():
    racro = method("racro-dapo")
    assert racro.reward.overlong == method("dapo").reward.overlong == 0.2
    assert racro.keep is mixed
    assert method("racro-dapo", overlong=0.0).reward.overlong == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": 0}, "must answer at least once"), ({"leak": -0.1}, "leak is a penalty"), ({"samples": 1.5}, "whole")],
)
def test_a_refusal_says_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        method("racro", **options)
