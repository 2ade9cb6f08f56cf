"""Where a run happens: the few operations that depend on how many processes there are."""

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vergence.types import B


@runtime_checkable
class Backend(Protocol):
    """What several processes have to agree on."""

    def sum(self, totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each number added over processes."""
        ...

    def gather(self, value_B: B) -> B:
        """A number per rollout, of the rollouts of every process."""
        ...

    def clip(self, weights: Iterable[Tensor], norm: float) -> float:
        """Scale the whole gradient down to `norm` if it is longer; return its length before."""
        ...


class OneProcess:
    """One process, one device: the definition of correct."""

    def sum(self, totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numbers themselves."""
        return dict(totals)

    def gather(self, value_B: B) -> B:
        """The numbers themselves."""
        return value_B

    def clip(self, weights: Iterable[Tensor], norm: float) -> float:
        """See `Backend`."""
        return float(torch.nn.utils.clip_grad_norm_(weights, norm))
