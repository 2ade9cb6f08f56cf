"""How large may images be: the most pixels with which the memory plan of a run still fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from vergence import objectives
from vergence.models.adapters import adapt
from vergence.models.folder import BROKEN, locate, why
from vergence.models.policy import Policy
from vergence.models.prefix import refusal
from vergence.models.reader import Reader
from vergence.models.sizes import Sizes, sizes
from vergence.train.config import Config
from vergence.train.hub import refuse_unreachable
from vergence.train.memory import Longest, Memory
from vergence.types import UserError

FEWEST, MOST = 4, 16384
"""Tokens of one image: the range of Qwen2-VL's own processor."""
FOUR_BITS = 0.516
"""Bytes to a number in 4 bits, with its share of the scales (arXiv:2305.14314, section 3: 4.127 bits)."""
UNITS = {"": 2**30, "GIB": 2**30, "GB": 10**9, "MIB": 2**20, "MB": 10**6, "TIB": 2**40}


class Room(NamedTuple):
    """What a run's prompts are made of, and what they may take."""

    memory: Memory
    """The plan; its `longest` is without images."""
    side: int
    """Of the square that an image token stands for, pixels."""
    merge: int
    """Patches to a side of that square."""
    images: int
    """To a prompt."""
    context: int
    """Tokens that the model can attend to, prompt and response."""

    def with_images(self, tokens: int) -> Memory:
        """The plan, of prompts whose images have so many tokens each."""
        text, every = self.memory.longest.tokens, tokens * self.images
        return replace(self.memory, longest=Longest(text + every, every * self.merge**2))

    def pixels(self, tokens: int) -> int:
        """Of an image of so many tokens."""
        return tokens * self.side**2

    def reach(self, tokens: int) -> int:
        """Of a prompt with so large images and a longest response, tokens."""
        return self.with_images(tokens).longest.tokens + self.memory.config.max_tokens

    def trouble(self, tokens: int, there: int) -> str:
        """What so large images do not fit into: the "context", or so many bytes of "memory"; "" if they fit."""
        if self.reach(tokens) > self.context:
            return "context"
        return "memory" if self.with_images(tokens).plan().total > there else ""

    def fits(self, tokens: int, there: int) -> bool:
        """Whether so large images fit into so many bytes, and into the context."""
        return not self.trouble(tokens, there)


def largest(room: Room, there: int) -> int:
    """The most tokens that an image may have, 0 if even the smallest does not fit.

    Every smaller image fits as well: a larger one may take less, as fewer of its prompts are open at once, but the run
    will meet smaller ones too.
    """
    for tokens in range(FEWEST, MOST + 1):
        if not room.fits(tokens, there):
            return tokens - 1 if tokens > FEWEST else 0
    return MOST


def table(room: Room, most: int) -> Iterator[tuple[int, Memory]]:
    """(tokens, plan) of some sizes up to twice the largest that fits, that one among them."""
    sizes_ = {FEWEST * 4**power for power in range(7)} | {most, 2 * most}
    for tokens in sorted(sizes_ & set(range(FEWEST, min(MOST, max(2 * most, 64)) + 1))):
        yield tokens, room.with_images(tokens)


def room_of(config: Config, *, text: int, images: int, found: Any = None) -> Room:
    """What a run under this config has to place, from the config of its model alone: no weights are read.

    Args:
        text: tokens of a prompt besides its images.
        images: to a prompt.
        found: the model's own config, where it is not to be read from where the model is.

    Raises:
        UserError: there is no such model or method, or the model is not of the Qwen-VL family.
    """
    if text < 1 or images < 1:
        raise UserError(f"a prompt has at least one token of text and one image here, got {text} and {images}")
    model = _on_meta(config, found or config_found(config))
    policy = adapt(
        Policy(model, Reader(None, None)),
        adapter="none" if config.adapter == "none" else "lora",
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        tower=config.tower,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    keep = config.scorer if config.scorer != "auto" else "naive" if refusal(policy.model) else "leaf"
    method, vision = objectives.method(config.method, **config.options), model.config.vision_config
    return Room(
        Memory(_kept(sizes(policy.model), config), config, method, Longest(text, 0), keep),
        vision.patch_size * vision.spatial_merge_size,
        vision.spatial_merge_size,
        images,
        model.config.get_text_config().max_position_embeddings,
    )


def _kept(size: Sizes, config: Config) -> Sizes:
    """The sizes with the language model's layers in 4 bits, where the config keeps them so."""
    if config.adapter != "qlora":
        return size
    D, A, K, F = size.width, size.heads * size.head, size.key_heads * size.head, size.inner
    numbers = size.layers * (2 * D * (A + K) + 3 * D * F)
    return size._replace(weights=int(size.weights - numbers * (size.number - FOUR_BITS)))


def config_found(config: Config) -> Any:
    """The Hugging Face config of the config's model.

    Raises:
        UserError: there is none, or it is not of the Qwen-VL family.
    """
    from transformers import AutoConfig

    name, _ = locate(config.model)
    refuse_unreachable(config.model)
    try:
        found = AutoConfig.from_pretrained(name)
    except BROKEN as error:
        raise UserError(
            f"no config of a model at {config.model}: {why(error, config.model)}; give a folder that holds its "
            f"config.json (the weights are not needed)"
        ) from error
    if not hasattr(getattr(found, "vision_config", None), "spatial_merge_size"):
        raise UserError(
            f"{config.model} is a {found.model_type!r} model; how its images become tokens is known of Qwen-VL alone"
        )
    return found


def _on_meta(config: Config, found: Any) -> Any:
    """The model of a Hugging Face config without its weights."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(
            found, dtype=getattr(torch, config.dtype), attn_implementation="sdpa"
        )


def bytes_of(text: str) -> int:
    """A size of memory in bytes; without a unit it is GiB.

    >>> bytes_of("24GiB") == bytes_of("24") == 24 * 2**30, bytes_of("24 GB"), bytes_of("0.5GiB")
    (True, 24000000000, 536870912)

    Raises:
        UserError: it is not a size.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text.strip())
    if found is None or found[2].upper() not in UNITS or not float(found[1]):
        raise UserError(f"a size of memory is a number with a unit, such as 24GiB or 24GB, got {text!r}")
    return int(float(found[1]) * UNITS[found[2].upper()])
