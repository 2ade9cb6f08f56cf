"""A run is a folder: config.yaml, four files of JSON lines, checkpoints, a report.

No file holds a clock but timings.jsonl, so that equal runs are equal bytes. Of the other three, the logs, a checkpoint
keeps the `Mark`: what they held when its step was finished. A run that is resumed cuts them there, unread.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from vergence.disk import LOCK, append, make, sync, telling_of_space, write_whole
from vergence.rewards.verify import VERSION
from vergence.train.backend import ONE, Peers, first
from vergence.train.config import Config
from vergence.train.config_file import load_config, to_yaml
from vergence.types import Gold, UserError

LOGS = ("metrics.jsonl", "rollouts.jsonl", "traces.jsonl")
TIMINGS = "timings.jsonl"
FILES = (*LOGS, TIMINGS)
CONFIG = "config.yaml"
LEFT = {LOCK, f".{CONFIG}.partial"}
"""What a run that was ended before it had begun may have left in its folder."""
PIECE = 2**20
"""Bytes of a log that are read at a time."""
MAY_CHANGE = {"steps", "token_budget", "scorer", "verify_scorer", "sample_batch", "save_every", "server_model"}
MAY_CHANGE |= {"shards", "offload", "gradient_checkpointing", "trust_remote_code", "sampler_memory", "most_gap"}
MAY_CHANGE |= {"server_tokens", "server_seconds", "keep_last", "grace", "guards", "back_factor", "most_backs"}
MAY_CHANGE |= {"pictures"}  # which pictures there are is in the hash of the data
"""Fields that may differ when a run is resumed. Another cut into batches changes nothing but the rounding of sums."""


class Mark(NamedTuple):
    """How far a log has come."""

    size: int
    """Bytes."""
    sha256: str
    """Of these, in hexadecimal digits."""


Marks = Mapping[str, Mark]
"""Of each log, by its name."""


class RunFolder:
    """The files of one run. Of several processes the first alone writes, and all of them are told when it cannot.

    Args:
        more: what there is to say where space has run out.
    """

    def __init__(self, path: Path, peers: Peers = ONE, more: Callable[[], str] = lambda: "") -> None:
        self.path, self.peers, self.more = path, peers, more
        self._size = dict.fromkeys(LOGS, 0)
        self._hash = {name: hashlib.sha256() for name in LOGS}
        self._known: dict[str, tuple[Mark, Any]] = {}
        """Of each log the mark that was looked at last, and the hash, which can go on."""

    @classmethod
    def start(cls, path: Path, config: Config, peers: Peers = ONE) -> RunFolder:
        """A new run in an empty or missing folder.

        Raises:
            UserError: something is in the folder, or it cannot be written.
        """
        first(peers, lambda: _begin(path, config))
        return cls(path, peers)

    @classmethod
    def resume(cls, path: Path, config: Config, peers: Peers = ONE) -> RunFolder:
        """A run that was started before with this config; it may have been given more steps.

        Raises:
            UserError: there is no run, or it is another one: the first field that differs is named.
        """
        first(peers, lambda: _go_on(path, config))
        return cls(path, peers)

    def append(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to one of the files: all of them, or, where that fails, none."""
        first(self.peers, lambda: self._append(name, records))

    def _append(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        append(self.path / name, text, self.more)
        if name in LOGS:
            self._size[name] += len(text.encode())
            self._hash[name].update(text.encode())

    def marks(self) -> Marks:
        """How far the logs have come, of what was appended here and what stood there when they were `cut`."""
        for name in LOGS:
            self._known[name] = Mark(self._size[name], self._hash[name].hexdigest()), self._hash[name].copy()
        return {name: mark for name, (mark, _) in self._known.items()}

    def differs(self, marks: Marks, *, again: bool = True) -> str:
        """In what the logs are not those of these marks, whatever follows there; "" if they are.

        Args:
            again: whether the same marks are read once more; else of these the lengths alone are looked at.
        """
        for name, mark in marks.items():
            path = self.path / name
            there = path.stat().st_size if path.is_file() else 0
            if there < mark.size:
                return f"{name} has {there} bytes, and had {mark.size} when it was written"
            if again or name not in self._known or self._known[name][0] != mark:
                self._known[name] = _mark(path, mark.size)
            if self._known[name][0] != mark:
                return f"the first {mark.size} bytes of {name} are not those that it was written beside"
        return ""

    def cut(self, marks: Marks) -> None:
        """Take away whatever the logs hold after these marks, unread; a log without a mark is emptied. What was written
        or looked at here before is not hashed again.

        Raises:
            UserError: they hold less, or something else: see `differs`.
        """
        first(self.peers, lambda: self._cut(marks))

    def _cut(self, marks: Marks) -> None:
        if differs := self.differs(marks, again=False):
            raise UserError(f"{self.path} is not as it was left: {differs}")
        for name in LOGS:
            size = marks[name].size if name in marks else 0
            with telling_of_space(self.path / name):
                if (self.path / name).stat().st_size > size:
                    os.truncate(self.path / name, size)
            self._size[name], self._hash[name] = size, self._known[name][1].copy() if size else hashlib.sha256()

    def sync(self) -> None:
        """Wait until the logs would survive the loss of power."""
        for path in (*(self.path / name for name in LOGS), self.path):
            sync(path)

    def forget_after(self, step: int, files: Iterable[str] = FILES) -> None:
        """Drop the lines of steps that will be taken again, and whatever follows a line that is none."""
        first(self.peers, lambda: self._forget_after(step, files))

    def _forget_after(self, step: int, files: Iterable[str]) -> None:
        for path in (self.path / name for name in files):
            kept = [record for record in whole_lines(path) if _is_number(record.get("step")) and record["step"] <= step]
            write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))
            if path.name in LOGS:
                size = path.stat().st_size
                self._size[path.name], self._hash[path.name] = size, _mark(path, size)[1]

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"


