"""A round: scenes are asked and answered, shown under every view, and scored by the weights that sampled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from vergence.objectives.objective import reads_of_method
from vergence.rollout.collate import collate
from vergence.rollout.sampler import Following
from vergence.scoring.naive import Prompts, reads_when
from vergence.train.ask import ask, leak_rate, render_views
from vergence.train.asked import Round
from vergence.train.backend import Peers, alike, together
from vergence.train.checkpoint import Pending, Standing
from vergence.train.division import each_its_part
from vergence.train.gap import GapTooWide, anchored, gap, is_read, refuse_wide, weighed
from vergence.train.memory import during
from vergence.train.parts import Parts
from vergence.train.recorded import rollout_records
from vergence.train.run import RunFolder
from vergence.train.step import freeze, measure, reshaped
from vergence.train.traces import traces
from vergence.train.watch import drift, gradient_ratio, looked, watched, watching
from vergence.types import Batch, Method, Metrics, Read, Rollout, Scene, Stats, with_advantage


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.beside: dict[str, float] = {}
        """Of what went on meanwhile, in a thread: they are in none of the laps."""
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Give the time since the last lap to `name`."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._since
        self._since = now


def take_round(parts: Parts, run: RunFolder, stands: Standing, clock: Clock) -> tuple[Standing, Prompts, Metrics]:
    """The batch to train on, its scenes under every view, and what there is to say of them.

    A round that was under way when the run stopped is shown again; otherwise a new one is asked. What is logged of it
    counts from the step on that is taken on it: until then the round may be given up, and asked again.
    """
    round_ = stands.step // parts.config.steps_per_batch
    if stands.pending is not None:
        keys = stands.pending.scenes
        scenes = captioned(parts, alike(parts.backend, lambda: [parts.source.scene(key) for key in keys]))
        return stands, render_views(parts, scenes, round_, {}), {}
    asked = sampled(parts, round_, stands.position, clock)
    scenes = captioned(parts, [rollout.scene for rollout in asked.rollouts[:: parts.config.siblings]])
    prompts = render_views(parts, scenes, round_, watching(parts.config, round_))
    with during("scoring"):
        pending = freeze_round(parts, asked.rollouts, prompts)
        metrics = asked.metrics | leak_rate(parts, asked.rollouts, scenes) | drift(parts.method, pending.batch)
        try:
            metrics |= watched_gap(parts, asked.rollouts, pending)
        except GapTooWide:
            if parts.ahead:  # nothing is to be kept of it: a sampler that has been mended is asked again
                parts.ahead.done_with(round_)
            raise
        if "watched" in prompts:
            stats = looked(parts, pending.batch, prompts)
            metrics |= watched(parts, pending.batch, pending.frozen, stats)
            metrics |= gradient_ratio(parts, pending.batch, pending.frozen, prompts)
            traced = traces(parts, asked.rollouts, scenes, pending, stats, round_=round_, step=stands.step + 1)
            run.append("traces.jsonl", traced)
    run.append("rollouts.jsonl", rollout_records(stands.step + 1, asked.rollouts, pending.batch.advantage_B))
    clock.lap("score_s")
    return stands._replace(position=asked.position, pending=pending), prompts, metrics


def sampled(parts: Parts, round_: int, position: int, clock: Clock) -> Round:
    """The round's rollouts: asked for now; or ahead, while the last one trained, and then the next one is begun here.

    Raises:
        UserError: as of `ask`, of whichever round it was.
    """
    config, ahead, following = parts.config, parts.ahead, isinstance(parts.sampler, Following)
    with during("sampling"):
        asked = None if ahead is None else ahead.take(round_)
        if asked is not None:
            clock.lap("wait_s")
            clock.beside["ahead_s"] = ahead.seconds
        is_last = (round_ + 1) * config.steps_per_batch >= config.steps
        parts.backend.gather_weights()
        if following and (asked is None or not is_last):
            together(parts.backend, partial(parts.sampler.follow, parts.policy))  # of which the first alone is asked
        if asked is None:
            asked = ask(parts, round_, position)
            if following and ahead is None:
                together(parts.backend, parts.sampler.rest)
        if ahead is not None and not is_last:
            ahead.begin(round_ + 1, partial(asked_beside, parts, round_ + 1, asked.position))
    clock.lap("push_s" if "wait_s" in clock.laps else "ask_s")
    return asked


def asked_beside(parts: Parts, round_: int, position: int, peers: Peers) -> Round:
    """`ask`, in a thread: what is said to other processes is said to these."""
    with during("sampling"):
        return ask(parts._replace(backend=peers), round_, position)


def captioned(parts: Parts, scenes: list[Scene]) -> list[Scene]:
    """The scenes with the captions that views show; each process sees to its part of them."""
    if parts.backend.size == 1 or parts.captioner is list:
        return parts.captioner(scenes)
    told = each_its_part(parts.backend, scenes, lambda own: [one.caption for one in parts.captioner(scenes[own])])
    return [replace(scene, caption=caption) for scene, caption in zip(scenes, told, strict=True)]


def freeze_round(parts: Parts, rollouts: Sequence[Rollout], prompts: Prompts) -> Pending:
    """The rollouts as a batch with the method's advantages, and what it needs to know at the weights that sampled."""
    config, method = parts.config, parts.method
    reward_SG = torch.tensor([rollout.verdict.reward for rollout in rollouts]).view(-1, config.siblings)
    advantage_B = method.credit(reward_SG).flatten()
    batch = with_advantage(collate(rollouts, config.siblings), advantage_B).to(parts.policy.device)
    frozen, sampler_BT = frozen_reads(parts, batch, prompts), batch.sampled_logp_BT
    if config.correction != "none":
        batch = anchored(batch, frozen.read(own_read(method)))
    batch = reshaped(method, batch, frozen, parts.backend)
    if config.correction != "none":
        batch = weighed(batch, sampler_BT, correction=config.correction, cap=config.correction_cap)
    keys = tuple(rollout.scene.key for rollout in rollouts[:: config.siblings])
    return Pending(batch, frozen, keys)


