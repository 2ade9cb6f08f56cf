"""From hidden states to what the views say about each token: the fused head, told which views to compare where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vergence.scoring.head import fused
from vergence.types import Batch, Read, Stats


class State(NamedTuple):
    """How far one view has come with the rollouts that its gate lets through."""

    through_B: Bool[Tensor, " B"]
    hidden_nTD: Float[Tensor, "n T D"]
    """Before each response token, of those rollouts alone, in order; T may be short of the batch's."""
    weight_VD: Float[Tensor, "V D"]
    """Of the output layer that reads it."""
    grad: bool
    """Whether it carries gradient; a constant if not."""


def statistics(reads: Sequence[Read], states: Mapping[str, State], batch: Batch, *, temperature: float) -> Stats:
    """Every read of these rollouts; zero where the mask is false or a gate did not let the rollout through.

    Reads with `when="grad"` carry gradient to the hidden states and output weights of the views that do.
    """
    value = {read[:3]: torch.zeros(batch.mask_BT.shape, device=batch.mask_BT.device) for read in reads}
    for views in compared(reads):
        own = [read for read in reads if read.view in views]
        for together, rows_B in patterns([(view, states[view].through_B) for view in views]):
            asked = [read for read in own if {read.view, read.against or read.view} <= set(together)]
            for read, found_N, where in _measured(
                asked, {name: states[name] for name in together}, rows_B, batch, temperature
            ):
                value[read[:3]] = value[read[:3]].to(found_N.dtype).index_put(where, found_N)
    return Stats(value)


def compared(reads: Sequence[Read]) -> list[list[str]]:
    """The views, in groups of which none is compared with a view of another group.

    >>> compared([Read("image", "logp"), Read("kept", "kl", "image"), Read("removed", "entropy")])
    [['image', 'kept'], ['removed']]
    """
    groups: list[list[str]] = []
    for read in reads:
        views = [read.view, *([read.against] if read.against else [])]
        touched = [group for group in groups if set(group) & set(views)]
        merged = list(dict.fromkeys([view for group in touched for view in group] + views))
        groups = [group for group in groups if group not in touched] + [merged]
    return groups


def patterns(through: Sequence[tuple[str, Bool[Tensor, " B"]]]) -> Iterator[tuple[list[str], Bool[Tensor, " B"]]]:
    """Which rows the same views were spent on: (views, rows), without the rows that none was.

    >>> image, kept = ("image", torch.tensor([True, True, True])), ("kept", torch.tensor([False, True, False]))
    >>> [(views, rows.tolist()) for views, rows in patterns([image, kept])]
    [(['image'], [True, False, True]), (['image', 'kept'], [False, True, False])]
    """
    through_BK = torch.stack([through_B for _, through_B in through], -1)
    for of_K in through_BK.unique(dim=0):
        if of_K.any():
            yield (
                [name for (name, _), spent in zip(through, of_K.tolist(), strict=True) if spent],
                (through_BK == of_K).all(-1),
            )


def _measured(
    reads: Sequence[Read], states: Mapping[str, State], rows_B: Tensor, batch: Batch, temperature: float
) -> Iterator[tuple[Read, Tensor, tuple[Tensor, Tensor]]]:
    """(read, its values, their places) at the trained tokens of these rows."""
    mask_BT = batch.mask_BT & rows_B[:, None]
    where = mask_BT.nonzero(as_tuple=True)
    if not reads or not len(where[0]):
        return
    number, outputs = {view: k for k, view in enumerate(states)}, defaultdict(list)
    for read in reads:
        views = (number[read.view],) if read.against is None else (number[read.view], number[read.against])
        outputs[read.quantity].append(views)
    hidden, weight_VD = _one_head([_at(state, where) for state in states.values()], [*states.values()])
    out = fused(
        hidden,
        weight_VD,
        batch.token_BT[where],
        temperature=temperature,
        entropies=[view for (view,) in outputs["entropy"]],
        kls=outputs["kl"],
        js=outputs["js"],
        grad=[state.grad for state in states.values()],
    )
    for read in reads:
        k = number[read.view]
        if read.quantity == "logp":
            found_N = out.logp_KN[k]
        elif read.quantity == "entropy":
            found_N = out.entropy[k]
        else:
            found_N = (out.kl if read.quantity == "kl" else out.js)[k, number[read.against]]
        yield read, found_N if read.when == "grad" else found_N.detach(), where


def _at(state: State, where: tuple[Tensor, Tensor]) -> Float[Tensor, "N D"]:
    """The hidden states at these places of the batch."""
    row_B = state.through_B.cumsum(0) - 1
    return state.hidden_nTD[row_B[where[0]], where[1]]


def _one_head(hidden: Sequence[Tensor], states: Sequence[State]) -> tuple[Tensor, Tensor]:
    """The views' states below each other, and the output layer that reads them all.

    Two policies have two output layers W and U. [W U] reads [h 0] and [0 h] as they would: exact, at twice the cost.
    """
    heads = list({id(state.weight_VD): state.weight_VD for state in states}.values())
    if len(heads) == 1:
        return torch.stack(list(hidden)), heads[0]
    at = {id(weight_VD): number for number, weight_VD in enumerate(heads)}
    wide = []
    for state, hidden_ND in zip(states, hidden, strict=True):
        parts = [torch.zeros_like(hidden_ND)] * len(heads)
        parts[at[id(state.weight_VD)]] = hidden_ND
        wide.append(torch.cat(parts, -1))
    return torch.stack(wide), torch.cat(heads, -1)
