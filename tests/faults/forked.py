"""Work done in a process of its own that can be killed at a chosen instant, or whose disk can fail there.

A process is forked from one that has imported everything, so that it is at work in milliseconds. What it is at, it
marks in memory that both share: so the one that is left knows what was under way when the other died.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

LIMIT = 600.0
"""Seconds that any of these may take, on a machine that is busy; they take one or two."""
EVENTS = {
    "open": 1,
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.link": 2,
    "os.listdir": 1,
    "os.scandir": 1,
    "shutil.rmtree": 1,
    "shutil.copyfile": 2,
    "shutil.move": 2,
}
"""What Python says of files before it does it, and how many paths it names."""
PHASES = ("starting", "opening", "sampling", "updating", "evaluating", "saving", "logging")
PHASES += ("going back", "answering", "recording")
MARKED = {
    "vergence.train.loop.opened": "opening",
    "vergence.train.loop.take_round": "sampling",
    "vergence.train.loop.update": "updating",
    "vergence.train.loop.evaluated": "evaluating",
    "vergence.train.checkpoint.save": "saving",
    "vergence.train.run.RunFolder.append": "logging",
    "vergence.train.guarded.Guarded._go_back": "going back",
    "vergence.evaluate.suite.answer": "answering",
    "vergence.studies.record.write": "recording",
    "vergence.studies.study.numbers": "recording",
}
"""Function -> what is under way while it is."""


class Moment(NamedTuple):
    """When something happens to a process, and what."""

    kind: str
    """ "event": before the n-th thing that it does with its files; "write": in the middle of the n-th write; "sync":
    instead of the n-th sync; "time": after so many seconds."""
    at: float
    what: int = signal.SIGKILL
    """A signal; or, below 0, the number of a system's error that the call fails with."""


class Ended(NamedTuple):
    """How it ended, and what is known of the way there."""

    status: int
    """Its exit status; below 0, the signal that killed it."""
    said: str
    phase: str
    """What was under way at the end."""
    hit: str
    """What was under way at the first moment that came; "" if none did."""
    events: int
    writes: int
    syncs: int
    began: int
    """The step that training went on from; -1 if it did not come so far."""
    promised: int
    """What it has said is safe, where somebody counts: the last step that is saved, answers or records."""
    seconds: float


class Board:
    """Numbers that parent and child share."""

    NAMES = ("phase", "hit", "events", "writes", "syncs", "began", "promised")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * len(self.NAMES))
        self["began"] = self["hit"] = -1

    def __getitem__(self, name: str) -> int:
        return struct.unpack_from("q", self._memory, 8 * self.NAMES.index(name))[0]

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * self.NAMES.index(name), value)


def forked(
    work: Callable[[], object],
    folder: Path,
    moments: Sequence[Moment] = (),
    *,
    prepare: Callable[[Board], None] = lambda board: None,
    log: Path | None = None,
) -> Ended:
    """Do the work in a child, with what happens to it at those moments, and wait for its end.

    Args:
        folder: whose files count.
        prepare: done in the child before.
        log: where what it says goes; by default to a file beside the folder.
    """
    board, log = Board(), log or folder.with_name(f"{folder.name}.said")
    log.write_bytes(b"")  # a child may be killed before it says anything
    since = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _be_the_child(work, folder, [one for one in moments if one.kind != "time"], board, log, prepare)
    timed = sorted((one for one in moments if one.kind == "time"), key=lambda one: one.at)
    for one in timed:
        if waited(child, since + one.at) is not None:
            break
        board["hit"] = board["hit"] if board["hit"] >= 0 else board["phase"]
        os.kill(child, one.what)
    status = waited(child, since + LIMIT)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError(f"still at work after {LIMIT:.0f} s, {PHASES[board['phase']]}: {log.read_text()[-2000:]}")
    hit = board["hit"]
    counts = {name: board[name] for name in ("events", "writes", "syncs", "began", "promised")}
    return Ended(
        status,
        log.read_text(errors="replace"),
        PHASES[board["phase"]],
        "" if hit < 0 else PHASES[hit],
        seconds=time.monotonic() - since,
        **counts,
    )


_ended: dict[int, int] = {}


def waited(child: int, until: float) -> int | None:
    """The exit status of a child, or, below 0, the signal that killed it; None where it is still at work then."""
    while child not in _ended:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            _ended[child] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= until:
            return None
        else:
            time.sleep(min(0.002, max(0.0, until - time.monotonic())))
    return _ended[child]


