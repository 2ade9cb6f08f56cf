"""Micro-batches: every row once, no more tokens than fit, groups whole where they can be, hardly any padding."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vergence.train.packing import micro_batches
from vergence.types import Batch, Prompt

PACKINGS = ("whole", "groups", "open", "responses")


def batch_of(lengths: list[list[int]]) -> Batch:
    flat = [length for of_scene in lengths for length in of_scene]
    B, T = len(flat), max(flat, default=0)
    return Batch(
        key_B=torch.arange(B),
        scene_B=torch.tensor([scene for scene, of_scene in enumerate(lengths) for _ in of_scene], dtype=torch.long),
        token_BT=torch.zeros(B, T, dtype=torch.long),
        mask_BT=torch.arange(T) < torch.tensor(flat)[:, None],
        sampled_logp_BT=torch.zeros(B, T),
        chance_BT=torch.zeros(B, T),
        correct_B=torch.zeros(B),
        advantage_B=torch.zeros(B),
        advantage_BT=torch.zeros(B, T),
    )


def prompts_of(lengths: list[list[int]]) -> dict[str, list[Prompt]]:
    """view -> prompts of these lengths, by scene."""
    return {f"view {k}": [Prompt((1,) * n) for n in of_view] for k, of_view in enumerate(lengths)}


@st.composite
def rounds(draw: Callable) -> tuple[Batch, dict, int]:
    """Ragged groups, two views of unlike prompts, and a budget that may be too small for anything."""
    lengths = draw(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=7))
    views = st.lists(st.integers(1, 40), min_size=len(lengths), max_size=len(lengths))
    return batch_of(lengths), prompts_of([draw(views), draw(views)]), draw(st.integers(1, 400))


def tokens(batch: Batch, prompts: dict, packing: str, rows: list[int]) -> int:
    """Of one view, in its largest: what the scorers compute for these rows at once, padding included."""
    response = len(rows) * max(int(batch.mask_BT[row].sum()) for row in rows)
    scenes = [int(batch.scene_B[row]) for row in rows]
    longest = max(len(of_view[scene].tokens) for of_view in prompts.values() for scene in scenes)
    return response + longest * {"whole": len(rows), "responses": 0}.get(packing, len(set(scenes)))


def every_row_once(pack: Callable, batch: Batch, prompts: dict, packing: str, budget: int) -> None:
    pieces = pack(batch, prompts, packing=packing, budget=budget)
    assert all(len(rows) for rows in pieces)
    assert torch.cat(pieces).sort().values.tolist() == list(range(len(batch.key_B)))


def what_fits_is_kept_to(pack: Callable, batch: Batch, prompts: dict, packing: str, budget: int) -> None:
    for rows in pack(batch, prompts, packing=packing, budget=budget):
        assert len(rows) == 1 or tokens(batch, prompts, packing, rows.tolist()) <= budget


def groups_stay_together(pack: Callable, batch: Batch, prompts: dict, packing: str, budget: int) -> None:
    pieces = pack(batch, prompts, packing="groups", budget=budget)
    for scene in batch.scene_B.unique().tolist():
        group = (batch.scene_B == scene).nonzero()[:, 0].tolist()
        if tokens(batch, prompts, "groups", group) <= budget:
            assert sum(bool(set(rows.tolist()) & set(group)) for rows in pieces) == 1


def the_longest_comes_first(pack: Callable, batch: Batch, prompts: dict, packing: str, budget: int) -> None:
    pieces = pack(batch, prompts, packing=packing, budget=budget)
    counted = "responses" if packing == "responses" else "whole"
    longest = [max(tokens(batch, prompts, counted, [row]) for row in rows.tolist()) for rows in pieces]
    # prompts that are open at the same time come one after the other, and their rows by length
    assert longest[:1] == [max(longest)] if packing == "open" else longest == sorted(longest, reverse=True)


def it_is_the_same_again(pack: Callable, batch: Batch, prompts: dict, packing: str, budget: int) -> None:
    first, again = (pack(batch, prompts, packing=packing, budget=budget) for _ in range(2))
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in again]


LAWS = (every_row_once, what_fits_is_kept_to, groups_stay_together, the_longest_comes_first, it_is_the_same_again)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(drawn=rounds(), packing=st.sampled_from(PACKINGS))
def test_every_law_of_packing(drawn, packing):
    batch, prompts, budget = drawn
    for law in LAWS:
        law(micro_batches, batch, prompts, packing, budget)


def test_no_row_is_no_piece():
    for packing in PACKINGS:
        none = batch_of([[3]]).rows(torch.tensor([], dtype=torch.long))
        assert micro_batches(none, prompts_of([[4]]), packing=packing, budget=10) == []


# ---------------------------------------------------------------------------------------------------- wrong variants


def without_the_last(batch, prompts, **told) -> list[Tensor]:
    return micro_batches(batch, prompts, **told)[:-1]


def all_at_once(batch, prompts, **told) -> list[Tensor]:
    return [torch.cat(micro_batches(batch, prompts, **told))]


def prompts_forgotten(batch, prompts, *, packing, budget) -> list[Tensor]:
    return micro_batches(batch, prompts_of([[0] * 3]), packing=packing, budget=budget)


def rows_alone(batch, prompts, **told) -> list[Tensor]:
    return [row for rows in micro_batches(batch, prompts, **told) for row in rows.split(1)]


def shortest_first(batch, prompts, **told) -> list[Tensor]:
    return micro_batches(batch, prompts, **told)[::-1]


CHANCE = torch.Generator().manual_seed(0)


def by_chance(batch, prompts, **told) -> list[Tensor]:
    return [rows[torch.randperm(len(rows), generator=CHANCE)] for rows in micro_batches(batch, prompts, **told)]


@pytest.mark.parametrize(
    ("law", "wrong"),
    [
        (every_row_once, without_the_last),
        (what_fits_is_kept_to, all_at_once),
        (what_fits_is_kept_to, prompts_forgotten),
        (groups_stay_together, rows_alone),
        (the_longest_comes_first, shortest_first),
        (it_is_the_same_again, by_chance),
    ],
)
def test_a_law_of_packing_catches(law, wrong):
    batch, prompts = batch_of([[3, 9, 4, 4], [2, 2, 8, 5], [1, 7, 6, 6]]), prompts_of([[5, 12, 7], [6, 6, 6]])
    packing = "whole" if wrong is prompts_forgotten else "groups"
    law(micro_batches, batch, prompts, packing, 50)
    with pytest.raises(AssertionError):
        law(wrong, batch, prompts, packing, 50)


# ---------------------------------------------------------------------------------------------------- padding


def padding(batch: Batch, pieces: list[Tensor]) -> float:
    """The share of all response tokens that are computed for nothing."""
    length_B = batch.mask_BT.sum(-1)
    return 1 - int(length_B.sum()) / sum(len(rows) * int(length_B[rows].max()) for rows in pieces)


@pytest.mark.parametrize(("packing", "most"), [("responses", 0.10), ("whole", 0.10), ("open", 0.15)])
def test_hardly_a_token_is_padding(packing, most):
    """Lengths of a lognormal distribution with a mean of about 500, as of real answers, and prompts of about 1000."""
    chance = torch.Generator().manual_seed(0)
    lengths = torch.empty(64, 8).log_normal_(6.05, 0.6, generator=chance).clamp(1, 2048).long().tolist()
    batch, prompts = batch_of(lengths), prompts_of([torch.randint(950, 1050, (64,), generator=chance).tolist()])
    pieces = micro_batches(batch, prompts, packing=packing, budget=2**14)
    in_order = list(torch.arange(512).split(16))
    assert padding(batch, in_order) > 0.5
    assert padding(batch, pieces) < most
