"""The scorer that defines what is correct: every view of every rollout is one plain forward pass.

A scorer is opened once per optimizer step with the prompts of every view, then asked for some rows at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vergence.scoring.divergence import entropy, js, kl, sampled_logp
from vergence.types import BT, Batch, Prompt, Read, Stats, View

Logits = Callable[[Sequence[Prompt], Int[Tensor, "B T"], Bool[Tensor, "B T"]], Float[Tensor, "B T V"]]
"""A policy as the scorer sees it: prompts and response tokens -> the logits before each response token."""
Prompts = Mapping[str, Sequence[Prompt]]
"""view -> the prompt of each scene of the step."""
Packing = Literal["whole", "groups", "open", "responses"]
"""What is read with a row: its prompt; its prompt, once for all rows of its scene that are in the same micro-batch, or
that come while the prompt is open; nothing else."""


@runtime_checkable
class Scorer(Protocol):
    """What a scorer can do."""

    @property
    def packing(self) -> Packing:
        """How rows are best put together into micro-batches."""
        ...

    def open(
        self, batch: Batch, prompts: Prompts, reads: Sequence[Read]
    ) -> AbstractContextManager[Callable[[slice | Tensor], Stats]]:
        """A context that gives the statistics of some rows; gradient work shared by rows is finished on leaving it.

        Every row is asked for once, and the backward pass of what was given precedes the next.
        """
        ...


class Looked(NamedTuple):
    """What one view says about the rollouts that its gate lets through."""

    through_B: Bool[Tensor, " B"]
    logp_BTV: Float[Tensor, "n T V"]
    """Of those rollouts alone, in order."""


class Naive:
    """One forward pass per view and rollout; none for a rollout that the view's gate keeps out.

    Args:
        policies: "now" (the weights being trained) and, where a view needs it, "reference".
        views: whose weights each view looks with, and on which rollouts it is spent.
        temperature: the temperature of sampling, by which logits are divided.
    """

    def __init__(self, policies: Mapping[str, Logits], views: Mapping[str, View], *, temperature: float = 1.0) -> None:
        self.policies, self.views, self.temperature = policies, views, temperature

    packing: Packing = "whole"

    def open(
        self, batch: Batch, prompts: Prompts, reads: Sequence[Read]
    ) -> AbstractContextManager[Callable[[slice | Tensor], Stats]]:
        """See `Scorer`. Nothing is shared between rows here, so there is nothing to finish."""
        return nullcontext(lambda rows: self.score(batch.rows(rows), prompts, reads))

    def score(self, batch: Batch, prompts: Prompts, reads: Sequence[Read]) -> Stats:
        """Every read of these rollouts. Zero where the mask is false, so that padding can hold anything."""
        wanted: dict[str, list[Read]] = defaultdict(list)
        for read in reads:
            wanted[read.view].append(read)
            if read.against:
                wanted[read.against].append(read)
        looked: dict[tuple[str, bool], Looked] = {}
        for view, those in wanted.items():
            grad = any(read.when == "grad" for read in those)
            with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
                looked[view, True] = here = self._look(batch, prompts[view], view)
            looked[view, False] = Looked(here.through_B, here.logp_BTV.detach())
        return Stats({read[:3]: self._read(read, batch, looked) for read in reads})

    def _look(self, batch: Batch, prompts: Sequence[Prompt], view: str) -> Looked:
        through_B = self.views[view].through(batch)
        if not through_B.any():
            return Looked(through_B, torch.empty(0, batch.mask_BT.shape[1], 1, device=batch.mask_BT.device))
        some = batch if through_B.all() else batch.rows(through_B)
        logits = self.policies[self.views[view].policy]
        rows = [prompts[scene] for scene in some.scene_B.tolist()]
        return Looked(through_B, (logits(rows, some.token_BT, some.mask_BT).float() / self.temperature).log_softmax(-1))

    def _read(self, read: Read, batch: Batch, looked: Mapping[tuple[str, bool], Looked]) -> BT:
        grad = read.when == "grad"
        here = looked[read.view, grad]
        there = looked[read.against, grad] if read.against else here
        both_B = here.through_B & there.through_B
        value_BT = torch.zeros(batch.mask_BT.shape, device=batch.mask_BT.device)
        if not both_B.any():
            return value_BT
        here_BTV = _of(here, both_B)
        if read.quantity == "logp":
            found_BT = sampled_logp(here_BTV, batch.token_BT[both_B])
        elif read.quantity == "entropy":
            found_BT = entropy(here_BTV)
        else:
            found_BT = (kl if read.quantity == "kl" else js)(here_BTV, _of(there, both_B))
        found_BT = found_BT.where(batch.mask_BT[both_B], 0.0)
        return found_BT if both_B.all() else value_BT.to(found_BT.dtype).index_put((both_B.nonzero()[:, 0],), found_BT)


def _of(looked: Looked, rows_B: Bool[Tensor, " B"]) -> Float[Tensor, "n T V"]:
    """The distributions of these rows, all of which the gate let through."""
    inside = rows_B[looked.through_B]
    return looked.logp_BTV if inside.all() else looked.logp_BTV[inside]


def reads_when(reads: Sequence[Read], *whens: Literal["frozen", "live", "grad"]) -> list[Read]:
    """Those of the reads that are taken at one of these times.

    >>> reads_when([Read("image", "logp", when="grad"), Read("masked", "logp", when="frozen")], "frozen")
    [Read(view='masked', quantity='logp', against=None, when='frozen')]
    """
    return [read for read in reads if read.when in whens]
