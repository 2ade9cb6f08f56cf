"""Runs, evaluations and studies that lose power: from every state that a disk could be left in, they go on to what they
would have been.

`python tests/faults/power.py --states 300 --seed 0` tries so many and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import torch
from faults.disks import Instant, State, Watched, build, instants, luckiest, mixed, worst
from faults.forked import PHASES, Board, forked, replaced
from faults.works import Work, answering, differences, files, prepared_study_within, studying, training, warm

WORKS = ("papo", "grpo", "kept", "back", "adapter", "ahead", "captions", "eval", "study")


class Tried(NamedTuple):
    """A state of the disk, and what became of it."""

    work: str
    kind: str
    phase: str
    before: str
    wrong: list[str]
    lost: list[str]


def work_of(name: str) -> Work:
    """By its name."""
    if name == "study":
        return studying()._replace(prepare=prepared_study_within)
    return answering() if name == "eval" else training(name)


class Kept(NamedTuple):
    """What a work comes to on a disk that is watched."""

    files: dict[str, bytes]
    promised: int
    """Of an evaluation or a study, how many answers or records there are."""


def watched(work: Work, base: Path, *, spoil: Callable[[], None] = lambda: None) -> Kept:
    """Do it from beginning to end on a disk that is watched. Instants are in base/store.

    Args:
        spoil: takes a sync away, to see whether that is noticed.
    """
    folder, store = base / "disk" / "run", base / "store"
    folder.parent.mkdir(parents=True)
    disk: list[Watched] = []

    def prepare(board: Board) -> None:
        work.prepare(board)
        promising(work, board)
        disk.append(Watched(folder, store, board))

    def do() -> None:
        disk[0].start()
        spoil()
        work.do(folder)
        disk[0].note_the_end()

    ended = forked(do, folder, prepare=prepare)
    if ended.status:
        raise AssertionError(f"{work.name} ended with status {ended.status}\n{ended.said[-3000:]}")
    return Kept(files(folder), ended.promised)


def promising(work: Work, board: Board) -> None:
    """From now on the board says what is said to be safe: the step of the last checkpoint, or how many answers or
    records there are."""

    def saved(kept: Callable[..., Path]) -> Callable[..., Path]:
        def save(*given: Any, **options: Any) -> Path:
            found = kept(*given, **options)
            board["promised"] = int(found.name.removeprefix("step-"))
            return found

        return save

    def written(kept: Callable[..., None]) -> Callable[..., None]:
        def write(*given: Any, **options: Any) -> None:
            kept(*given, **options)
            board["promised"] += 1

        return write

    def appending(kept: Callable[..., Any]) -> Callable[..., Any]:
        def counting(path: Path) -> Callable[[list[Any]], None]:
            keep = kept(path)

            def keep_and_count(chunk: list[Any]) -> None:
                keep(chunk)
                board["promised"] += len(chunk)

            return keep_and_count

        return counting

    if work.of == "train":
        replaced("vergence.train.checkpoint.save", saved)
    elif work.of == "eval":
        replaced("vergence.evaluate.kept.appending", appending)
    else:
        replaced("vergence.studies.record.write", written)


def states(work: Work, base: Path, chance: random.Random, each: int) -> Iterator[tuple[str, Instant, State]]:
    """(how bad, when, state): from every instant the worst two, and so many mixtures; none twice."""
    store, seen = base / "store", set()
    for instant in instants(store):
        found = [("worst", worst(instant, store, zeros=False)), ("zeros", worst(instant, store, zeros=True))]
        found += [("luckiest", luckiest(instant, store))]
        found += [("mixed", mixed(instant, store, chance)) for _ in range(each)]
        for kind, state in found:
            digest = json.dumps(state)
            if digest not in seen:
                seen.add(digest)
                yield kind, instant, state


def tried(work: Work, base: Path, of: Kept, kind: str, instant: Instant, state: State, name: str) -> Tried:
    """Build it, go on from it, and compare."""
    folder = base / name / "run"
    build(state, base / "store", folder.parent)

    def prepare(board: Board) -> None:
        work.prepare(board)
        promising(work, board)

    ended = forked(partial(work.do, folder), folder, prepare=prepare)
    wrong = [f"it ended with status {ended.status}: {ended.said[-1500:]}"] if ended.status else []
    timed = work.of == "train"  # of a run that is not gone on with, the clock's files stay as they are
    wrong, lost = wrong or differences(folder, of.files, timed=timed), []
    if work.of != "train":
        again = ended.promised - (of.promised - instant.promised)
        if not ended.status and again > 0:
            lost.append(f"{instant.promised} of {of.promised} were safe, and {again} of these were made again")
    elif not work.config.guards and -1 < ended.began < instant.promised:  # a run that goes back takes steps away
        lost.append(f"step {instant.promised} was safe, and it went on from {ended.began}")
    if not wrong and not lost:
        shutil.rmtree(folder.parent)
    return Tried(work.name, kind, PHASES[instant.phase], instant.before, wrong, lost)


def outcomes(
    name: str, base: Path, *, number: int, seed: int, each: int = 3, spoil: Callable[[], None] = lambda: None
) -> list[Tried]:
    """A work on a watched disk, and so many states of it, drawn from all."""
    work, chance = work_of(name), random.Random(f"{seed} {name}")
    of = watched(work, base, spoil=spoil)
    found = list(states(work, base, chance, each))
    chosen = sorted(chance.sample(range(len(found)), min(number, len(found))))
    return [tried(work, base, of, *found[at], f"state-{at}") for at in chosen]


def table(found: Sequence[Tried]) -> list[str]:
    """What was under way, how bad the state was, and what became of it."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for one in found:
        of = one.work if one.work in ("eval", "study") else "train"
        row = rows.setdefault((of, one.phase), Counter())
        row.update({"states": 1, one.kind: 1, "exact": not one.wrong, "lost": bool(one.lost)})
    names = ("states", "worst", "zeros", "mixed", "luckiest", "exact", "lost")
    lines = [f"{'under way':<20}" + "".join(f"{name:>10}" for name in names)]
    for (of, phase), row in sorted(rows.items(), key=lambda item: (item[0][0] != "train", item[0])):
        lines.append(f"{of + ', ' + phase:<20}" + "".join(f"{row[name]:>10}" for name in names))
    total = sum(rows.values(), Counter())
    lines.append(f"{'all':<20}" + "".join(f"{total[name]:>10}" for name in names))
    return lines


def main(arguments: Sequence[str]) -> int:
    """Try them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=WORKS, choices=WORKS)
    given: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    since, place = time.monotonic(), "/dev/shm" if Path("/dev/shm").is_dir() else None
    base = Path(tempfile.mkdtemp(prefix="power-", dir=place))
    warm(base / "warm")
    found: list[Tried] = []
    for at, name in enumerate(given.only):
        number = given.states // len(given.only) + (at < given.states % len(given.only))
        found += outcomes(name, base / name, number=number, seed=given.seed)
    print("\n".join(table(found)))
    bad = [one for one in found if one.wrong or one.lost]
    for one in bad:
        print(f"{one.work}, {one.kind}, {one.phase}, before {one.before}: {[*one.wrong, *one.lost]}")
    print(f"{time.monotonic() - since:.0f} s, seed {given.seed}")
    if not bad:
        shutil.rmtree(base)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