def _be_the_child(
    work: Callable[[], object],
    folder: Path,
    moments: Sequence[Moment],
    board: Board,
    log: Path,
    prepare: Callable[[Board], None],
) -> None:
    """Never returns."""
    status = 1
    end_with_parent()
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(said, standard)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)  # in this thread, before others are: torch's pool does not survive a fork
        mark(board)
        prepare(board)
        happen(folder, moments, board)
        status = ended_as_a_command(work)
    except BaseException:
        traceback.print_exc()
    finally:
        gone(status)


def end_with_parent() -> None:
    """From now on this process is killed when the one that forked it ends (Linux; elsewhere it is not)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))


def gone(status: int) -> NoReturn:
    """End this process here and now: whatever happens, a child never goes on with what its parent was at."""
    try:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(status)


def ended_as_a_command(work: Callable[[], object]) -> int:
    """Do it, and say how it ended as `vergence` does."""
    from vergence.train.stopping import terminable
    from vergence.types import UserError

    try:
        with terminable():
            work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:  # after SIGTERM, all is saved and well
        return 0 if type(error).__name__ == "Terminated" else 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    return 0


def mark(board: Board) -> None:
    """From now on the board says what is under way, and from which step training went on."""
    for name, phase in MARKED.items():
        replaced(name, partial(_marking, board, PHASES.index(phase)))

    def opened(kept: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(kept)
        def noting(*args: Any, **options: Any) -> Any:
            found = kept(*args, **options)
            board["began"] = next(one.step for one in found if hasattr(one, "pending"))
            return found

        return noting

    replaced("vergence.train.loop.opened", opened)


def replaced(name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a wrapped function in the place of one, by its name; it must be there."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            holder: Any = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:-1]:
            holder = getattr(holder, part)
        setattr(holder, parts[-1], wrap(getattr(holder, parts[-1])))
        return
    raise AssertionError(f"there is no {name}")


def _marking(board: Board, number: int, kept: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(kept)
    def marked(*args: Any, **options: Any) -> Any:
        before = board["phase"]
        board["phase"] = number
        try:
            return kept(*args, **options)
        finally:
            board["phase"] = before

    return marked


def happen(folder: Path, moments: Sequence[Moment], board: Board) -> None:
    """From now on what is done with the folder's files is counted, and at each moment happens what is to happen."""
    inside = str(folder)

    def due(kind: str, count: str) -> Moment | None:
        board[count] += 1
        now = board[count]  # a disk that is full stays full
        found = [one for one in moments if one.kind == kind and (now == one.at or (one.what < 0 and now > one.at))]
        if found and board["hit"] < 0:
            board["hit"] = board["phase"]
        return found[0] if found else None

    def strike(what: int, path: str) -> None:
        if what > 0:
            os.kill(os.getpid(), what)
        else:
            raise OSError(-what, os.strerror(-what), path)

    def heard(event: str, args: tuple[Any, ...]) -> None:
        paths = [str(one) for one in args[: EVENTS.get(event, 0)] if isinstance(one, (str, os.PathLike))]
        if any(path.startswith(inside) for path in paths):
            found = due("event", "events")
            if found:
                strike(found.what, paths[0])

    def syncing(kept: Callable[[int], None]) -> Callable[[int], None]:
        def sync(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}")
            found = due("sync", "syncs") if path.startswith(inside) else None
            if found:
                strike(found.what, path)
            kept(handle)

        return sync

    def opening(kept: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(kept)
        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            made = kept(file, mode, *args, **options)
            if isinstance(file, int) or not str(file).startswith(inside) or not set(mode) & set("wax+"):
                return made
            return Failing(made, lambda: due("write", "writes"), lambda what: strike(what, str(file)))

        return opened

    os.fsync = syncing(os.fsync)
    io.open = open_ = opening(io.open)
    importlib.import_module("builtins").open = open_
    sys.addaudithook(heard)


class Failing:
    """A file that is written to; in the middle of a write something may happen."""

    def __init__(self, file: Any, due: Callable[[], Moment | None], strike: Callable[[int], None]) -> None:
        self._file, self._due, self._strike = file, due, strike

    def write(self, content: Any) -> int:
        moment = self._due()
        if moment is not None and moment.what != signal.SIGTERM:
            self._file.write(content[: len(content) // 2])
            self._file.flush()
        if moment is not None:
            self._strike(moment.what)
        return self._file.write(content)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __enter__(self) -> Failing:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
