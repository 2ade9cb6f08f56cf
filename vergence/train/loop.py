"""The algorithm of this library on one screen: ask, verify, give credit, freeze, accumulate, update.

Several processes all do this, as `torchrun` starts them; what each has of it is said in `train.backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from math import isfinite
from pathlib import Path

from vergence.models.policy import Policy
from vergence.rollout.sampler import Following
from vergence.scenes.source import Source
from vergence.scoring.naive import Prompts
from vergence.train import data
from vergence.train.backend import first
from vergence.train.checkpoint import Pending
from vergence.train.config import Config
from vergence.train.course import Course, keeping_what_is_finished
from vergence.train.guarded import Guarded
from vergence.train.interventions import refuse_unknown
from vergence.train.keeping import is_due
from vergence.train.memory import during
from vergence.train.opening import checkpoint_bytes, foreseen, opened
from vergence.train.parts import Parts
from vergence.train.processes import is_first
from vergence.train.rounds import Clock, take_round
from vergence.train.run import TIMINGS
from vergence.train.step import accumulate, freeze
from vergence.train.stopping import OutOfTime, Terminated, stopping
from vergence.train.verify import verify
from vergence.types import Metrics, UserError

Evaluate = Callable[[Policy], Mapping[str, float]]
Watch = Callable[[int, Metrics, float], bool | None]
"""(step, metrics, seconds) after every optimizer step; True asks for the next one to be the last."""


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
            used, or another process trains there; or scenes, a reasoner or memory are not to be had (what was finished
            is kept).
        Stopped: a guard has ended it; it is saved.
        Terminated: SIGTERM has come, and what was finished is saved.
    """
    if config.eval_every and evaluate is None:
        raise UserError(f"eval_every is {config.eval_every}, but nothing was given as `evaluate`; give it, or set 0")
    refuse_unknown(config.guards)
    watch, tell = (watch, tell) if is_first() else (lambda *_: None,) * 2
    with ExitStack() as held:
        parts, run, saved, stands = opened(config, Path(out), resume=resume, source=source, tell=tell, held=held)
        end, alone = min(config.steps, until or config.steps), parts.backend.size == 1
        memory = foreseen(parts, stands.position)
        if stands.step < end:
            tell("\n".join(filter(None, (data.told(data.read_data(run.path)), memory.told()))))
        held.enter_context(closing(parts))
        size = checkpoint_bytes(parts)
        stop = held.enter_context(stopping(config.grace, size, alone=alone, told=is_first(), tell=tell))
        at = Course(parts, run, stands, saved, stop)
        guards = Guarded(at, tell)
        with keeping_what_is_finished(at.keep), memory.explaining():
            try:
                guards.prepare()
                guards.act()  # the run may have been ended before it could
                while steps(at, end, evaluate, watch, tell, guards):
                    pass
            except OutOfTime:
                stop.calm()
                at.save_at_once()
    if stop.terminated:
        raise Terminated(at.saved)
    assert at.saved is not None  # a step was taken and saved now, or a checkpoint resumed from
    return at.saved


def steps(
    at: Course, end: int, evaluate: Evaluate | None, watch: Watch, tell: Callable[[str], None], guards: Guarded
) -> bool:
    """Take optimizer steps up to `end`, or until it is asked to stop, the last of which is saved; or until a guard has
    sent the run back.

    Returns:
        Whether it has gone back, and is to go on from there.

    Raises:
        OutOfTime: it was to stop, and the step under way was given up.
        Stopped: a guard has ended it.
    """
    parts, run, config, stop = at.parts, at.run, at.parts.config, at.stop
    prompts, verifying, stops = None, config.verify_scorer, False
    while not stops and (at.stands.step < end or at.stands.open is not None):
        clock = Clock()
        if at.stands.open is None:
            now, metrics = at.stands, {"step": at.stands.step + 1}
            if now.pending is None or prompts is None:
                now, prompts, seen = take_round(parts, run, now, clock)
                metrics |= seen
            if verifying:
                tell(verified(parts, now.pending, prompts))
                verifying = False
            with stop.settling():
                metrics |= update(parts, now.pending, prompts, now.step, stop.hold)
                at.take(now, metrics)
            clock.lap("update_s")
        metrics = at.stands.open
        if evaluate and is_due(at.stands.step, config.eval_every, config):
            metrics = metrics | evaluated(evaluate, parts, clock)
        with stop.settling():
            stop.hold()
            at.log(metrics)
        asked = at.asked_to_stop()
        stops = asked or at.stands.step == end
        if stops or is_due(at.stands.step, config.save_every, config):
            at.save()
            clock.lap("save_s")
        run.append(TIMINGS, [{"step": at.stands.step, **clock.laps, **clock.beside, **parts.budget.taken()}])
        if first(parts.backend, partial(watch, at.stands.step, metrics, sum(clock.laps.values()))) is True:
            stop.asked = True
        first(parts.backend, partial(guards.see, metrics))
        if not asked and guards.act():
            return True
        stops = stops or (at.is_saved and stop.terminated and parts.backend.size == 1)
    return False


def is_finite(metrics: Metrics) -> bool:
    """Whether a step may be taken: its loss and its gradient are finite.

    >>> is_finite({"loss": 0.5, "grad_norm": float("nan")})
    False
    """
    return isfinite(metrics["loss"]) and isfinite(metrics["grad_norm"])


def update(
    parts: Parts, pending: Pending, prompts: Prompts, step: int, hold: Callable[[], None] = lambda: None
) -> Metrics:
    """One optimizer step on its part of the batch; none, and weights and optimizer as they are, where its loss or its
    gradient is not finite.

    Args:
        step: those before it.
        hold: called before the first weight changes: from there on the step must not be given up.
    """
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
    hold()
    with during("updating the weights"):
        if is_finite(metrics):
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
