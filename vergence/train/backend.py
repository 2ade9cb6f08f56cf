"""Where a run happens: what its processes have to agree on; and the case of one, which is the definition of correct.

Every process knows the whole round: rollouts, batch, frozen statistics, totals and metrics are the same everywhere,
bit for bit. What the model is asked to do is divided, by whole groups (`train.division`), and the outcomes are
exchanged. So nothing depends on the number of processes but the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from vergence.types import B, UserError

Outcome = TypeVar("Outcome")


@runtime_checkable
class Backend(Protocol):
    """What several processes have to agree on, where each has rollouts of its own."""

    def sum(self, totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each number added over processes."""
        ...

    def gather(self, value_B: B) -> B:
        """A number per rollout, of the rollouts of every process."""
        ...

    def clip(self, weights: Iterable[Tensor], norm: float) -> float:
        """Scale the whole gradient down to `norm` if it is longer; return its length before."""
        ...


@runtime_checkable
class Peers(Protocol):
    """Processes that tell each other something: all of them, in the same order."""

    rank: int
    """This process's number, from 0. The first alone writes and prints."""
    size: int
    """How many there are."""

    def exchange(self, own: Any) -> list[Any]:
        """What every process has given here, in the order of the processes."""
        ...


@runtime_checkable
class Group(Peers, Protocol):
    """The processes of a run, each of which knows all of its rollouts."""

    def gather(self, value_B: B) -> B:
        """A number per rollout, of the rollouts of the whole round: those that were given."""
        ...

    def clip(self, weights: Iterable[Tensor], norm: float) -> float:
        """Scale the whole gradient down to `norm` if it is longer; return its length before."""
        ...

    def gather_weights(self) -> None:
        """Have the whole weights of the policy here, until `reduce_gradient`. Nothing, if they are."""
        ...

    def let_go(self) -> None:
        """Go back to shares of the weights, if the whole ones are here; there must be no gradient."""
        ...

    def keep_gradient(self) -> None:
        """After a backward pass: put what has come to the weights by with what came before, in float32 at least."""
        ...

    def reduce_gradient(self) -> None:
        """Add the gradients of all processes, once, and go back to each one's share of weights and gradient."""
        ...

    def whole(self, share: Tensor) -> Tensor:
        """The whole of what this process has a share of: a weight, its gradient, or what an optimizer keeps of it."""
        ...

    def share_of(self, whole: Tensor, weight: Tensor) -> Tensor:
        """This process's share of a tensor of the shape of a weight; a number, which has no shares, as it is."""
        ...

    def put(self, weight: Tensor, whole: Tensor) -> None:
        """Overwrite a weight, or this process's share of it, by `whole`."""
        ...

    def is_master(self, weight: Tensor) -> bool:
        """Whether a weight that the optimizer updates is the float32 copy of one that the model computes with."""
        ...


class OneProcess:
    """One process, one device."""

    rank, size = 0, 1

    def sum(self, totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numbers themselves."""
        return dict(totals)

    def gather(self, value_B: B) -> B:
        """The numbers themselves."""
        return value_B

    def clip(self, weights: Iterable[Tensor], norm: float) -> float:
        """See `Backend`."""
        return float(torch.nn.utils.clip_grad_norm_(weights, norm))

    def exchange(self, own: Any) -> list[Any]:
        """What was given.

        >>> OneProcess().exchange("alone")
        ['alone']
        """
        return [own]

    def gather_weights(self) -> None:
        """They are here."""

    def let_go(self) -> None:
        """They stay."""

    def keep_gradient(self) -> None:
        """It stands beside the weights."""

    def reduce_gradient(self) -> None:
        """There is nothing to add."""

    def whole(self, share: Tensor) -> Tensor:
        """The tensor itself."""
        return share

    def share_of(self, whole: Tensor, weight: Tensor) -> Tensor:
        """The tensor itself."""
        return whole

    @torch.no_grad()
    def put(self, weight: Tensor, whole: Tensor) -> None:
        """See `Group`."""
        weight.copy_(whole)

    def is_master(self, weight: Tensor) -> bool:
        """False: `train.masters` keeps such copies by itself."""
        return False


ONE = OneProcess()


class SaidElsewhere(UserError):
    """Bad input that another process has met with."""


class _Failed(NamedTuple):
    """What is told of an error that ends a run in good order."""

    kind: Literal["input", "memory"]
    told: str


def together(peers: Peers, work: Callable[[], Outcome]) -> list[Outcome]:
    """Do something here while every process does, and return everyone's outcome, in the order of the processes.

    Bad input and memory that runs out, on any of them, are raised on all: then all of them can save what is finished.
    Any other error ends its process, and the others with it.

    Raises:
        UserError: one was raised here, or `SaidElsewhere`: in another process, of which the first counts.
        MemoryError: memory has run out in one.

    >>> together(ONE, lambda: 7)
    [7]
    """
    if peers.size == 1:
        return [work()]
    own = outcome = None
    try:
        outcome = work()
    except (UserError, MemoryError, RuntimeError) as error:
        own, failed = error, _failed(error)
    else:
        failed = None
    everyone = peers.exchange((outcome, failed))
    for rank, (_, said) in enumerate(everyone):
        if said is not None and rank == peers.rank:
            raise own
        if said is not None:
            raise SaidElsewhere(said.told) if said.kind == "input" else MemoryError(f"process {rank}: {said.told}")
    return [outcome for outcome, _ in everyone]


def alike(peers: Peers, work: Callable[[], Outcome]) -> Outcome:
    """Do what every process does for itself, as scenes are drawn, and return the outcome here. Nothing of it is sent.

    Raises:
        UserError, MemoryError: as of `together`: a file may be missing on one machine alone.

    >>> alike(ONE, lambda: 7)
    7
    """
    kept: list[Outcome] = []
    together(peers, lambda: kept.append(work()))
    return kept[0]


def _failed(error: Exception) -> _Failed:
    """What the others are told of it.

    Raises:
        Exception: the error itself, where it is none that ends a run in good order.
    """
    from vergence.train.memory import is_out_of_memory  # which plans by the parts of a run, and these by backends

    if isinstance(error, UserError):
        return _Failed("input", str(error))
    if is_out_of_memory(error):
        return _Failed("memory", str(error))
    raise error


def first(peers: Peers, work: Callable[[], Outcome]) -> Outcome:
    """Do something in the first process alone, and return what it gives, in all of them.

    Raises:
        UserError: of the first process, in all of them.
    """
    return together(peers, lambda: work() if peers.rank == 0 else None)[0]
