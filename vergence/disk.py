"""Files that must outlive a crash: put in place whole, appended to in whole lines, held by one process at a time.

What was *synced* survives the loss of power; what was only written survives the death of the process. A name that was
put in place here always stands for a whole file or folder: the old one or the new one.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from vergence.types import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def write_whole(path: Path, content: str | bytes) -> None:
    """Put a file in its place when it is whole and synced; until then what was there before stands.

    Raises:
        UserError: there is no space, or it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with telling_of_space(path):
        try:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
            put_in_place(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def put_in_place(partial: Path, final: Path) -> None:
    """Sync a file, or a folder with all that is in it, and give it its name; a folder of that name is replaced."""
    for one in (*(sorted(partial.rglob("*")) if partial.is_dir() else ()), partial):
        sync(one)
    if partial.is_dir() and final.is_dir():
        shutil.rmtree(final)
    os.replace(partial, final)
    sync(final.parent)


def append(path: Path, text: str) -> None:
    """Add text to the end of a file in one write: all of it, or, where that fails, nothing. Not synced.

    Raises:
        UserError: there is no space, or it cannot be written.
    """
    with telling_of_space(path), path.open("ab", buffering=0) as file:
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
    """Wait until a file's content, or which names are in a folder, would survive the loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone(folder: Path, what: str = "process") -> Iterator[None]:
    """Hold a folder, which is made if it is not there; nobody else can meanwhile. The end of the process gives it back,
    however it ends.

    Raises:
        UserError: somebody holds it, who is named; or nothing can be written there.
    """
    import fcntl

    with telling_of_space(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read(40).strip()
            raise UserError(
                f"another {what} is at work in {folder}{f' (process {who})' if who else ''}: wait for it, or give "
                f"another --out"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # equal runs are equal bytes


@contextmanager
def telling_of_space(path: Path) -> Iterator[None]:
    """Turn 'disk full', 'quota', 'file too large' and 'read-only' into messages that say what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _number(error) in FULL:
            raise UserError(
                f"no space left while writing to {path}. What was finished is kept: free some space and run it again; "
                f"a training run goes on from its last checkpoint with --resume"
            ) from error
        if _number(error) in FORBIDDEN:
            raise UserError(f"cannot write to {path}: {error}; give another --out") from error
        raise


def _number(error: OSError | SafetensorError) -> int | None:
    """The system's error number; safetensors tells it in its message alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None
