"""One optimizer step's data, drawn once by an explicit seed: every contestant is timed on the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from benchmarks.shapes import FIRST_WORD, IMAGE, PAD, VISION_END, VISION_START, Shape
from vergence.models.policy import Policy
from vergence.objectives.credit import standardised
from vergence.types import SG, Batch, Prompt, with_advantage

Lengths = Literal["equal", "lognormal"]

MIXED = 0.6
"""Share of the groups whose siblings were rewarded differently, half of them well; in the others all got the same."""
SPREAD, LONGEST = 0.6, 3.5
"""Of lognormal lengths: the standard deviation of the logarithm, and the longest in units of the mean."""
CAPTION = 60
"""Tokens of the prompt that has a caption in the place of the image."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a step is given besides the weights."""

    shape: Shape
    batch: Batch
    prompts: dict[str, list[Prompt]]
    """View -> the prompt of each group. All views of images share tokens and grids and differ in the pixels alone."""

    @property
    def positive(self) -> float:
        """Share of the rollouts that did better than their siblings: what CPPO's gate lets through."""
        return float((self.batch.advantage_B > 0).float().mean())

    @property
    def idle(self) -> float:
        """Share of the rollouts whose siblings were all rewarded like them: the surrogate is 0 there."""
        return float((self.batch.advantage_B == 0).float().mean())


def draw(shape: Shape, policy: Policy, *, lengths: Lengths = "equal", seed: int = 0) -> Replay:
    """The replay of that shape. With a single group, that group is mixed.

    What the sampler says of its tokens is what the model itself says, so that importance ratios are about 1.
    """
    chance = torch.Generator().manual_seed(seed)
    prompts = _prompts(shape, chance)
    token_BT, mask_BT = _responses(shape, lengths, chance)
    B = len(token_BT)
    advantage_B = standardised(_rewards(shape, chance)).flatten()
    empty = Batch(
        key_B=torch.arange(B),
        scene_B=torch.arange(B) // shape.siblings,
        token_BT=token_BT,
        mask_BT=mask_BT,
        sampled_logp_BT=torch.zeros(mask_BT.shape),
        chance_BT=torch.rand(mask_BT.shape, generator=chance),
        correct_B=(advantage_B > 0).float(),
        advantage_B=torch.zeros(B),
        advantage_BT=torch.zeros(mask_BT.shape),
    )
    batch = with_advantage(empty, advantage_B)
    batch = replace(batch, sampled_logp_BT=_sampled(policy, batch, prompts["image"]))
    return Replay(shape, batch.to(policy.device), prompts)


