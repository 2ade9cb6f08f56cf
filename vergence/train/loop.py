"""The algorithm of this library on one screen: ask, verify, give credit, freeze, accumulate, update."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from vergence import chance
from vergence.models.policy import Policy
from vergence.objectives.terms import CAPPED
from vergence.rollout.collate import collate
from vergence.rollout.render import render
from vergence.rollout.sampler import roll_out
from vergence.scoring.naive import Prompts
from vergence.train import checkpoint
from vergence.train.checkpoint import Pending
from vergence.train.config import Config
from vergence.train.parts import Parts, assemble
from vergence.train.run import RunFolder, rollout_records
from vergence.train.step import accumulate, freeze, measure, token_mean
from vergence.types import Batch, Erase, Metrics, Prompt, Read, Rollout, Scene, UserError, View, with_advantage

WATCHED = View(Erase())
"""The masked view whose KL is logged for every method alike, trained on or not."""
_WATCHED_READS = (
    Read("image", "kl", "watched"),
    Read("image", "logp"),
    Read("watched", "logp"),
    Read("watched", "entropy"),
)

Evaluate = Callable[[Policy], Mapping[str, float]]
Watch = Callable[[int, Metrics, float], None]
"""(step, metrics, seconds) after every optimizer step."""


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Give the time since the last lap to `name`."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._since
        self._since = now


def train(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    until: int | None = None,
    evaluate: Evaluate | None = None,
    watch: Watch = lambda *_: None,
) -> Path:
    """Train as the config says, in the run folder `out`, and return the last checkpoint.

    Args:
        resume: go on from the last checkpoint in `out`; the result is the uninterrupted run's, bit for bit on a CPU.
        until: stop (with a checkpoint) after this optimizer step; the config's `steps` is unchanged.
        evaluate: called every `config.eval_every` steps; what it returns is logged under "eval/".
        watch: told the metrics of every step.

    Raises:
        UserError: the config asks for something that does not exist, or for evaluation without an `evaluate`; or `out`
            cannot be used.
    """
    if config.eval_every and evaluate is None:
        raise UserError(f"eval_every is {config.eval_every}, but nothing was given as `evaluate`; give it, or set 0")
    parts = assemble(config)
    run = RunFolder.resume(Path(out), config) if resume else RunFolder.start(Path(out), config)
    saved = checkpoint.latest(run.checkpoints)
    step, pending = checkpoint.restore(saved, parts.policy, parts.optimizer) if saved else (0, None)
    run.forget_after(step)
    end, prompts = min(config.steps, until or config.steps), None

    with finishing_on_interrupt() as interrupted:
        while step < end:
            clock, metrics, round_ = Clock(), {"step": step + 1}, step // config.steps_per_batch
            if prompts is None:
                scenes = parts.source.train(round_ * config.scenes_per_batch, config.scenes_per_batch, seed=config.seed)
                prompts = render_views(parts, scenes, round_)
            if pending is None:
                pending, rollouts = ask(parts, scenes, prompts, round_, clock)
                metrics |= describe(rollouts, config.siblings) | watched(parts, pending.batch, prompts, round_)
                run.append("rollouts.jsonl", rollout_records(step + 1, rollouts, pending.batch.advantage_B))
                clock.lap("score_s")
            metrics |= update(parts, pending, prompts, step)
            clock.lap("update_s")
            step += 1
            if step % config.steps_per_batch == 0:
                pending = prompts = None
            if evaluate and is_due(step, config.eval_every, config):
                metrics |= {f"eval/{name}": value for name, value in evaluate(parts.policy).items()}
                clock.lap("eval_s")
            run.append("metrics.jsonl", [metrics])
            stopping = step == end or interrupted()
            if stopping or is_due(step, config.save_every, config):
                saved = checkpoint.save(run.checkpoints, parts, step, pending)
                clock.lap("save_s")
            run.append("timings.jsonl", [{"step": step, **clock.laps}])
            watch(step, metrics, sum(clock.laps.values()))
            if stopping:
                break
    assert saved is not None  # a step was taken and saved now, or a checkpoint resumed from
    return saved


def render_views(parts: Parts, scenes: Sequence[Scene], round_: int) -> Prompts:
    """view -> the prompt of each scene. A view's chance is drawn once per scene and round, and siblings share it."""
    config = parts.config
    views = {**parts.method.views, **({"watched": WATCHED} if is_watched(config, round_) else {})}

    def prompt(scene: Scene, view: View) -> Prompt:
        # keyed by the kind of view, so that the same view under another name has the same pixels
        key = chance.key(config.seed, "view", type(view.show).__name__, round_, scene.key)
        return render(parts.policy.reader, scene, view.show, key, ask=parts.method.ask, wording=config.wording)

    return {name: [prompt(scene, view) for scene in scenes] for name, view in views.items()}


