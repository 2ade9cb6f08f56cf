"""Which checkpoints there are: which one is gone on from, which are damaged, and which are taken away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from vergence.disk import bytes_in, mib, put_back, sync, telling_of_space
from vergence.train.checkpoint import PARTIAL, marks_of, newest_first, number_of
from vergence.train.config import Config
from vergence.train.run import RunFolder, lines_with
from vergence.train.sums import damage
from vergence.types import UserError

REMOVED = ".removed-"
"""How the name of a checkpoint begins that is being taken away."""
BEST = "eval/accuracy"
"""What the best one is best in, by the log."""


def is_due(step: int, every: int, config: Config) -> bool:
    """Whether something that happens every so many steps, and at the last, happens after this one; 0 is never.

    >>> [step for step in range(1, 6) if is_due(step, 2, Config(steps=5))]
    [2, 4, 5]
    """
    return every > 0 and (step % every == 0 or step == config.steps)


def sweep(folder: Path) -> None:
    """Take away what a process that was ended had not finished writing, or taking away."""
    with telling_of_space(folder):
        put_back(folder)
        for beginning in (PARTIAL, REMOVED):
            for path in folder.glob(f"{beginning}*"):
                shutil.rmtree(path)


def newest_sound(run: RunFolder, tell: Callable[[str], None] = lambda _: None) -> Path | None:
    """The newest checkpoint that is whole and goes with the logs; None if there is none at all. Nothing is taken away:
    one that is damaged is replaced when the run comes to its step again.

    Args:
        tell: told of those that are left out, and what is wrong with them.

    Raises:
        UserError: there are some, and every one is damaged, or the logs are.
    """
    wrong: list[tuple[Path, str]] = []
    whole: list[Path] = []
    for path in newest_first(run.checkpoints):
        found = damage(path)
        if not found:
            whole.append(path)
            found = run.differs(marks_of(path) or {})
        if not found:
            for other, why in wrong:
                tell(f"warning, damaged checkpoint: {other.name} is left out ({why}); going on from {path.name}")
            return path
        wrong.append((path, found))
    told = "; ".join(f"{path.name}: {why}" for path, why in wrong)
    if whole:
        raise UserError(
            f"the checkpoints of {run.path} are whole, but its logs are not what they were ({told}). Put them back "
            f"from a copy: without them the run cannot go on. A new run can start from its weights: --model {whole[0]}"
        )
    if wrong:
        raise UserError(
            f"no checkpoint in {run.checkpoints} can be gone on from ({told}). Put one back from a copy; or take that "
            f"folder away, and the run is made again from its first step: the result is the same"
        )
    return None


def refuse_damaged(checkpoint: Path) -> None:
    """Raise if a checkpoint's model is not what was written; what only a resumed run needs is not looked at.

    Raises:
        UserError: it is not; of folders that are no checkpoints of ours nothing is known.
    """
    if not (checkpoint / "trainer").is_dir():
        return
    if why := damage(checkpoint, trainer=False):
        raise UserError(
            f"{checkpoint} is damaged: {why}. Name another checkpoint; or go on with its run (--resume), which writes "
            f"this one again unless a later one is whole"
        )


def kept(steps: Iterable[int], config: Config, accuracy: Mapping[int, float], also: int | None = None) -> set[int]:
    """Of the steps that have checkpoints, those that keep theirs: the last `keep_last` that were due, of all that were
    due the best on the tune split (of equals the last), and the last of all.

    A checkpoint that was not due is one of a run that was stopped, or of another `save_every`.

    Args:
        accuracy: step -> on the tune split, where it was measured.
        also: one that is needed besides.

    >>> config = Config(steps=10, save_every=2, keep_last=2)
    >>> sorted(kept((2, 4, 5, 6, 8), config, {2: 0.5, 4: 0.7, 6: 0.7}))
    [6, 8]
    >>> sorted(kept((2, 4, 5, 6, 8, 9), config, {2: 0.9, 4: 0.7, 5: 1.0}, also=4))
    [2, 4, 6, 8, 9]
    """
    ordered = sorted(steps)
    if not config.keep_last:
        return set(ordered)
    due = [step for step in ordered if is_due(step, config.save_every, config)]
    measured = [step for step in due if step in accuracy]
    best = max(measured, key=lambda step: (accuracy[step], step), default=None)
    return {*due[-config.keep_last :], *ordered[-1:], best, also} & set(ordered)


def prune(run: RunFolder, config: Config, step: int, also: int | None = None) -> None:
    """Take away the checkpoints that are not `kept`, of those up to this step.

    Args:
        step: where the run stands; what is later is none of its checkpoints, or damaged.
        also: as of `kept`.
    """
    if not config.keep_last:
        return
    there = {number_of(path): path for path in newest_first(run.checkpoints)}
    accuracy = {line["step"]: line[BEST] for line in lines_with(run.path / "metrics.jsonl", BEST)}
    steps = [one for one in there if one <= step]
    for one in set(steps) - kept(steps, config, accuracy, also):
        remove(there[one])


def remove(checkpoint: Path) -> None:
    """Take a checkpoint away; at no instant does its name stand for half of one."""
    going = checkpoint.with_name(f"{REMOVED}{checkpoint.name}")
    with telling_of_space(checkpoint):
        shutil.rmtree(going, ignore_errors=True)
        os.replace(checkpoint, going)
        sync(checkpoint.parent)
        shutil.rmtree(going)


def told_of_space(run: RunFolder, size: int) -> str:
    """What takes space in a run's folder, and what would free some: for the message that there is none left."""
    there = newest_first(run.checkpoints)
    told = f"Leave the logs (*.jsonl): without them no run goes on. A checkpoint takes about {mib(size)}"
    if not there:
        return f"{told}. "
    told += f", and the {len(there)} of this run take {mib(sum(map(bytes_in, there)))}"
    older = f": take older ones away, e.g. {there[-1]}; with --keep-last 1 the run does so by itself"
    return f"{told}{older if len(there) > 1 else ''}. "
