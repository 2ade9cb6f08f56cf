"""One run of a study in a process of its own: train it (or go on), answer the held-out questions, keep the record.

`python -m vergence.studies.one JOB`, the job as JSON. Whoever starts it holds its standard input: when that closes,
this process stops as after SIGTERM, with a checkpoint.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vergence.disk import alone
from vergence.evaluate.suite import Record
from vergence.evaluate.tune import answering, tune_evaluation
from vergence.guards.catalogue import raised
from vergence.models.policy import Policy
from vergence.rewards.verify import VERSION
from vergence.scenes.embedded import WORLDS
from vergence.scenes.source import Embedded, Source
from vergence.studies import cost, record
from vergence.train.card import version_of
from vergence.train.checkpoint import latest, name_of, step_of
from vergence.train.config import Config
from vergence.train.config_file import from_yaml
from vergence.train.loop import train
from vergence.train.parts import load_policy, open_data
from vergence.train.run import CONFIG, load_run_config, read_lines
from vergence.train.stopping import terminable
from vergence.train.sums import damage
from vergence.types import ORIGINAL, Blank, Scene, UserError

BESIDE = 95.0
"""Seconds that a process of a study which is asked to stop is given besides its run's grace period."""
PACKAGES = ("vergence", "torch", "transformers", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run to train and to answer from; or, without a folder, the starting model to answer from."""

    name: str
    config: Config
    run: Path | None
    record: Path
    seconds: float
    questions: int
    samples: int
    elsewhere: int

    @property
    def whole(self) -> bool:
        """Whether it is trained: the folder holds this run, to its last checkpoint."""
        if self.run is None:
            return True
        last = latest(self.run / "checkpoints")
        if last is None or damage(last) or load_run_config(self.run) != self.config:
            return False
        return step_of(last) >= self.config.steps or cost.Time(self.run, self.seconds).is_over()


def patience(job: Job) -> float:
    """Seconds that the process of a job has to end when it is asked to: where it trains, it takes the grace period to
    save its run.

    >>> from vergence.studies.plans import tiny
    >>> from vergence.studies.running import jobs
    >>> [patience(job) for job in jobs(tiny(), Path("out"))[:2]]
    [95.0, 120.0]
    """
    return (job.config.grace if job.run else 0.0) + BESIDE


def to_json(job: Job) -> str:
    """The job as text that `from_json` reads back."""
    return json.dumps({name: _plain(getattr(job, name)) for name in Job.__dataclass_fields__})


def from_json(text: str) -> Job:
    """The job that a text describes."""
    found = json.loads(text)
    run = found["run"] and Path(found["run"])
    return Job(**found | {"config": _config(found["config"]), "run": run, "record": Path(found["record"])})


def carry_out(job: Job) -> None:
    """Train what is not trained yet, answer, and write the record.

    Raises:
        UserError: as training and answering do.
        KeyboardInterrupt: it was stopped; what is finished is kept.
    """
    if job.run and job.run.is_dir():
        with alone(job.run, "run", patience=patience(job)):  # one that an ended study had started may still be saving
            pass
    source = open_data(job.config)
    ask = answering(job.config, cache=job.run / "servers" / "reasoner" if job.run else None)
    if not job.whole:
        trained(job, source)
    scenes, away = asked(job, source)
    answers: dict[str, list[Record]] = {}
    header = described(job, away) if job.run else _plainly(job, away, {"last": 0, "best": 0})

    def answer(condition: str, policy: Policy, some: Sequence[Scene]) -> None:
        show = Blank() if condition == "blank" else ORIGINAL
        answers[condition] = ask(policy, some, samples=job.samples, show=show)

    policy = load_policy(job.config, _checkpoint(job, header["last"]))
    answer("image", policy, [*scenes, *away])
    answer("blank", policy, scenes)
    if header["best"] != header["last"]:
        answer("best", load_policy(job.config, _checkpoint(job, header["best"])), scenes)
    known = all("error" in one for one in answers["image"])
    record.write(job.record, {**header, "errors_known": known}, answers)


def trained(job: Job, source: Source) -> None:
    """Train to the last step, or as long as the job says; a run that is half done goes on.

    Raises:
        KeyboardInterrupt: it was stopped; there is a checkpoint.
    """
    assert job.run is not None
    run, time = job.run, cost.Time(job.run, job.seconds)

    def watch(step: int, metrics: Mapping[str, Any], seconds: float) -> bool:
        return time.is_over()  # then there is one step more, and a checkpoint

    half = (run / CONFIG).is_file()
    evaluate = tune_evaluation(job.config, run, source=source) if job.config.eval_every else None
    last = train(job.config, run, resume=half, source=source, evaluate=evaluate, watch=watch, tell=print)
    if last.name != name_of(job.config.steps) and not time.is_over():
        raise KeyboardInterrupt


def asked(job: Job, source: Source) -> tuple[list[Scene], list[Scene]]:
    """The held-out questions of the report split, and those of embedded worlds that are not trained on."""
    scenes = source.held_out("report", job.questions, seed=job.config.seed)
    others = tuple(world for world in WORLDS if world not in job.config.worlds)
    if job.config.scenes != "embedded" or not others or not job.elsewhere:
        return scenes, []
    return scenes, Embedded(others).held_out("report", job.elsewhere, seed=job.config.seed)


def described(job: Job, away: Sequence[Scene]) -> dict[str, Any]:
    """The header of a run's record: what it cost, how it went on the tune split, and what was warned of."""
    assert job.run is not None
    lines = list(read_lines(job.run / "metrics.jsonl"))
    last = latest(job.run / "checkpoints")
    assert last is not None
    tune = {line["step"]: line["eval/accuracy"] for line in lines if "eval/accuracy" in line}
    kept = {step: value for step, value in tune.items() if (job.run / "checkpoints" / name_of(step)).is_dir()}
    found = {
        "last": step_of(last),
        "best": max(kept, key=lambda step: (kept[step], step), default=step_of(last)),
        "tune": {str(step): round(value, 6) for step, value in tune.items()},
        "cost": cost.measured(job.run, job.config, lines),
        "warnings": [{"step": one.step, "name": one.name} for one in raised(lines)],
    }
    return _plainly(job, away, found)


def main(arguments: Sequence[str]) -> int:
    """Carry out the job; the exit status says how it ended: 0 done, 2 bad input, 130 stopped."""
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have left it ignored
    torch.set_num_threads(1)
    try:
        with terminable():
            threading.Thread(target=_stop_when_left_alone, daemon=True).start()
            carry_out(from_json(arguments[0]))
    except UserError as error:
        print(f"error: {error}", flush=True)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", flush=True)
        return 130
    return 0


def _stop_when_left_alone() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _plainly(job: Job, away: Sequence[Scene], found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": job.name,
        "config": asdict(job.config),
        "seconds": job.seconds,
        "samples": job.samples,
        "asked": job.questions,
        "elsewhere": sorted({scene.world for scene in away}),
        "verifier": VERSION,
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
        **found,
    }


def _checkpoint(job: Job, step: int) -> str | Path:
    if job.run is None:
        return job.config.model
    where = job.run / "checkpoints" / name_of(step)
    if why := damage(where, trainer=False):
        raise UserError(
            f"{where} is damaged: {why}. Take it away, and those of later steps with it, and ask for the study again: "
            f"the run is trained on from before it"
        )
    return where


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Config) else str(value) if isinstance(value, Path) else value


def _config(found: Mapping[str, Any]) -> Config:
    return from_yaml(json.dumps(found), "the job's config")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
