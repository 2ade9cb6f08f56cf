"""Tiny policies of every family, and whole optimizer steps with them: what tests of the scorers have in common."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vergence.models.policy import Policy, load
from vergence.models.prefix import Prefix
from vergence.objectives.objective import reads_of_method
from vergence.rollout.render import render
from vergence.scenes import embedded
from vergence.scoring.naive import Naive, Scorer
from vergence.scoring.shared import Shared
from vergence.train.backend import OneProcess
from vergence.train.step import accumulate, freeze, measure, reshaped
from vergence.types import Batch, Method, Prompt, Read, Scene, Stats, with_advantage

FAMILIES = ("qwen3_vl", "qwen2_5_vl", "qwen2_vl")
HUGE = 2**20


@cache
def seedling() -> Policy:
    """The policy in the package, loaded once; nobody changes it."""
    return load("seedling")


def build(family: str, *, vocab: int | None = None, wide: int = 64, layers: int = 3) -> Policy:
    """A tiny model of random weights that reads with the seedling's reader."""
    import transformers

    reader = seedling().reader
    ids = {"image_token_id": reader.image_id, "video_token_id": reader.banned[1]}
    tokens = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    ids |= {f"{name}_token_id": reader.tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}
    text = {"vocab_size": vocab or len(reader.tokenizer), "hidden_size": wide, "num_hidden_layers": layers}
    text |= {"intermediate_size": 96, "num_attention_heads": wide // 16, "num_key_value_heads": wide // 32 or 1}
    text |= {"max_position_embeddings": 512, "initializer_range": 0.1}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3]}}
    vision = {"depth": 2, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if family == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": wide, "mlp_ratio": 2}
        config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
        made = transformers.Qwen2VLForConditionalGeneration
    else:
        vision |= {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": wide, "window_size": 32}
        vision |= {"fullatt_block_indexes": [1]}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        made = transformers.Qwen2_5_VLForConditionalGeneration
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Policy(made(config).eval(), reader)


def policy_of(family: str, dtype: torch.dtype = torch.float64) -> Policy:
    """One that may be changed. The seedling is the one of Qwen3-VL."""
    made = seedling() if family == "qwen3_vl" else build(family)
    return Policy(copy.deepcopy(made.model).to(dtype), made.reader)


def moved(policy: Policy, by: float = 0.02) -> Policy:
    """A frozen one with other weights: the reference."""
    other, chance = copy.deepcopy(policy.model), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in other.parameters():
            weight += by * torch.randn(weight.shape, generator=chance, dtype=torch.float64).to(weight.dtype)
    return Policy(other.requires_grad_(False), policy.reader)


@contextmanager
def in_float64() -> Iterator[None]:
    """The family's own code goes through float32 in its norms and rotations; in here it does not."""
    narrow, convert = torch.float32, Tensor.float
    torch.float32, Tensor.float = torch.float64, Tensor.double
    try:
        yield
    finally:
        torch.float32, Tensor.float = narrow, convert


# ---------------------------------------------------------------------------------------------------- steps


def scenes(kinds: Sequence[str]) -> list[Scene]:
    """Scenes with one image, with several, or with none, and other questions; "again" has the first one's image."""
    drawn = embedded.draw_many(embedded.TRAINED, "tune", len(kinds))
    shown = {"text": 0, "image": 1, "two images": 2, "three images": 3}
    more = [scene.images[0] for scene in drawn]
    return [
        replace(one, images=drawn[0].images if kind == "again" else tuple((more[at:] + more)[: shown[kind]]))
        for at, (one, kind) in enumerate(zip(drawn, kinds, strict=True))
    ]


MIXED = ("image", "two images", "text", "again")


def prompts_of(policy: Policy, method: Method, shown: Sequence[Scene]) -> dict[str, list[Prompt]]:
    """Each view's prompts. Views that show the same have other objects of equal content, as in training."""
    views = {view for read in reads_of_method(method) for view in (read.view, read.against) if view}
    return {
        name: [render(policy.reader, scene, view.show, 7 * at) for at, scene in enumerate(shown)]
        for name, view in method.views.items()
        if name in views
    }


def batch_of(lengths: Sequence[Sequence[int]], dtype: torch.dtype = torch.float64, seed: int = 0) -> Batch:
    """Rollouts of these lengths, by scene; random tokens, advantages of either sign."""
    flat = [length for of_scene in lengths for length in of_scene]
    B, T, chance = len(flat), max(flat), torch.Generator().manual_seed(seed)
    zeros_BT = torch.zeros(B, T, dtype=dtype)
    batch = Batch(
        key_B=torch.arange(B),
        scene_B=torch.tensor([scene for scene, of_scene in enumerate(lengths) for _ in of_scene]),
        token_BT=torch.randint(20, 300, (B, T), generator=chance),
        mask_BT=torch.arange(T) < torch.tensor(flat)[:, None],
        sampled_logp_BT=zeros_BT,
        chance_BT=torch.rand(B, T, generator=chance).to(dtype),
        correct_B=torch.zeros(B, dtype=dtype),
        advantage_B=torch.zeros(B, dtype=dtype),
        advantage_BT=zeros_BT,
    )
    return with_advantage(batch, torch.randn(B, generator=chance, dtype=torch.float64).to(dtype))


def as_sampled(
    policy: Policy, batch: Batch, prompts: Mapping[str, Sequence[Prompt]], method: Method, *, away: float = 0.3
) -> Batch:
    """The batch as if a policy so near this one had sampled it: ratios near 1, on both sides of a clip."""
    here = measure(batch, naive({"now": policy}, method), prompts, [Read("image", "logp")], budget=HUGE)
    noise_BT = away * torch.randn(batch.mask_BT.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logp_BT = here.logp("image")
    return replace(batch, sampled_logp_BT=logp_BT + noise_BT.to(logp_BT.dtype).where(batch.mask_BT, 0.0))


def naive(policies: Mapping[str, Policy], method: Method, **options: Any) -> Naive:
    """The definition."""
    return Naive({name: policy.logits for name, policy in policies.items()}, method.views, **options)


def shared(policies: Mapping[str, Policy], method: Method, **options: Any) -> Shared:
    """What is tested."""
    return Shared({name: Prefix(policy) for name, policy in policies.items()}, method.views, **options)


class Outcome(NamedTuple):
    """Everything that one optimizer step comes to."""

    frozen: Stats
    told: dict[str, float]
    grads: dict[str, Tensor]


def take(
    policy: Policy, method: Method, batch: Batch, prompts: Mapping, scorer: Scorer, *, budget: int = HUGE
) -> Outcome:
    """Freeze, reshape, accumulate: an optimizer step as the loop takes it, but for the optimizer."""
    policy.model.zero_grad(set_to_none=True)
    frozen = freeze(method, batch, scorer, prompts, budget=budget)
    batch = reshaped(method, batch, frozen, OneProcess())
    told = accumulate(method, batch, frozen, scorer, prompts, backend=OneProcess(), budget=budget)
    learning = {name: weight for name, weight in policy.model.named_parameters() if weight.requires_grad}
    grads = {name: torch.zeros_like(w) if w.grad is None else w.grad.clone() for name, w in learning.items()}
    assert all(w.grad is None for name, w in policy.model.named_parameters() if name not in learning)
    return Outcome(frozen, told, grads)


FLOOR = 1e-3
"""A gradient shorter than this share of the longest one is compared relative to that share of the longest: what is left
of sums that cancel (the key biases of an attention, say) has no digits of its own."""


def assert_same(got: Outcome, want: Outcome, tolerance: float) -> None:
    """Loss, metrics, statistics and the gradient of every parameter are equal, relative to their size."""
    assert got.told.keys() == want.told.keys()
    for name, value in want.told.items():
        assert abs(got.told[name] - value) <= tolerance * max(1.0, abs(value)), name
    assert got.frozen.value.keys() == want.frozen.value.keys()
    for key, value_BT in want.frozen.value.items():
        torch.testing.assert_close(
            got.frozen.value[key], value_BT, rtol=tolerance, atol=tolerance, check_dtype=False, msg=str(key)
        )
    longest = max(float(grad.norm()) for grad in want.grads.values())
    assert got.grads.keys() == want.grads.keys()
    for name, grad in want.grads.items():
        away = float((got.grads[name] - grad).norm()) / max(float(grad.norm()), FLOOR * longest, 1e-12)
        assert away <= tolerance, f"{name} is {away:.1e} away"


# ---------------------------------------------------------------------------------------------------- counting


class Work(NamedTuple):
    """What a model was asked to do."""

    looks: list[int]
    """Patches, of each call of the tower."""
    tokens: list[tuple[int, int]]
    """(rows, tokens) of each call of the language model, padding included."""

    @property
    def patches(self) -> int:
        """All that the tower has seen."""
        return sum(self.looks)

    @property
    def read(self) -> int:
        """All tokens of the language model."""
        return sum(rows * length for rows, length in self.tokens)


@contextmanager
def counted(policy: Policy) -> Iterator[Work]:
    """The work of this policy's model in here."""
    work, model = Work([], []), policy.model
    core = (model.get_base_model() if hasattr(model, "get_base_model") else model).model

    def look(_: Any, args: tuple, kwargs: dict) -> None:
        work.looks.append(len(args[0] if args else kwargs["hidden_states"]))

    def read(_: Any, args: tuple, kwargs: dict) -> None:
        work.tokens.append(tuple(kwargs["inputs_embeds"].shape[:2]))

    hooks = [core.visual.register_forward_pre_hook(look, with_kwargs=True)]
    hooks += [core.language_model.register_forward_pre_hook(read, with_kwargs=True)]
    try:
        yield work
    finally:
        for hook in hooks:
            hook.remove()
