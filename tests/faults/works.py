"""What is broken on purpose: tiny runs, evaluations and studies, each of which goes on where it was; and what must be
the same at the end.

Everything is small: two scenes, two siblings, a few tokens. What a run would be if nobody had broken it is made once.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from faults.forked import LIMIT, Board, forked, gone, replaced, waited

from vergence.types import UserError

CLOCKED = "timings.jsonl"
IGNORED = {".lock", CLOCKED}
"""Files that may differ: who holds a folder, and the clock's."""
FAST = {"scenes_per_batch": 2, "siblings": 2, "max_tokens": 8, "token_budget": 400, "eval_scenes": 2, "eval_samples": 1}
WIDE = {"max_tokens": 32, "siblings": 4}
"""Where some groups must have answers that differ."""
PAPO = {"gamma": "0.05", "eta": "0.01", "beta": "0.01", "cell": "8"}


class Work(NamedTuple):
    """Something that is done in a folder, and gone on with."""

    name: str
    do: Callable[[Path], object]
    """Begins or goes on, as somebody would who does not know how far it has got."""
    prepare: Callable[[Board], None]
    of: str
    """ "train", "eval" or "study"."""
    config: Any = None
    """Of a run."""


def configs() -> dict[str, Any]:
    """Runs that differ in what they keep from one step to the next."""
    from vergence.train.config import Config

    papo = Config(method="papo", options=PAPO, parts=2, steps=6, save_every=2, **FAST)
    return {
        "papo": replace(papo, eval_every=3, watch_every=1),
        "ahead": replace(papo, watch_every=0, sampler="vllm-server", ahead=1),
        "grpo": Config(method="grpo", steps=5, passes=2, save_every=3, eval_every=2, watch_every=2, warmup=3, **FAST),
        "kept": Config(method="vppo", steps=5, save_every=1, keep_last=1, eval_every=2, watch_every=0, **FAST | WIDE),
        "back": replace(papo, watch_every=0, guards={"all unparsed": "back"}, most_backs=1),
        "adapter": Config(method="cppo", steps=3, adapter="lora", save_every=1, watch_every=1, **FAST),
        "captions": Config(method="racro", steps=3, save_every=2, eval_every=2, watch_every=1, reasoner="weak", **FAST),
    }


def training(name: str, **changes: Any) -> Work:
    """A run of `configs`, some of its fields changed."""
    config = replace(configs()[name], **changes)
    return Work(name, partial(train_on, config), prepared_ahead if config.ahead else prepared, "train", config)


def train_on(config: Any, out: Path, *, until: int | None = None) -> None:
    """Go on with the run in a folder; where there is nothing to go on with, begin; where a guard stops it, go on."""
    from vergence.evaluate.tune import tune_evaluation
    from vergence.train.interventions import Stopped
    from vergence.train.loop import train

    evaluate = tune_evaluation(config, out) if config.eval_every else None
    try:
        train(config, out, resume=True, until=until, evaluate=evaluate, tell=print)
    except Stopped:
        train_on(config, out, until=until)
    except UserError as error:
        if "nothing to resume" not in str(error):
            raise
        try:
            train(config, out, until=until, evaluate=evaluate, tell=print)
        except Stopped:
            train_on(config, out, until=until)


def answering() -> Work:
    """An evaluation in chunks of four answers."""
    return Work("eval", answer_on, prepared, "eval")


def answer_on(folder: Path) -> None:
    """Ask what is not answered yet."""
    from vergence.cli import main
    from vergence.disk import make

    make(folder)
    given = "--number 10 --samples 2 --max-tokens 8 --at-once 4 --buckets --json"
    main(["eval", "seedling", *given.split(), "--out", str(folder / "answers.jsonl")])


def studying() -> Work:
    """A study of two runs and the model that they start from."""
    return Work("study", study_on, prepared_study, "study")


def study_on(folder: Path) -> None:
    """Carry out what is missing."""
    from vergence.studies.study import study

    outcome = study(plan(), folder, cores=1, tell=print)
    if outcome.failures:
        raise UserError(str(outcome.failures))


def plan() -> Any:
    """The study's."""
    from vergence.studies.arms import Arm, Plan

    arms = [Arm(name, replace(configs()[name], save_every=2, eval_every=2, steps=3)) for name in ("grpo", "papo")]
    return Plan(arms=tuple(arms), seeds=(0,), questions=4, samples=1, elsewhere=2)


# ------------------------------------------------------------------------------------------------------ in the child


def prepared(board: Board) -> None:
    """No file may have the clock in it, or two runs could not be compared."""
    from vergence.train.rounds import Clock

    lap = Clock.lap

    def without_time(self: Any, name: str) -> None:
        lap(self, name)
        self.laps[name] = 0.0

    Clock.lap = without_time


def prepared_ahead(board: Board) -> None:
    """And with a sampler that has weights of its own."""
    from train.several import Copied

    prepared(board)
    replaced("vergence.train.parts._sampler", lambda kept: lambda *given: Copied())


