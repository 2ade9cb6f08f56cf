"""The scorer that defines what is correct: every view of every rollout is one plain forward pass.

A scorer is opened once per optimizer step with the prompts of every view, then asked for some rows at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vergence.scoring.divergence import entropy, kl, sampled_logp
from vergence.types import BT, Batch, Prompt, Read, Stats

Logits = Callable[[Sequence[Prompt], Int[Tensor, "B T"], Bool[Tensor, "B T"]], Float[Tensor, "B T V"]]
"""A policy as the scorer sees it: prompts and response tokens -> the logits before each response token."""
Prompts = Mapping[str, Sequence[Prompt]]
"""view -> the prompt of each scene of the step."""


@runtime_checkable
class Scorer(Protocol):
    """What a scorer can do."""

    def open(
        self, batch: Batch, prompts: Prompts, reads: Sequence[Read]
    ) -> AbstractContextManager[Callable[[slice], Stats]]:
        """A context that gives the statistics of some rows; gradient work shared by rows is finished on leaving it."""
        ...


class Naive:
    """One forward pass per view and rollout.

    Args:
        policies: "now" (the weights being trained) and, where a view needs it, "reference".
        owner: whose weights each view looks with: view -> a key of `policies`.
        temperature: the temperature of sampling, by which logits are divided.
    """

    def __init__(self, policies: Mapping[str, Logits], owner: Mapping[str, str], *, temperature: float = 1.0) -> None:
        self.policies, self.owner, self.temperature = policies, owner, temperature

    def open(
        self, batch: Batch, prompts: Prompts, reads: Sequence[Read]
    ) -> AbstractContextManager[Callable[[slice], Stats]]:
        """See `Scorer`. Nothing is shared between rows here, so there is nothing to finish."""
        return nullcontext(lambda rows: self.score(batch.rows(rows), prompts, reads))

    def score(self, batch: Batch, prompts: Prompts, reads: Sequence[Read]) -> Stats:
        """Every read of these rollouts. Zero where the mask is false, so that padding can hold anything."""
        wanted: dict[str, list[Read]] = defaultdict(list)
        for read in reads:
            wanted[read.view].append(read)
            if read.against:
                wanted[read.against].append(read)
        logp: dict[tuple[str, bool], Tensor] = {}
        for view, those in wanted.items():
            grad = any(read.when == "grad" for read in those)
            with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
                logp[view, True] = self._logp(batch, prompts[view], view)
            logp[view, False] = logp[view, True].detach()
        return Stats({read[:3]: self._read(read, batch, logp) for read in reads})

    def _logp(self, batch: Batch, prompts: Sequence[Prompt], view: str) -> Float[Tensor, "B T V"]:
        logits = self.policies[self.owner[view]]
        rows = [prompts[scene] for scene in batch.scene_B.tolist()]
        return (logits(rows, batch.token_BT, batch.mask_BT).float() / self.temperature).log_softmax(-1)

    def _read(self, read: Read, batch: Batch, logp: Mapping[tuple[str, bool], Tensor]) -> BT:
        here_BTV = logp[read.view, read.when == "grad"]
        if read.quantity == "logp":
            value_BT = sampled_logp(here_BTV, batch.token_BT)
        elif read.quantity == "entropy":
            value_BT = entropy(here_BTV)
        else:
            value_BT = kl(here_BTV, logp[read.against, read.when == "grad"])
        return value_BT.where(batch.mask_BT, 0.0)


def reads_when(reads: Sequence[Read], *whens: Literal["frozen", "live", "grad"]) -> list[Read]:
    """Those of the reads that are taken at one of these times.

    >>> reads_when([Read("image", "logp", when="grad"), Read("masked", "logp", when="frozen")], "frozen")
    [Read(view='masked', quantity='logp', against=None, when='frozen')]
    """
    return [read for read in reads if read.when in whens]
