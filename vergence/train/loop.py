"""The algorithm of this library on one screen: ask, verify, give credit, freeze, accumulate, update."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from vergence import chance, objectives
from vergence.models.policy import Policy, load
from vergence.objectives.terms import CAPPED
from vergence.rollout.collate import collate
from vergence.rollout.generate import Generate
from vergence.rollout.render import render
from vergence.rollout.sampler import Sampler, roll_out
from vergence.scenes.source import open_source
from vergence.scoring.naive import Naive, Prompts, Scorer
from vergence.train import checkpoint
from vergence.train.backend import Backend, OneProcess
from vergence.train.checkpoint import Pending
from vergence.train.config import Config, to_yaml
from vergence.train.run import RunFolder, rollout_record
from vergence.train.step import accumulate, freeze, measure, token_mean
from vergence.types import Batch, Erase, Method, Metrics, Read, Rollout, Scene, View, with_advantage

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
        resume: go on from the last checkpoint in `out`; the result is that of an uninterrupted run, bit for bit on a CPU.
        until: stop (with a checkpoint) after this optimizer step; the config's `steps` is unchanged.
        evaluate: called every `config.eval_every` steps; what it returns is logged under "eval/".
        watch: told the metrics of every step.

    Raises:
        UserError: the config asks for something that does not exist, or `out` cannot be used.
    """
    method = objectives.method(config.method, **config.options)
    source = open_source(config.scenes, config.worlds)
    policy = load(config.model, dtype=getattr(torch, config.dtype), device=config.device)
    run = RunFolder.resume(Path(out), config) if resume else RunFolder.start(Path(out), config)
    scorer = make_scorer(config, method, policy)
    sampler, backend = Generate(policy), OneProcess()
    weights = [weight for weight in policy.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)

    step, pending = 0, None
    if resume and (last := checkpoint.latest(run.checkpoints)):
        step, pending = checkpoint.restore(last, policy, optimizer)
    run.forget_after(step)
    end = min(config.steps, until or config.steps)
    saved = checkpoint.latest(run.checkpoints) if resume else None

    with finishing_on_interrupt() as interrupted:
        while step < end and not interrupted():
            clock = Clock()
            round_ = step // config.steps_per_batch
            scenes = source.train(round_ * config.scenes_per_batch, config.scenes_per_batch, seed=config.seed)
            prompts = render_views(config, method, policy, scenes, round_)
            metrics: Metrics = {"step": step + 1}
            if pending is None:
                rollouts = ask(config, method, policy, sampler, scenes, prompts, round_)
                batch = give_credit(method, rollouts, config.siblings).to(policy.device)
                clock.lap("ask_s")
                pending = Pending(batch, freeze(method, batch, scorer, prompts, micro_batch=config.micro_batch))
                metrics |= describe(rollouts, config.siblings)
                if config.watch_every and step % config.watch_every == 0:
                    metrics |= watched(batch, scorer, prompts, micro_batch=config.micro_batch)
                advantages = batch.advantage_B.tolist()
                run.append("rollouts.jsonl", map(rollout_record, [step + 1] * len(rollouts), rollouts, advantages))
                clock.lap("score_s")
            metrics |= update(config, method, pending, scorer, prompts, backend, policy, optimizer, step)
            clock.lap("update_s")
            step += 1
            if step % config.steps_per_batch == 0:
                pending = None
            if evaluate and config.eval_every and (step % config.eval_every == 0 or step == config.steps):
                metrics |= {f"eval/{name}": value for name, value in evaluate(policy).items()}
                clock.lap("eval_s")
            run.append("metrics.jsonl", [metrics])
            if step == end or interrupted() or (config.save_every and step % config.save_every == 0):
                saved = checkpoint.save(run.checkpoints, policy, optimizer, step, pending, config=to_yaml(config))
                clock.lap("save_s")
            run.append("timings.jsonl", [{"step": step, **clock.laps}])
            watch(step, metrics, sum(clock.laps.values()))
    assert saved is not None, "steps >= 1, so a checkpoint was saved now or resumed from"
    return saved