def prepared_study(board: Board) -> None:
    """And every run of a study is forked, instead of started."""
    from vergence.studies import running

    prepared(board)
    running.begin = _begin
    running.GLANCE = 0.01


def prepared_study_within(board: Board) -> None:
    """And every run of a study is carried out in the study's own process, which is watched."""
    from vergence.studies import one, running

    class Done:
        """A process that has ended."""

        stdin, returncode, poll = io.BytesIO(), 0, staticmethod(lambda: 0)

    def begin(job: Any, out: Path) -> Any:
        one.carry_out(job)
        return running.Process(job, Done, out / "none", time.monotonic())

    prepared(board)
    running.begin, running.GLANCE = begin, 0.0


def _begin(job: Any, out: Path) -> Any:
    from vergence.studies import one
    from vergence.studies.running import Process

    log = out / "logs" / job.record.relative_to(out / "records").with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setsid()
            os.close(writing)
            os.dup2(reading, 0)
            sys.stdin = open(0, closefd=False)  # noqa: SIM115
            said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for standard in (1, 2):
                os.dup2(said, standard)
            os.closerange(3, 4096)  # as where a process is started: the lock of the study's folder is not the run's
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            status = one.main([one.to_json(job)])
        finally:
            gone(status)
    os.close(reading)
    return Process(job, Forked(child, writing), log, time.monotonic())


class Forked:
    """A child that a study takes for one of `subprocess`."""

    def __init__(self, child: int, writing: int) -> None:
        self.pid, self.returncode = child, None
        self.stdin = open(writing, "wb", closefd=True)  # noqa: SIM115

    def poll(self) -> int | None:
        return self._until(0.0)

    def wait(self, timeout: float = LIMIT) -> int | None:
        import subprocess

        if self._until(time.monotonic() + timeout) is None:
            raise subprocess.TimeoutExpired("a run", timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _until(self, until: float) -> int | None:
        self.returncode = waited(self.pid, until)
        return self.returncode


# ----------------------------------------------------------------------------------------------------- what must hold


def files(folder: Path) -> dict[str, bytes]:
    """All that a folder holds, by path; a folder in it that is empty has a name too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name in IGNORED or path.parts[len(folder.parts)] == "logs":
            continue
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
        elif not any(path.iterdir()):
            found[f"{path.relative_to(folder)}/"] = b""
    return found


def differences(folder: Path, whole: Mapping[str, bytes], *, saved_more: bool = False, timed: bool = True) -> list[str]:
    """In what a folder differs from what it should be.

    Args:
        saved_more: it was asked to stop: a checkpoint that is in no plan may be there.
        timed: files that have the clock in them must be whole too.
    """
    found, told = files(folder), []
    for name in sorted({*found, *whole}):
        if name not in found:
            told.append(f"{name} is missing")
        elif name not in whole:
            step = re.match(r"(.*/)?checkpoints/step-\d+/", name)
            if not (saved_more and step and not any(one.startswith(step[0]) for one in whole)):
                told.append(f"{name} is there, and should not be")
        elif found[name] != whole[name]:
            told.append(f"{name} differs")
    return told + (list(misnumbered(folder)) if timed else [])


def misnumbered(folder: Path) -> Iterator[str]:
    """What is wrong in a file that has the clock in it: a line that is none, or a step that stands twice."""
    for path in folder.rglob(CLOCKED):
        try:
            steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
        except (ValueError, TypeError, KeyError) as error:
            yield f"{path.name} is damaged: {error}"
            continue
        if any(one >= other for one, other in pairwise(steps)):
            yield f"{path.name} has the steps {steps}"


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, by its name; -1 if there is none."""
    names = [path.name for path in folder.glob("checkpoints/step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=-1)


class Whole(NamedTuple):
    """What a work comes to when nobody breaks it."""

    files: Mapping[str, bytes]
    seconds: float
    events: int
    writes: int
    syncs: int


def whole(work: Work, folder: Path) -> Whole:
    """Do it from beginning to end in a new folder, which stays."""
    ended = forked(partial(work.do, folder), folder, prepare=work.prepare)
    if ended.status:
        raise AssertionError(f"{work.name} does not work at all: status {ended.status}\n{ended.said[-3000:]}")
    return Whole(files(folder), ended.seconds, ended.events, ended.writes, ended.syncs)


def import_all() -> None:
    """What all of them import, before anything is forked."""
    import scipy.stats  # noqa: F401

    import vergence.cli
    import vergence.commands.asking
    import vergence.evaluate.tune
    import vergence.rollout.vllm
    import vergence.studies.one
    import vergence.studies.study
    import vergence.train.loop  # noqa: F401


def warm(folder: Path) -> None:
    """Train in this process once, so that whatever is imported late is: a child is twice as fast then."""
    from vergence.evaluate.tune import tune_evaluation
    from vergence.train.loop import train

    import_all()
    config = configs()["papo"]
    config = replace(config, steps=2, save_every=0, eval_every=2)
    train(config, folder, evaluate=tune_evaluation(config, folder))
