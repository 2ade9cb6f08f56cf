"""Which of many texts are the commonest, and how many different ones there are, in a few bytes for each text."""

from __future__ import annotations

from array import array
from hashlib import blake2b

import numpy as np

MOST = 2**16
"""Texts that are held; of the others it is known how often they came, and not how they read."""


class Tally:
    """Counts texts, each by eight bytes of its hash.

    >>> some = Tally()
    >>> for text in ("b", "a", "c", "a"):
    ...     some.add(text)
    >>> some.different(), some.commonest(2)
    (3, {'a': 2, 'b': 1})
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._hashes = array("Q")
        self._texts: dict[str, int] = {}

    def add(self, text: str) -> None:
        """Count one more."""
        self._hashes.append(_hash(text))
        self._texts[text] = self._texts.get(text, 0) + 1
        if len(self._texts) > self.most:  # the rarest are let go of, of equals the latest
            often = sorted(self._texts.items(), key=lambda one: -one[1])
            self._texts = dict(often[: self.most // 2])

    def different(self) -> int:
        """How many different ones there are."""
        return len(np.unique(np.asarray(self._hashes)))

    def commonest(self, number: int) -> dict[str, int]:
        """Those that came most often, and how often; of equals the one that came first."""
        hashes, first, counts = np.unique(np.asarray(self._hashes), return_index=True, return_counts=True)
        known = {_hash(text): text for text in self._texts}
        order = np.lexsort((first, -counts))
        named = ((known.get(int(hashes[at])), int(counts[at])) for at in order[: number + self.most])
        found: dict[str, int] = {}
        for text, count in named:
            if text is not None and len(found) < number:
                found[text] = count
        return found


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
