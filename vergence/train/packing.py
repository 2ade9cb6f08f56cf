"""Micro-batches by their tokens: rows of like length together, and no more tokens at once than fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vergence.scoring.naive import Packing, Prompts
from vergence.types import Batch

ENOUGH = 2048
"""Tokens that keep a machine busy: a micro-batch with so many takes no row that is much shorter than its longest."""
ALIKE = 0.75
"""How short that is, as a share of the longest."""
OPEN = 4
"""One part in so many of the budget is for prompts that stay open: an image keeps more than words of as many tokens."""


def micro_batches(batch: Batch, prompts: Prompts, *, packing: Packing, budget: int) -> list[Tensor]:
    """Rows of the batch, each once, in pieces that are scored one after the other: the longest first.

    So a batch that does not fit fails at once, and little is padding. What is computed does not depend on it.

    Args:
        prompts: of the views that are read; a scene counts the longest of its prompts.
        packing: what is read with a row, and what can be cut; the scorer knows.
        budget: the most tokens of one view in a piece, padding included. A single row may be above it, and so may a
            prompt with a single row.
    """
    length_B, scene_B = batch.mask_BT.sum(-1).tolist(), batch.scene_B.tolist()
    longest_S = [max(len(prompt.tokens) for prompt in of_scene) for of_scene in zip(*prompts.values(), strict=True)]
    prompt_B = [longest_S[scene] if prompts else 0 for scene in scene_B]
    if packing == "groups":
        pieces = _whole_groups(length_B, scene_B, prompt_B, budget)
    elif packing == "open":
        groups = _groups(length_B, scene_B, prompt_B)
        pieces = (
            rows
            for bundle, held in _bundles(groups, prompt_B, budget // OPEN)
            for rows in _alike(bundle, length_B, [0] * len(length_B), budget - held)
        )
    else:
        pieces = _alike(range(len(length_B)), length_B, prompt_B if packing == "whole" else [0] * len(prompt_B), budget)
    return [torch.tensor(rows) for rows in pieces]


def _groups(length_B: Sequence[int], scene_B: Sequence[int], prompt_B: Sequence[int]) -> list[list[int]]:
    """The rows of each scene, the longest first; first the scene with the longest of all."""
    of_scene: dict[int, list[int]] = {}
    for row in sorted(range(len(length_B)), key=lambda row: -(length_B[row] + prompt_B[row])):
        of_scene.setdefault(scene_B[row], []).append(row)
    return list(of_scene.values())


def _bundles(groups: Sequence[list[int]], prompt_B: Sequence[int], most: int) -> Iterator[tuple[list[int], int]]:
    """Groups whose prompts are open at the same time: (their rows, the tokens of their prompts)."""
    bundle: list[list[int]] = []
    for group in groups:
        if bundle and (len(bundle) + 1) * max(prompt_B[rows[0]] for rows in (*bundle, group)) > most:
            yield [row for rows in bundle for row in rows], len(bundle) * max(prompt_B[rows[0]] for rows in bundle)
            bundle = []
        bundle.append(group)
    if bundle:
        yield [row for rows in bundle for row in rows], len(bundle) * max(prompt_B[rows[0]] for rows in bundle)


def _alike(rows: Sequence[int], length_B: Sequence[int], prompt_B: Sequence[int], room: int) -> Iterator[list[int]]:
    """Rows that fit and are of like length."""
    held: list[int] = []
    longest = prompt = 0
    for row in sorted(rows, key=lambda row: -(length_B[row] + prompt_B[row])):
        full = (len(held) + 1) * (max(longest, length_B[row]) + max(prompt, prompt_B[row])) > room
        busy = len(held) * (longest + prompt) >= ENOUGH
        if held and (full or (busy and length_B[row] + prompt_B[row] < ALIKE * (longest + prompt))):
            yield held
            held, longest, prompt = [], 0, 0
        held, longest, prompt = [*held, row], max(longest, length_B[row]), max(prompt, prompt_B[row])
    if held:
        yield held


def _whole_groups(
    length_B: Sequence[int], scene_B: Sequence[int], prompt_B: Sequence[int], budget: int
) -> Iterator[list[int]]:
    """Groups put together while they fit; in parts those that are above the budget by themselves."""
    parts: list[list[int]] = []
    for group in _groups(length_B, scene_B, prompt_B):
        left, longest = budget - prompt_B[group[0]], length_B[group[0]]
        fit = len(group) if len(group) * longest <= left else max(1, left // max(1, longest))
        parts += [group[start : start + fit] for start in range(0, len(group), fit)]
    held: list[list[int]] = []
    for part in sorted(parts, key=lambda part: -(length_B[part[0]] + prompt_B[part[0]])):
        rows = [row for one in (*held, part) for row in one]
        tokens = len(rows) * max(length_B[row] for row in rows) + (len(held) + 1) * max(prompt_B[row] for row in rows)
        if held and tokens > budget:
            yield [row for one in held for row in one]
            held = []
        held.append(part)
    if held:
        yield [row for one in held for row in one]
