"""Where the rows of a source stand, 24 bytes each, and in which order they are gone through."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, overload

import numpy as np

from vergence.chance import rng


class At(NamedTuple):
    """Where a row stands."""

    part: int
    number: int
    at: int


class Spots(Sequence[At]):
    """Where some rows stand, in order.

    >>> some = Spots([At(0, 0, 0), At(0, 1, 97)])
    >>> some[1], len(some), some == Spots(iter(some)), some[1:]
    (At(part=0, number=1, at=97), 2, True, Spots([At(part=0, number=1, at=97)]))
    """

    def __init__(self, spots: Iterable[At] = ()) -> None:
        self._numbers = array("q")
        for one in spots:
            self.add(one)

    def add(self, one: At) -> None:
        """One more, behind the others."""
        self._numbers.extend(one)

    def __len__(self) -> int:
        return len(self._numbers) // 3

    @overload
    def __getitem__(self, place: int) -> At: ...

    @overload
    def __getitem__(self, place: slice) -> Spots: ...

    def __getitem__(self, place: int | slice) -> At | Spots:
        if isinstance(place, slice):
            return Spots(self[one] for one in range(*place.indices(len(self))))
        first = 3 * range(len(self))[place]
        return At(*self._numbers[first : first + 3])

    def __iter__(self) -> Iterator[At]:
        return (At(*self._numbers[first : first + 3]) for first in range(0, len(self._numbers), 3))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spots) and self._numbers == other._numbers

    def __hash__(self) -> int:
        return hash(self._numbers.tobytes())

    def __repr__(self) -> str:
        return f"Spots({list(self)})"


@lru_cache(maxsize=2)
def order_of(seed: int, epoch: int, size: int) -> np.ndarray:
    """In which order an epoch goes through so many rows. Kept, since every batch asks, and it takes as long as them."""
    order = rng("order", seed, epoch).permutation(size)
    order.flags.writeable = False
    return order
