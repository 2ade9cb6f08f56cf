"""Workers that compare expressions, in processes of their own, killed when they take too long.

One pool serves a process and its threads. It starts when it is first needed, in fresh interpreters and not by a fork,
so that no lock of torch's is held in it; after a fork the child has one of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import LifoQueue
from typing import Any, Literal, NamedTuple

from vergence.rewards.secret import without_secrets
from vergence.types import UserError

SECONDS = 5.0
"""What one comparison may take."""
STARTING = 60.0
"""Seconds that a worker may take to be ready."""
MOST_WORKERS = 4
OURS = "vergence.rewards.worker"

Found = Literal["right", "wrong", "unparsed", "timed out"]


class Job(NamedTuple):
    """What is compared: the arguments of `settle.settle`."""

    answer: str
    gold: str
    kind: str
    choices: tuple[str, ...]
    tolerance: float
    arithmetic: bool = False


class Worker:
    """One process. Not for two threads at once.

    Args:
        module: what it runs, which calls `worker.serve`.
        python: another interpreter than this one.

    Raises:
        UserError: it does not start.
    """

    def __init__(self, module: str = OURS, python: str = sys.executable) -> None:
        here = str(Path(__file__).parents[2])
        paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            self._process = subprocess.Popen(
                [python, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**without_secrets(os.environ), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise UserError(f"no process that compares expressions can be started: {error.strerror}") from error
        self._held = b""
        line = self._line(STARTING)
        ready = json.loads(line) if line else {"why": "it ended" if line is not None else "it takes too long"}
        if not ready.get("ready"):
            self.end()
            raise UserError(
                f"the process that compares expressions does not start ({ready['why']}); "
                "is math-verify installed? pip install math-verify"
            )

    def ask(self, job: tuple[Any, ...], seconds: float) -> Found | None:
        """What it finds; None where it ended instead of answering. It is ended when the time is over."""
        request = json.dumps({"asked": job, "seconds": seconds}).encode() + b"\n"
        try:
            self._write(request)
            line = self._line(seconds)
        except OSError:
            line = b""
        except BaseException:  # an interrupt: what it would still say is nobody's answer
            self.end()
            raise
        if not line:
            self.end()
            return "timed out" if line is None else None
        reply = json.loads(line)
        if "failed" in reply or reply["right"] is None:
            return "unparsed"
        return "right" if reply["right"] else "wrong"

    def end(self) -> None:
        """Kill it and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _write(self, request: bytes) -> None:
        assert self._process.stdin is not None
        at = 0
        while at < len(request):
            at += os.write(self._process.stdin.fileno(), request[at:])

    def _line(self, seconds: float) -> bytes | None:
        """The next line; "" where the process ended, None where the time did."""
        assert self._process.stdout is not None
        pipe, until = self._process.stdout.fileno(), time.monotonic() + seconds
        poll = select.poll()  # select takes no file number above 1023
        poll.register(pipe, select.POLLIN)
        while b"\n" not in self._held:
            left = until - time.monotonic()
            if not poll.poll(max(0.0, left) * 1000):  # what is there is taken, even where the clock has leapt
                return None
            read = os.read(pipe, 65536)
            if not read:
                return b""
            self._held += read
        line, _, self._held = self._held.partition(b"\n")
        return line


class Pool:
    """Up to `size` workers, each started when it is first needed and again after it was killed; see `Worker`."""

    def __init__(self, size: int, module: str = OURS, python: str = sys.executable) -> None:
        self._size, self._module, self._python = size, module, python
        self._places: LifoQueue[Worker | None] = LifoQueue()
        for _ in range(size):
            self._places.put(None)

    def ask(self, jobs: Sequence[tuple[Any, ...]], seconds: float = SECONDS) -> list[Found]:
        """What is found for each, in order. What one does, takes or breaks is nothing to the others."""
        if len(jobs) < 2 or self._size < 2:
            return [self._one(job, seconds) for job in jobs]
        with ThreadPoolExecutor(min(self._size, len(jobs))) as beside:
            return list(beside.map(lambda job: self._one(job, seconds), jobs))

    def _one(self, job: tuple[Any, ...], seconds: float) -> Found:
        worker = self._places.get()
        try:
            for _ in range(2):  # one that ended while it was idle is no verdict
                worker = worker or Worker(self._module, self._python)
                found = worker.ask(job, seconds)
                if found == "timed out" or found is None:
                    worker = None
                if found is not None:
                    return found
            return "unparsed"
        except BaseException:
            worker = None
            raise
        finally:
            self._places.put(worker)

    def close(self) -> None:
        """End the workers that are idle; a pool that is asked again starts others."""
        idle = []
        with contextlib.suppress(Exception):
            while True:
                idle.append(self._places.get_nowait())
        for worker in idle:
            if worker is not None:
                worker.end()
            self._places.put(None)


_pool: Pool | None = None
_lock = threading.Lock()


def workers() -> int:
    """How many work side by side: one for each processor that this process may use, up to `MOST_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores))


def shared_pool() -> Pool:
    """The pool of this process."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = Pool(workers())
            atexit.register(_pool.close)
        return _pool


def _forget() -> None:
    """In the child of a fork: the workers are the parent's, and a lock may be held by a thread that is not here."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
