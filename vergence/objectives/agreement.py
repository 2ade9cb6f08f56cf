"""How much of its advantage a rollout keeps, by how far it is from what another view would have it say. Ours."""

from typing import Literal

import torch
from torch import Tensor

from vergence.types import B

Weight = Literal["none", "exp", "inverse", "softmax", "sigmoid"]
Negatives = Literal["same", "untouched", "mirrored"]


def weights(K_B: B, scene_B: Tensor, weight: Weight, spread: float) -> B:
    """How much of its advantage each rollout keeps, by its divergence K from what the caption would have one say.

    exp: e^(-K/spread)    inverse: 1 / (1 + K)    softmax: e^(-K/spread) / mean_G e^(-K/spread)
    sigmoid: 2 sigmoid(-(K - mean_G K) / (std_G K + 1e-6)), std with G - 1

    All fall with K. The last two compare siblings, the rollouts of the same scene: equal ones have weight 1.

    Args:
        K_B: nats, constant; at least 0 for weights of at most 1 (exp, inverse).
        scene_B: which rollouts are siblings.

    >>> K_B, scene_B = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0, 1, 1])
    >>> weights(K_B, scene_B, "inverse", 0.5)
    tensor([1.0000, 0.5000, 0.2500])
    >>> weights(K_B, scene_B, "softmax", 0.5)          # 2 / (1 + e^-4), and what is left to 2
    tensor([1.0000, 1.9640, 0.0360])
    """
    if weight == "none":
        return torch.ones_like(K_B)
    if weight == "inverse":
        return 1 / (1 + K_B)
    if weight == "exp":
        return (-K_B / spread).exp()
    sibling_BB = scene_B[:, None] == scene_B
    number_B = sibling_BB.sum(-1)
    if weight == "softmax":
        # Relative to the siblings' least K, or all of them could be 0.
        least_B = K_B.expand(sibling_BB.shape).where(sibling_BB, torch.inf).amin(-1)
        near_B = ((least_B - K_B) / spread).exp()
        return near_B / siblings_mean(near_B, scene_B)
    deviation_B = K_B - siblings_mean(K_B, scene_B)
    variance_B = siblings_mean(deviation_B.square(), scene_B) * number_B / (number_B - 1).clamp(min=1)
    return 2 * torch.sigmoid(-deviation_B / (variance_B.sqrt() + 1e-6))


def signed(w_B: B, advantage_B: B, negatives: Negatives) -> B:
    """The weights, where A < 0 as `negatives` says: the same, 1 (untouched), or 2 - w within [0, 2] (mirrored).

    >>> w_B, advantage_B = torch.tensor([0.5, 0.5, 2.5]), torch.tensor([1.0, -1.0, -1.0])
    >>> signed(w_B, advantage_B, "mirrored"), signed(w_B, advantage_B, "untouched")
    (tensor([0.5000, 1.5000, 0.0000]), tensor([0.5000, 1.0000, 1.0000]))
    """
    other_B = {"same": w_B, "untouched": torch.ones_like(w_B), "mirrored": (2 - w_B).clamp(0.0, 2.0)}[negatives]
    return torch.where(advantage_B < 0, other_B, w_B)


def siblings_mean(value_B: B, scene_B: Tensor) -> B:
    """The mean over the rollouts of the same scene, for each rollout.

    >>> siblings_mean(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([0, 1, 0]))
    tensor([2., 5., 2.])
    """
    sibling_BB = scene_B[:, None] == scene_B
    return torch.where(sibling_BB, value_B, 0.0).sum(-1) / sibling_BB.sum(-1)
