"""Loss and gradients of every method against plain Python."""

import pytest
import torch

from oracles import plain
from oracles.compare import ORACLES, agrees_with
from vergence.objectives import METHODS
from vergence.objectives.credit import centred, standardised

OPTIONS = [
    *((name, {}) for name in ORACLES),
    ("grpo", {"mean": "token", "clip_low": 0.1, "clip_high": 0.28, "dual": 3.0, "beta": 0.0}),
    ("grpo", {"dual": 1.5, "beta": 0.1, "kl_cap": 10.0}),
    ("grpo", {"kl": "k1"}),
    ("grpo", {"kl": "k2", "mean": "token"}),
    ("grpo", {"kl": "full", "kl_cap": 10.0}),
    ("grpo", {"entropy": 0.06}),
    ("grpo", {"entropy": -0.01, "entropy_of": "full", "kl": "full"}),
    ("dapo", {"mean": "sequence", "beta": 0.01, "dual": 3.0, "entropy": 0.02, "overlong": 0.0}),
    ("drgrpo", {"budget": 7, "beta": 0.04, "kl_cap": 10.0, "entropy": 0.06, "entropy_of": "full"}),
    ("drgrpo", {"clip_high": 0.28, "dual": 3.0}),
    ("papo-grpo@release", {"eta": 0.05}),
    ("papo-grpo@release", {"eta": 0.05, "entropies": "single"}),
    ("papo-grpo@release", {"eta": 0.03, "gamma": 0.01, "beta": 0.0, "clip_high": 0.28}),
    ("papo-grpo@release", {"eta": 0.05, "mean": "sequence"}),
    ("papo-grpo@release", {"estimator": "k1"}),
    ("papo-grpo@release", {"estimator": "k2"}),
    ("papo-grpo@release", {"estimator": "k3-printed"}),
    ("papo-grpo@paper", {"eta": 0.05}),
    ("papo-grpo@paper", {"eta": 0.05, "entropies": "single"}),
    ("papo-grpo@paper", {"eta": 0.05, "mean": "token", "beta": 0.0}),
    ("papo-grpo@paper", {"eta": 0.05, "estimator": "k3-printed"}),
    ("papo-grpo@paper", {"estimator": "k1"}),
    ("papo-grpo@paper", {"estimator": "k2"}),
    ("papo-grpo@full", {"eta": 0.05}),
    ("papo-grpo@full", {"eta": 0.05, "gamma": 0.1, "mean": "sequence"}),
    ("papo-dapo@release", {"eta": 0.0, "gamma": 0.02, "beta": 0.01, "mean": "sequence"}),
    ("papo-dapo@paper", {"entropies": "single", "entropy": 0.01}),
    ("papo-dapo@full", {"entropies": "single", "entropy": 0.01, "entropy_of": "full"}),
    ("papo-dapo@full", {"kl": "full", "beta": 0.02}),
    ("vppo-dapo", {"low": 1.0}),
    ("vppo-dapo", {"top": 1.0, "entropy": 0.0}),
    ("vppo-dapo", {"top": 0.2, "low": 0.0, "entropy_of": "full"}),
    ("vppo-grpo", {"mean": "sequence", "dual": 0.0}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_loss_and_gradients_are_those_of_the_definition(name, options):
    agrees_with(name, **options)


def test_every_method_has_an_oracle():
    assert METHODS.keys() == ORACLES.keys()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ddof", [0, 1])
def test_credit_is_that_of_the_definition(seed, ddof):
    reward_SG = torch.randint(0, 4, (6, 5), generator=torch.Generator().manual_seed(seed)).double() / 10
    want = [plain.standardised(row, ddof=ddof) for row in reward_SG.tolist()]
    torch.testing.assert_close(standardised(reward_SG, ddof=ddof), torch.tensor(want, dtype=torch.float64))
    torch.testing.assert_close(centred(reward_SG), reward_SG - reward_SG.mean(-1, keepdim=True), rtol=0, atol=1e-12)


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.7, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_are_exactly_no_reason_to_change(reward, dtype):
    reward_SG = torch.full((2, 5), reward, dtype=dtype)
    assert (standardised(reward_SG) == 0).all()
    assert (centred(reward_SG) == 0).all()
    assert (standardised(reward_SG[:, :1]) == 0).all()
