"""Which of several processes does what: whole groups, as evenly as their tokens allow, and the same wherever asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from vergence.scoring.naive import Prompts
from vergence.train.backend import Peers, together
from vergence.types import Batch, Stats

PROMPT = 512
"""Response tokens that a group's prompts count as, beside its responses: an image, shown a few times."""
One = TypeVar("One")


def slices(number: int, size: int) -> list[slice]:
    """So many things in order, in `size` parts of which none has two more than another.

    >>> [list(range(4)[part]) for part in slices(4, 3)]
    [[0, 1], [2], [3]]
    """
    ends = [-(-number * rank // size) for rank in range(size + 1)]
    return [slice(*both) for both in pairwise(ends)]


def each_its_part(
    peers: Peers, things: Sequence[Any], work: Callable[[slice], list[One]], *, alone: bool = False
) -> list[One]:
    """What becomes of the things in order, each process seeing to a part of them.

    Args:
        alone: the first process sees to all of them.
        work: what becomes of those in a slice, in order; one that is not empty.

    Raises:
        UserError, MemoryError: as of `together`.
    """
    parts = slices(len(things), 1 if alone else peers.size)
    own = parts[peers.rank] if peers.rank < len(parts) else slice(0, 0)
    return [one for part in together(peers, lambda: work(own) if things[own] else []) for one in part]


def each(things: Sequence[Any], make: Callable[[Any], One], late: bool) -> Sequence[One]:
    """What is made of each thing, in order.

    Args:
        late: each is made when it is asked for, once: of several processes none makes what others alone use.
    """
    return _Late(things, make) if late else [make(one) for one in things]


class _Late(Sequence[Any]):
    def __init__(self, things: Sequence[Any], make: Callable[[Any], Any]) -> None:
        self.things, self.make, self.made = things, make, dict[int, Any]()

    def __len__(self) -> int:
        return len(self.things)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        if at not in self.made:
            self.made[at] = self.make(self.things[at])
        return self.made[at]


def divided(work: Mapping[int, int], size: int) -> list[list[int]]:
    """Pieces of work, by number, among `size` processes: the largest goes to whoever has least so far.

    >>> divided({0: 5, 1: 9, 2: 4, 3: 4}, 2)
    [[1, 3], [0, 2]]
    """
    load, taken = [0] * size, [[] for _ in range(size)]
    for number in sorted(work, key=lambda number: (-work[number], number)):
        least = load.index(min(load))
        load[least] += work[number]
        taken[least].append(number)
    return [sorted(own) for own in taken]


def shares(batch: Batch, size: int) -> list[Int[Tensor, " n"]]:
    """The rows of each of `size` processes, in order; siblings are together.

    It follows from the batch alone: so all processes agree, and a run that goes on divides as it did before.
    """
    rows: dict[int, list[int]] = {}
    for row, scene in enumerate(batch.scene_B.tolist()):
        rows.setdefault(scene, []).append(row)
    length_B = batch.mask_BT.sum(-1).tolist()
    work = {scene: PROMPT + sum(length_B[row] for row in own) for scene, own in rows.items()}
    taken = [sorted(row for scene in own for row in rows[scene]) for own in divided(work, size)]
    return [torch.tensor(own, dtype=torch.long, device=batch.scene_B.device) for own in taken]


def by_itself(batch: Batch, prompts: Prompts) -> tuple[Batch, Prompts]:
    """Rows with the prompts of their own scenes, numbered anew: no other prompt is looked at."""
    scenes, scene_B = batch.scene_B.unique(return_inverse=True)
    return replace(batch, scene_B=scene_B), {
        view: [shown[at] for at in scenes.tolist()] for view, shown in prompts.items()
    }


def put_together(parts: Sequence[Stats], rows: Sequence[Tensor]) -> Stats:
    """The statistics of all rows, from those of each process's rows."""
    having = [(stats, own) for stats, own in zip(parts, rows, strict=True) if len(own)]
    back_B = torch.cat([own.cpu() for _, own in having]).argsort()
    keys = having[0][0].value if having else {}
    return Stats({key: torch.cat([stats.value[key] for stats, _ in having])[back_B] for key in keys})
