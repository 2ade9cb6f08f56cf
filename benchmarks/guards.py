"""Does each guard see its failure, and is it silent where nothing is wrong? Real runs, driven into each; one table.

    python -m benchmarks.guards --out runs/guards --cores 2           # carries out what is missing, prints the table
    python -m benchmarks.guards --out runs/guards --only gamma blank  # some of it
    python -m benchmarks.guards --out runs/guards --table             # the table, of what has been carried out

`benchmarks.failures` says how each failure is driven. Guards are functions of the log alone, so that the table is made
anew from `metrics.jsonl`, without training again, whenever a guard has changed. A run that has ended is not run again.
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
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.failures import FAILURES, HEALTHY, Drive
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
            train(config, run, resume=(run / "config.yaml").exists())
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
    """One row for each way of failing, then how often each guard was raised where nothing is wrong."""
    healthy = [(drive, list(seen(drive, out))) for drive in HEALTHY]
    runs = [one for _, each in healthy for one in each]
    false = Counter(name for one in runs for name in {each.name for each in one.raised})
    lines = [
        "| guard | driven by | raised | at step (median) | of steps | raised besides | false alarms |",
        "|---|---|---|---|---|---|---|",
    ]
    for guard in GUARDS:
        drives = [drive for drive in FAILURES if guard in drive.guards]
        wrong = f"{false[guard]} of {len(runs)}"
        for drive in drives:
            lines.append(_row(guard, drive, list(seen(drive, out)), wrong))
        if not drives:
            lines.append(f"| {guard} | (nothing) | | | | | {wrong} |")
    steps = sum(one.steps for one in runs)
    lines += ["", f"Healthy: {len(runs)} runs, {steps} steps.", ""]
    for drive, each in healthy:
        found = [f"{one.name} at step {one.step} of seed {run.seed}" for run in each for one in run.raised]
        if each:
            lines.append(f"- {drive.how}, {len(each)} seeds, {each[0].steps} steps: {', '.join(found) or 'nothing'}")
    lines += ["", "Warned of before step 0:", ""]
    lines += [f"- {drive.how}: {'; '.join(forewarned(drive.config))}" for drive in FAILURES if forewarned(drive.config)]
    return "\n".join([*lines, f"- of the healthy: {sum(bool(forewarned(drive.config)) for drive in HEALTHY)}"])


def _row(guard: str, drive: Drive, runs: Sequence[Seen], wrong: str) -> str:
    own = [one.step for run in runs for one in run.raised if one.name == guard]
    others = Counter(one.name for run in runs for one in run.raised if one.name != guard)
    besides = ", ".join(f"{name} {number}" for name, number in others.most_common())
    steps = f"{median(run.steps for run in runs):g}" if runs else ""
    at = f"{median(own):g}" if own else ""
    return f"| {guard} | {drive.how} | {len(own)} of {len(runs)} | {at} | {steps} | {besides} | {wrong} |"


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
