"""What the tower says: each distinct image once, and kept for as long as the tower cannot change."""

import gc

import pytest
import torch
from scoring.steps import counted, policy_of
from torch import Tensor

from vergence.models import images
from vergence.models.images import Features, Images
from vergence.models.policy import Policy
from vergence.types import Prompt


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_vl"])
def policy(request) -> Policy:
    return policy_of(request.param, torch.float32)


@pytest.fixture
def frozen(policy):
    policy.model.requires_grad_(False)
    yield policy
    policy.model.requires_grad_(True)


SMALL, WIDE, TALL = (1, 2, 4), (1, 4, 6), (1, 6, 4)


def prompt(*seeds_and_grids: tuple[int, tuple[int, int, int]]) -> Prompt:
    """One with these images: noise of a seed on a grid."""
    pixels = [
        torch.randn(grid[1] * grid[2], 3 * 2 * 8 * 8, generator=torch.Generator().manual_seed(seed))
        for seed, grid in seeds_and_grids
    ]
    return Prompt((1, 2), torch.cat(pixels), torch.tensor([grid for _, grid in seeds_and_grids]))


def by_the_model(policy: Policy, prompts: list[Prompt]) -> Features:
    """What the family's own code says of all images, one call for each prompt."""
    seen = [policy.model.model.get_image_features(one.pixels, one.grid, return_dict=True) for one in prompts]
    deep = [
        [torch.cat(list(x)) if not isinstance(x, Tensor) else x for x in s.get("deepstack_features") or ()]
        for s in seen
    ]
    return Features(
        torch.cat([image for one in seen for image in one.pooler_output]),
        tuple(torch.cat(layer) for layer in zip(*deep, strict=True)),
    )


MANY = [prompt((0, WIDE)), prompt((1, SMALL), (0, WIDE)), prompt((2, TALL)), prompt((1, SMALL))]


def test_features_are_the_models_own_in_the_order_of_the_prompts(policy):
    got, want = Images(policy.model.model).features(MANY), by_the_model(policy, MANY)
    torch.testing.assert_close(got.embedded, want.embedded, rtol=1e-4, atol=1e-5)
    assert len(got.deepstack) == len(want.deepstack) == (policy.model.config.model_type == "qwen3_vl")
    for layer, other in zip(got.deepstack, want.deepstack, strict=True):
        torch.testing.assert_close(layer, other, rtol=1e-4, atol=1e-5)


def test_so_are_gradients(policy):
    sums = []
    for features in (Images(policy.model.model).features(MANY), by_the_model(policy, MANY)):
        policy.model.zero_grad()
        sum(x.square().sum() for x in (features.embedded, *features.deepstack)).backward()
        sums.append(
            {name: weight.grad.clone() for name, weight in policy.model.named_parameters() if weight.grad is not None}
        )
    longest = max(float(grad.norm()) for grad in sums[1].values())
    assert sums[0].keys() == sums[1].keys() != set()
    for name, grad in sums[1].items():
        assert float((sums[0][name] - grad).norm()) <= 1e-5 * max(float(grad.norm()), 0.01 * longest), name


def test_the_same_image_in_several_prompts_is_looked_at_once_whoever_holds_it(policy):
    with counted(policy) as work:
        got = Images(policy.model.model).features([*MANY, prompt((0, WIDE))])
    assert work.looks == [24 + 8 + 24]
    assert len(got.embedded) == (24 + 8 + 24 + 24 + 8 + 24) // 4


def test_a_text_among_the_prompts_shows_nothing(policy):
    alone, among = (Images(policy.model.model).features(some) for some in ([MANY[0]], [Prompt((1,)), MANY[0]]))
    assert torch.equal(alone.embedded, among.embedded)


def same_pixels() -> tuple[Prompt, Prompt]:
    wide = prompt((0, WIDE))
    return wide, wide._replace(pixels=wide.pixels.clone(), grid=torch.tensor([TALL]))


def other_grids_are_other_images(policy: Policy) -> None:
    with counted(policy) as work:
        got = Images(policy.model.model).features(same_pixels()).embedded
    assert work.looks == [48]
    wide, tall = got.chunk(2)
    assert not torch.allclose(wide, tall)


def one_pixel_makes_another_image(policy: Policy) -> None:
    one = prompt((0, WIDE))
    changed = one._replace(pixels=one.pixels.clone())
    changed.pixels[-1, -1] += 1e-3
    with counted(policy) as work:
        Images(policy.model.model).features([one, changed])
    assert work.looks == [48]


@pytest.mark.parametrize("law", [other_grids_are_other_images, one_pixel_makes_another_image])
def test_what_differs_is_another_image(policy, law):
    law(policy)


def a_learning_tower_is_asked_again(policy: Policy) -> None:
    known = Images(policy.model.model)
    with counted(policy) as work:
        known.features(MANY)
        with torch.no_grad():
            known.features(MANY)
    assert work.looks == [56, 56]
    assert not known._kept


