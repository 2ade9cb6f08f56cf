"""Grounded, or only sensitive? On a grid, black out one cell at a time: its own cell must move a word, others must not.

A statistic that is moved by masking at random cannot tell a word that reads its cell from one that any change upsets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from PIL import Image, ImageDraw

from vergence.evaluate.interval import Estimate, bootstrap
from vergence.evaluate.looking import AT_ONCE, scorer_of
from vergence.models.policy import Policy
from vergence.rewards.judge import by_verifier
from vergence.rollout.collate import collate
from vergence.rollout.decode import sampler_of
from vergence.rollout.render import Wording, render
from vergence.rollout.sampler import roll_out
from vergence.scenes.canvas import CELL
from vergence.scenes.speech import COLUMNS, ROWS, cell_name, read_facts, value_spans
from vergence.train.step import measure
from vergence.train.traces import pieces, touches
from vergence.types import ORIGINAL, Read, Scene, UserError

CELLS = tuple(cell_name(row, column) for row in range(3) for column in range(3))
"""Of a grid, row by row."""


def black(image: Image.Image, cell: str) -> Image.Image:
    """The picture of a grid with one cell black.

    >>> black(Image.new("L", (48, 48), 255), "middle right").getextrema(), black(
    ...     Image.new("L", (48, 48), 255), "middle right").getpixel((32, 16))
    ((0, 255), 0)
    """
    row, column = cell.split()
    left, top = COLUMNS.index(column) * CELL, ROWS.index(row) * CELL
    shown = image.copy()
    ImageDraw.Draw(shown).rectangle([left, top, left + CELL - 1, top + CELL - 1], fill=0)
    return shown


def cell_words(texts: Sequence[str]) -> dict[str, list[int]] | None:
    """Cell -> 1 for each token that states what it holds, else 0; None where words and facts do not match.

    >>> cell_words(["top right", ": ", "7", ". ", "center left", ": ", "3"])
    {'top right': [0, 0, 1, 0, 0, 0, 0]}
    """
    text = "".join(texts)
    spans = value_spans(text)
    stated = [(word, fact.about) for fact in read_facts(text) for word in re.findall(r"[a-z0-9]+", fact.value)]
    if [text[start:end] for start, end in spans] != [word for word, _ in stated]:
        return None
    found: dict[str, list[tuple[int, int]]] = {}
    for span, (_, about) in zip(spans, stated, strict=True):
        if about in CELLS:
            found.setdefault(about, []).append(span)
    return {cell: touches(texts, own) for cell, own in found.items()}


@torch.no_grad()
def grounded(
    policy: Policy,
    scenes: Sequence[Scene],
    *,
    samples: int = 1,
    seed: int = 0,
    temperature: float = 1.0,
    max_tokens: int = 64,
    wording: Wording = "short",
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Estimate]:
    """How far the words that state a cell are moved, means over the policy's own responses to grids; nats but `most`.

        own       KL(image || that cell black), the mean over its words
        others    the same for each of the other eight, their mean
        most      the share of stated cells whose own moves them most of all nine; by chance 1/9

    Responses of which it is not plain which word states which cell are left out.

    Raises:
        UserError: none of the scenes is a grid, or no response states a cell.
    """
    grids = [scene for scene in scenes if {fact.about for fact in scene.facts} == set(CELLS) and len(scene.images) == 1]
    if not grids:
        raise UserError("none of these questions is about a grid of cells; take --worlds digits shapes")
    scorer, sampler = scorer_of(policy, dict.fromkeys(CELLS, ORIGINAL)), sampler_of(policy)
    how = {"siblings": samples, "seed": (seed, "cells"), "temperature": temperature, "max_tokens": max_tokens}
    measured: dict[str, dict[str, list[float]]] = {"own": {}, "others": {}, "most": {}}
    for done, scene in enumerate(grids):
        watch(done, len(grids))
        shown = {cell: replace(scene, images=(black(scene.images[0], cell),)) for cell in CELLS}
        prompts = {
            name: [render(policy.reader, one, ORIGINAL, 0, wording=wording)]
            for name, one in {"image": scene, **shown}.items()
        }
        judge = by_verifier(wording=wording)
        rollouts = roll_out(sampler, policy.reader, [scene], prompts["image"], judge=judge, **how)
        batch = collate(rollouts, samples).to(policy.device)
        stats = measure(batch, scorer, prompts, [Read("image", "kl", cell) for cell in CELLS], budget=AT_ONCE)
        for row, rollout in enumerate(rollouts):
            texts = pieces(policy.reader, rollout.sampled.tokens)
            moved = {cell: stats.kl("image", cell)[row, : len(texts)].tolist() for cell in CELLS}
            for what, value in _of_response(cell_words(texts) or {}, moved).items():
                measured[what].setdefault(scene.key, []).append(value)
    watch(len(grids), len(grids))
    if not measured["own"]:
        raise UserError("no response states what a cell holds: there is nothing to ground")
    return {what: bootstrap({scene: fmean(own) for scene, own in values.items()}) for what, values in measured.items()}


def _of_response(words: dict[str, list[int]], moved: dict[str, list[float]]) -> dict[str, Any]:
    """The three means of one response; none where it states no cell."""
    of_cells = [
        {cell: fmean(x for x, inside in zip(moved[cell], mine, strict=True) if inside) for cell in CELLS} | {"": own}
        for own, mine in words.items()
        if any(mine)
    ]
    if not of_cells:
        return {}
    return {
        "own": fmean(by[by[""]] for by in of_cells),
        "others": fmean(by[cell] for by in of_cells for cell in CELLS if cell != by[""]),
        "most": fmean(max(CELLS, key=by.__getitem__) == by[""] for by in of_cells),
    }
