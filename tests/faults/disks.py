"""A model of a disk that keeps, when power is lost, what was synced, and of the rest whatever it likes.

What a process does is watched, not simulated: at each sync the content of the file (or the names in the folder) that
was synced is noted, and at each instant between two system calls what is there. So writes of any library count, in any
language. From an instant come states that a disk could be left in:

- each name in a folder as it was when that folder was last synced, or as it is now; a rename has happened or not;
- each file's content as it was last synced, or as it is now, or the beginning of that, or that with zeros in the place
  of its end; of a file that was never synced it may be nothing at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from faults.forked import EVENTS, Board

Key = str
"""Of a file or folder, whatever its name: device and inode."""
Names = Mapping[str, Key]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
SETTLED = 0.1
"""Seconds after which a file's time of change tells whether it has changed again."""


class File(NamedTuple):
    """What a file held."""

    synced: str | None
    """The digest of its content when it was last synced; None if it never was."""
    now: str | None
    """Of its content; None if it is gone."""


class Instant(NamedTuple):
    """Just before a system call."""

    number: int
    before: str
    """The call."""
    phase: int
    promised: int
    """What the process had said is safe: steps, answers or records; see `promising`."""
    root: Key
    synced: Mapping[Key, Names]
    """The names in each folder, when it was last synced."""
    now: Mapping[Key, Names]
    files: Mapping[Key, File]


