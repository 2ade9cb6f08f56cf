"""What guards that act are good for: runs that are stopped, or sent back with a lower coefficient, beside the same left
alone; and whether one that is killed while it goes back resumes to the same bytes.

    python -m benchmarks.interventions --out runs/guards --cores 2    # carries out what is missing, prints the table
    python -m benchmarks.interventions --out runs/guards --killed 5   # kills and resumes the run that goes back

The runs left alone are those of `benchmarks.guards`, in the same folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from benchmarks.drives import Drive
from benchmarks.failures import FAILURES
from benchmarks.guards import DRIVES, ENDED, carry_out_missing, missing, place
from vergence.chance import dice
from vergence.guards.catalogue import raised
from vergence.train.checkpoint import name_of
from vergence.train.interventions import FILE, Intervention, interventions
from vergence.train.loop import train
from vergence.train.rollback import ABANDONED
from vergence.train.run import LOGS, load_run_config, read_lines
from vergence.types import UserError

LAST = 10
"""Steps over which accuracy is averaged at the end."""


def acting(name: str, new: str, action: str, **changed: object) -> Drive:
    """A drive of `benchmarks.failures` whose guard acts, with a checkpoint every ten steps."""
    drive = next(one for one in FAILURES if one.name == name)
    config = replace(drive.config, guards={drive.guards[0]: action}, save_every=10, **changed)
    return replace(drive, name=new, config=config)


ACTING = {
    drive.name: (drive, alone)
    for drive, alone in (
        (acting("gamma-more", "gamma-stops", "stop"), "gamma-more"),
        (acting("gamma-more", "gamma-goes-back", "back"), "gamma-more"),
        (acting("gamma-more", "gamma-goes-far-back", "back", back_factor=0.1), "gamma-more"),
        (acting("overflow", "overflow-stops", "stop"), "overflow"),
    )
}
"""The run that acts, and the name of the one that is left alone."""


def accuracy(run: Path) -> str:
    """Of the rollouts of the last steps; empty where the run is not there."""
    if not (run / "metrics.jsonl").exists():
        return ""
    return f"{fmean(line['rewards/accuracy'] for line in list(read_lines(run / 'metrics.jsonl'))[-LAST:]):.3f}"


def did(one: Intervention) -> str:
    """An intervention in a few words."""
    if one.action == "stop":
        return f"stopped at step {one.step} ({one.guard})"
    return f"step {one.step} to {one.to}, {one.option} {one.from_value:g} to {one.to_value:g} ({one.guard})"


def table(out: Path) -> str:
    """One row for each run that acted."""
    lines = [
        "| run | what was done | steps | raised in the end | accuracy, last 10 steps | left alone |",
        "|---|---|---|---|---|---|",
    ]
    for name, (drive, alone) in ACTING.items():
        for seed in drive.seeds:
            run = place(out, drive, seed)
            if not (run / ENDED).exists():
                continue
            log, done = list(read_lines(run / "metrics.jsonl")), "; ".join(map(did, interventions(run)))
            names = ", ".join(one.name for one in raised(log)) or "nothing"
            without = accuracy(place(out, DRIVES[alone], seed))
            how = f"{name}, seed {seed}: {drive.how}"
            how += f"; back_factor {drive.config.back_factor:g}" if "back" in drive.config.guards.values() else ""
            lines.append(f"| {how} | {done or 'nothing'} | {len(log)} | {names} | {accuracy(run)} | {without} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- killed


def kill_and_resume(out: Path, number: int, name: str) -> int:
    """Kills a run at chance moments of its first going back, resumes it, and says where it then differs from the one
    that was never killed; how many do.

    Each trial begins with a copy of the run as it stood at the checkpoint that it went back to, and ends with the next.
    """
    drive = ACTING[name][0]
    whole = place(out, drive, drive.seeds[0])
    first = interventions(whole)[0]
    last, differ = first.to + drive.config.save_every, 0
    for trial in range(number):
        run = out / "killed" / str(trial)
        as_it_stood(whole, run, first.to)
        delay = dice("killed", trial).uniform(0.0, 1.0)
        had = _killed_while_going_back(run, delay)
        train(load_run_config(run), run, resume=True, until=last)
        wrong = differing(run, whole, last)
        differ += bool(wrong)
        print(
            f"killed {delay:.2f} s after it began to go back, {had}: {', '.join(wrong) or 'the same bytes'}", flush=True
        )
    print(f"{number - differ} of {number} resumed to the same bytes")
    return differ


def as_it_stood(whole: Path, run: Path, step: int) -> None:
    """A copy of a run as it was when it had saved this step, before it ever went back."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)
    for left in (FILE, ENDED):
        (run / left).unlink(missing_ok=True)
    shutil.rmtree(run / ABANDONED)
    for path in (run / "checkpoints").iterdir():
        if path.name > name_of(step):
            shutil.rmtree(path)


def differing(run: Path, whole: Path, step: int) -> list[str]:
    """The files in which two runs differ up to this step: logs, interventions, and all of its checkpoint."""
    wrong = [] if interventions(run)[:1] == interventions(whole)[:1] else [FILE]
    for name in LOGS:
        own, other = ([line for line in read_lines(one / name) if line["step"] <= step] for one in (run, whole))
        wrong += [] if own == other else [name]
    own, other = (one / "checkpoints" / name_of(step) / "SHA256SUMS" for one in (run, whole))
    return wrong + ([] if own.read_bytes() == other.read_bytes() else [name_of(step)])


def _killed_while_going_back(run: Path, delay: float) -> str:
    """Resume in a process of its own, and kill that so many seconds after it began to go back; how far it was."""
    asked = "import sys; from pathlib import Path; from vergence.train.loop import train\n"
    asked += "from vergence.train.run import load_run_config\n"
    asked += "run = Path(sys.argv[1]); train(load_run_config(run), run, resume=True)"
    process = subprocess.Popen([sys.executable, "-c", asked, str(run)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not (run / ABANDONED).exists():
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return "when it was written down" if (run / FILE).exists() else "before it was written down"


def main() -> None:
    """Carry out what is missing and print the table; or kill and resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--cores", type=int, default=2, help="runs at once, each with one thread")
    parser.add_argument("--only", nargs="+", default=list(ACTING), choices=list(ACTING), help="names of runs")
    parser.add_argument("--killed", type=int, default=0, help="kill and resume so many times instead")
    given = parser.parse_args()
    try:
        if given.killed:
            sys.exit(kill_and_resume(given.out, given.killed, "gamma-goes-back") > 0)
        drives = [ACTING[name][0] for name in given.only]
        carry_out_missing(missing(drives, given.out, None), given.out, given.cores)
        print(table(given.out))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
