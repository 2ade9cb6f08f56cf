"""Prompts that were read once, for all their responses: what is kept of them, and what a model must offer for it.

A response attends to the keys and values of its prompt. Attention is causal, so these do not depend on the response:
they are computed once, and the gradient that all responses send into them goes back through the prompt once,

    dL/dw = sum_i dL_i/dw at given keys and values  +  (sum_i dL_i/d(keys, values)) d(keys, values)/dw
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from vergence.types import Prompt


class Stored(NamedTuple):
    """What is kept of S prompts, all but their last token: that one is read with the response."""

    keys: tuple[Float[Tensor, "S H P d"], ...]
    """Of every layer, after their rotation by position. Prompts are padded on the left."""
    values: tuple[Float[Tensor, "S H P d"], ...]
    seen_SP: Bool[Tensor, "S P"]
    """False on padding."""
    last_S: Int[Tensor, " S"]
    """The last token of each prompt."""
    position_S: Int[Tensor, " S"]
    """Its position, which those of the response follow."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Stored:
        """With every layer's keys and values changed."""
        keys, values = (tuple(map(change, layers)) for layers in (self.keys, self.values))
        return self._replace(keys=keys, values=values)


def join(parts: Sequence[Stored]) -> Stored:
    """The prompts of all parts, in order; carries gradient to the parts.

    >>> one, two = (Stored((torch.ones(1, 1, P, 2),), (torch.ones(1, 1, P, 2),), torch.ones(1, P, dtype=torch.bool),
    ...     torch.tensor([P]), torch.tensor([P])) for P in (1, 3))
    >>> joined = join([one, two])
    >>> joined.seen_SP.tolist(), joined.keys[0].shape, joined.last_S.tolist()
    ([[False, False, True], [True, True, True]], torch.Size([2, 1, 3, 2]), [1, 3])
    """
    if len(parts) == 1:
        return parts[0]
    longest = max(part.seen_SP.shape[1] for part in parts)
    wide = [part.map(lambda x, n=longest - part.seen_SP.shape[1]: pad(x, (0, 0, n, 0)) if n else x) for part in parts]
    return Stored(
        tuple(map(torch.cat, zip(*(part.keys for part in wide), strict=True))),
        tuple(map(torch.cat, zip(*(part.values for part in wide), strict=True))),
        torch.cat([pad(part.seen_SP, (longest - part.seen_SP.shape[1], 0)) for part in parts]),
        torch.cat([part.last_S for part in parts]),
        torch.cat([part.position_S for part in parts]),
    )


@runtime_checkable
class Reader(Protocol):
    """A policy that reads prompts and responses apart."""

    @property
    def weight_VD(self) -> Float[Tensor, "V D"]:
        """The output layer's weight; it has no bias."""
        ...

    @property
    def learns(self) -> bool:
        """Whether any of its weights does."""
        ...

    def read(self, prompts: Sequence[Prompt]) -> Stored:
        """What is kept of these prompts, each image of them looked at once; carries gradient to the weights."""
        ...

    def respond(
        self, stored: Stored, row_B: Int[Tensor, " B"], token_BT: Int[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """The last hidden state before each response token, response b being to prompt `row_B[b]`."""
        ...
