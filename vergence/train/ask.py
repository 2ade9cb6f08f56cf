"""One round's questions: scenes are drawn and answered until the batch is full, and each is shown under every view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

import torch

from vergence import chance
from vergence.guards.text import disavows, repeats
from vergence.rewards.judge import leaks
from vergence.rollout.render import render
from vergence.rollout.sampler import Following, roll_out
from vergence.scoring.naive import Prompts
from vergence.train.asked import Round
from vergence.train.backend import alike
from vergence.train.context import refuse_long
from vergence.train.division import each, each_its_part
from vergence.train.parts import Parts, shows_captions
from vergence.types import Metrics, OneOf, Original, Prompt, Rollout, Scene, UserError, View, ViewSpec

MOST_DRAWS = 20
"""Of scenes for one batch, where only groups with something to learn from are kept (PAPO's released limit)."""


def ask(parts: Parts, round_: int, position: int) -> Round:
    """A full batch of rollouts whose groups the method keeps.

    Raises:
        UserError: 20 draws did not fill the batch; the message says what share of groups was kept.
    """
    config, keep = parts.config, parts.method.keep
    wanted, everything, kept = config.scenes_per_batch, [], []
    for draw in range(MOST_DRAWS):
        found = len(kept) / max(1, len(everything))
        number = wanted if not draw else min(wanted, math.ceil((wanted - len(kept)) / max(found, 0.1)))
        groups = _draw(parts, round_, draw, position, number)
        position += number
        everything += groups
        correct_SG = torch.tensor([[rollout.verdict.accuracy for rollout in group] for group in groups])
        mixed_S = [True] * len(groups) if keep is None else keep(correct_SG).tolist()
        kept += [group for group, is_mixed in zip(groups, mixed_S, strict=True) if is_mixed]
        if len(kept) >= wanted:
            rollouts = [rollout for group in kept[:wanted] for rollout in group]
            metrics = describe([rollout for group in everything for rollout in group], config.siblings)
            if keep is not None:
                metrics |= {"sampling/kept": len(kept) / len(everything), "sampling/draws": draw + 1}
            return Round(rollouts, position, metrics)
    raise UserError(
        f"dynamic sampling drew {len(everything)} scenes in {MOST_DRAWS} draws, and {len(kept)} of them "
        f"({len(kept) / len(everything):.0%}) had siblings that differ in correctness; {wanted} are wanted. Take "
        f"easier or harder scenes, more siblings, a smaller scenes_per_batch, or a method without dynamic sampling"
    )


def _draw(parts: Parts, round_: int, draw: int, position: int, number: int) -> list[list[Rollout]]:
    """Groups of rollouts, one to a scene; each process asks its part of the scenes and is told of the others."""
    scenes = alike(parts.backend, lambda: parts.source.train(position, number, seed=parts.config.seed))
    alone = isinstance(parts.sampler, Following)  # it has weights of its own, and is asked by one process
    said = each_its_part(parts.backend, scenes, lambda own: _asked(parts, round_, draw, scenes, own), alone=alone)
    return [
        [Rollout(scene=scene, sibling=sibling, **told) for sibling, told in enumerate(group)]
        for scene, group in zip(scenes, said, strict=True)
    ]


def _asked(parts: Parts, round_: int, draw: int, scenes: Sequence[Scene], own: slice) -> list[list[dict[str, Any]]]:
    """Of some of a draw's scenes, what there is to tell of each rollout beside its scene and its place."""
    config, method = parts.config, parts.method
    asked, show = scenes[own], method.views[method.sample_view]
    prompts = [_prompt(parts, scene, show, round_, scenes) for scene in asked]
    refuse_long(asked, prompts, parts.policy, config)
    rollouts = roll_out(
        parts.sampler,
        parts.policy.reader,
        asked,
        prompts,
        before=scenes[: own.start],
        siblings=config.siblings,
        # a small source may come round to a scene again within a round: another draw has other noise
        seed=(config.seed, "rollout", round_, *((draw,) if draw else ())),
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        judge=parts.judge,
        overlong=method.reward.overlong,
    )
    told = [{name: getattr(one, name) for name in ("key", "sampled", "text", "verdict")} for one in rollouts]
    return [told[first : first + config.siblings] for first in range(0, len(told), config.siblings)]


def render_views(parts: Parts, scenes: Sequence[Scene], round_: int, watching: dict[str, View]) -> Prompts:
    """view -> the prompt of each scene. A view's chance is drawn once per scene and round, and siblings share it.

    Args:
        watching: views that are shown besides the method's own.

    Raises:
        UserError: a view of the method shows every scene as the policy sees it anyway: nothing can be learnt from it.
    """
    views = {**parts.method.views, **watching}
    prompts = {
        name: each(scenes, partial(_prompt, parts, view=view, round_=round_, others=scenes), parts.backend.size > 1)
        for name, view in views.items()
    }
    alike(parts.backend, lambda: _refuse_unchanged(parts, scenes, prompts))
    return prompts


def _refuse_unchanged(parts: Parts, scenes: Sequence[Scene], prompts: Prompts) -> None:
    """Raise if a view that is to change something changes nothing; see `render_views`."""
    seen = prompts[parts.method.sample_view]
    for name, view in parts.method.views.items():
        own = name in ("image", "kept", parts.method.sample_view) or view.show == Original()
        removes = not own and view.policy == "now"
        if removes and all(map(_same, prompts[name], seen)) and not _ever_differs(parts, scenes, view, seen):
            raise UserError(
                f"the view {name!r} ({view.show}) shows all {len(scenes)} scenes of this round exactly as they are, so "
                f"every divergence from it is exactly 0 and teaches nothing; give it something to change"
                + ("" if any(scene.images for scene in scenes) else " (these scenes have no images)")
            )


def _ever_differs(parts: Parts, scenes: Sequence[Scene], view: View, seen: Sequence[Prompt]) -> bool:
    """Whether another draw of the view's chance changes something: in a small batch one may change nothing."""
    return any(
        not _same(_prompt(parts, scene, view, -draw, scenes), own)
        for draw in range(1, 9)
        for scene, own in zip(scenes, seen, strict=True)
    )


def _prompt(parts: Parts, scene: Scene, view: View, round_: int, others: Sequence[Scene]) -> Prompt:
    show, config = view.show, parts.config
    return render(
        parts.policy.reader,
        scene,
        show,
        view_key(config.seed, show, round_, scene.key),
        ask=parts.method.ask,
        wording=config.wording,
        others=others,
        saliency=parts.saliency,
    )


def view_key(seed: int, show: ViewSpec, round_: int, scene: str) -> int:
    """The key of a view's chance, by the kind of view: the same view under another name has the same pixels.

    >>> from vergence.types import Erase
    >>> view_key(0, Erase(0.6), 3, "bars/train/0/1") == view_key(0, Erase(0.5, 8), 3, "bars/train/0/1")
    True
    """
    kind = repr(show) if isinstance(show, OneOf) else type(show).__name__
    return chance.key(seed, "view", kind, round_, scene)


def _same(one: Prompt, other: Prompt) -> bool:
    shown = [{**prompt.more, "pixels": prompt.pixels} for prompt in (one, other)]
    shown = [{name: value for name, value in each.items() if value is not None} for each in shown]
    same_kind = one.tokens == other.tokens and shown[0].keys() == shown[1].keys()
    return same_kind and all(torch.equal(shown[0][name], shown[1][name]) for name in shown[0])


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
        "rewards/timed_out": fmean(rollout.verdict.status == "timed out" for rollout in rollouts),
        "entropy": sum(sum(rollout.sampled.entropy) for rollout in rollouts) / tokens,
        "completions/mean_length": tokens / len(rollouts),
        "completions/clipped_ratio": fmean(rollout.sampled.finish == "length" for rollout in rollouts),
        "completions/disavowal": fmean(disavows(rollout.text) for rollout in rollouts),
        "completions/repetition": fmean(repeats(rollout.text) for rollout in rollouts),
    }


def leak_rate(parts: Parts, rollouts: Sequence[Rollout], scenes: Sequence[Scene]) -> Metrics:
    """The share of captions that give the answer away: those that were written, or those that are shown."""
    if parts.method.ask == "caption":
        captions = [(rollout.text, rollout.scene) for rollout in rollouts]
    elif any(map(shows_captions, parts.method.views.values())):
        asked = [rollout.scene for rollout in rollouts[:: parts.config.siblings]]  # with their own captions still
        captions = [(scene.caption, own) for scene, own in zip(scenes, asked, strict=True)]
    else:
        return {}
    return {"perception/caption_leak": fmean(leaks(caption, scene) for caption, scene in captions)}
