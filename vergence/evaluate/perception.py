"""How far a view moves what a policy says, on held-out questions: one number per question, so that it can be paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from vergence import chance
from vergence.models.policy import Policy
from vergence.objectives.terms import CAPPED
from vergence.rewards.judge import by_verifier
from vergence.rollout.collate import collate
from vergence.rollout.decode import sampler_of
from vergence.rollout.render import Wording, render
from vergence.rollout.sampler import roll_out
from vergence.scoring.naive import Naive
from vergence.types import ORIGINAL, Read, Scene, View, ViewSpec


@torch.no_grad()
def divergences(
    policy: Policy,
    scenes: Sequence[Scene],
    shows: Mapping[str, ViewSpec],
    *,
    samples: int = 2,
    seed: int = 0,
    max_tokens: int = 64,
    wording: Wording = "short",
    at_once: int = 32,
) -> dict[str, dict[str, float]]:
    """For each view, scene -> KL(image || view) over the vocabulary, the mean over the policy's own responses; nats.

    For each view `v` there is also "v k3": the k3 of the sampled tokens, held to 10 nats. A response counts as its mean
    over tokens. The responses are the policy's own, sampled with the image at temperature 1, their noise keyed by
    (seed, scene, sample); a view's chance is keyed by (seed, scene).

    Args:
        shows: the views by name.
        samples: responses to each scene.
        at_once: scenes in one pass; memory only.
    """
    scorer = Naive({"now": policy.logits}, {name: View(show) for name, show in {"image": ORIGINAL, **shows}.items()})
    sampler, found = sampler_of(policy), {name: {} for view in shows for name in (view, f"{view} k3")}
    reads = [Read("image", "logp")]
    reads += [read for view in shows for read in (Read("image", "kl", view), Read(view, "logp"))]
    for start in range(0, len(scenes), at_once):
        some = scenes[start : start + at_once]
        keys = [chance.key(seed, "divergence", scene.key) for scene in some]
        prompts = {
            name: [
                render(policy.reader, scene, show, key, wording=wording, others=scenes)
                for scene, key in zip(some, keys, strict=True)
            ]
            for name, show in {"image": ORIGINAL, **shows}.items()
        }
        rollouts = roll_out(
            sampler,
            policy.reader,
            some,
            prompts["image"],
            siblings=samples,
            seed=(seed, "divergence"),
            temperature=1.0,
            max_tokens=max_tokens,
            judge=by_verifier(),
        )
        batch = collate(rollouts, samples)
        stats = scorer.score(batch, prompts, reads)
        for view in shows:
            k3_BT = CAPPED["k3"](stats.logp("image"), stats.logp(view))
            for name, value_BT in ((view, stats.kl("image", view)), (f"{view} k3", k3_BT)):
                each_B = (value_BT * batch.mask_BT).sum(-1) / batch.mask_BT.sum(-1)
                for row, scene in enumerate(some):
                    found[name][scene.key] = fmean(each_B[row * samples : (row + 1) * samples].tolist())
    return found
