"""What servers may use, and what they have used: tokens and seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import inf

from vergence.rewards.reasoner import ReasonerDown
from vergence.types import UserError

_LOCK = threading.Lock()
"""For the counting: a run may ask from several threads. Of the module, as a lock in an object could not be pickled."""


class BudgetSpent(ReasonerDown):
    """Nothing more may be asked. What was under way was waited for, and is kept with the rest."""


@dataclass(slots=True)
class Used:
    """What was used of servers."""

    requests: int = 0
    """Tries that were sent, those that failed too."""
    retries: int = 0
    """Of these, the ones that asked again."""
    answers: int = 0
    """Finished ones. What was found in a cache is not among them: it cost nothing."""
    prompt_tokens: int = 0
    """As the servers count; where one does not, as `completion.estimate` does."""
    completion_tokens: int = 0
    """Likewise."""
    estimated: int = 0
    """Answers whose tokens were estimated."""
    cut: int = 0
    """Answers that ended because they were too long."""
    in_flight: int = 0
    """The most tries that were under way at once."""
    seconds: float = 0.0
    """In which something was asked of a server, waits included."""

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens


class Budget:
    """So much may be used of one or several servers, from now on. Several servers that are given it share it.

    A request is begun only if the most that it can cost still fits beside what is used and what is under way, so that
    tokens are exceeded only by a server that writes more than `max_tokens`, or reads more than `completion.estimate`
    says. Seconds end what is begun, not what is under way.

    >>> budget = Budget(tokens=100)
    >>> budget.claim(60), budget.claim(60)
    (True, False)
    >>> budget.settle(60, prompt=20, completion=5)
    >>> budget.claim(60), str(budget)
    (True, '25 of 100 tokens')

    Args:
        tokens: read and written, together. 0 is no bound.
        seconds: in which servers are asked. 0 is no bound.
        remedy: what to do at its end, for the message.

    Raises:
        UserError: one of them is negative or infinite.
    """

    def __init__(self, tokens: int = 0, seconds: float = 0.0, *, remedy: str = "Give it a larger budget") -> None:
        if tokens < 0 or not 0 <= seconds < inf:
            raise UserError(
                f"a budget must be 0 (no bound) or more tokens and seconds, got {tokens} tokens and {seconds} seconds"
            )
        self.tokens, self.seconds, self.remedy = tokens, seconds, remedy
        self.used = Used()
        self._told, self._peak = Used(), 0
        self._claimed, self._open, self._since = 0, 0, 0.0

    def __str__(self) -> str:
        """What is used, of how much."""
        used = self.used
        tokens = f"{used.tokens:,}" + (f" of {self.tokens:,}" if self.tokens else "") + " tokens"
        return tokens + (f", {self._seconds():.3g} of {self.seconds:g} seconds" if self.seconds else "")

    def claim(self, tokens: int) -> bool:
        """Whether a request that may cost so many tokens can be begun; if so they are set aside until `settle`."""
        with _LOCK:
            if self.late() or (self.tokens and self.used.tokens + self._claimed + tokens > self.tokens):
                return False
            self._claimed += tokens
            return True

    def settle(self, claimed: int, *, prompt: int = 0, completion: int = 0) -> None:
        """Give back what was claimed, and count what was used in its place."""
        with _LOCK:
            self._claimed -= claimed
            self.used.prompt_tokens += prompt
            self.used.completion_tokens += completion

    def count(self, **more: int) -> None:
        """Add to what is used, by name."""
        with _LOCK:
            for name, number in more.items():
                setattr(self.used, name, getattr(self.used, name) + number)

    def under_way(self, tries: int) -> None:
        """So many tries are under way at once now: the most of them is kept."""
        with _LOCK:
            self._peak = max(self._peak, tries)
            self.used.in_flight = max(self.used.in_flight, tries)

    def late(self) -> bool:
        """Whether the seconds are over."""
        return self.left() <= 0

    def left(self) -> float:
        """Seconds until they are over; infinite where they have no bound."""
        return self.seconds - self._seconds() if self.seconds else inf

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Counts the seconds in which servers are asked; those of several threads at once count once."""
        with _LOCK:
            if not self._open:
                self._since = time.monotonic()
            self._open += 1
        try:
            yield
        finally:
            with _LOCK:
                self._open -= 1
                if not self._open:
                    self.used.seconds += time.monotonic() - self._since

    def taken(self) -> dict[str, int | float]:
        """What was used since this was last called, for a log that may hold a clock; empty if nothing was.

        >>> budget = Budget()
        >>> budget.count(requests=3, answers=2)
        >>> budget.taken()["server/requests"], budget.taken()
        (3, {})
        """
        with _LOCK:
            now, before = asdict(self.used), asdict(self._told)
            since = {f"server/{name}": now[name] - before[name] for name in now} | {"server/in_flight": self._peak}
            self._told, self._peak = replace(self.used), 0
        return since if any(since.values()) else {}

    def _seconds(self) -> float:
        return self.used.seconds + (time.monotonic() - self._since if self._open else 0.0)