def _mark(path: Path, size: int) -> tuple[Mark, Any]:
    """Of at most so many bytes of a file; and the hash, which can go on."""
    found, left = hashlib.sha256(), size
    with path.open("rb") if path.is_file() else open(os.devnull, "rb") as file:
        while left and (piece := file.read(min(left, PIECE))):
            found.update(piece)
            left -= len(piece)
    return Mark(size - left, found.hexdigest()), found


def _begin(path: Path, config: Config) -> None:
    refuse_used(path)
    make(path)
    write_whole(path / CONFIG, to_yaml(config))  # first: where it is there, the run has begun and can be resumed
    _there(path)


def _there(path: Path) -> None:
    """The files that lines are added to."""
    with telling_of_space(path):
        for name in FILES:
            (path / name).touch()
        sync(path)


def refuse_unbegun(path: Path) -> None:
    """Raise unless there is a run to go on with.

    Raises:
        UserError: there is none.
    """
    if not (path / CONFIG).is_file():
        raise UserError(f"nothing to resume: {path / CONFIG} does not exist; leave --resume out to start")


def _go_on(path: Path, config: Config) -> None:
    refuse_unbegun(path)
    old, new = asdict(load_run_config(path)), asdict(config)
    if new["decay"] != "constant" and old["steps"] != new["steps"]:
        raise UserError(
            f"{path} was started with steps={old['steps']}, which its decaying learning rate depends on; "
            f"resume with the same, or start anew in another --out"
        )
    for name in new:
        moved = name in ("captions", "reasoner", "sampler") and all("://" in str(where[name]) for where in (old, new))
        if old[name] != new[name] and name not in MAY_CHANGE and not moved:  # a server may have another address
            raise UserError(
                f"{path} holds another run: its {name} is {old[name]!r}, not {new[name]!r}. "
                f"Resume it as it was started, or give another --out"
            )
    for name in FILES:
        if (path / name).is_symlink():  # in a folder of somebody else it may lead anywhere
            raise UserError(f"{path / name} is a link, and would be written to elsewhere: put the file itself there")
    write_whole(path / CONFIG, to_yaml(config))
    _there(path)


def refuse_used(path: Path) -> None:
    """Raise unless a new run can be put there.

    Raises:
        UserError: something is there already.
    """
    if path.exists() and (not path.is_dir() or {one.name for one in path.iterdir()} - LEFT):
        what = "holds a run already" if (path / CONFIG).exists() else "is not empty"
        raise UserError(f"{path} {what}: give another --out, or --resume to go on with it")


def load_run_config(path: Path) -> Config:
    """The config of a run folder."""
    where = path / CONFIG
    if not where.is_file():
        raise UserError(f"{path} is not a run folder: it holds no config.yaml")
    return load_config(where)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines; a last line without its end (the process was killed while writing) that is
    no record is left out.

    Raises:
        UserError: no such file, or any other line is no JSON object.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            found = _record(line)
            if isinstance(found, dict):
                yield found
            elif line.endswith(b"\n"):
                raise UserError(f"{path}, line {number} is not JSON: {found}; the file was damaged")


def lines_with(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """Of a file of JSON lines, the records with a field of that name; no others are parsed."""
    with path.open("rb") as file:
        for found in (_record(line) for line in file if field.encode() in line):
            if isinstance(found, dict) and field in found:
                yield found


def whole_lines(path: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """The records of a file, from the line that starts at that byte up to one that is none, whatever follows there."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            found = _record(line)
            if isinstance(found, str):
                return
            yield found


def _record(line: bytes) -> dict[str, Any] | str:
    """The object of a line; or why it is none."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        return error.msg
    except (ValueError, RecursionError) as error:
        return type(error).__name__
    return found if isinstance(found, dict) else f"it is a {type(found).__name__}, not an object"


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def about_gold(gold: Gold) -> dict[str, Any]:
    """What a record says of an answer besides its text, so that it can be judged again; and who judged it now.

    >>> about_gold(Gold("B", "choice", choices=("four", "five"))).keys()
    dict_keys(['kind', 'choices', 'verifier'])
    """
    more = {"choices": list(gold.choices)} if gold.choices else {}
    more |= {"tolerance": gold.tolerance} if gold.tolerance else {}
    return {"kind": gold.kind, **more, "verifier": VERSION}
