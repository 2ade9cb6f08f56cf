"""What VPPO makes of the advantages: each half alone, what the two are normalised over, and what changes nothing."""

from dataclasses import replace

import pytest
import torch

from laws.cases import Case, make, mapped, reshaped, step
from vergence.objectives import method
from vergence.objectives.vppo import shaped
from vergence.types import BT, Stats, with_advantage

WHOLE = [slice(None)]


def seen(case: Case, **options) -> BT:
    """advantage_BT of the round."""
    return reshaped(method("vppo", **options), case, WHOLE).batch.advantage_BT


def test_an_example_by_hand():
    """S of the first rollout is [0.43, 0, 0.90, 0.96, 6.70], of the second 0; alpha is 1.1 and 0.9."""
    case = make(method("vppo"), 0, S=1, G=2, T=5)
    sampled_BT = torch.tensor([[0.9, 0.5, 0.2, 0.6, 0.05]] * 2, dtype=torch.float64).log()
    masked_BT = sampled_BT.clone()
    masked_BT[0] = torch.tensor([0.3, 0.5, 0.6, 0.1, 0.5], dtype=torch.float64).log()
    batch = replace(case.batch, mask_BT=torch.ones(2, 5, dtype=torch.bool), sampled_logp_BT=sampled_BT)
    batch = with_advantage(batch, torch.tensor([1.0, -1.0], dtype=torch.float64))
    got_BT = seen(case._replace(batch=batch, frozen=Stats({("masked", "logp", None): masked_BT})))
    want_BT = torch.tensor([[0, 0, 0, 1.1, 1.1], [-0.9, -0.9, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(got_BT, want_BT, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_without_shaping_a_token_has_its_whole_advantage_or_none(seed):
    case, tokens = make(method("vppo"), seed, wild=True), method("vppo", low=1.0)
    kept_BT = tokens.reshape.select(case.batch, case.frozen)
    assert torch.equal(kept_BT, method("vppo").reshape.select(case.batch, case.frozen))
    plain_BT = case.batch.advantage_B[:, None].expand(kept_BT.shape)
    assert torch.equal(seen(case, low=1.0), plain_BT.where(kept_BT, 0.0))
    # ceil(0.4 T) of every response
    assert kept_BT.sum(-1).tolist() == [-(-2 * int(length) // 5) for length in case.batch.mask_BT.sum(-1)]


@pytest.mark.parametrize("seed", range(3))
def test_without_selection_a_rollout_has_one_factor_and_their_mean_is_1(seed):
    case = make(method("vppo"), seed, wild=True)
    mask_BT, any_B = case.batch.mask_BT, case.batch.mask_BT.any(-1)
    alpha_BT = seen(case, top=1.0) / case.batch.advantage_B[:, None]
    alpha_B = alpha_BT.amax(-1)
    torch.testing.assert_close(alpha_BT, alpha_B[:, None] * mask_BT)
    assert alpha_B[any_B].mean().item() == pytest.approx(1.0, abs=1e-12)
    assert alpha_B[any_B].amin().item() == pytest.approx(0.9, abs=1e-12)
    assert method("vppo", top=1.0).reshape.select is None


def test_where_no_rollout_depends_on_the_image_more_than_another_all_count_the_same():
    case = make(method("vppo"), 0)
    blind = Stats({("masked", "logp", None): case.batch.sampled_logp_BT})
    case = case._replace(frozen=blind)
    plain_BT = case.batch.advantage_B[:, None] * case.batch.mask_BT
    assert torch.equal(seen(case, top=1.0), plain_BT)
    base = method("dapo", dual=3.0, overlong=0.0, kl_cap=10.0, entropy=0.06)
    assert step(method("vppo", top=1.0), case).loss == step(base, case).loss


def test_a_mask_on_the_advantage_is_a_mask_on_the_surrogate():
    """The surrogate, dual clip and all, is positively homogeneous in the advantage."""
    vppo, case = method("vppo", low=1.0), make(method("vppo"), 1, wild=True)
    surrogate, kept_BT = vppo.objective["surrogate"], vppo.reshape.select(case.batch, case.frozen)
    whole_BT = surrogate.value(case.batch, case.frozen, case.live).detach()
    masked = reshaped(vppo, case, WHOLE)
    masked_BT = surrogate.value(masked.batch, case.frozen, case.live).detach()
    assert torch.equal(masked_BT, whole_BT.where(kept_BT, 0.0))
    assert surrogate.total(masked.batch, case.frozen) == case.batch.mask_BT.sum()


def test_a_rollout_without_tokens_takes_no_part_in_what_the_others_are_compared_with():
    case = make(method("vppo"), 0)
    some_B = case.batch.mask_BT.any(-1)
    assert not some_B.all()
    without = case._replace(batch=case.batch.rows(some_B), frozen=case.frozen.rows(some_B))
    torch.testing.assert_close(seen(case)[some_B], seen(without), rtol=1e-12, atol=0.0)
    none = mapped(case, torch.clone, mask_BT=torch.zeros_like(case.batch.mask_BT))
    assert (seen(none) == 0).all()


def test_ties_go_to_the_earlier_token():
    case = make(method("vppo"), 1, S=1, G=2, T=7)
    batch = replace(case.batch, mask_BT=torch.ones(2, 7, dtype=torch.bool))
    same = Stats({("masked", "logp", None): batch.sampled_logp_BT})
    kept_BT = method("vppo").reshape.select(batch, same)
    assert kept_BT.int().tolist() == [[1, 1, 1, 0, 0, 0, 0]] * 2


def test_one_outlier_is_bounded_by_the_number_of_rollouts_alone():
    score_B = torch.zeros(100, dtype=torch.float64).index_fill(0, torch.tensor([7]), 3.0)
    alpha_B = shaped(score_B, score_B, low=0.9)
    assert alpha_B[7].item() == pytest.approx(0.9 + 0.1 * 100, abs=1e-9)
    assert alpha_B.mean().item() == pytest.approx(1.0, abs=1e-12)
