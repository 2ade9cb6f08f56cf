"""What a target of fuzzing is: something that is done with hostile input, and what must hold of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from fuzz.drawing import Draw

from vergence.types import UserError

T = TypeVar("T")
WAITING = 20
LONGEST_MESSAGE = 20_000
"""Characters of an error's message."""


class Target(NamedTuple):
    """Something that takes input from elsewhere. Where the law is broken it raises AssertionError, or what escapes.

    The law: a value or a `UserError` whose message says what is meant, within the time; nothing else, ever.
    """

    name: str
    run: Callable[[Draw], None]
    seconds: float
    """Of the processor, for one input."""
    says: str
    """What the inputs are, in the words of the table."""
    few: int = 25
    """Inputs in the fast tests."""


class Hang(BaseException):
    """An input took longer than its target may. No handler of `Exception` swallows it."""


class Unescaped(AssertionError):
    """What came from data is markup, or obeyed by a terminal."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `Hang` in what takes longer, also in the middle of a regular expression.

    Counted is the processor's time, so that other work on the machine makes nothing a hang; and, where nothing is done
    but to wait, `WAITING` times as much of the clock's.
    """

    def alarm(number: int, frame: Any) -> None:
        raise Hang(f"took more than {seconds} s")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, WAITING * seconds))
    before = [signal.signal(name, alarm) for name, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (name, timer, _), old in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(name, old)


def told(call: Callable[[], T], *named: str, most: int = LONGEST_MESSAGE) -> T | None:
    """What a call returns; None where it raises a `UserError` that names all of these and is not endless."""
    try:
        return call()
    except UserError as error:
        said = str(error)
        assert said.strip(), "an error without a word"
        assert len(said) <= most, f"a message of {len(said)} characters: {said[:80]!r}"
        missing = [one for one in named if one not in said]
        assert not missing, f"the message does not name {missing}: {said[:300]!r}"
        return None
