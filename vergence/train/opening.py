"""What stands before the first step: a run's parts, its folder, held and as it was left, and what memory it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vergence.disk import alone
from vergence.models.sizes import sizes
from vergence.rollout.render import render
from vergence.scenes.source import Source
from vergence.train import checkpoint, data
from vergence.train.backend import ONE, Peers, first
from vergence.train.checkpoint import Standing
from vergence.train.config import Config
from vergence.train.context import fitting
from vergence.train.interventions import Intervention, effective, interventions
from vergence.train.keeping import newest_sound, prune, sweep, told_of_space
from vergence.train.memory import Longest, Memory, reasoner_bytes, there_is
from vergence.train.parts import Parts, assemble
from vergence.train.processes import joined
from vergence.train.rollback import forget_abandoned, kept_to_go_back
from vergence.train.run import TIMINGS, RunFolder, refuse_unbegun, refuse_used
from vergence.train.states import optimizer_bytes
from vergence.types import ORIGINAL, UserError

PROBED = 16
"""Scenes from whose prompts the need of memory is estimated."""


def opened(
    config: Config,
    out: Path,
    *,
    resume: bool,
    source: Source | None,
    tell: Callable[[str], None],
    held: ExitStack,
) -> tuple[Parts, RunFolder, Path | None, Standing]:
    """The parts of a run, its folder, its last checkpoint and where that stands: a new one, or as it was left.

    Args:
        held: what holds the folder until the end of the run, so that no other process writes there.
    """
    processes = joined(config)
    peers = processes or ONE
    done = first(peers, lambda: _taken_up(out, held)) if resume else []
    parts = assemble(effective(config, done), out, source=source, processes=processes, tell=tell)
    if config.skip_refused or not resume:  # what was not left out then has been found short enough
        parts = parts._replace(source=fitting(parts.source, parts.policy, config, parts.method, tell))
    found = data.describe(parts.source, config.scenes)
    refuse_unlike(peers, {"config": asdict(config), "data": found})
    if resume:
        data.refuse_changed(out, found)
        run = RunFolder.resume(out, config, peers)
    else:
        first(peers, lambda: _begun(out, held))
        run = RunFolder.start(out, config, peers)
    first(peers, lambda: data.write_data(out, found))
    run.more = lambda: told_of_space(run, checkpoint_bytes(parts))
    return parts, run, *left_at(parts, run, tell)


def _begun(out: Path, held: ExitStack) -> None:
    """Hold the folder of a new run; before, nothing is made there."""
    refuse_used(out)
    held.enter_context(alone(out, "run"))


def _taken_up(out: Path, held: ExitStack) -> list[Intervention]:
    """Hold the folder of a run, and only then read what was done in it about guards: all processes go by that."""
    refuse_unbegun(out)
    held.enter_context(alone(out, "run"))
    return interventions(out)


def left_at(parts: Parts, run: RunFolder, tell: Callable[[str], None]) -> tuple[Path | None, Standing]:
    """The newest checkpoint that is whole, and where it stands: weights and optimizer are as they were, and so are the
    logs. Without any it is the beginning."""
    peers = parts.backend
    first(peers, lambda: sweep(run.checkpoints))
    first(peers, lambda: forget_abandoned(run))
    saved = first(peers, lambda: newest_sound(run, tell))
    stands = Standing(0, 0, None, {})
    if saved:
        stands = checkpoint.restore(saved, parts.policy, parts.optimizer, peers)
        if parts.ahead:
            parts.ahead.read(saved / "trainer", parts.source)
    if stands.marks is None:  # an older version's
        run.forget_after(stands.step)
    else:
        run.cut(stands.marks)
        run.forget_after(stands.step, [TIMINGS])
    first(peers, lambda: prune(run, parts.config, stands.step, kept_to_go_back(run, stands.step, parts.config)))
    return saved, stands._replace(marks=run.marks())


def checkpoint_bytes(parts: Parts) -> int:
    """About how large a checkpoint is: the weights, and what the optimizer knows of those that learn."""
    weights = sum(one.nbytes for one in parts.policy.model.state_dict().values())
    return weights + optimizer_bytes(parts.optimizer, parts.backend)


def refuse_unlike(peers: Peers, own: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise, in every process, unless all of them were given the same: each draws the scenes for itself.

    Raises:
        UserError: one was given something else than the first; says what.
    """
    everyone = peers.exchange(own)
    for rank, other in enumerate(everyone):
        for what, held in everyone[0].items():
            for name in held:
                if held[name] != other[what].get(name):
                    raise UserError(
                        f"process {rank} has another {what} than the first: its {name} is {other[what].get(name)!r}, "
                        f"not {held[name]!r}. Give all processes the same"
                    )


def foreseen(parts: Parts, position: int) -> Memory:
    """What memory the run needs, by the longest prompt of the first scenes from this position on."""
    config, method = parts.config, parts.method
    scenes = parts.source.train(position, min(PROBED, config.scenes_per_batch), seed=config.seed)
    prompts = [render(parts.policy.reader, one, ORIGINAL, 0, ask=method.ask, wording=config.wording) for one in scenes]
    patches = max(0 if prompt.pixels is None else len(prompt.pixels) for prompt in prompts)
    longest = Longest(max(len(prompt.tokens) for prompt in prompts), patches)
    keep = getattr(parts.scorer, "keep", "naive")
    parts.backend.gather_weights()  # of which the sizes are
    there = there_is(parts.policy.device)
    size, beside = sizes(parts.policy.model), reasoner_bytes(config, method)
    return Memory(size, config, method, longest, keep, there, processes=parts.backend.size, beside=beside)
