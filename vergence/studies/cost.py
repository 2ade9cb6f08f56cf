"""What a run cost: seconds of training, forward passes and tokens; from the files of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from vergence.objectives.objective import reads_of_method
from vergence.studies.arms import method_of
from vergence.train.config import Config
from vergence.train.run import TIMINGS, read_lines, whole_lines

TRAINING = ("ask_s", "score_s", "update_s")
"""The laps of timings.jsonl that are training: sampling, what is read without gradient, and the updates."""


def trained_seconds(run: Path) -> float:
    """Seconds that a run has trained: without its evaluations, its checkpoints and its start."""
    return sum(_each_step(run), 0.0)


class Time:
    """What a run has left that may train so many seconds; 0 is no limit. It may be asked after every step: no line of
    timings.jsonl is read twice."""

    def __init__(self, run: Path, seconds: float) -> None:
        self.path, self.seconds, self._file = run / TIMINGS, seconds, 0
        self._begin()

    def _begin(self) -> None:
        self._read, self._steps, self._spent, self._over = 0, 0, 0.0, False

    def is_over(self) -> bool:
        """Whether after one of its steps there was no time for two more of their mean length: the one that followed was
        then its last."""
        if not self.seconds or not self.path.is_file():
            return False
        there = self.path.stat()
        if there.st_ino != self._file:  # it is put in its place anew where steps are forgotten
            self._begin()
        for line in whole_lines(self.path, self._read):
            self._steps, self._spent = self._steps + 1, self._spent + _trained(line)
            self._over |= self._spent + 2 * self._spent / self._steps > self.seconds
        self._file, self._read = there.st_ino, there.st_size
        return self._over


def _each_step(run: Path) -> list[float]:
    return [_trained(line) for line in whole_lines(run / TIMINGS)] if (run / TIMINGS).is_file() else []


def _trained(line: Mapping[str, Any]) -> float:
    return sum(line.get(name, 0.0) for name in TRAINING)


def passes(config: Config) -> float:
    """Forward passes over all responses in an optimizer step, the image's own included.

    A view costs one for all that is read of it at one time: one without gradient in a round (in every step, if the
    method reads it anew), and one more where today's weights look. A gated view is counted whole, and costs less.

    >>> passes(Config(method="grpo", options={"beta": "0"})), passes(Config(method="papo", options={"beta": "0"}))
    (1.0, 2.0)
    """
    method = method_of(config)
    frozen: set[str] = set()
    today = {method.sample_view}
    for read in reads_of_method(method):
        (frozen if read.when == "frozen" else today).update(name for name in (read.view, read.against) if name)
    return len(frozen) / (1 if method.fresh else config.steps_per_batch) + len(today)


def measured(run: Path, config: Config, metrics: Sequence[Mapping[str, Any]]) -> dict[str, int | float]:
    """The cost of a run, by name.

    `tokens`: of the responses that were trained on; `forward_tokens`: these, times the passes over each (prompts are
    not counted); `drawn`: responses that were drawn for each that was trained on, above 1 under dynamic sampling.
    """
    steps, timed = len(metrics), _each_step(run)  # a step whose process was killed may not have been timed
    tokens = sum(line["tokens"] for line in read_lines(run / "rollouts.jsonl")) * config.passes
    kept = [line["sampling/kept"] for line in metrics if line.get("sampling/kept")]
    each = passes(config)
    return {
        "steps": steps,
        "seconds": round(sum(timed, 0.0), 1),
        "seconds_per_step": round(sum(timed) / max(1, len(timed)), 3),
        "passes": round(each, 3),
        "tokens": tokens,
        "forward_tokens_per_step": round(tokens * each / steps),
        "drawn": round(fmean(1 / share for share in kept), 3) if kept else 1.0,
    }
