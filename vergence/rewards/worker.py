"""A process that compares answers, and that may be killed at any time: JSON lines in and out, `python -m` this.

It imports no torch. It ends by itself when its parent ends, however that ends; when one job takes longer than it may;
and when nobody has asked for a while. It has a limit of memory, and can write no file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

MEMORY = 2 * 2**30
"""Bytes of address space."""
IDLE = 600.0
"""Seconds without a job after which it ends."""
_LOOK = 0.5
"""Seconds between looks at whether the parent is still there."""
_GRACE = 1.0
"""Seconds that the parent, which kills on time, is left to do so before the worker's own alarm."""
_MOST = 1 << 20
_DIGITS = 100_000


def serve(load: Callable[[], Callable[..., bool | None]]) -> None:
    """Answer jobs until the input ends: `load` imports what is needed and returns what answers."""
    replies = os.dup(1)
    with open(os.devnull, "w") as nowhere:  # parsers print
        os.dup2(nowhere.fileno(), 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever it is doing
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    try:
        answer = load()
    except Exception as error:
        _say(replies, {"ready": False, "why": f"{type(error).__name__}: {error}"})
        return
    logging.disable(logging.CRITICAL)
    sys.set_int_max_str_digits(_DIGITS)
    none = (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC)
    for limit, most in ((resource.RLIMIT_AS, MEMORY), *((limit, 0) for limit in none)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))
    _say(replies, {"ready": True})
    for line in _lines():
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, job["seconds"] + _GRACE)
        try:
            reply: dict[str, Any] = {"right": answer(*job["asked"])}
        except Exception as error:  # whatever a parser stumbles over, MemoryError and RecursionError included
            reply = {"failed": type(error).__name__}
        signal.setitimer(signal.ITIMER_REAL, 0)
        _say(replies, reply)


def _follow(parent: int) -> None:
    """End this process when its parent has, also in the middle of a comparison, and where another holds its input open.

    Linux's signal at a parent's death would come when the thread ends that started this process: too early.
    """
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGKILL)


def _lines() -> Iterator[bytes]:
    """The lines of the input, until it ends or nothing comes."""
    held = b""
    while select.select([0], [], [], IDLE)[0]:
        read = os.read(0, _MOST)
        if not read:
            return
        *lines, held = (held + read).split(b"\n")
        yield from lines


def _say(to: int, reply: dict[str, Any]) -> None:
    os.write(to, json.dumps(reply).encode() + b"\n")


def _ours() -> Callable[..., bool | None]:
    from vergence.rewards.settle import settle
    from vergence.rewards.symbolic import ways

    def compare(
        answer: str, gold: str, kind: str, choices: list[str], tolerance: float, arithmetic: bool = False
    ) -> bool | None:
        return settle(answer, gold, kind, tuple(choices), tolerance, arithmetic, ways(tolerance))

    compare("\\frac{x}{2}+1", "1+0.5x", "expression", [], 0.0)  # what is loaded late is no part of the first job's time
    return compare


if __name__ == "__main__":
    serve(_ours)
