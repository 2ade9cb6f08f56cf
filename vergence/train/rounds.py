"""A round: scenes are asked and answered, shown under every view, and scored by the weights that sampled."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from vergence.rollout.collate import collate
from vergence.rollout.sampler import Following
from vergence.scoring.naive import Prompts
from vergence.train.ask import ask, leak_rate, render_views
from vergence.train.checkpoint import Pending, Standing
from vergence.train.memory import during
from vergence.train.parts import Parts
from vergence.train.run import RunFolder, rollout_records
from vergence.train.step import freeze, reshaped
from vergence.train.traces import traces
from vergence.train.watch import drift, gradient_ratio, looked, watched, watching
from vergence.types import Metrics, Rollout, with_advantage


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


def take_round(parts: Parts, run: RunFolder, stands: Standing, clock: Clock) -> tuple[Standing, Prompts, Metrics]:
    """The batch to train on, its scenes under every view, and what there is to say of them.

    A round that was under way when the run stopped is shown again; otherwise a new one is asked.
    """
    round_ = stands.step // parts.config.steps_per_batch
    if stands.pending is not None:
        scenes = parts.captioner([parts.source.scene(key) for key in stands.pending.scenes])
        return stands, render_views(parts, scenes, round_, {}), {}
    with during("sampling"):
        if isinstance(parts.sampler, Following):
            parts.sampler.follow(parts.policy)
        asked = ask(parts, round_, stands.position)
        if isinstance(parts.sampler, Following):
            parts.sampler.rest()
    clock.lap("ask_s")
    scenes = parts.captioner([rollout.scene for rollout in asked.rollouts[:: parts.config.siblings]])
    prompts = render_views(parts, scenes, round_, watching(parts.config, round_))
    with during("scoring"):
        pending = freeze_round(parts, asked.rollouts, prompts)
        metrics = asked.metrics | leak_rate(parts, asked.rollouts, scenes) | drift(parts.method, pending.batch)
        if "watched" in prompts:
            stats = looked(parts, pending.batch, prompts)
            metrics |= watched(parts, pending.batch, pending.frozen, stats)
            metrics |= gradient_ratio(parts, pending.batch, pending.frozen, prompts)
            traced = traces(parts, asked.rollouts, scenes, pending, stats, round_=round_, step=stands.step + 1)
            run.append("traces.jsonl", traced)
    run.append("rollouts.jsonl", rollout_records(stands.step + 1, asked.rollouts, pending.batch.advantage_B))
    clock.lap("score_s")
    return Standing(stands.step, asked.position, pending), prompts, metrics


def freeze_round(parts: Parts, rollouts: Sequence[Rollout], prompts: Prompts) -> Pending:
    """The rollouts as a batch with the method's advantages, and what it needs to know at the weights that sampled."""
    config, method = parts.config, parts.method
    reward_SG = torch.tensor([rollout.verdict.reward for rollout in rollouts]).view(-1, config.siblings)
    advantage_B = method.credit(reward_SG).flatten()
    batch = with_advantage(collate(rollouts, config.siblings), advantage_B).to(parts.policy.device)
    frozen = freeze(method, batch, parts.scorer, prompts, budget=config.token_budget)
    keys = tuple(rollout.scene.key for rollout in rollouts[:: config.siblings])
    return Pending(reshaped(method, batch, frozen, parts.backend), frozen, keys)
