"""Runs side by side: a process for each, with one thread; what is finished is never done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vergence.disk import alone
from vergence.studies.arms import Plan, started, starting
from vergence.studies.cost import trained_seconds
from vergence.studies.one import Job, patience, to_json
from vergence.studies.record import place, read, refuse_another
from vergence.train.config import Config
from vergence.types import UserError

GLANCE = 0.2
"""Seconds between looks at what is running."""
Told = Callable[[int, int], None]
"""(done, to do) in optimizer steps, or in seconds where each run has as many, for a progress bar."""


class Failure(NamedTuple):
    """A run that did not end well."""

    name: str
    said: str
    """The last line of its log."""
    log: Path


class Process(NamedTuple):
    """A run under way."""

    job: Job
    popen: subprocess.Popen
    log: Path
    since: float


def jobs(plan: Plan, out: Path) -> list[Job]:
    """All that the plan asks for, seed by seed: the starting models' answers, then the arms.

    >>> from vergence.studies.plans import tiny
    >>> [job.name for job in jobs(tiny(), Path("out"))][:3]
    ['start seed 0', 'grpo seed 0', 'papo seed 0']
    """
    found: dict[Path, Job] = {}
    for seed in plan.seeds:
        names = started(plan.arms)
        starts = {names[arm.name]: starting(arm, seed) for arm in plan.arms}
        for name, config in starts.items():
            found[place(out, name, seed)] = _job(plan, out, name, seed, config, trains=False)
        for arm in plan.arms:
            config = replace(arm.config, seed=seed)
            found[place(out, arm.name, seed)] = _job(plan, out, arm.name, seed, config, trains=True)
    return list(found.values())


def missing(plan: Plan, out: Path) -> list[Job]:
    """The jobs that have no record yet.

    Raises:
        UserError: a record is there, and is of another run.
    """
    left = []
    for job in jobs(plan, out):
        if job.record.is_file():
            refuse_another(read(job.record), job.config, job.seconds, job.samples, job.record)
        else:
            left.append(job)
    return left


def run(
    plan: Plan,
    out: Path,
    *,
    cores: int,
    tell: Callable[[str], None] = lambda _: None,
    told: Told = lambda done, of: None,
) -> list[Failure]:
    """Carry out what is missing, so many runs at once, and return those that failed; the others go on.

    Args:
        tell: shown a line for each run that ends.
        told: for a progress bar.

    Raises:
        UserError: a record is of another run; or another process is at work in `out`.
        KeyboardInterrupt: stopped, by Ctrl-C or SIGTERM. Runs under way save what they have finished; all is kept.
    """
    if cores < 1:
        raise UserError(f"--cores must be at least 1, got {cores}")
    left, under_way, failed, number = missing(plan, out), [], [], 0
    waiting, of = list(left), sum(length(job) for job in left)
    with alone(out, "study"), stopping(under_way):
        while waiting or under_way:
            while waiting and len(under_way) < cores:
                under_way.append(begin(waiting.pop(0), out))
            for process in [one for one in under_way if one.popen.poll() is not None]:
                under_way.remove(process)
                number += 1
                trouble = ended(process)
                failed += [trouble] if trouble else []
                took = f"{time.monotonic() - process.since:.0f} s"
                how = f"failed: {trouble.said}" if trouble else f"done in {took}"
                tell(f"{process.job.name}: {how} ({number} of {len(left)})")
            gone = {job.record for job in waiting} | {process.job.record for process in under_way}
            done = sum(length(job) for job in left if job.record not in gone)
            told(done + sum(trained_so_far(process.job) for process in under_way), of)
            if under_way:
                time.sleep(GLANCE)
    return failed


def begin(job: Job, out: Path) -> Process:
    """Start the process of a job. It ends by itself when this one does: the other end of its input closes."""
    log = out / "logs" / job.record.relative_to(out / "records").with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    here = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    with log.open("a") as file:
        popen = subprocess.Popen(
            [sys.executable, "-m", "vergence.studies.one", to_json(job)],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
        )
    return Process(job, popen, log, time.monotonic())


def ended(process: Process) -> Failure | None:
    """What went wrong with a process that has ended; None if nothing did."""
    process.popen.stdin.close()
    if process.popen.returncode == 0 and process.job.record.is_file():
        return None
    lines = process.log.read_text(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return Failure(process.job.name, f"{said[:400]} (status {process.popen.returncode})", process.log)


def length(job: Job) -> int:
    """How long a run trains: optimizer steps, or seconds where that is what all runs have alike."""
    return 0 if job.run is None else round(job.seconds) or job.config.steps


def trained_so_far(job: Job) -> int:
    """Of that, how much a run has behind it, as its folder says."""
    if job.run is None:
        return 0
    with suppress(OSError, UserError):
        done = trained_seconds(job.run) if job.seconds else (job.run / "timings.jsonl").read_bytes().count(b"\n")
        return min(int(done), length(job))
    return 0


@contextmanager
def stopping(under_way: Sequence[Process]) -> Iterator[None]:
    """Whatever ends the study ends its runs: they are asked to, given time to save, and killed if they do not."""
    try:
        yield
    finally:
        for process in under_way:
            with suppress(OSError):
                process.popen.send_signal(signal.SIGTERM)  # said twice, it is said once: whoever says it besides
        until = time.monotonic() + max((patience(process.job) for process in under_way), default=0.0)
        try:
            for process in under_way:
                with suppress(subprocess.TimeoutExpired):
                    process.popen.wait(max(0.0, until - time.monotonic()))
        finally:  # time is over, or Ctrl-C came once more
            for process in under_way:
                process.popen.kill()
                process.popen.wait()


def _job(plan: Plan, out: Path, name: str, seed: int, config: Config, *, trains: bool) -> Job:
    return Job(
        name=f"{name} seed {seed}",
        config=config,
        run=out / "runs" / name / f"seed-{seed}" if trains else None,
        record=place(out, name, seed),
        seconds=plan.seconds if trains else 0.0,
        questions=plan.questions,
        samples=plan.samples,
        elsewhere=plan.elsewhere,
    )
