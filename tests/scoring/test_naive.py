"""The naive scorer against its definition, on a small random distribution and on the real seedling."""

import math
from dataclasses import replace

import pytest
import torch

from vergence.models.policy import load
from vergence.rollout.render import render
from vergence.scenes import embedded
from vergence.scoring.naive import Naive
from vergence.types import Batch, Erase, Original, Prompt, Read, Stats, View, with_advantage

READS = (
    Read("image", "logp", when="grad"),
    Read("image", "entropy"),
    Read("image", "kl", "masked", when="grad"),
    Read("masked", "logp"),
)
VIEWS = {"image": View(Original()), "masked": View(Erase())}


def batch_of(token_BT: torch.Tensor, mask_BT: torch.Tensor, scene_B: torch.Tensor) -> Batch:
    B, T = token_BT.shape
    return Batch(
        key_B=torch.arange(B),
        scene_B=scene_B,
        token_BT=token_BT,
        mask_BT=mask_BT,
        sampled_logp_BT=torch.zeros(B, T),
        chance_BT=torch.zeros(B, T),
        correct_B=torch.zeros(B),
        advantage_B=torch.zeros(B),
        advantage_BT=torch.zeros(B, T),
    )


@pytest.fixture
def table():
    """Logits that depend on the view's prompt and the position: (views, T, V), leaf with gradient."""
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()


def score(table, scorer=Naive):
    def logits(prompts, token_BT, mask_BT):
        return torch.stack([table[prompt.tokens[0]] for prompt in prompts])

    batch = batch_of(
        torch.tensor([[1, 2, 3], [0, 1, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool(), torch.tensor([0, 0])
    )
    prompts = {"image": [Prompt((0,))], "masked": [Prompt((1,))]}
    with scorer({"now": logits}, VIEWS).open(batch, prompts, READS) as scores:
        return batch, scores(slice(0, 2))


@pytest.fixture
def scored(table):
    return score(table)


class WrongWayRound(Naive):
    """Wrong: KL(masked || image)."""

    def _read(self, read, batch, logp):
        turned = read._replace(view=read.against, against=read.view) if read.against else read
        return super()._read(turned, batch, logp)


class PaddingCounted(Naive):
    """Wrong: says something about positions outside the mask."""

    def _read(self, read, batch, logp):
        return super()._read(read, replace(batch, mask_BT=torch.ones_like(batch.mask_BT)), logp)


@pytest.mark.parametrize("wrong", [WrongWayRound, PaddingCounted])
def test_the_definition_catches_wrong_scorers(table, wrong):
    with pytest.raises(AssertionError):
        is_its_definition(*score(table, wrong), table)


def test_every_statistic_is_its_definition(scored, table):
    is_its_definition(*scored, table)


def is_its_definition(batch, stats, table):
    for b in range(2):
        for t in range(3):
            p = [math.exp(x) for x in table[0, t].log_softmax(-1).tolist()]
            q = [math.exp(x) for x in table[1, t].log_softmax(-1).tolist()]
            token = int(batch.token_BT[b, t])
            want = {
                ("image", "logp", None): math.log(p[token]),
                ("image", "entropy", None): -sum(x * math.log(x) for x in p),
                ("image", "kl", "masked"): sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)),
                ("masked", "logp", None): math.log(q[token]),
            }
            for key, value in want.items():
                got = stats.value[key][b, t].item()
                assert got == pytest.approx(value if batch.mask_BT[b, t] else 0.0, abs=1e-6), key


def test_gradient_flows_where_it_was_asked_for_and_nowhere_else(scored, table):
    _, stats = scored
    assert stats.logp("image").requires_grad
    assert not stats.entropy("image").requires_grad
    assert not stats.logp("masked").requires_grad
    (grad,) = torch.autograd.grad(stats.kl("image", "masked").sum(), table)
    assert grad[0].abs().sum() > 0
    assert grad[1].abs().sum() > 0


def gated(counted: list, gate) -> tuple[Batch, Stats, torch.Tensor]:
    """Four rollouts, of which a gate lets some of the masked view through; what was scored is counted."""
    table = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def logits(prompts, token_BT, mask_BT):
        counted.append([prompt.tokens[0] for prompt in prompts])
        return torch.stack([table[prompt.tokens[0]] for prompt in prompts])

    mask_BT = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool()
    batch = batch_of(torch.tensor([[1, 2, 3]] * 4), mask_BT, torch.tensor([0, 0, 0, 0]))
    batch = with_advantage(batch, torch.tensor([1.0, -1.0, 0.0, 2.0]))
    scorer = Naive({"now": logits}, VIEWS | {"masked": View(Erase(), gate=gate)})
    return batch, scorer.score(batch, {"image": [Prompt((0,))], "masked": [Prompt((1,))]}, READS), table


def test_a_gate_spends_nothing_on_what_it_keeps_out():
    counted, all_of_it = [], []
    batch, stats, table = gated(counted, lambda advantage_B: advantage_B > 0)
    assert sorted(counted) == [[0, 0, 0, 0], [1, 1]]
    _, whole, _ = gated(all_of_it, None)
    through_B1 = (batch.advantage_B > 0)[:, None]
    for key in (("masked", "logp", None), ("image", "kl", "masked")):
        assert torch.equal(stats.value[key], whole.value[key].where(through_B1, 0.0))
    assert torch.equal(stats.logp("image"), whole.logp("image"))
    (grad,) = torch.autograd.grad(stats.kl("image", "masked").sum(), table)
    assert grad[1].abs().sum() > 0


def test_a_gate_that_lets_nobody_through_costs_no_pass():
    counted = []
    _, stats, _ = gated(counted, lambda advantage_B: advantage_B > 9)
    assert counted == [[0, 0, 0, 0]]
    assert not stats.kl("image", "masked").any()


def test_the_real_policy_does_not_care_who_else_is_in_the_batch():
    """Left padding, right padding and order change nothing but rounding; another image does."""
    policy = load("seedling")
    scenes = embedded.draw_many(embedded.TRAINED, "tune", 4)
    prompts = {
        "image": [render(policy.reader, scene, Original(), 0) for scene in scenes],
        "masked": [render(policy.reader, scene, Erase(1.0, 8), 0) for scene in scenes],
    }
    token_BT = torch.randint(20, 300, (4, 9), generator=torch.Generator().manual_seed(0))
    mask_BT = torch.arange(9) < torch.tensor([9, 4, 7, 1])[:, None]
    batch = batch_of(token_BT, mask_BT, torch.arange(4))
    scorer = Naive({"now": policy.logits}, VIEWS)
    with torch.no_grad():
        together = scorer.score(batch, prompts, READS)
        for row in range(4):
            alone = scorer.score(batch.rows(slice(row, row + 1)), prompts, READS)
            for key, value_BT in alone.value.items():
                torch.testing.assert_close(value_BT, together.value[key][row : row + 1], atol=1e-4, rtol=1e-4)
        junk = replace(batch, token_BT=token_BT.where(mask_BT, 7))
        for key, value_BT in scorer.score(junk, prompts, READS).value.items():
            assert torch.equal(value_BT, together.value[key])
    assert together.kl("image", "masked").sum() > 0.05
