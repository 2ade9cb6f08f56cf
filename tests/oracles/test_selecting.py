"""Rules that pick tokens see the tokens of their row, and nothing else."""

import pytest
import torch
from laws.cases import make

from vergence.objectives import method
from vergence.objectives.selecting import at_least_top_share, rises_areal, rises_paper, rises_verl, top_share

VERL = "cppo-grpo@release-verl"


@pytest.mark.parametrize("rule", [rises_verl, rises_areal, rises_paper, "top", "least"])
@pytest.mark.parametrize("seed", range(4))
def test_a_rule_sees_the_tokens_of_its_row_alone(rule, seed):
    generator = torch.Generator().manual_seed(seed)
    H_BT, removed_BT = torch.rand(2, 5, 9, generator=generator).mul(4).round().div(2)  # with ties
    mask_BT = torch.rand(5, 9, generator=generator) > 0.3
    mask_BT[seed] = False
    if isinstance(rule, str):
        ranked = {"top": top_share, "least": at_least_top_share}[rule]
        rule = lambda H_BT, removed_BT, mask_BT, share: ranked(H_BT - removed_BT, mask_BT, share)  # noqa: E731
    found_BT = rule(H_BT, removed_BT, mask_BT, 0.5)
    assert not (found_BT & ~mask_BT).any()
    dirty = [value_BT.where(mask_BT, torch.nan) for value_BT in (H_BT, removed_BT)]
    assert torch.equal(rule(*dirty, mask_BT, 0.5), found_BT)
    longer = [torch.nn.functional.pad(value_BT, (0, 3), value=5.0) for value_BT in (H_BT, removed_BT)]
    assert torch.equal(rule(*longer, torch.nn.functional.pad(mask_BT, (0, 3)), 0.5)[:, :9], found_BT)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(rule(H_BT[order], removed_BT[order], mask_BT[order], 0.5), found_BT[order])
    for row in mask_BT.any(-1).nonzero()[:, 0].tolist():
        kept = mask_BT[row]
        alone_BT = rule(H_BT[row : row + 1, kept], removed_BT[row : row + 1, kept], kept[None, kept], 0.5)
        assert torch.equal(alone_BT[0], found_BT[row, kept])


@pytest.mark.parametrize(("share", "tokens", "want"), [(0.07, 100, 7), (0.1, 30, 3), (0.55, 20, 11), (0.5, 5, 3)])
def test_a_share_that_is_whole_is_not_rounded_up(share, tokens, want):
    score_BT = torch.arange(tokens, dtype=torch.float64)[None]
    assert top_share(score_BT, torch.ones(1, tokens, dtype=torch.bool), share).sum() == want


def test_a_share_that_is_whole_is_not_rounded_down():
    score_BT = torch.arange(100, dtype=torch.float64)[None]
    assert at_least_top_share(score_BT, torch.ones(1, 100, dtype=torch.bool), 0.29).sum() == 29  # 28.999999999999996


def test_ties_decide_between_the_rules():
    """Where every token rises the same, one rule keeps all and the other half: random entropies have no ties."""
    case = make(method(VERL), 0)
    same_BT = torch.ones_like(case.batch.mask_BT, dtype=torch.float64)
    through_BT = case.batch.mask_BT & (case.batch.advantage_B > 0)[:, None]
    assert torch.equal(rises_verl(same_BT, 2 * same_BT, through_BT, 0.5), through_BT)
    cut_BT = rises_areal(same_BT, 2 * same_BT, through_BT, 0.5)
    assert torch.equal(cut_BT.sum(-1), (through_BT.sum(-1) + 1) // 2)
    assert torch.equal(cut_BT, through_BT & (through_BT.cumsum(-1) <= cut_BT.sum(-1, keepdim=True)))
