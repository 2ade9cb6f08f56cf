"""The next round, sampled and judged in a thread while this one trains: one step off the policy.

While round r trains, round r + 1 is sampled by the weights that round r - 1 left behind: those of the sampler's last
`follow`, which is called between two samplings and never during one. So what is sampled depends on nothing but the
round's number, however long anything takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from vergence.scenes.source import Source
from vergence.train.asked import Round, read_round, write_round
from vergence.train.backend import Peers
from vergence.types import UserError

FILE = "ahead.json"
"""In a checkpoint's folder `trainer`."""
PATIENCE = 10.0
"""Seconds that the thread is given to end, when the run has; it holds up no exit."""


class Ended(RuntimeError):
    """The run has ended while a round was sampled."""


class _Done(NamedTuple):
    outcome: Round | BaseException
    seconds: float


class Relay:
    """`Peers` for the thread: what has to be said to all processes, the main thread says when it waits.

    So all of them say it in the same order, whatever else their main threads have to say to each other meanwhile.
    """

    def __init__(self, peers: Peers, out: SimpleQueue[Any], back: SimpleQueue[Any]) -> None:
        self.rank, self.size = peers.rank, peers.size
        self._out, self._back = out, back

    def exchange(self, own: Any) -> list[Any]:
        """Everyone's, in the order of the processes.

        Raises:
            Ended: nobody waits for it any more.
        """
        self._out.put(own)
        said = self._back.get()
        if isinstance(said, Ended):
            raise said
        return said


class Ahead:
    """At most one round that is under way, and those that are there and have not been trained on.

    Args:
        peers: of the main thread, which alone calls any of this.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._there: dict[int, Round | BaseException] = {}
        self._thread: threading.Thread | None = None
        self._number = -1
        self._out: SimpleQueue[Any] = SimpleQueue()
        self._back: SimpleQueue[Any] = SimpleQueue()
        self.seconds = 0.0
        """That the last round which was waited for took, in its thread."""

    def begin(self, number: int, ask: Callable[[Peers], Round]) -> None:
        """Ask for the round of that number in a thread.

        Args:
            ask: what is done in the thread. It is given what stands there for the processes, a `Relay` if there are
                several, and uses nothing else of them.
        """
        if self._thread is not None:
            raise RuntimeError(f"round {self._number} is still under way; wait for it before round {number} is begun")
        self._out, self._back = out, back = SimpleQueue(), SimpleQueue()
        peers = Relay(self._peers, out, back) if self._peers.size > 1 else self._peers
        threads = torch.get_num_threads()

        def work() -> None:
            since, outcome = time.perf_counter(), None
            try:
                torch.set_num_threads(threads)  # a new thread has the machine's number, and other sums with it
                outcome = ask(peers)
            except BaseException as error:
                outcome = error
            out.put(_Done(outcome, time.perf_counter() - since))

        self._number, self._thread = number, threading.Thread(target=work, name=f"round {number}", daemon=True)
        self._thread.start()

    def wait(self, number: int) -> None:
        """Until the round of that number is there, if it is under way. What went wrong with it `take` raises.

        Raises:
            Exception: what went wrong, at once, of several processes if it is no `UserError`: the others may never hear
                of that, and wait.
        """
        while self._thread is not None and self._number == number:
            said = self._out.get()
            if isinstance(said, _Done):
                self._thread.join()
                self._thread = None
                self._there[number], self.seconds = said
                unheard = isinstance(said.outcome, BaseException) and not isinstance(said.outcome, UserError)
                if unheard and self._peers.size > 1:
                    raise said.outcome
            else:
                self._back.put(self._peers.exchange(said))

    def take(self, number: int) -> Round | None:
        """The round of that number, when it is there; None where it was not begun. It is kept until `done_with`.

        Raises:
            BaseException: what went wrong with it. Then it is as if it had not been begun.
        """
        self.wait(number)
        asked = self._there.get(number)
        if isinstance(asked, BaseException):
            del self._there[number]
            raise asked
        return asked

    def done_with(self, number: int) -> None:
        """Forget a round: it stands in a batch now, or is not to be trained on."""
        self._there.pop(number, None)

    def forget(self) -> None:
        """Forget every round, and what went wrong with it; one that is under way comes to its end first."""
        self.wait(self._number)
        self._there.clear()

    def write(self, folder: Path, number: int) -> None:
        """Into a checkpoint's folder `trainer`, the round of that number, if it is there; `wait` comes first."""
        asked = self._there.get(number)
        if isinstance(asked, Round):
            write_round(folder / FILE, number, asked)

    def read(self, folder: Path, source: Source) -> None:
        """From a checkpoint's folder `trainer`, what `write` has put there, if anything.

        Raises:
            UserError: the file is damaged, or the source has no such scenes.
        """
        if (folder / FILE).exists():
            number, asked = read_round(folder / FILE, source)
            self._there[number] = asked

    def close(self) -> None:
        """Leave nothing behind: to be called when the sampler is closed, which ends what it is at."""
        if self._thread is not None:
            self._back.put(Ended("the run has ended"))
            self._thread.join(PATIENCE)
            self._thread = None
