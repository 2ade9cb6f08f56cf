"""How many requests a server bears at once, found out by asking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from vergence.rewards.budget import Budget


class Flow:
    """Places for tries under way, within one event loop. Their number is fitted to the server.

    Additive increase, multiplicative decrease (Chiu and Jain 1989, as TCP has it): an answer adds 1 / limit, so one
    more try is let in after as many answers as there are places; a try that is turned away or times out halves the
    limit, but not below 1, and once for all that were under way together. A pause that the server asks for holds back
    every try. Of a server that nobody found there for a while, and that then answers, the tries from before are given
    up: whoever was to answer them is gone, and may have left their connections open.

    >>> flow = Flow(8, Budget())
    >>> flow.crowded(0), flow.crowded(0), flow.limit
    (None, None, 4.0)
    >>> for _ in range(4):
    ...     flow.answered()
    >>> 4.8 < flow.limit < 5
    True

    Args:
        most: the limit's bound.
        budget: counts the tries.
        limit: to begin with; None is `most`.
    """

    def __init__(self, most: int, budget: Budget, limit: float | None = None) -> None:
        self.most, self.budget = most, budget
        self.limit = float(most if limit is None else limit)
        self._tickets, self._cut_at, self._under_way, self._held = count(1), 0, 0, 0
        self._changed = asyncio.Event()
        self._last, self._gone = 0, 0
        self._clocks: dict[int, asyncio.Timeout] = {}

    @asynccontextmanager
    async def place(self) -> AsyncIterator[int]:
        """One of the places, as soon as there is one; its ticket."""
        while self._held or self._under_way >= int(self.limit):
            self._changed.clear()
            await self._changed.wait()
        self._under_way += 1
        self._last = next(self._tickets)
        self.budget.count(requests=1)
        self.budget.under_way(self._under_way)
        try:
            yield self._last
        finally:
            self._under_way -= 1
            self._changed.set()

    @asynccontextmanager
    async def within(self, ticket: int, seconds: float) -> AsyncIterator[None]:
        """Bounds the try with this ticket; `TimeoutError` after so many seconds, or when it is given up."""
        async with asyncio.timeout(seconds) as clock:
            self._clocks[ticket] = clock
            try:
                yield
            finally:
                self._clocks.pop(ticket, None)  # it is gone where the try was given up

    def answered(self, ticket: int = 0) -> None:
        """The server answered the try with this ticket."""
        self.limit = min(float(self.most), self.limit + 1 / self.limit)
        self._changed.set()
        if ticket > self._gone:
            for other in [one for one in self._clocks if one <= self._gone]:
                clock = self._clocks.pop(other)
                if not clock.expired():  # one that has rung, and waits for its try to end, cannot be set again
                    clock.reschedule(asyncio.get_running_loop().time())

    def gone(self) -> None:
        """Nobody was there to take a try."""
        self._gone = self._last

    def orphaned(self, ticket: int) -> bool:
        """Whether the try with this ticket is from before the server was last gone."""
        return ticket <= self._gone

    def crowded(self, ticket: int) -> None:
        """The try with this ticket met a server that has too much to do."""
        if ticket >= self._cut_at:  # an earlier one met the crowd that the limit was halved for
            self.limit, self._cut_at = max(1.0, self.limit / 2), self._last + 1

    def pause(self, seconds: float) -> None:
        """Let no try begin for so long."""
        self._held += 1
        asyncio.get_running_loop().call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._held -= 1
        self._changed.set()