def test_a_learning_tower_is_asked_again(policy, monkeypatch):
    a_learning_tower_is_asked_again(policy)
    monkeypatch.setattr(Images, "frozen", True)
    with pytest.raises(AssertionError):
        a_learning_tower_is_asked_again(policy)


def test_a_frozen_tower_is_asked_once_for_ever(frozen):
    known = Images(frozen.model.model)
    with counted(frozen) as work:
        first = known.features(MANY)
        again = known.features([prompt((0, WIDE)), prompt((3, SMALL))])
    assert work.looks == [56, 8]
    assert torch.equal(first.embedded[:6], again.embedded[:6])
    assert not again.embedded.requires_grad


def test_a_tower_of_which_one_weight_learns_is_not_frozen(frozen):
    known = Images(frozen.model.model)
    assert known.frozen
    frozen.model.model.visual.blocks[0].norm1.weight.requires_grad_(True)
    assert not known.frozen


def size(features: Features) -> int:
    return sum(x.numel() * x.element_size() for x in (features.embedded, *features.deepstack))


def held_to_its_bytes(policy: Policy, monkeypatch) -> None:
    """No more than KEPT, but all of one call; the least recently asked for goes first."""
    of_eight = size(Images(policy.model.model).features([prompt((1, SMALL))]))
    monkeypatch.setattr(images, "KEPT", 2 * of_eight)
    known = Images(policy.model.model)
    with counted(policy) as work:
        for seed in (1, 2, 1, 3):  # 2 goes
            known.features([prompt((seed, SMALL))])
            assert sum(map(size, known._kept.values())) <= images.KEPT
        known.features([prompt((1, SMALL))])
        known.features([prompt((2, SMALL))])  # 3 goes
    assert work.looks == [8, 8, 8, 8]
    with counted(policy) as work:
        known.features([prompt((seed, SMALL)) for seed in (4, 5, 6)])
        assert len(known._kept) == 3  # what is in use is not forgotten
        known.features([prompt((seed, SMALL)) for seed in (4, 5, 6)])
        known.features([prompt((7, SMALL))])
        assert len(known._kept) == 2
    assert work.looks == [24, 8]


def test_what_is_kept_is_held_to_its_bytes(frozen, monkeypatch):
    held_to_its_bytes(frozen, monkeypatch)


def test_what_is_kept_of_one_image_does_not_hold_the_others(frozen, monkeypatch):
    """A view of a call's whole outcome would keep all of it, whatever is forgotten."""
    known = Images(frozen.model.model)
    known.features([prompt((seed, SMALL)) for seed in range(20)])
    for features in known._kept.values():
        for x in (features.embedded, *features.deepstack):
            assert x.untyped_storage().nbytes() <= 2 * x.numel() * x.element_size()


def test_pixels_are_let_go_with_their_prompt(policy):
    known, one = Images(policy.model.model), prompt((0, WIDE), (1, SMALL))
    known.features([one])
    assert len(known._digests) == 1
    del one
    gc.collect()
    assert len(known._digests) == 0


def test_what_was_kept_is_forgotten_when_the_tower_is_written_to_or_begins_to_learn(policy):
    tower = policy.model.model.visual.requires_grad_(False)
    known, shown = Images(policy.model.model), [prompt((0, WIDE))]
    first = known.features(shown).embedded
    with torch.no_grad():
        next(tower.parameters()).mul_(1.5)
    second = known.features(shown).embedded
    assert not torch.equal(first, second)
    tower.requires_grad_(True)
    assert known.features(shown).embedded.requires_grad


# ---------------------------------------------------------------------------------------------------- wrong variants


def deaf_to_the_grid(pixels: Tensor, grid: Tensor, digest=images._digest) -> bytes:
    return digest(pixels, torch.zeros_like(grid))


def deaf_to_the_end(pixels: Tensor, grid: Tensor, digest=images._digest) -> bytes:
    return digest(pixels[: len(pixels) // 2], grid)


@pytest.mark.parametrize(
    ("law", "wrong"),
    [(other_grids_are_other_images, deaf_to_the_grid), (one_pixel_makes_another_image, deaf_to_the_end)],
)
def test_a_digest_that_misses_something_is_caught(policy, law, wrong, monkeypatch):
    monkeypatch.setattr(images, "_digest", wrong)
    with pytest.raises(AssertionError):
        law(policy)


def test_a_memory_without_end_or_without_order_is_caught(frozen, monkeypatch):
    def keeps_all(self, known):
        self._kept.update(known)

    def forgets_all(self, known):
        self._kept.clear()

    for wrong in (keeps_all, forgets_all):
        monkeypatch.setattr(Images, "_keep", wrong)
        with pytest.raises(AssertionError):
            held_to_its_bytes(frozen, monkeypatch)
