"""From the rewards of siblings to their advantages: (S, G) in, (S, G) out."""

import torch
from jaxtyping import Bool
from torch import Tensor

from vergence.types import SG


def centred(reward_SG: SG) -> SG:
    """Rewards minus the mean of their siblings; exactly 0 where all siblings got the same.

    A_i = R_i - mean_G(R)          Dr. GRPO, arXiv:2503.20783

    Args:
        reward_SG: one reward per rollout, constant.

    Returns:
        Advantages, in units of reward.

    >>> centred(torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.1, 0.1, 0.1, 0.1]]))
    tensor([[ 0.5000, -0.5000, -0.5000,  0.5000],
            [ 0.0000,  0.0000,  0.0000,  0.0000]])
    """
    # The mean of equal floats need not equal them, and `standardised` would blow the rounding up.
    equal_S1 = reward_SG.amax(-1, keepdim=True) == reward_SG.amin(-1, keepdim=True)
    return (reward_SG - reward_SG.mean(-1, keepdim=True)).where(~equal_S1, 0.0)


def standardised(reward_SG: SG, *, eps: float = 1e-6, ddof: int = 1) -> SG:
    """Rewards minus the mean of their siblings, in units of the siblings' standard deviation.

    A_i = (R_i - mean_G(R)) / (std_G(R) + eps)          GRPO, arXiv:2402.03300; `eps` as in EasyR1 and PAPO

    A group of equal rewards gets exactly 0, and so does a group of one.

    Args:
        reward_SG: one reward per rollout, constant.
        eps: added to the standard deviation, in units of reward.
        ddof: 1 divides the squares by G - 1 (`torch.std`, what the released code runs), 0 by G.

    Returns:
        Advantages, in standard deviations.

    >>> standardised(torch.tensor([[0.0, 2.0]]), eps=0.0, ddof=0)
    tensor([[-1.,  1.]])
    >>> standardised(torch.tensor([[5.0]]))
    tensor([[0.]])
    """
    deviation_SG = centred(reward_SG)
    freedom = max(reward_SG.shape[-1] - ddof, 1)
    std_S1 = (deviation_SG.square().sum(-1, keepdim=True) / freedom).sqrt()
    return torch.where(deviation_SG == 0, 0.0, deviation_SG / (std_S1 + eps))


def mixed(correct_SG: SG) -> Bool[Tensor, " S"]:
    """The groups whose siblings differ in correctness: the others have nothing to learn from.

    Dynamic sampling of DAPO, arXiv:2503.14476 section 3.2. From correctness and not from the reward: where only the
    format differs, an all-wrong group would pass.

    >>> mixed(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))
    tensor([False,  True, False])
    """
    return correct_SG.amax(-1) > correct_SG.amin(-1)
