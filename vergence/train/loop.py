"""The algorithm of this library on one screen: ask, verify, give credit, freeze, accumulate, update.

Several processes all do this, as `torchrun` starts them; what each has of it is said in `train.backend`.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from vergence.models.policy import Policy
from vergence.models.sizes import sizes
from vergence.rollout.render import render
from vergence.rollout.sampler import Following
from vergence.scenes.source import Source
from vergence.scoring.naive import Prompts
from vergence.train import checkpoint, data
from vergence.train.backend import ONE, Peers, first
from vergence.train.checkpoint import Pending, Standing
from vergence.train.config import Config
from vergence.train.context import fitting
from vergence.train.guards import Watchman
from vergence.train.memory import HalfUpdated, Longest, Memory, during, reasoner_bytes, there_is
from vergence.train.parts import Parts, assemble
from vergence.train.processes import is_first
from vergence.train.rounds import Clock, take_round
from vergence.train.run import RunFolder, read_lines
from vergence.train.step import accumulate, freeze
from vergence.train.verify import verify
from vergence.types import ORIGINAL, Metrics, UserError

Evaluate = Callable[[Policy], Mapping[str, float]]
Watch = Callable[[int, Metrics, float], None]
"""(step, metrics, seconds) after every optimizer step."""
PROBED = 16
"""Scenes from whose prompts the need of memory is estimated."""


def train(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    until: int | None = None,
    source: Source | None = None,
    evaluate: Evaluate | None = None,
    watch: Watch = lambda *_: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train as the config says, in the run folder `out`, and return the last checkpoint.

    Args:
        resume: go on from the last checkpoint in `out`; the result is the uninterrupted run's, bit for bit on a CPU.
        until: stop (with a checkpoint) after this optimizer step; the config's `steps` is unchanged.
        source: the config's scenes, where they have been opened already.
        evaluate: called every `config.eval_every` steps; what it returns is logged under "eval/".
        watch, tell: told the metrics of every step; of data, memory, how the scorer compares, and of what goes wrong.

    Raises:
        UserError: the config asks for what does not exist, or for evaluation without an `evaluate`; `out` cannot be
            used; or scenes, a reasoner or memory are not to be had (what was finished is kept).
    """
    if config.eval_every and evaluate is None:
        raise UserError(f"eval_every is {config.eval_every}, but nothing was given as `evaluate`; give it, or set 0")
    watch, tell = (watch, tell) if is_first() else (lambda *_: None,) * 2
    parts, run, saved, stands = opened(config, Path(out), resume=resume, source=source, tell=tell)
    end, prompts, verifying = min(config.steps, until or config.steps), None, config.verify_scorer
    keeping = keeping_what_is_finished(lambda: checkpoint.save_unless_there(run.checkpoints, parts, stands))
    memory, watch = foreseen(parts, stands.position), guarded(watch, tell, run) if is_first() else watch
    if stands.step < end:
        tell("\n".join(filter(None, (data.told(data.read_data(run.path)), memory.told()))))
    with closing(parts), finishing_on_interrupt(parts.backend) as interrupted, keeping, memory.explaining():
        while stands.step < end:
            clock, metrics = Clock(), {"step": stands.step + 1}
            if stands.pending is None or prompts is None:
                stands, prompts, seen = take_round(parts, run, stands, clock)
                metrics |= seen
            if verifying:
                tell(verified(parts, stands.pending, prompts))
                verifying = False
            metrics |= update(parts, stands.pending, prompts, stands.step)
            clock.lap("update_s")
            stands = stands.after_a_step(config.steps_per_batch)
            try:
                if evaluate and is_due(stands.step, config.eval_every, config):
                    metrics |= evaluated(evaluate, parts, clock)
            finally:  # the step is taken, whatever becomes of its evaluation
                run.append("metrics.jsonl", [metrics])
            stopping = stands.step == end or any(parts.backend.exchange(interrupted()))
            if stopping or is_due(stands.step, config.save_every, config):
                saved = checkpoint.save(run.checkpoints, parts, stands)
                clock.lap("save_s")
            run.append("timings.jsonl", [{"step": stands.step, **clock.laps, **clock.beside, **parts.budget.taken()}])
            first(parts.backend, partial(watch, stands.step, metrics, sum(clock.laps.values())))
            if stopping:
                break
    assert saved is not None  # a step was taken and saved now, or a checkpoint resumed from
    return saved


def guarded(watch: Watch, tell: Callable[[str], None], run: RunFolder) -> Watch:
    """`watch`, and besides a line to `tell` for whatever `train.guards` sees go wrong, each once in a run."""
    watchman = Watchman(read_lines(run.path / "metrics.jsonl"))

    def both(step: int, metrics: Metrics, seconds: float) -> None:
        watch(step, metrics, seconds)
        for warning in watchman(metrics):
            tell(warning.told())

    return both