def frozen_reads(parts: Parts, batch: Batch, prompts: Prompts) -> Stats:
    """What the method needs to know before the first step; and, where the gap to the sampler `is_read`, the responses'
    log-probabilities in the view that they were sampled in. Each view is read once. No gradient."""
    config, method = parts.config, parts.method
    if not is_read(config):
        return freeze(method, batch, parts.scorer, prompts, budget=config.token_budget, backend=parts.backend)
    reads = dict.fromkeys((*reads_when(reads_of_method(method), "frozen"), own_read(method)))
    return measure(batch, parts.scorer, prompts, tuple(reads), budget=config.token_budget, backend=parts.backend)


def own_read(method: Method) -> Read:
    """The log-probability of the sampled tokens in the view that they were sampled in.

    >>> from vergence.objectives import method
    >>> own_read(method("papo"))
    Read(view='image', quantity='logp', against=None, when='frozen')
    """
    return Read(method.sample_view, "logp", when="frozen")


def watched_gap(parts: Parts, rollouts: Sequence[Rollout], pending: Pending) -> Metrics:
    """What there is to say of the gap between sampler and trainer in a round; nothing where it is not read.

    Raises:
        GapTooWide: it is wider than the run allows.
    """
    config, mask_BT = parts.config, pending.batch.mask_BT
    if not is_read(config):
        return {}
    sampler_BT = collate(rollouts, config.siblings).sampled_logp_BT.to(mask_BT.device)  # a corrected batch has others
    trainer_BT = pending.frozen.read(own_read(parts.method))
    seen = gap(trainer_BT, sampler_BT, mask_BT, cap=config.correction_cap, most=config.most_gap)
    refuse_wide(seen, config, tokens=int(mask_BT.sum()))
    return seen
