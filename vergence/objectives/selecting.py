"""Which tokens, and which rollouts: rules that pick by a score, row by row.

Every rule sees a row's own tokens and nothing else: neither padding nor a sibling changes what is picked.
"""

import torch
from torch import Tensor

from vergence.objectives.weighting import wide
from vergence.types import BT, B, Mask


def positive(advantage_B: B) -> Tensor:
    """The rollouts that did better than their siblings: A > 0, strictly, so that a group of equals has none.

    >>> positive(torch.tensor([0.5, 0.0, -0.5]))
    tensor([ True, False, False])
    """
    return advantage_B > 0


def top_share(score_BT: BT, among_BT: Mask, share: float) -> Mask:
    """The highest-scored `share` of each row's tokens, rounded up; of equals the one that is read first.

    Args:
        score_BT: what is ranked, constant; outside of `among_BT` it may be anything.
        among_BT: the tokens that the share is of.
        share: in [0, 1].

    >>> among_BT = torch.tensor([[True, True, True, True, True, False]])
    >>> top_share(torch.tensor([[1.0, 3.0, 1.0, 2.0, 0.0, 9.0]]), among_BT, 0.5).int()          # 3 of 5
    tensor([[1, 1, 0, 1, 0, 0]], dtype=torch.int32)
    """
    order_BT = _ranked(score_BT, among_BT).argsort(dim=-1, descending=True, stable=True)
    return among_BT & (order_BT.argsort(dim=-1) < _number(among_BT, share).ceil())


def at_least_top_share(score_BT: BT, among_BT: Mask, share: float) -> Mask:
    """Each row's tokens that score as high as the last of the top `share`, which is rounded down, but is at least 1.

    Unlike `top_share`, equals of the last one are all in.

    Arguments as of `top_share`.

    >>> among_BT = torch.tensor([[True, True, True, True, True, False]])
    >>> at_least_top_share(torch.tensor([[1.0, 3.0, 1.0, 2.0, 0.0, 9.0]]), among_BT, 0.5).int()          # 2 of 5
    tensor([[0, 1, 0, 1, 0, 0]], dtype=torch.int32)
    >>> at_least_top_share(torch.tensor([[1.0, 3.0, 1.0, 2.0, 0.0, 9.0]]), among_BT, 0.6).int()          # 3 of 5, tied
    tensor([[1, 1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    ranked_BT = _ranked(score_BT, among_BT)
    last_B1 = _number(among_BT, share).floor().clamp(min=1).long() - 1
    return among_BT & (ranked_BT >= ranked_BT.sort(dim=-1, descending=True).values.gather(-1, last_B1))


def _ranked(score_BT: BT, among_BT: Mask) -> BT:
    return score_BT.where(among_BT, -torch.inf)


def _number(among_BT: Mask, share: float) -> Tensor:
    """`share` of each row's tokens, (B, 1). 0.07 of 100 is 7.000000000000001: what is whole to rounding is whole."""
    exact_B1 = share * among_BT.sum(-1, keepdim=True).to(wide(among_BT.device))
    near_B1 = exact_B1.round()
    return torch.where((exact_B1 - near_B1).abs() <= 4 * torch.finfo(exact_B1.dtype).eps * near_B1, near_B1, exact_B1)


# -------------------------------------------------- tokens at which entropy rises when something is taken from the view
#
# H is the entropy of the next token with the image in full view, H' with something removed. Both are constants.


def rises_verl(entropy_BT: BT, removed_entropy_BT: BT, mask_BT: Mask, share: float) -> Mask:
    """The tokens whose entropy rises most, by (H' - H) / (H' + 1e-6): half of those at which it rises, rounded down.

    k = max(1, floor(share #{H' > H})), and every token as high as the k-th

    CPPO, released code for verl, recipe/cppo/cppo_dp_actor.py.

    Args:
        entropy_BT, removed_entropy_BT: H and H', nats, constant.
        mask_BT: the response's tokens.
        share: of the tokens at which entropy rises; the code has 0.5.

    >>> H_BT, removed_BT = torch.tensor([[1.0, 1.0, 0.1, 1.0, 1.0]]), torch.tensor([[2.0, 1.2, 0.2, 0.5, 1.3]])
    >>> mask_BT = torch.ones(1, 5, dtype=torch.bool)
    >>> rises_verl(H_BT, removed_BT, mask_BT, 0.5).int()          # of 1/2, 1/6, 1/2, -, 3/13: both equals
    tensor([[1, 0, 1, 0, 0]], dtype=torch.int32)
    """
    rise_BT = _relative_rise(entropy_BT, removed_entropy_BT)
    return at_least_top_share(rise_BT, mask_BT & (rise_BT > 0), share)


def rises_areal(entropy_BT: BT, removed_entropy_BT: BT, mask_BT: Mask, share: float) -> Mask:
    """The same, rounded up, and no more than that: k = ceil(share #{H' > H}), equals in the order of reading.

    CPPO, released code for AReaL, AReaL/cppo/engine.py. Arguments as of `rises_verl`.

    >>> H_BT, removed_BT = torch.tensor([[1.0, 1.0, 0.1, 1.0, 1.0]]), torch.tensor([[2.0, 1.2, 0.2, 0.5, 1.3]])
    >>> rises_areal(H_BT, removed_BT, torch.ones(1, 5, dtype=torch.bool), 0.25).int()
    tensor([[1, 0, 0, 0, 0]], dtype=torch.int32)
    """
    rise_BT = _relative_rise(entropy_BT, removed_entropy_BT)
    return top_share(rise_BT, mask_BT & (rise_BT > 0), share)


def rises_paper(entropy_BT: BT, removed_entropy_BT: BT, mask_BT: Mask, share: float) -> Mask:
    """The tokens whose entropy rises most, by H' - H: k = ceil(share T) of all the response's tokens.

    CPPO as its text has it. It may pick a token at which entropy falls. Arguments as of `rises_verl`.

    >>> H_BT, removed_BT = torch.tensor([[1.0, 1.0, 0.1, 1.0, 1.0]]), torch.tensor([[2.0, 1.2, 0.2, 0.5, 1.3]])
    >>> rises_paper(H_BT, removed_BT, torch.ones(1, 5, dtype=torch.bool), 0.5).int()          # 3 of 5
    tensor([[1, 1, 0, 0, 1]], dtype=torch.int32)
    """
    return top_share(removed_entropy_BT - entropy_BT, mask_BT, share)


def _relative_rise(entropy_BT: BT, removed_entropy_BT: BT) -> BT:
    return (removed_entropy_BT - entropy_BT).relu() / (removed_entropy_BT + 1e-6)
