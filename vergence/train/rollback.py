"""Carrying out what is done about a guard: a stop, or going back to a checkpoint, with what was left behind kept.

What is abandoned is put aside before the decision is written down, and the decision is written down, durably, before
anything is undone. So a run that is killed at any instant is resumed either before it or after: what it computes with
follows from its config and its interventions, and which checkpoints are its own follows from these, too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from vergence.disk import REPLACED, make, put_in_place, telling_of_space, write_whole
from vergence.guards.catalogue import Raised
from vergence.train.checkpoint import marks_of, name_of, newest_first, number_of, under
from vergence.train.config import Config
from vergence.train.interventions import (
    FILE,
    Intervention,
    action_of,
    decided,
    due,
    good,
    interventions,
    is_abandoned,
    needed,
)
from vergence.train.keeping import remove
from vergence.train.run import LOGS, TIMINGS, RunFolder, read_lines
from vergence.train.sums import damage

ABANDONED = "abandoned"
"""In a run's folder: what it has gone back from, numbered as the lines of interventions.jsonl."""


def record(run: Path, one: Intervention) -> None:
    """Add a line to interventions.jsonl; it outlives whatever comes."""
    lines = [before._asdict() for before in (*interventions(run), one)]
    write_whole(run / FILE, "".join(json.dumps(line) + "\n" for line in lines))


def put_aside(run: RunFolder, number: int, to: int) -> None:
    """Copy what the logs hold after the checkpoint of step `to`: it is put in place whole, or not at all."""
    marks, final = marks_of(run.checkpoints / name_of(to)) or {}, run.path / ABANDONED / str(number)
    beside = final.with_name(f".partial-{number}")
    make(final.parent)
    with telling_of_space(final, run.more):
        for left in (beside, final.with_name(f"{REPLACED}{number}")):
            shutil.rmtree(left, ignore_errors=True)
        beside.mkdir()
        for name in LOGS:
            with (run.path / name).open("rb") as source, (beside / name).open("wb") as out:
                source.seek(marks[name].size if name in marks else 0)
                shutil.copyfileobj(source, out)
        with (beside / TIMINGS).open("w") as out:
            out.writelines(json.dumps(line) + "\n" for line in read_lines(run.path / TIMINGS) if line["step"] > to)
        put_in_place(beside, final)


def forget_abandoned(run: RunFolder) -> None:
    """Take away the checkpoints that belong to what the run has gone back from."""
    done = interventions(run.path)
    for path in newest_first(run.checkpoints):
        if is_abandoned(number_of(path), under(path), done):
            remove(path)


def kept_to_go_back(run: RunFolder, step: int, config: Config) -> int | None:
    """The step whose checkpoint must stay, so that a guard can send the run back to it; see `interventions.needed`."""
    return needed([number_of(path) for path in newest_first(run.checkpoints)], step, config)


def decide(run: RunFolder, found: Iterable[Raised], raised: Sequence[Raised], config: Config) -> Intervention | None:
    """What is to be done about what was raised; None where nothing is.

    Args:
        found: what was raised in the log, and what is seen again at its last step.
        raised: what was raised in the log.
    """
    done = interventions(run.path)
    about = next(iter(due(found, config, done)), None)
    if about is None:
        return None
    to = None
    if action_of(config, about.name) == "back":
        steps = [number_of(path) for path in newest_first(run.checkpoints)]
        to = next((step for step in good(steps, about, raised, config, done) if _is_sound(run, step)), None)
    return decided(about, to, config, done)


def _is_sound(run: RunFolder, step: int) -> bool:
    path = run.checkpoints / name_of(step)
    return not damage(path) and marks_of(path) is not None  # an older version's does not say where the logs were
