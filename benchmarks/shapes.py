"""Named shapes, and models of those dimensions with random weights: on the weights the cost does not depend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
)

from vergence.models.policy import Policy, Reader

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""The tokens that mean something, by id from 0 on. Every other id is a word."""
PAD, TURN, END, VISION_START, VISION_END, IMAGE, VIDEO = range(len(SPECIAL))
FIRST_WORD = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's dimensions, and those of what it is trained on."""

    name: str
    family: Literal["qwen3_vl", "qwen2_5_vl"]
    text: dict[str, Any]
    vision: dict[str, Any]
    patch: int
    """Side of a patch, pixels. Four patches are one image token."""
    image_tokens: int
    response: int
    """Mean length of a response."""
    siblings: int
    words: int = 62
    """Tokens of a prompt that are no image, but for the two around it."""
    groups: int = 5
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.text["vocab_size"]

    @property
    def grid(self) -> tuple[int, int, int]:
        """(frames, patch rows, patch columns) of an image of about so many tokens: whole windows, near to a square.

        >>> replace(SHAPES["cpu"], image_tokens=800).grid
        (1, 40, 80)
        """
        blocks = max(1, round(self.image_tokens / 16))
        high = next(side for side in range(isqrt(blocks), 0, -1) if blocks % side == 0)
        return 1, 8 * high, 8 * (blocks // high)

    @property
    def features(self) -> int:
        """Numbers in a patch: three colours, two frames."""
        return 3 * 2 * self.patch**2


# Weights three times as large as usual: at 0.02 the image moves entropies by no more than fp32 rounds them, and which
# tokens CPPO selects would depend on the order of sums.
_SMALL_TEXT = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "rope_scaling": {"rope_type": "default", "mrope_section": [4, 6, 6], "mrope_interleaved": True},
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "initializer_range": 0.06,
}
_SMALL_VISION = {
    "hidden_size": 128,
    "depth": 4,
    "intermediate_size": 256,
    "num_heads": 4,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 256,
    "num_position_embeddings": 1024,
    "deepstack_visual_indexes": [1],
    "initializer_range": 0.06,
}
_LARGE_TEXT = {
    "max_position_embeddings": 32768,
    "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
    "rope_theta": 1000000.0,
}
_LARGE_VISION = {
    "hidden_size": 1280,
    "depth": 32,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_3B = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}


def _large(name: str, text: dict[str, Any]) -> Shape:
    vision = {**_LARGE_VISION, "out_hidden_size": text["hidden_size"]}
    sizes = {"image_tokens": 800, "response": 512, "siblings": 8, "words": 198}
    return Shape(name, "qwen2_5_vl", {**_LARGE_TEXT, **text}, vision, 14, **sizes, device="cuda", dtype=torch.bfloat16)


_CPU = Shape("cpu", "qwen3_vl", _SMALL_TEXT, _SMALL_VISION, 16, image_tokens=256, response=96, siblings=8)
_GPU = (_large("3b", _3B), _large("7b", _7B))
SHAPES = {
    "cpu": _CPU,
    "vocabulary": replace(_CPU, name="vocabulary", text={**_SMALL_TEXT, "vocab_size": 151936}),
    **{shape.name: shape for shape in _GPU},
}
"""cpu: all parts of a Qwen3-VL at a size that takes seconds. vocabulary: the same with a real vocabulary, whose head is
most of it. 3b and 7b: Qwen2.5-VL."""


def build(shape: Shape, *, seed: int = 0) -> Policy:
    """The policy of that shape with random weights, the same at every call."""
    config = {"qwen3_vl": Qwen3VLConfig, "qwen2_5_vl": Qwen2_5_VLConfig}[shape.family](
        text_config={**shape.text, "pad_token_id": PAD},
        vision_config=shape.vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=shape.text["tie_word_embeddings"],
    )
    device = torch.device(shape.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=shape.dtype, attn_implementation="sdpa")
    return Policy(model.to(device).eval(), reader(shape))


def reader(shape: Shape) -> Reader:
    """A tokenizer that has the family's special tokens and calls every other id by its number."""
    words = {word: place for place, word in enumerate(SPECIAL)}
    words |= {f"w{place}": place for place in range(len(SPECIAL), shape.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[PAD]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"pad_token": SPECIAL[PAD], "unk_token": SPECIAL[PAD], "eos_token": SPECIAL[END]}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named, additional_special_tokens=list(SPECIAL))
    return Reader(wrapped, Qwen2VLImageProcessorPil(patch_size=shape.patch, merge_size=2, temporal_patch_size=2))
