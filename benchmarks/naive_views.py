"""What a method adds to GRPO where nothing is shared: the views that are scored once more for every row, and its term.

For the contestants that are not Vergence. The terms are written out in plain PyTorch; their cost does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

BT = Float[Tensor, "B T"]
Scored = tuple[BT, BT | None]
"""(log-probability of each token, entropy of its distribution)"""
Term = Callable[[BT, BT | None, Sequence[Scored], Int[Tensor, "B T"], Float[Tensor, " B"]], Float[Tensor, ""]]
"""(log-probability, entropy, those of the views, mask, advantage) -> what is added to the loss"""

GAMMA, COEFFICIENT, TAU, TOP, CAPTION, TEMPERATURE = 0.02, 0.01, 0.1, 0.5, 0.05, 0.5


Weigh = Callable[[BT, BT, Int[Tensor, "B T"], Float[Tensor, " B"]], Float[Tensor, " B"]]
"""(log-probability when it was sampled, that of the view, mask, advantage) -> the advantage that the surrogate sees"""


class Extra(NamedTuple):
    """What a method needs beyond GRPO."""

    views: tuple[tuple[str, bool], ...]
    """(view, whether with gradient), each for every row. Those without gradient are scored first."""
    term: Term
    weigh: Weigh | None = None
    """By the first view, where advantages depend on it."""


def k3(logp_BT: BT, other_logp_BT: BT) -> BT:
    """The estimate of KL(here || there) from the sampled token, held to 10 nats."""
    log_ratio = (other_logp_BT - logp_BT).clamp(-20.0, 20.0)
    return (log_ratio.exp() - log_ratio - 1.0).clamp(max=10.0)


def _mean(value_BT: BT, mask_BT: Tensor) -> Float[Tensor, ""]:
    return (value_BT * mask_BT).sum() / mask_BT.sum().clamp(min=1)


def perception(logp_BT: BT, _: BT | None, views: Sequence[Scored], mask_BT: Tensor, __: Tensor) -> Float[Tensor, ""]:
    """PAPO: as far as possible from what the masked image would have one say."""
    return -GAMMA * _mean(k3(logp_BT, views[0][0]), mask_BT)


def contrast(
    logp_BT: BT, entropy_BT: BT, views: Sequence[Scored], mask_BT: Tensor, advantage_B: Tensor
) -> Float[Tensor, ""]:
    """CPPO: both views are scored for every row, and the rows of A <= 0 are then left out, as in the released code."""
    (kept_BT, _), (removed_BT, removed_entropy_BT) = views
    rise_BT = ((removed_entropy_BT - entropy_BT).relu() / (removed_entropy_BT + 1e-6)).detach()
    among_BT = (rise_BT > 0) & (mask_BT > 0) & (advantage_B > 0)[:, None]
    number_B1 = (TOP * among_BT.sum(-1, keepdim=True)).floor().clamp(min=1).long() - 1
    ranked_BT = rise_BT.where(among_BT, -torch.inf)
    chosen_BT = among_BT & (ranked_BT >= ranked_BT.sort(-1, descending=True).values.gather(-1, number_B1))
    margin_BT = (k3(logp_BT, kept_BT) - k3(logp_BT, removed_BT)) / TAU
    return COEFFICIENT * _mean(softplus(margin_BT), chosen_BT)


def consistency(logp_BT: BT, _: BT | None, views: Sequence[Scored], mask_BT: Tensor, __: Tensor) -> Float[Tensor, ""]:
    """CapPO as we reconstruct it: near to what the caption would have one say."""
    return CAPTION * _of_each(k3(logp_BT, views[0][0]), mask_BT).mean()


def consistent(sampled_BT: BT, caption_BT: BT, mask_BT: Tensor, advantage_B: Tensor) -> Float[Tensor, " B"]:
    """CapPO as we reconstruct it: an advantage counts less, the further the caption would have led elsewhere."""
    return advantage_B * (-_of_each(k3(sampled_BT, caption_BT), mask_BT) / TEMPERATURE).exp()


def _of_each(value_BT: BT, mask_BT: Tensor) -> Float[Tensor, " B"]:
    return (value_BT * mask_BT).sum(-1) / mask_BT.sum(-1).clamp(min=1)


EXTRA = {
    "grpo": Extra((), lambda logp_BT, *_: torch.zeros((), device=logp_BT.device)),
    "papo": Extra((("masked", False),), perception),
    "papo_grad": Extra((("masked", True),), perception),
    "cppo": Extra((("kept", True), ("removed", True)), contrast),
    "cappo": Extra((("caption", False),), consistency, consistent),
}
"""The released PAPO reads the masked image without gradient, its paper with. CapPO's caption is a constant, as in our
reconstruction by default."""
