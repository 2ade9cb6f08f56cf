"""The hashes of a million rows, 32 bytes each: the hash of all, and which rows say the same."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

SIZE = 32
"""Bytes of a SHA-256."""
PIECE = 2**12
"""Digests that are put into hexadecimal digits at a time."""


class Digests:
    """SHA-256 digests, in the order in which they came.

    >>> some = Digests()
    >>> for content in ("a", "b", "a"):
    ...     some.add(sha256(content.encode()).hexdigest())
    >>> len(some), some.repeats(some)
    (3, (1, 0))
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def __len__(self) -> int:
        return len(self._held) // SIZE

    def add(self, digest: str) -> None:
        """One more, in hexadecimal digits."""
        self._held += bytes.fromhex(digest)

    def fingerprint(self) -> str:
        """`split.fingerprint` of their hexadecimal digits.

        >>> from vergence.scenes.split import fingerprint
        >>> some, digits = Digests(), [sha256(bytes([at])).hexdigest() for at in range(9)]
        >>> for one in digits:
        ...     some.add(one)
        >>> some.fingerprint() == fingerprint(digits), Digests().fingerprint() == fingerprint([])
        (True, True)
        """
        ordered, found = np.sort(self._array()), sha256()
        for start in range(0, len(ordered), PIECE):
            digits = ordered[start : start + PIECE].tobytes().hex("\n", SIZE)
            found.update(f"\n{digits}".encode() if start else digits.encode())
        return found.hexdigest()

    def repeats(self, others: Digests) -> tuple[int, int]:
        """Of the digests that came before already: how many have beside them, among as many others, the one that the
        first of the same has; and how many another.

        >>> mine, others = Digests(), Digests()
        >>> for content, beside in (("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
        ...     mine.add(sha256(content.encode()).hexdigest())
        ...     others.add(sha256(beside.encode()).hexdigest())
        >>> mine.repeats(others)
        (1, 1)
        """
        held = self._array()
        order = np.argsort(held, kind="stable")
        is_first = np.ones(len(held), bool)
        for low in range(1, len(held), PIECE):
            some = order[low - 1 : low - 1 + PIECE + 1]
            is_first[low : low + PIECE] = held[some[1:]] != held[some[:-1]]
        first, again = np.flatnonzero(is_first), np.flatnonzero(~is_first)
        start = first[np.searchsorted(first, again) - 1]
        beside = others._array()
        same = int(np.count_nonzero(beside[order[again]] == beside[order[start]]))
        return same, len(again) - same

    def _array(self) -> np.ndarray:
        return np.frombuffer(self._held, f"S{SIZE}")
