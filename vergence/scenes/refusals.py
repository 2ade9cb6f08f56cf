"""Rows that cannot be used: how many there are, of which field and for which reason; and the first of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from vergence.scenes.rows import by_reason
from vergence.scenes.tables import Refused

FIRST = 1000
"""Rows that are kept."""
NAMED = 1000
"""Fields, and reasons, that are counted each by itself."""
OTHERS = "another of more than a thousand"
"""The others."""


@dataclass(slots=True)
class Refusals:
    """Counts of the refused rows that were added so far.

    >>> some = Refusals()
    >>> for row in range(5000):
    ...     some.add(Refused("a.jsonl", row, "image", f"there is no file 'red{row}.png'", "copy it"))
    >>> some.number, len(some.first), some.fields, some.reasons
    (5000, 1000, Counter({'image': 5000}), Counter({"image: there is no file '...'": 5000}))
    """

    told: Callable[[Refused], None] = lambda one: None
    """Called with each of them: they are not all kept."""
    number: int = 0
    first: list[Refused] = field(default_factory=list)
    fields: Counter[str] = field(default_factory=Counter)
    """Of which field how many; "row" where it is none."""
    reasons: Counter[str] = field(default_factory=Counter)
    """As `rows.by_reason` says them."""

    def add(self, one: Refused) -> None:
        """Count one more."""
        self.told(one)
        self.number += 1
        if len(self.first) < FIRST:
            self.first.append(one)
        _count(self.fields, one.field or "row")
        _count(self.reasons, *by_reason([one]))

    def and_more(self, more: Iterable[Refused]) -> Refusals:
        """These and others."""
        found = Refusals(self.told, self.number, [*self.first], Counter(self.fields), Counter(self.reasons))
        for one in more:
            found.add(one)
        return found


def _count(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < NAMED else OTHERS] += 1