class Watched:
    """Watches, in the process that writes, a folder and all in it; every instant is a line of `store`/instants.jsonl.

    Args:
        folder: its parent's names are part of the model, its siblings are not.
        store: where every content that was ever seen is kept, by its digest.
    """

    def __init__(self, folder: Path, store: Path, board: Board) -> None:
        self.folder, self.store, self.board = folder, store, board
        self.root = self._key(os.stat(folder.parent))
        self.synced: dict[Key, dict[str, Key]] = {self.root: {}}
        self.contents: dict[Key, str] = {}
        self.seen: dict[Key, tuple[tuple[int, int], str]] = {}
        self.handles: list[int] = []  # an inode that is held is not given to another file
        self.held: set[Key] = set()
        self.busy, self.lock = threading.local(), threading.RLock()
        self.number = 0
        store.mkdir(parents=True, exist_ok=True)
        self.out = (store / "instants.jsonl").open("w")

    def start(self) -> None:
        """From now on."""
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._syncing(getattr(os, name), name))
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        paths = [str(one) for one in args[: EVENTS.get(event, 0)] if isinstance(one, (str, os.PathLike))]
        if event not in ("os.listdir", "os.scandir") and any(path.startswith(str(self.folder)) for path in paths):
            if event == "open" and not (len(args) > 2 and args[2] & WRITING):
                return
            self._note(f"{event} {' '.join(path.removeprefix(str(self.folder)) for path in paths)}")

    def _syncing(self, kept: Callable[[Any], None], name: str) -> Callable[[Any], None]:
        def sync(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            path = os.readlink(f"/proc/self/fd/{number}")
            if not path.startswith(str(self.folder.parent)):
                return kept(handle)
            self._note(f"{name} {path.removeprefix(str(self.folder))}")
            with self.lock:
                self.busy.now = True
                key, is_folder = self._hold(path), stat.S_ISDIR(os.fstat(number).st_mode)
                if is_folder:
                    self.synced[key] = self._names(Path(path))
                else:
                    self.contents[key] = self._digest(Path(path), key)
                self.busy.now = False
            kept(handle)

        return sync

    def note_the_end(self) -> None:
        """The instant after the last call."""
        self._note("the end")
        self.out.flush()

    def _note(self, before: str) -> None:
        if getattr(self.busy, "now", False):
            return
        with self.lock:
            self.busy.now = True
            now, files = dict[Key, dict[str, Key]](), dict[Key, str]()
            self._walk(self.folder.parent, now, files)
            both = {key: File(self.contents.get(key), files.get(key)) for key in {*files, *self.contents}}
            phase, promised = self.board["phase"], self.board["promised"]
            noted = Instant(self.number, before, phase, promised, self.root, self.synced, now, both)
            self.out.write(json.dumps(noted) + "\n")
            self.out.flush()
            self.number += 1
            self.busy.now = False

    def _walk(self, folder: Path, now: dict[Key, dict[str, Key]], files: dict[Key, str]) -> None:
        names = self._names(folder)
        now[self._key(os.stat(folder))] = names
        for name, key in names.items():
            if (folder / name).is_dir():
                self._walk(folder / name, now, files)
            else:
                files[key] = self._digest(folder / name, key)

    def _names(self, folder: Path) -> dict[str, Key]:
        names = [self.folder.name] if folder == self.folder.parent else sorted(os.listdir(folder))
        return {name: self._hold(folder / name) for name in names if (folder / name).exists()}

    def _hold(self, path: Path | str) -> Key:
        key = self._key(os.stat(path))
        if key not in self.held:
            self.held.add(key)
            self.handles.append(os.open(path, os.O_PATH))
        return key

    def _key(self, found: os.stat_result) -> Key:
        return f"{found.st_dev}.{found.st_ino}"

    def _digest(self, path: Path, key: Key) -> str:
        found = path.stat()
        when = (found.st_mtime_ns, found.st_size)
        if key in self.seen and self.seen[key][0] == when and time.time_ns() - found.st_mtime_ns > SETTLED * 1e9:
            return self.seen[key][1]
        content = path.read_bytes()
        digest = kept(self.store, content)
        self.seen[key] = (when, digest)
        return digest


def kept(store: Path, content: bytes) -> str:
    """Keep a content, and return the digest that it is found by."""
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    if not (store / digest).exists():
        (store / digest).write_bytes(content)
    return digest


def instants(store: Path) -> Iterator[Instant]:
    """What was watched."""
    with (store / "instants.jsonl").open() as file:
        for line in file:
            *rest, files = json.loads(line)
            yield Instant(*rest, {key: File(*one) for key, one in files.items()})


# ----------------------------------------------------------------------------------------------- states it is left in

State = Mapping[str, tuple[str, int, int] | None]
"""Path -> the digest of a content, how many bytes there are of its beginning, and how many zeros follow; None is a
folder."""


def worst(instant: Instant, store: Path, *, zeros: bool) -> State:
    """What was synced, and nothing else; a file that never was is empty, or as long as it was and all zeros."""
    return _state(instant, instant.synced, lambda key: _as_synced(instant.files.get(key), store, zeros=zeros))


def luckiest(instant: Instant, store: Path) -> State:
    """All that was done."""
    return _state(instant, instant.now, lambda key: _whole(instant.files[key].now, store))


def mixed(instant: Instant, store: Path, chance: random.Random) -> State:
    """Of each name and each content, one of the ways in which it may have survived."""
    names: dict[Key, dict[str, Key]] = {}
    for folder in {*instant.synced, *instant.now}:
        old, new = instant.synced.get(folder, {}), instant.now.get(folder, {})
        chosen = {name: chance.choice((old, new)).get(name) for name in sorted({*old, *new})}
        names[folder] = {name: key for name, key in chosen.items() if key is not None}
    linked = {key for one in names.values() for key in one.values()}
    before = {key for one in instant.synced.values() for key in one.values()}
    for folder, new in instant.now.items():  # what was renamed has its old name or its new one
        for name, key in new.items():
            if key in before and key not in linked:
                names[folder][name] = key
    made: dict[Key, tuple[str, int, int]] = {}

    def content(key: Key) -> tuple[str, int, int]:
        if key not in made:
            made[key] = _somehow(instant.files.get(key), store, chance)
        return made[key]

    return _state(instant, names, content)


def _state(instant: Instant, names: Mapping[Key, Names], content: Callable[[Key], tuple[str, int, int]]) -> State:
    folders, found = {*instant.synced, *instant.now}, dict[str, tuple[str, int, int] | None]()

    def walk(folder: Key, path: str) -> None:
        for name, key in sorted(names.get(folder, {}).items()):
            if key in folders:
                found[f"{path}{name}"] = None
                walk(key, f"{path}{name}/")
            else:
                found[f"{path}{name}"] = content(key)

    walk(instant.root, "")
    return found


def _as_synced(file: File | None, store: Path, *, zeros: bool) -> tuple[str, int, int]:
    if file is not None and file.synced is not None:
        return _whole(file.synced, store)
    length = _size(file.now, store) if file and file.now and zeros else 0
    return ("", 0, length)


def _somehow(file: File | None, store: Path, chance: random.Random) -> tuple[str, int, int]:
    if file is None or file.now is None:
        return _as_synced(file, store, zeros=False)
    long = _size(file.now, store)
    least = 0
    if file.synced is not None and (store / file.now).read_bytes().startswith((store / file.synced).read_bytes()):
        least = _size(file.synced, store)
    if file.now == file.synced:
        return (file.now, long, 0)
    part = chance.randint(least, long)
    untouched = _as_synced(file, store, zeros=False)
    return chance.choice((untouched, (file.now, long, 0), (file.now, part, 0), (file.now, part, long - part)))


def _whole(digest: str, store: Path) -> tuple[str, int, int]:
    return (digest, _size(digest, store), 0)


def _size(digest: str, store: Path) -> int:
    return (store / digest).stat().st_size


def build(state: State, store: Path, root: Path) -> None:
    """Put a state on a real disk, under `root`."""
    root.mkdir(parents=True, exist_ok=True)
    for path, content in state.items():
        if content is None:
            (root / path).mkdir()
        else:
            digest, part, zeros = content
            (root / path).write_bytes(((store / digest).read_bytes()[:part] if part else b"") + bytes(zeros))
