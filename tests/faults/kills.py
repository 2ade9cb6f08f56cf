"""Runs, evaluations and studies that are killed again and again, and go on: what comes out must be, byte for byte, what
would have come out.

`python tests/faults/kills.py --points 200 --seed 0` kills so many and prints a table of what was under way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import torch
from faults.forked import Ended, Moment, end_with_parent, forked
from faults.works import Whole, Work, answering, differences, newest, studying, training, warm, whole

WAYS = {"event": 8, "write": 3, "sync": 3, "time": 7, "term": 5}
"""How it is killed, and how often: before something is done with a file, in the middle of a write, before a sync, at a
random time, or by SIGTERM, after which half of them are given no time to end."""
SHARES = {"papo": 5, "grpo": 4, "kept": 2, "back": 3, "adapter": 2, "ahead": 3, "captions": 2, "eval": 3, "study": 2}
"""What is killed, and how often."""
MOST = 3
"""Kills in one trial, at most."""


class Kill(NamedTuple):
    """A process that did not come to its end."""

    work: str
    phase: str
    way: str
    again: bool
    """Whether it was going on from an earlier kill."""


class Trial(NamedTuple):
    """One work, killed at least once, and what became of it."""

    number: int
    kills: list[Kill]
    wrong: list[str]
    """In what it differs from what it should be."""
    lost: list[str]
    """What had been finished, and was done again."""
    seconds: float


def works() -> dict[str, Work]:
    """All that are killed, by name."""
    trained = {name: training(name) for name in SHARES if name not in ("eval", "study")}
    return {**trained, "eval": answering(), "study": studying()}


def moments(way: str, of: Whole, chance: random.Random) -> list[Moment]:
    """When to kill, drawn evenly over what the work does from beginning to end."""
    seconds = chance.uniform(0.05, 1.0) * of.seconds
    if way == "time":
        return [Moment("time", seconds)]
    if way == "term":
        at = Moment("event", chance.randint(1, of.events), signal.SIGTERM)
        end = [Moment("event", at.at + chance.randint(1, 30))] if chance.random() < 0.5 else []
        return [at if chance.random() < 0.6 else Moment("time", seconds, signal.SIGTERM), *end]
    number = {"event": of.events, "write": of.writes, "sync": of.syncs}[way]
    return [Moment(way, chance.randint(1, max(1, number)))]


def attempted(work: Work, of: Whole, folder: Path, number: int, seed: int) -> Trial:
    """Kill it, let it go on, perhaps kill that, and compare. The draws are those of the seed and the number."""
    chance, since = random.Random(f"{seed} {number}"), time.monotonic()
    kills, lost, termed, stands = [], [], False, Standing(folder, work)
    allowed = chance.choice((1, 1, 2, MOST))
    for _ in range(20):
        way = chance.choices(list(WAYS), list(WAYS.values()))[0] if len(kills) < allowed else ""
        hits = moments(way, of, chance) if way else []
        ended = forked(partial(work.do, folder), folder, hits, prepare=work.prepare)
        lost += stands.lost(ended)
        stands = Standing(folder, work)
        termed = termed or way == "term"
        late = way == "time" and ended.status != -signal.SIGKILL  # it had just ended by itself
        hit = bool(way and ended.hit and not late)
        if hit:
            kills.append(Kill(work.name, ended.hit, way, again=bool(kills)))
            if way != "term" and ended.status != -signal.SIGKILL and work.of != "study":
                raise AssertionError(f"{kills[-1]} ended with status {ended.status}: {ended.said[-2000:]}")
            unsound = unexpected(ended, way)
        else:
            unsound = [f"it ended with status {ended.status}: {ended.said[-800:]}"] if ended.status else []
        if unsound:
            return Trial(number, kills, unsound, lost, time.monotonic() - since)
        if not way or (not hit and kills):
            break
    wrong = differences(folder, of.files, saved_more=termed or work.of == "study")
    return Trial(number, kills, wrong, lost, time.monotonic() - since)


def unexpected(ended: Ended, way: str) -> list[str]:
    """What a killed process may not say or return; one that was told to stop in time ends well."""
    told = []
    if "Traceback" in ended.said:
        told.append(f"it said a traceback: {ended.said[-1500:]}")
    early = ended.hit in ("starting", "opening") and ended.status == -signal.SIGTERM  # nothing was begun
    of_a_run = ended.status == 2 and "(status " in ended.said  # it was a study's run that was told, and then killed
    if way == "term" and ended.status not in (0, -signal.SIGKILL) and not early and not of_a_run:
        told.append(f"told to stop, it ended with status {ended.status}: {ended.said[-800:]}")
    return told


class Standing:
    """What a work has finished, before it goes on."""

    def __init__(self, folder: Path, work: Work) -> None:
        self.forwards = work.of == "train" and not work.config.guards  # a run that goes back takes steps away
        self.step = newest(folder)
        self.records = {path: path.stat().st_mtime_ns for path in folder.glob("records/**/*.jsonl")}

    def lost(self, ended: Ended) -> list[str]:
        """What was done again of it."""
        again = [path.name for path, when in self.records.items() if path.stat().st_mtime_ns != when]
        told = [f"{name} was written again" for name in again]
        if self.forwards and -1 < ended.began < self.step:
            told.append(f"step {self.step} was saved, and it went on from {ended.began}")
        return told


def trials(points: int, seed: int, folder: Path, *, workers: int = 1, names: Sequence[str] = ()) -> list[Trial]:
    """So many trials, each with one kill at least; processes forked here share them."""
    chosen = {name: work for name, work in works().items() if not names or name in names}
    shares = [SHARES[name] for name in chosen]
    wholes: dict[str, Whole] = {}
    for name, work in chosen.items():
        wholes[name] = whole(work, folder / f"whole-{name}")
        again = differences(folder / f"whole-{name}", whole(work, folder / f"again-{name}").files)
        if again:
            raise AssertionError(f"{name} is not the same when nobody breaks it: {again}")
    outs = [folder / f"trials-{rank}.jsonl" for rank in range(workers)]
    children = []
    for rank, out in enumerate(outs):
        child = os.fork()
        if not child:
            status = 1
            end_with_parent()
            try:
                torch.set_num_threads(1)
                with out.open("w") as file:
                    for number in range(rank, points, workers):
                        name = random.Random(f"{seed} {number} work").choices(list(chosen), shares)[0]
                        trial = until_killed(chosen[name], wholes[name], folder / f"trial-{number}", number, seed)
                        file.write(json.dumps(trial) + "\n")
                        file.flush()
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    found = [json.loads(line) for out in outs for line in out.read_text().splitlines()]
    if any(codes):
        raise AssertionError(f"the trials did not come to an end: {codes}")
    return sorted(Trial(*[*one[:1], [Kill(*kill) for kill in one[1]], *one[2:]]) for one in found)


def until_killed(work: Work, of: Whole, folder: Path, number: int, seed: int) -> Trial:
    """A trial in which the kill did not come too late; the folder stays where something is wrong."""
    for again in range(10):
        trial = attempted(work, of, folder, number, seed + 1000 * again)
        if trial.kills or trial.wrong:
            break
        shutil.rmtree(folder)
    else:
        raise AssertionError(f"{work.name} could not be killed")
    if not trial.wrong:
        shutil.rmtree(folder)
    return trial


def table(found: Sequence[Trial]) -> list[str]:
    """What was under way, how often it was killed and how, and what became of it."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for trial in found:
        for kill in trial.kills:
            of = kill.work if kill.work in ("eval", "study") else "train"
            row = rows.setdefault((of, kill.phase), Counter())
            row.update(("kills", kill.way, *["again"] * kill.again))
            row.update([*["exact"] * (not trial.wrong), *["lost"] * bool(trial.lost)])
    names = ("kills", *WAYS, "again", "exact", "lost")
    heads = ("kills", "file", "write", "sync", "time", "SIGTERM", "again", "exact", "lost")
    lines = [f"{'under way':<20}" + "".join(f"{head:>9}" for head in heads)]
    for (of, phase), row in sorted(rows.items(), key=lambda item: (item[0][0] != "train", item[0])):
        lines.append(f"{of + ', ' + phase:<20}" + "".join(f"{row[name]:>9}" for name in names))
    total = sum(rows.values(), Counter())
    lines.append(f"{'all':<20}" + "".join(f"{total[name]:>9}" for name in names))
    exact, lost = sum(not one.wrong for one in found), sum(bool(one.lost) for one in found)
    lines.append(f"{len(found)} trials: {exact} resumed exactly, {lost} lost something that was finished")
    return lines


def told(trial: Trial) -> str:
    """What went wrong with a trial."""
    kills = "; ".join(f"{one.work}, {one.phase} ({one.way})" for one in trial.kills)
    return f"trial {trial.number}, killed at: {kills}: {[*trial.wrong, *trial.lost]}"


def main(arguments: Sequence[str]) -> int:
    """Kill, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=(), choices=sorted(SHARES))
    given: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    since, place = time.monotonic(), "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="kills-", dir=place))
    warm(folder / "warm")
    found = trials(given.points, given.seed, folder, workers=given.workers, names=given.only)
    print("\n".join(table(found)))
    bad = [one for one in found if one.wrong or one.lost]
    print(*map(told, bad), sep="\n")
    print(f"{time.monotonic() - since:.0f} s, seed {given.seed}, {given.workers} at once")
    if not bad:
        shutil.rmtree(folder)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
