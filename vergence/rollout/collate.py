"""Rollouts as tensors."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from vergence import chance
from vergence.types import Batch, Rollout


def collate(rollouts: Sequence[Rollout], siblings: int) -> Batch:
    """The batch of these rollouts, siblings adjacent; advantages are zero until credit is given.

    Responses are padded on the right; every sampled token trains, the end of turn included.
    """
    drawn = [rollout.sampled for rollout in rollouts]
    key_B = torch.tensor([rollout.key for rollout in rollouts])
    mask_BT = pad_sequence([torch.ones(len(one.tokens), dtype=torch.bool) for one in drawn], batch_first=True)
    return Batch(
        key_B=key_B,
        scene_B=torch.arange(len(rollouts)) // siblings,
        token_BT=pad_sequence([torch.tensor(one.tokens) for one in drawn], batch_first=True),
        mask_BT=mask_BT,
        sampled_logp_BT=pad_sequence([torch.tensor(one.logp) for one in drawn], batch_first=True),
        chance_BT=chance.uniform(key_B, -1, mask_BT.shape[1]).float(),  # sampling noise has positions from 0 on
        correct_B=torch.tensor([rollout.verdict.accuracy for rollout in rollouts]),
        advantage_B=torch.zeros(len(rollouts)),
        advantage_BT=torch.zeros(mask_BT.shape),
    )