def _prompts(shape: Shape, chance: torch.Generator) -> dict[str, list[Prompt]]:
    """Views of images: `masked` black in 60 % of the patches, `kept` and `removed` with more and less of the image."""
    views: dict[str, list[Prompt]] = {name: [] for name in ("image", "anchor", "masked", "kept", "removed", "caption")}
    grid = torch.tensor([shape.grid])
    patches = int(grid.prod())
    image = [VISION_START, *[IMAGE] * (patches // 4), VISION_END]
    for _ in range(shape.groups):
        before, after = _words(shape, chance, 20), _words(shape, chance, shape.words - 20)
        pixels = torch.randn(patches, shape.features, generator=chance)
        black = torch.rand(patches, 1, generator=chance) < 0.6
        shown = {
            "image": pixels,
            "masked": pixels.masked_fill(black, -1.8),
            "kept": pixels + 0.1 * torch.randn(pixels.shape, generator=chance),
            "removed": pixels + torch.randn(pixels.shape, generator=chance),
        }
        for name, seen in shown.items():
            views[name].append(Prompt((*before, *image, *after), seen, grid))
        views["anchor"].append(views["image"][-1])
        views["caption"].append(Prompt((*before, *_words(shape, chance, CAPTION - 20))))
    return views


def _words(shape: Shape, chance: torch.Generator, number: int) -> list[int]:
    return torch.randint(FIRST_WORD, shape.vocabulary, (number,), generator=chance).tolist()


def _responses(
    shape: Shape, lengths: Lengths, chance: torch.Generator
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    B = shape.groups * shape.siblings
    length_B = length(B, shape.response, lengths)[torch.randperm(B, generator=chance)]
    mask_BT = torch.arange(int(length_B.max())) < length_B[:, None]
    token_BT = torch.randint(FIRST_WORD, shape.vocabulary, mask_BT.shape, generator=chance)
    return token_BT.where(mask_BT, PAD), mask_BT


def length(number: int, mean: int, lengths: Lengths) -> Int[Tensor, " B"]:
    """So many lengths of that mean: all the same, or evenly spaced quantiles of a lognormal distribution.

    >>> length(4, 100, "lognormal").tolist()
    [45, 75, 109, 180]
    """
    if lengths == "equal":
        return torch.full((number,), mean)
    quantiles = torch.tensor([NormalDist().inv_cdf((place + 0.5) / number) for place in range(number)])
    drawn = (SPREAD * quantiles).exp()
    return (mean * drawn / drawn.mean()).round().clamp(1, LONGEST * mean).long()


def _rewards(shape: Shape, chance: torch.Generator) -> SG:
    """The first groups are mixed; where among their siblings the good ones are is chance.

    A single group has as many good ones as an average group.
    """
    mixed = max(1, round(MIXED * shape.groups))
    good = shape.siblings // 2 if shape.groups > 1 else max(1, round(MIXED / 2 * shape.siblings))
    reward_SG = torch.zeros(shape.groups, shape.siblings)
    for group in range(mixed):
        reward_SG[group, torch.randperm(shape.siblings, generator=chance)[:good]] = 1.0
    return reward_SG


@torch.no_grad()
def _sampled(policy: Policy, batch: Batch, prompts: list[Prompt]) -> Float[Tensor, "B T"]:
    """The log-probability of each token, as the sampler would say it."""
    logp_BT = torch.zeros(batch.mask_BT.shape)
    for row, scene in enumerate(batch.scene_B.tolist()):
        one, T = batch.rows(slice(row, row + 1)), int(batch.mask_BT[row].sum())
        logp_BTV = policy.logits([prompts[scene]], one.token_BT[:, :T], one.mask_BT[:, :T]).float().log_softmax(-1)
        logp_BT[row, :T] = logp_BTV.gather(-1, one.token_BT[:, :T, None].to(policy.device))[0, :, 0].cpu()
    return logp_BT


def padded(replay: Replay, view: str = "image", *, rows: Tensor | None = None) -> dict[str, Tensor | list[int]]:
    """Some rollouts as TRL holds them: a row for each, its prompt and image again in every one of them.

    Prompts are padded on the left, and responses on the right to the longest of the whole step, as TRL does it.

    Args:
        rows: which rollouts, in this order; None is all.
    """
    batch = replay.batch if rows is None else replay.batch.rows(rows)
    prompts = [replay.prompts[view][scene] for scene in batch.scene_B.tolist()]
    longest = max(len(prompt.tokens) for prompt in prompts)
    device = batch.token_BT.device
    prompt_ids = torch.tensor([[PAD] * (longest - len(one.tokens)) + [*one.tokens] for one in prompts], device=device)
    prompt_mask = torch.tensor([[0] * (longest - len(one.tokens)) + [1] * len(one.tokens) for one in prompts])
    given: dict[str, Tensor | list[int]] = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask.to(device),
        "completion_ids": batch.token_BT,
        "completion_mask": batch.mask_BT.long(),
        "advantages": batch.advantage_B,
        "sampled": batch.sampled_logp_BT,
    }
    given["mm_token_type_ids"] = torch.cat([(prompt_ids == IMAGE).int(), torch.zeros_like(batch.token_BT).int()], 1)
    if prompts[0].pixels is not None:
        given["pixel_values"] = torch.cat([one.pixels for one in prompts]).to(device, replay.shape.dtype)
        given["image_grid_thw"] = torch.cat([one.grid for one in prompts]).to(device)
        given["num_images"] = [1] * len(prompts)
    return given
