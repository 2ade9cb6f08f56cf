"""The sizes of published models: so that a run can be planned before a weight is downloaded.

From each model's `config.json` on the Hugging Face Hub (`Qwen/...-Instruct`). Built from it without weights, a model
has as many numbers as its checkpoint is said to hold; a test builds them all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vergence.types import UserError


class Published(NamedTuple):
    """What of a config.json decides how large a model is, and how much it costs."""

    family: str
    """Of Hugging Face's models: "qwen2_5_vl" or "qwen3_vl"."""
    width: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    words: int
    tied: bool
    """Whether the output layer is the embedding."""
    tower_layers: int
    tower_width: int
    tower_inner: int
    looks: tuple[int, ...]
    """Qwen2.5-VL: layers of the tower that attend to the whole image; Qwen3-VL: those whose outcome goes on besides."""
    numbers: int
    """Of the checkpoint."""


FULL, EARLY, LATE = (7, 15, 23, 31), (5, 11, 17), (8, 16, 24)
PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": Published(
        "qwen2_5_vl", 2048, 36, 16, 2, 11008, 151936, True, 32, 1280, 3420, FULL, 3_754_622_976
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Published(
        "qwen2_5_vl", 3584, 28, 28, 4, 18944, 152064, False, 32, 1280, 3420, FULL, 8_292_166_656
    ),
    "Qwen/Qwen2.5-VL-32B-Instruct": Published(
        "qwen2_5_vl", 5120, 64, 40, 8, 27648, 152064, False, 32, 1280, 3456, FULL, 33_452_718_336
    ),
    "Qwen/Qwen2.5-VL-72B-Instruct": Published(
        "qwen2_5_vl", 8192, 80, 64, 8, 29568, 152064, False, 32, 1280, 3456, FULL, 73_410_777_344
    ),
    "Qwen/Qwen3-VL-2B-Instruct": Published(
        "qwen3_vl", 2048, 28, 16, 8, 6144, 151936, True, 24, 1024, 4096, EARLY, 2_127_532_032
    ),
    "Qwen/Qwen3-VL-4B-Instruct": Published(
        "qwen3_vl", 2560, 36, 32, 8, 9728, 151936, True, 24, 1024, 4096, EARLY, 4_437_815_808
    ),
    "Qwen/Qwen3-VL-8B-Instruct": Published(
        "qwen3_vl", 4096, 36, 32, 8, 12288, 151936, False, 27, 1152, 4304, LATE, 8_767_123_696
    ),
    "Qwen/Qwen3-VL-32B-Instruct": Published(
        "qwen3_vl", 5120, 64, 64, 8, 25600, 151936, False, 27, 1152, 4304, LATE, 33_357_390_064
    ),
}
"""By their names on the Hub. The number of 72B is that of its config alone; it is known to be 73.4e9."""
SHORT = {name.removeprefix("Qwen/").removesuffix("-Instruct").lower(): name for name in PUBLISHED}
SHORT |= {name.removeprefix("qwen2.5-vl-"): full for name, full in SHORT.items() if name.startswith("qwen2.5-vl-")}
"""As they may be called for short."""


def published(name: str) -> str:
    """The full name of a published model.

    >>> published("7b"), published("qwen3-vl-8b"), published("Qwen/Qwen2.5-VL-3B-Instruct")[-11:]
    ('Qwen/Qwen2.5-VL-7B-Instruct', 'Qwen/Qwen3-VL-8B-Instruct', '3B-Instruct')

    Raises:
        UserError: its sizes are not known here.
    """
    found = name if name in PUBLISHED else SHORT.get(name.lower(), "")
    if not found:
        raise UserError(
            f"the sizes of {name!r} are not known here; give a folder with its config.json, or one of: "
            f"{', '.join(SHORT)}"
        )
    return found


def config_of(name: str) -> Any:
    """The Hugging Face config of a published model, by its full name, as far as sizes and cost go."""
    from transformers import Qwen2_5_VLConfig, Qwen3VLConfig

    size = PUBLISHED[name]
    new = size.family == "qwen3_vl"
    rope = {
        "rope_type": "default",
        "rope_theta": 5e6 if new else 1e6,
        "mrope_section": [24, 20, 20] if new else [16, 24, 24],
    }
    text = {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_heads,
        "intermediate_size": size.inner,
        "vocab_size": size.words,
        "max_position_embeddings": 262144 if new else 128000,
        "rope_parameters": rope,
        "tie_word_embeddings": size.tied,
    } | ({"head_dim": 128} if new else {})
    vision = {
        "depth": size.tower_layers,
        "hidden_size": size.tower_width,
        "intermediate_size": size.tower_inner,
        "num_heads": 16,
        "out_hidden_size": size.width,
        "patch_size": 16 if new else 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    vision |= (
        {"deepstack_visual_indexes": list(size.looks), "num_position_embeddings": 2304}
        if new
        else {"fullatt_block_indexes": list(size.looks), "window_size": 112}
    )
    return (Qwen3VLConfig if new else Qwen2_5_VLConfig)(
        text_config=text, vision_config=vision, tie_word_embeddings=size.tied
    )