def opened(
    config: Config, out: Path, *, resume: bool, source: Source | None, tell: Callable[[str], None]
) -> tuple[Parts, RunFolder, Path | None, Standing]:
    """The parts of a run, its folder, its last checkpoint and where that stands: a new one, or as it was left."""
    parts = assemble(config, out, source=source, tell=tell)
    if config.skip_refused or not resume:  # what was not left out then has been found short enough
        parts = parts._replace(source=fitting(parts.source, parts.policy, config, parts.method, tell))
    found, peers = data.describe(parts.source, config.scenes), parts.backend
    refuse_unlike(peers, {"config": asdict(config), "data": found})
    if resume:
        data.refuse_changed(out, found)
        run = RunFolder.resume(out, config, peers)
    else:
        run = RunFolder.start(out, config, peers)
        first(peers, lambda: data.write_data(out, found))
    saved = first(peers, lambda: checkpoint.latest(run.checkpoints))
    stands = checkpoint.restore(saved, parts.policy, parts.optimizer, peers) if saved else Standing(0, 0, None)
    if saved and parts.ahead:
        parts.ahead.read(saved / "trainer", parts.source)
    run.forget_after(stands.step)
    return parts, run, saved, stands


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


def update(parts: Parts, pending: Pending, prompts: Prompts, step: int) -> Metrics:
    """One optimizer step on its part of the batch."""
    config, model = parts.config, parts.policy.model
    size = len(pending.batch.key_B) // config.parts
    first = step % config.steps_per_batch % config.parts * size
    batch, frozen = (held.rows(slice(first, first + size)) for held in (pending.batch, pending.frozen))
    for group in parts.optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    with during("scoring"):
        if parts.method.fresh and step % config.steps_per_batch:
            frozen = freeze(
                parts.method, batch, parts.scorer, prompts, budget=config.token_budget, backend=parts.backend
            )
        model.train()
        parts.optimizer.zero_grad(set_to_none=True)
        metrics = accumulate(
            parts.method, batch, frozen, parts.scorer, prompts, backend=parts.backend, budget=config.token_budget
        )
        metrics["grad_norm"] = parts.backend.clip(model.parameters(), config.clip_norm)
    metrics["learning_rate"] = parts.optimizer.param_groups[0]["lr"]
    with during("updating the weights"):
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)  # sampling needs the room
    model.eval()
    return metrics


def verified(parts: Parts, pending: Pending, prompts: Prompts) -> str:
    """See `train.verify`."""
    with during("scoring"):
        return verify(parts, pending, prompts)


def evaluated(evaluate: Evaluate, parts: Parts, clock: Clock) -> Metrics:
    """What the evaluation says, by its name in the log. Of several processes the first evaluates, the others wait."""
    with during("evaluating"):
        parts.backend.gather_weights()
        found = first(parts.backend, lambda: evaluate(parts.policy))
        metrics = {f"eval/{name}": value for name, value in found.items()}
    clock.lap("eval_s")
    return metrics


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of optimizer step `step` (from 0).

    >>> [learning_rate(Config(lr=0.1, warmup=2), step) for step in (0, 1, 2)]
    [0.05, 0.1, 0.1]
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = 1.0 - 0.9 * step / max(1, config.steps - 1) if config.decay == "linear" else 1.0
    return config.lr * warm * left


def is_due(step: int, every: int, config: Config) -> bool:
    """Whether something that happens every so many steps, and at the last, happens after this one; 0 is never.

    >>> [step for step in range(1, 6) if is_due(step, 2, Config(steps=5))]
    [2, 4, 5]
    """
    return every > 0 and (step % every == 0 or step == config.steps)


@contextmanager
def closing(parts: Parts) -> Iterator[None]:
    """Whatever the end is, nothing of the sampler's is left running."""
    try:
        yield
    finally:
        if isinstance(parts.sampler, Following):
            parts.sampler.close()
        if parts.ahead:
            parts.ahead.close()


@contextmanager
def keeping_what_is_finished(save: Callable[[], None]) -> Iterator[None]:
    """A run that has to end because scenes, captions, a reasoner or memory cannot be had is saved first."""
    try:
        yield
    except HalfUpdated:
        raise
    except UserError:
        with suppress(UserError), during("saving"):  # no space to save: what is told is why the run ends
            save()
        raise


@contextmanager
def finishing_on_interrupt(peers: Peers = ONE) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C lets the step finish (and be saved); a second one is an ordinary KeyboardInterrupt.

    Of several processes any may be told to stop, and by SIGTERM as well: whoever started them asks so.
    """
    asked_to_stop, signals = False, (signal.SIGINT,) if peers.size == 1 else (signal.SIGINT, signal.SIGTERM)

    def told(signum: int, frame: Any) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        if is_first():
            print("stopping after this step; once more to stop at once", file=sys.stderr)
        for number in signals:
            signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, told) for number in signals}
    try:
        yield lambda: asked_to_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
