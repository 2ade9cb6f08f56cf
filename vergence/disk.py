"""Files that must outlive a crash: put in place whole, appended to in whole lines, held by one process at a time.

What was *synced* survives the loss of power; what was only written survives the death of the process. A name that was
put in place here always stands for a whole file or folder: the old one or the new one.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from vergence.types import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What a file system says that cannot sync a folder."""
LOCK = ".lock"
"""The file by which a folder is held."""
WAITING = 0.05
"""Seconds between looks at a folder that somebody holds."""
SINCE = (
    ". If it could be written before, a disk may have failed, and is only read since: see the system's log. When that "
    "is mended, a training run goes on from its last checkpoint with --resume"
)
"""Of a file system that can only be read, for it may have become so."""
REPLACED = ".replaced-"
"""How the name of a folder begins whose place another is taking: for that moment nothing has its name."""


def write_whole(path: Path, content: str | bytes) -> None:
    """Put a file in its place when it is whole and synced; until then what was there before stands.

    Raises:
        UserError: there is no space, or it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with telling_of_space(path):
        try:
            partial.unlink(missing_ok=True)  # in a folder of somebody else it may be a link to anywhere
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
            put_in_place(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def put_in_place(partial: Path, final: Path) -> None:
    """Sync a file, or a folder with all that is in it, and give it its name; what had that name is replaced.

    A folder that is replaced is renamed first: at no instant does the name stand for half a folder. Were this process
    ended just then, it would be found as `REPLACED` and its name, and `put_back` gives it back.
    """
    for one in (*(sorted(partial.rglob("*")) if partial.is_dir() else ()), partial):
        sync(one)
    before = final.with_name(f"{REPLACED}{final.name}")
    if replaces := partial.is_dir() and final.is_dir():
        shutil.rmtree(before, ignore_errors=True)
        os.replace(final, before)
    try:
        os.replace(partial, final)
    except BaseException:
        if replaces:
            os.replace(before, final)
        raise
    sync(final.parent)
    if replaces:
        shutil.rmtree(before, ignore_errors=True)


def put_back(folder: Path) -> None:
    """In a folder, what `put_in_place` had renamed when its process ended: its name again, unless another has it."""
    for before in folder.glob(f"{REPLACED}*"):
        final = folder / before.name.removeprefix(REPLACED)
        if final.exists():
            shutil.rmtree(before)
        else:
            os.replace(before, final)


def make(folder: Path) -> None:
    """Make a folder, and those above it that are missing; their names are synced.

    Raises:
        UserError: it cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    with telling_of_space(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for one in reversed(missing):
            sync(one.parent)


def append(path: Path, text: str, more: Callable[[], str] = lambda: "") -> None:
    """Add text to the end of a file in one write: all of it, or, where that fails, nothing. Not synced.

    Args:
        more: as of `telling_of_space`.

    Raises:
        UserError: there is no space, or it cannot be written.
    """
    with telling_of_space(path, more), path.open("ab", buffering=0) as file:
        content, start = text.encode(), file.tell()
        try:
            written = file.write(content)
            while written < len(content):
                written += file.write(content[written:])
        except BaseException:
            with suppress(OSError):
                file.truncate(start)
            raise


def sync(path: Path) -> None:
    """Wait until a file's content, or which names are in a folder, would survive the loss of power.

    Some file systems cannot sync a folder, and keep its names as they see fit: there nothing is waited for.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSYNCED or not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise
    finally:
        os.close(handle)


@contextmanager
def alone(folder: Path, what: str = "process", *, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder, which is made if it is not there; nobody else can meanwhile. The end of the process gives it back,
    however it ends.

    Args:
        what: who else may hold it, for the message.
        patience: seconds that it is waited for.

    Raises:
        UserError: somebody holds it, who is named; or nothing can be written there.
    """
    make(folder)
    if (folder / LOCK).is_symlink():  # in a folder of somebody else it may lead anywhere, and is emptied below
        raise UserError(f"{folder / LOCK} is a link to another place: take it away")
    handle = locked(folder / LOCK, patience=patience)
    if handle is None:
        raise UserError(
            f"another {what} is at work in {folder}{_holder(folder / LOCK)}: wait for it, or give another --out"
        )
    try:
        with suppress(OSError):  # it is held, whether or not there is room to say by whom
            os.truncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} {platform.node()}".encode(), 0)
        try:
            yield
        finally:
            with suppress(OSError):
                os.truncate(handle, 0)  # equal runs are equal bytes
    finally:
        os.close(handle)


def locked(path: Path, *, patience: float = 0.0) -> int | None:
    """A file, made if it is not there, that this process alone holds until it closes it; None where another holds it.

    One that is taken away or replaced before it is held is opened again: who holds a file without a name holds nothing.
    """
    while True:
        with telling_of_space(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not held(handle, patience=patience):
                os.close(handle)
                return None
            if is_at(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def is_at(path: Path, handle: int) -> bool:
    """Whether a name stands for this open file, and for no other."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def _holder(lock: Path) -> str:
    """Who has written into a lock that it holds it; "" where that cannot be read."""
    with suppress(OSError):
        if found := re.fullmatch(r"(\d+) ([\w.-]*)", lock.read_text(errors="replace")[:200]):
            number, host = found.groups()
            return f" (process {number}{f' on {host}' if host and host != platform.node() else ''})"
    return ""


def held(handle: int, *, patience: float = 0.0) -> bool:
    """Whether this process holds an open file now, alone, until it is closed; it is tried for so many seconds.

    A file system that knows no such locks (some of clusters do not) refuses nobody.
    """
    import fcntl

    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(WAITING)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK):
                raise
            return True
        else:
            return True


@contextmanager
def telling_of_space(path: Path, more: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn 'disk full', 'quota', 'file too large', 'read-only' and 'disk failed' into messages that say what to do.

    Args:
        more: what else there is to say where space has run out, e.g. what takes it.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if (number := _number(error)) in FULL:
            raise UserError(
                f"no space left while writing to {path} ({_why(number, path)}). {more()}What was finished is kept: "
                f"free some space and run it again; a training run goes on from its last checkpoint with --resume"
            ) from error
        if number in FORBIDDEN:
            since = SINCE if number == errno.EROFS else ""
            raise UserError(f"cannot write to {path}: {error}; give another --out{since}") from error
        if number == errno.EIO:
            raise UserError(
                f"the disk failed while writing to {path}: {error}. Look at the system's log; a training run goes on "
                f"from its last whole checkpoint with --resume"
            ) from error
        raise


def _why(number: int | None, path: Path) -> str:
    """What has run out: the disk, with what is free on it, a quota, or what one file may have."""
    if number == errno.EDQUOT:
        return "the quota is used up"
    if number == errno.EFBIG:
        return "a file may not grow so large here"
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    return f"{mib(shutil.disk_usage(there).free)} are free there"


def bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder; what vanishes meanwhile is not counted."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.stat().st_size if path.is_file() else 0
    return found


def mib(number: int) -> str:
    """Bytes in words.

    >>> mib(3 * 2**19), mib(5 * 2**31)
    ('1.5 MiB', '10.0 GiB')
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _number(error: OSError | SafetensorError) -> int | None:
    """The system's error number; safetensors tells it in its message alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None