def ask(
    parts: Parts, scenes: Sequence[Scene], prompts: Prompts, round_: int, clock: Clock
) -> tuple[Pending, list[Rollout]]:
    """The rollouts of a round; as a batch with the method's advantages, and what the method needs frozen."""
    config = parts.config
    rollouts = roll_out(
        parts.sampler,
        parts.policy.reader,
        scenes,
        prompts[parts.method.sample_view],
        siblings=config.siblings,
        seed=(config.seed, "rollout", round_),
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        reward=parts.method.reward,
    )
    clock.lap("ask_s")
    reward_SG = torch.tensor([rollout.verdict.reward for rollout in rollouts]).view(-1, config.siblings)
    advantage_B = parts.method.credit(reward_SG).flatten()
    batch = with_advantage(collate(rollouts, config.siblings), advantage_B).to(parts.policy.device)
    frozen = freeze(parts.method, batch, parts.scorer, prompts, micro_batch=config.micro_batch)
    return Pending(batch, frozen), rollouts


def update(parts: Parts, pending: Pending, prompts: Prompts, step: int) -> Metrics:
    """One optimizer step on its part of the batch."""
    config, model = parts.config, parts.policy.model
    size = len(pending.batch.key_B) // config.parts
    first = step % config.steps_per_batch % config.parts * size
    rows = slice(first, first + size)
    for group in parts.optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    model.train()
    parts.optimizer.zero_grad(set_to_none=True)
    metrics = accumulate(
        parts.method,
        pending.batch.rows(rows),
        pending.frozen.rows(rows),
        parts.scorer,
        prompts,
        backend=parts.backend,
        micro_batch=config.micro_batch,
    )
    metrics["grad_norm"] = parts.backend.clip(model.parameters(), config.clip_norm)
    metrics["learning_rate"] = parts.optimizer.param_groups[0]["lr"]
    parts.optimizer.step()
    model.eval()
    return metrics


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of optimizer step `step` (from 0).

    >>> [learning_rate(Config(lr=0.1, warmup=2), step) for step in (0, 1, 2)]
    [0.05, 0.1, 0.1]
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = 1.0 - 0.9 * step / max(1, config.steps - 1) if config.decay == "linear" else 1.0
    return config.lr * warm * left


def describe(rollouts: Sequence[Rollout], siblings: int) -> Metrics:
    """What a round of rollouts was like; names as TRL has them."""
    rewards = torch.tensor([rollout.verdict.reward for rollout in rollouts]).view(-1, siblings)
    tokens = sum(len(rollout.sampled.tokens) for rollout in rollouts)
    return {
        "reward": rewards.mean().item(),
        "reward_std": rewards.std(-1).mean().item(),
        "frac_reward_zero_std": (rewards.amax(-1) == rewards.amin(-1)).float().mean().item(),
        "rewards/accuracy": fmean(rollout.verdict.accuracy for rollout in rollouts),
        "rewards/format": fmean(rollout.verdict.format for rollout in rollouts),
        "rewards/unparsed": fmean(rollout.verdict.status == "unparsed" for rollout in rollouts),
        "entropy": sum(sum(rollout.sampled.entropy) for rollout in rollouts) / tokens,
        "completions/mean_length": tokens / len(rollouts),
        "completions/clipped_ratio": fmean(rollout.sampled.finish == "length" for rollout in rollouts),
    }


def is_due(step: int, every: int, config: Config) -> bool:
    """Whether something that happens every so many steps, and at the last, happens after this one; 0 is never.

    >>> [step for step in range(1, 6) if is_due(step, 2, Config(steps=5))]
    [2, 4, 5]
    """
    return every > 0 and (step % every == 0 or step == config.steps)


def is_watched(config: Config, round_: int) -> bool:
    """Whether the KL to the masked view is measured in this round.

    >>> [is_watched(Config(watch_every=2), round_) for round_ in range(3)]
    [True, False, True]
    """
    return config.watch_every > 0 and round_ % config.watch_every == 0


def watched(parts: Parts, batch: Batch, prompts: Prompts, round_: int) -> Metrics:
    """How much the responses depend on the image: means over tokens against a 60 % masked view, nats."""
    if not is_watched(parts.config, round_):
        return {}
    stats = measure(batch, parts.scorer, prompts, _WATCHED_READS, micro_batch=parts.config.micro_batch)
    k3_BT = CAPPED["k3"](stats.logp("image"), stats.logp("watched"))
    return {
        "perception/kl_masked": token_mean(stats.kl("image", "watched"), batch),
        "perception/k3_masked": token_mean(k3_BT, batch),
        "perception/entropy_masked": token_mean(stats.entropy("watched"), batch),
    }


@contextmanager
def finishing_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C lets the step finish (and be saved); a second one is an ordinary KeyboardInterrupt."""
    asked_to_stop = False

    def first(signum: int, frame: Any) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        print("stopping after this step; once more to stop at once", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, first)
    try:
        yield lambda: asked_to_stop
    finally:
        signal.signal(signal.SIGINT, before)
