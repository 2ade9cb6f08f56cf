"""Rollouts as tensors."""

from collections.abc import Sequence

import torch

from vergence.types import Batch, Rollout


def collate(rollouts: Sequence[Rollout], siblings: int) -> Batch:
    """The batch of these rollouts, siblings adjacent; advantages are zero until credit is given.

    Responses are padded on the right; every sampled token trains, the end of turn included.
    """
    longest = max(len(rollout.sampled.tokens) for rollout in rollouts)

    def padded(rows: Sequence[Sequence], fill: float) -> list[list]:
        return [[*row, *[fill] * (longest - len(row))] for row in rows]

    return Batch(
        key_B=torch.tensor([rollout.key for rollout in rollouts]),
        scene_B=torch.arange(len(rollouts)) // siblings,
        token_BT=torch.tensor(padded([rollout.sampled.tokens for rollout in rollouts], 0)),
        mask_BT=torch.tensor(padded([[True] * len(rollout.sampled.tokens) for rollout in rollouts], False)),
        sampled_logp_BT=torch.tensor(padded([rollout.sampled.logp for rollout in rollouts], 0.0)),
        correct_B=torch.tensor([rollout.verdict.accuracy for rollout in rollouts]),
        advantage_B=torch.zeros(len(rollouts)),
    )