def make_scorer(config: Config, method: Method, policy: Policy) -> Scorer:
    """The scorer of all views of a method; the reference weights are loaded only if a view looks with them."""
    owner = {name: view.policy for name, view in method.views.items()} | {"watched": "now"}
    policies = {"now": policy.logits}
    if "reference" in owner.values():
        reference = load(config.model, dtype=getattr(torch, config.dtype), device=config.device)
        reference.model.requires_grad_(False)
        policies["reference"] = reference.logits
    return Naive(policies, owner, temperature=config.temperature)


def render_views(config: Config, method: Method, policy: Policy, scenes: Sequence[Scene], round_: int) -> Prompts:
    """view -> the prompt of each scene. A view's chance is drawn once per scene and round, and siblings share it."""
    views = {**method.views, **({"watched": WATCHED} if config.watch_every else {})}
    return {
        name: [
            render(
                policy.reader,
                scene,
                view.show,
                chance.key(config.seed, "view", view.show.__class__.__name__, round_, scene.key),
                ask=method.ask,
                wording=config.wording,
            )
            for scene in scenes
        ]
        for name, view in views.items()
    }


def ask(
    config: Config,
    method: Method,
    policy: Policy,
    sampler: Sampler,
    scenes: Sequence[Scene],
    prompts: Prompts,
    round_: int,
) -> list[Rollout]:
    """The rollouts of a round."""
    return roll_out(
        sampler,
        policy.reader,
        scenes,
        prompts[method.sample_view],
        siblings=config.siblings,
        seed=(config.seed, "rollout", round_),
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        reward=method.reward,
    )


def give_credit(method: Method, rollouts: Sequence[Rollout], siblings: int) -> Batch:
    """The rollouts as a batch with the method's advantages."""
    reward_SG = torch.tensor([rollout.verdict.reward for rollout in rollouts]).view(-1, siblings)
    return with_advantage(collate(rollouts, siblings), method.credit(reward_SG).flatten())


def update(
    config: Config,
    method: Method,
    pending: Pending,
    scorer: Scorer,
    prompts: Prompts,
    backend: Backend,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> Metrics:
    """One optimizer step on its part of the batch."""
    part = step % config.steps_per_batch % config.parts
    size = len(pending.batch.key_B) // config.parts
    rows = slice(part * size, (part + 1) * size)
    policy.model.train()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    optimizer.zero_grad(set_to_none=True)
    metrics = accumulate(
        method,
        pending.batch.rows(rows),
        pending.frozen.rows(rows),
        scorer,
        prompts,
        backend=backend,
        micro_batch=config.micro_batch,
    )
    metrics["grad_norm"] = backend.clip(policy.model.parameters(), config.clip_norm)
    metrics["learning_rate"] = optimizer.param_groups[0]["lr"]
    optimizer.step()
    policy.model.eval()
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
    spread_S = rewards.std(-1)
    return {
        "reward": rewards.mean().item(),
        "reward_std": spread_S.mean().item(),
        "frac_reward_zero_std": (spread_S == 0).float().mean().item(),
        "rewards/accuracy": fmean(rollout.verdict.accuracy for rollout in rollouts),
        "rewards/format": fmean(rollout.verdict.format for rollout in rollouts),
        "rewards/unparsed": fmean(rollout.verdict.status == "unparsed" for rollout in rollouts),
        "entropy": sum(sum(rollout.sampled.entropy) for rollout in rollouts) / tokens,
        "completions/mean_length": tokens / len(rollouts),
        "completions/clipped_ratio": fmean(rollout.sampled.finish == "length" for rollout in rollouts),
    }


def watched(batch: Batch, scorer: Scorer, prompts: Prompts, *, micro_batch: int) -> Metrics:
    """How much the responses depend on the image: means over tokens against a 60 % masked view, nats."""
    stats = measure(batch, scorer, prompts, list(_WATCHED_READS), micro_batch=micro_batch)
    k3_BT = CAPPED["k3"](stats.logp("image"), stats.logp("watched"))
    return {
        "perception/kl_masked": token_mean(stats.kl("image", "watched"), batch),
        "perception/k3_masked": token_mean(k3_BT, batch),
        "perception/entropy_masked": token_mean(stats.entropy("watched"), batch),
    }


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


@contextmanager
def finishing_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C lets the step finish (and be saved); a second one is an ordinary KeyboardInterrupt."""
    asked_to_stop = False

    def first(signum: int, frame: Any) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, first)
    try:
        yield lambda: asked_to_stop
    finally:
        signal.signal(signal.SIGINT, before)

