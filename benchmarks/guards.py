"""Does each guard see its failure, and is it silent where nothing is wrong? Real runs, driven into each; one table.

    python -m benchmarks.guards --out runs/guards --cores 2           # carries out what is missing, prints the table
    python -m benchmarks.guards --out runs/guards --only gamma blank --seeds 2    # some of it
    python -m benchmarks.guards --out runs/guards --table             # the table, of what has been carried out

`benchmarks.failures` says how each failure is driven, `benchmarks.drives` what is left alone: at three seeds each,
PAPO of the demo at ten. Guards are functions of the log alone, so that the table is made anew from `metrics.jsonl`,
without training again, whenever a guard has changed. A run that has ended is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from math import comb
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.drives import HEALTHY, Drive
from benchmarks.failures import FAILURES
from vergence.guards.catalogue import GUARDS, Raised, raised
from vergence.train.forewarned import forewarned
from vergence.train.loop import train
from vergence.train.run import load_run_config, read_lines
from vergence.types import UserError

ENDED = "ended.json"
"""Beside the run folder's own files: how the run ended, and after how many seconds."""

DRIVES = {drive.name: drive for drive in (*HEALTHY, *FAILURES)}


class Seen(NamedTuple):
    """What the guards say of one run that has ended."""

    seed: int
    steps: int
    raised: list[Raised]
    said: str
    """What ended the run before its last step; empty where nothing did."""
    seconds: float


def place(out: Path, drive: Drive, seed: int) -> Path:
    """The folder of one run."""
    return out / f"{drive.name}-{seed}"


def carry_out(drive: Drive, seed: int, out: Path) -> str:
    """One run, in this process, with one thread; what there is to tell of it in one line."""
    torch.set_num_threads(1)
    run, rows, since, said = place(out, drive, seed), out / "data" / f"{drive.name}-{seed}", time.perf_counter(), ""
    config = drive.configured(seed, rows)
    if drive.data and not (rows / "rows.jsonl").exists():
        drive.data(rows, seed)
    with drive.around() if drive.around else nullcontext():
        try:
            train(config, run, resume=(run / "config.yaml").exists(), evaluate=drive.evaluate)
        except UserError as error:
            said = str(error)
    ended = {"said": said, "seconds": round(time.perf_counter() - since, 1)}
    (run / ENDED).write_text(json.dumps(ended) + "\n")
    return f"{run.name}: {said or 'all steps'} ({ended['seconds']:.0f} s)"


def missing(drives: Sequence[Drive], out: Path, seeds: int | None) -> list[tuple[Drive, int]]:
    """The runs that have not ended yet.

    Raises:
        UserError: a folder holds a run with other settings.
    """
    left = []
    for drive in drives:
        for seed in drive.seeds[:seeds]:
            run = place(out, drive, seed)
            if not (run / ENDED).exists():
                left.append((drive, seed))
            elif load_run_config(run) != drive.configured(seed, out / "data" / f"{drive.name}-{seed}"):
                raise UserError(f"{run} holds a run with other settings; move it away, or take another --out")
    return left


def carry_out_missing(left: Sequence[tuple[Drive, int]], out: Path, cores: int) -> None:
    """So many at once, each in a process with one thread; what fails is told, and the others go on."""
    with ProcessPoolExecutor(cores, get_context("spawn")) as beside:
        begun = {beside.submit(carry_out, drive, seed, out): f"{drive.name}-{seed}" for drive, seed in left}
        for done in as_completed(begun):
            trouble = done.exception()
            told = f"{begun[done]}: {type(trouble).__name__}: {trouble}" if trouble else done.result()
            print(told, file=sys.stderr, flush=True)


def seen(drive: Drive, out: Path) -> Iterator[Seen]:
    """Those of a drive's runs that have ended."""
    for seed in drive.seeds:
        run = place(out, drive, seed)
        if not (run / ENDED).exists():
            continue
        ended, lines = json.loads((run / ENDED).read_text()), list(read_lines(run / "metrics.jsonl"))
        yield Seen(seed, len(lines), raised(lines), ended["said"], ended["seconds"])


def table(out: Path) -> str:
    """Which of the failing runs raise their guard, and when; then what is raised where nothing is wrong."""
    lines = [
        "| guard | driven by | raised in | at step, by seed | of steps | raised besides, in runs |",
        "|---|---|---|---|---|---|",
    ]
    for guard in GUARDS:
        drives = [drive for drive in FAILURES if guard in drive.guards]
        lines += [_true(guard, drive, list(seen(drive, out))) for drive in drives]
    lines += ["", "| nothing is wrong in | runs | steps | raised |", "|---|---|---|---|"]
    healthy = [(drive, list(seen(drive, out))) for drive in HEALTHY]
    lines += [_false(drive.how, runs) for drive, runs in healthy]
    everything = [run for _, runs in healthy for run in runs]
    alarms, number = sum(bool(run.raised) for run in everything), len(everything)
    lines.append(_false("all", everything))
    if number:
        lines += ["", f"False alarms in {alarms} of {number} runs: in at most {at_most(alarms, number):.0%} (95 %)."]
    lines += ["", "Warned of before step 0:", ""]
    lines += [f"- {drive.how}: {'; '.join(forewarned(drive.config))}" for drive in FAILURES if forewarned(drive.config)]
    return "\n".join([*lines, f"- of the healthy: {sum(bool(forewarned(drive.config)) for drive in HEALTHY)}"])


def _true(guard: str, drive: Drive, runs: Sequence[Seen]) -> str:
    if not runs:
        return f"| {guard} | {drive.how} | not carried out | | | |"
    own = [next((f"{one.step}" for one in run.raised if one.name == guard), "–") for run in runs]
    others = Counter(one.name for run in runs for one in run.raised if one.name not in drive.guards)
    besides = ", ".join(f"{name} {number}" for name, number in others.most_common()) or "nothing"
    steps = ", ".join(dict.fromkeys(f"{run.steps}" for run in runs))
    found = f"{len(own) - own.count('–')} of {len(runs)}"
    return f"| {guard} | {drive.how} | {found} | {', '.join(own)} | {steps} | {besides} |"


def _false(how: str, runs: Sequence[Seen]) -> str:
    found = [f"{one.name} at step {one.step} of seed {run.seed}" for run in runs for one in run.raised]
    return f"| {how} | {len(runs)} | {sum(run.steps for run in runs)} | {', '.join(found) or 'nothing'} |"


def at_most(found: int, of: int) -> float:
    """The upper end of the one-sided 95 % interval of a share, by Clopper and Pearson.

    >>> round(at_most(0, 13), 3), round(at_most(1, 20), 3)
    (0.206, 0.216)
    """
    low, high = found / of, 1.0
    for _ in range(50):
        p = (low + high) / 2
        as_few = sum(comb(of, number) * p**number * (1 - p) ** (of - number) for number in range(found + 1))
        low, high = (p, high) if as_few > 0.05 else (low, p)
    return high


def main() -> None:
    """Carry out what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--cores", type=int, default=2, help="runs at once, each with one thread")
    parser.add_argument("--only", nargs="+", default=[], help="names of drives")
    parser.add_argument("--seeds", type=int, help="the first so many seeds of each")
    parser.add_argument("--table", action="store_true", help="print the table alone")
    given = parser.parse_args()
    if unknown := [name for name in given.only if name not in DRIVES]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(DRIVES)}")
    try:
        if not given.table:
            asked = [DRIVES[name] for name in given.only or DRIVES]
            carry_out_missing(missing(asked, given.out, given.seeds), given.out, given.cores)
        print(table(given.out))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
