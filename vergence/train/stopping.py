"""How a run is asked to stop, and how much of the step under way it still does.

Ctrl-C lets it finish its step; the second one is an ordinary KeyboardInterrupt. SIGTERM gives a time: who sends it
kills what is still there after a grace period (Kubernetes after 30 s, Slurm likewise by its KillWait). So the step
under way goes on while saving does not need what is left, and is then given up; what was finished is saved.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vergence.disk import mib

AGAIN = 1.0
"""Seconds after which `OutOfTime` is raised once more, where it was raised in vain: some code lets nothing through."""
SLOWER = 1.5
"""So many times as long as any before may the last save take."""
SPEED = 2e8
"""Bytes that are written in a second, where nothing has been saved yet."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; what was finished is saved, where a run was trained in the checkpoint that this is given."""


class OutOfTime(Terminated):
    """What is left of the grace period is needed to save."""


class Stop:
    """Whether a run is to stop, and when the step under way is given up.

    Args:
        grace: seconds from SIGTERM to the end.
        size: bytes of a checkpoint, by which is told how long the first one takes.
        tell: told, here and after the first save, where the grace period is shorter than saving takes.
    """

    def __init__(self, grace: float, size: int = 0, tell: Callable[[str], None] = lambda _: None) -> None:
        self.grace, self.tell = grace, tell
        self.asked = self.terminated = False
        """Whether it was asked to stop; and whether by SIGTERM."""
        self._save, self._held, self._calm, self._measured = 1.0 + size / SPEED, False, False, False
        self._warn(f"is guessed to take {self._save:.0f} s ({mib(size)})")

    def _warn(self, how: str) -> None:
        if (needed := SLOWER * self._save) > self.grace:
            self.tell(
                f"warning, a save {how}, and --grace is {self.grace:g}: after SIGTERM the run may be killed before it "
                f"is saved. Have it given {needed:.0f} s or more until it is killed (Kubernetes: "
                f"terminationGracePeriodSeconds; Slurm: KillWait, or --signal TERM@SECONDS), and give --grace as much"
            )

    def before_saving(self) -> float:
        """Seconds from SIGTERM on after which nothing but saving is done.

        >>> Stop(25.0, 800_000_000).before_saving()
        17.5
        """
        return max(0.0, self.grace - SLOWER * self._save)

    def hold(self) -> None:
        """From here on until the end of `settling`, nothing is given up: something would be half done."""
        self._held = True

    @contextmanager
    def settling(self) -> Iterator[None]:
        """What is in here may `hold`, and is then done to its end."""
        try:
            yield
        finally:
            self._held = False

    @contextmanager
    def saving(self) -> Iterator[None]:
        """What is in here is done to its end, and tells how long a checkpoint takes."""
        with self.settling():
            self.hold()
            since = time.monotonic()
            yield
            self._save = max(1.0, time.monotonic() - since)
        if not self._measured:
            self._measured = True
            self._warn(f"took {self._save:.0f} s")

    def calm(self) -> None:
        """From here on nothing is given up any more, whatever is asked."""
        self._calm = True
        if self.terminated:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def give_up(self) -> None:
        """What is done when the time is over.

        Raises:
            OutOfTime: unless something would be half done; then it is tried again soon.
        """
        if not (self._held or self._calm):
            raise OutOfTime


@contextmanager
def stopping(
    grace: float, size: int = 0, *, alone: bool = True, told: bool = True, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Stop]:
    """What Ctrl-C and SIGTERM say, while this is open; nothing in a thread, which hears no signals.

    Args:
        grace, size, tell: as of `Stop`.
        alone: whether this process trains alone. Several agree at a step's end, whoever of them was asked, so they all
            finish it: none is given up.
        told: whether it is said, on standard error.

    Yields:
        What is asked whether to stop.
    """
    stop = Stop(grace, size, tell)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(signum: int, frame: Any) -> None:
        if signum == signal.SIGINT and stop.asked:
            raise KeyboardInterrupt
        news, stop.asked = not stop.asked, True
        if signum == signal.SIGTERM and not stop.terminated:  # the second one says nothing new: it has its time already
            news, stop.terminated = True, True
            if alone:
                signal.setitimer(signal.ITIMER_REAL, max(stop.before_saving(), 0.001), AGAIN)
        if told and news:
            when = f"within {grace:g} s" if stop.terminated and alone else "after this step"
            print(f"stopping {when}; Ctrl-C once more to stop at once", file=sys.stderr)

    handlers = {signal.SIGINT: ask, signal.SIGTERM: ask, signal.SIGALRM: lambda *_: stop.give_up()}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        stop.calm()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends what is in here as Ctrl-C does, with everything kept that is kept then; nothing in a thread.

    Raises:
        Terminated: it has come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def told(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)  # it is ending
        raise Terminated

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
