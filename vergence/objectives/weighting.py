"""Whose mean: how much each token counts, and what the sum is divided by.

Both halves of a mean are additive over rollouts, so a step may be cut into micro-batches and spread over ranks at will:
the totals are summed over all of it first, and `objective.reduce` divides once.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from vergence.types import BT, Mask, Scalar

MeanName = Literal["token", "sequence"]


class Mean(NamedTuple):
    """A mean over tokens, as the two numbers it is the ratio of: sum(weigh * value) / total."""

    weigh: Callable[[Mask], BT]
    total: Callable[[Mask], Scalar]


def wide(device: torch.device) -> torch.dtype:
    """The dtype that weights, totals and therefore sums are in: float64, or float32 on Apple's mps, which has no other.

    Everything here is (B, T), so the width costs nothing; values and gradients stay in the model's dtype.

    >>> wide(torch.device("cpu")), wide(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64


def each_token(mask_BT: Mask) -> BT:
    """1 on every masked token.

    >>> each_token(torch.tensor([[True, True, True, False], [True, False, False, False]])).tolist()
    [[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    """
    return mask_BT.to(wide(mask_BT.device))


def tokens(mask_BT: Mask) -> Scalar:
    """The number of masked tokens.

    >>> tokens(torch.tensor([[True, True, True, False], [True, False, False, False]])).item()
    4.0
    """
    return each_token(mask_BT).sum()


def share_of_row(mask_BT: Mask) -> BT:
    """1 / length on every masked token: each row that has any adds up to 1.

    >>> share_of_row(torch.tensor([[True, True, False, False], [True, False, False, False]])).tolist()
    [[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    """
    w_BT = each_token(mask_BT)
    return w_BT / w_BT.sum(-1, keepdim=True).clamp(min=1)


def rows(mask_BT: Mask) -> Scalar:
    """The number of rows that have a masked token.

    >>> rows(torch.tensor([[True, True, False], [False, False, False]])).item()
    1.0
    """
    return each_token(mask_BT.any(-1, keepdim=True)).sum()


PER_TOKEN = Mean(each_token, tokens)
"""1 / sum_i T_i * sum_i sum_t: every token of the step counts the same (DAPO, arXiv:2503.14476)."""

PER_SEQUENCE = Mean(share_of_row, rows)
"""1 / B * sum_i 1 / T_i * sum_t: every rollout counts the same, whatever its length (GRPO, arXiv:2402.03300)."""

MEANS: dict[str, Mean] = {"token": PER_TOKEN, "sequence": PER_SEQUENCE}


def per_budget(tokens_each: int) -> Mean:
    """1 / (B * budget) * sum_i sum_t: no rollout's length enters a denominator (Dr. GRPO, arXiv:2503.20783).

    Args:
        tokens_each: the constant that every rollout is divided by, tokens: the longest response.

    >>> mask_BT = torch.tensor([[True, True, True, False], [True, False, False, False]])
    >>> per_budget(4).weigh(mask_BT).sum().item(), per_budget(4).total(mask_BT).item()
    (4.0, 8.0)
    """
    return Mean(each_token, lambda mask_BT: tokens_each * rows(mask_BT))
