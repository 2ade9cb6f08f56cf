"""An evaluation that was stopped goes on: its file grows chunk by chunk, and is the same file at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from vergence.disk import append, is_at, locked, make, sync, telling_of_space
from vergence.evaluate.asked import image_sha
from vergence.evaluate.suite import Keep, Record
from vergence.rewards.verify import VERSION
from vergence.types import Scene, UserError

AGAINST, BLIND = "-against", "-blind"
"""How the names of the files end that stand beside a file of answers: another checkpoint's, those without the image."""


def beside(path: Path | None, ending: str) -> Path | None:
    """Where the answers of that ending go, if any are kept.

    >>> str(beside(Path("a/mine.jsonl"), BLIND))
    'a/mine-blind.jsonl'

    Raises:
        UserError: it is no name of a file.
    """
    if path is None:
        return None
    if not path.name:
        raise UserError(f"{path} is a folder; give --out a file")
    return path.with_name(f"{path.stem}{ending}{path.suffix or '.jsonl'}")


def begun(path: Path, scenes: Sequence[Scene], how: Mapping[str, Any], *, chunk: int) -> list[Record]:
    """The answers that a file holds already, in whole chunks; what follows them, a torn line too, is cut off.

    So is a last chunk in which there are zeros: they stand where the power was lost before a chunk was on the disk.
    Answers of a chunk are sampled together. So the rest begins where one began, and the file becomes, byte for byte,
    what it would be if nobody had stopped. It may be given more questions than before, as long as the first are the
    same.

    Args:
        scenes: what is asked, in order.
        how: `suite.under`: what it is asked under; `samples` is the number of answers to each.
        chunk: records in a chunk.

    Raises:
        UserError: the file holds answers to something else, or under other conditions: the first is named. It is left
            as it is.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    samples, records, ends = how["samples"], [], [0]
    with path.open("rb") as file:
        for line in file:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict) or not line.endswith(b"\n"):
                last = 1 + sum(1 for _ in file) <= chunk - len(records) % chunk
                if not (last and b"\0" in line) and file.tell() > ends[-1] + len(line):
                    raise UserError(
                        f"{path}, line {len(records) + 1} is not JSON: the file was damaged; give another --out"
                    )
                break
            records.append(found)
            ends.append(ends[-1] + len(line))
    for at, record in enumerate(records[: len(scenes) * samples]):
        _check(path, record, scenes[at // samples], at % samples, how)
    if len(records) > len(scenes) * samples:
        _refuse(path, "the number of answers", len(records), len(scenes) * samples)
    whole = len(records) if len(records) == len(scenes) * samples else len(records) // chunk * chunk
    with telling_of_space(path):
        os.truncate(path, ends[whole])
    return records[:whole]


def _check(path: Path, record: Record, scene: Scene, sample: int, how: Mapping[str, Any]) -> None:
    """Raise unless this is the record that would be written."""
    for name, now in {**how, "verifier": VERSION}.items():
        if record.get(name) != now:
            _refuse(path, name, record.get(name, "not told"), now)
    asked = {"scene": scene.key, "sample": sample, "question": scene.question, "gold": scene.gold.text}
    if sample == 0:
        asked["image_sha"] = image_sha(scene)
    for name, now in asked.items():
        if record.get(name) != now:
            _refuse(path, f"{name} (of {scene.key})", record.get(name, "not told"), now)


def _refuse(path: Path, name: str, old: Any, new: Any) -> None:
    raise UserError(
        f"{path} holds answers that were asked for otherwise: {name} is {old!r} there and {new!r} now; "
        f"give another --out, or move that file away"
    )


def refuse_unwritable(path: Path) -> None:
    """Raise if a file cannot be written here, before hours go into what it shall hold. Nothing with a name is made: it
    would have to be taken away again, and may be another process's by then.

    Raises:
        UserError: it cannot.
    """
    try:
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        with path.open("a") if there == path else TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}; give another --out") from error


@contextmanager
def alone(path: Path | None) -> Iterator[None]:
    """Hold a file of answers, so that no other process adds to it meanwhile; one that stays empty is taken away again.
    The end of the process gives it back, however it ends.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    if path is None:
        yield
        return
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: give another --out")  # a device must be left where it is
    make(path.parent)
    is_new = not path.exists()
    handle = locked(path)
    if handle is None:
        raise UserError(f"another process is adding answers to {path}: wait for it, or give another --out")
    try:
        if is_new:
            with telling_of_space(path):
                sync(path.parent)
        try:
            yield
        finally:
            if is_new and not os.fstat(handle).st_size and is_at(path, handle):
                path.unlink()
    finally:
        os.close(handle)


def appending(path: Path | None) -> Keep:
    """What adds each chunk of answers to a file: all of it or, where that fails, nothing; and synced, so that what was
    asked for hours outlives the loss of power. Nothing where there is no file."""

    def keep(chunk: list[Record]) -> None:
        if path:
            is_new = not path.exists()
            make(path.parent)
            append(path, "".join(json.dumps(record) + "\n" for record in chunk))
            with telling_of_space(path):
                sync(path)
                if is_new:
                    sync(path.parent)

    return keep
