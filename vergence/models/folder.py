"""What lies in a model's folder: what is checked before anything of it is loaded, and what is written for engines."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from vergence.types import UserError

MOST_PARTS = 20_000
"""Layers of a model, or experts in one of them."""
PARTS = re.compile(
    r"(?:\w+_)?(?:n|num)_(?:\w+_)?(?:layers?|experts?|blocks?)|\w*hidden_layers|layer_count|depth|(?:(?:en|de)coder_)?layers"
)
"""The fields of a config that count them; others with such words are sizes (`shared_expert_intermediate_size`)."""
BROKEN = (
    *(OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, ImportError),
    *(SafetensorError, StrictDataclassError),
)
"""What Hugging Face raises over files that are missing, damaged or not what they should be."""
SEEDLING = Path(__file__).parent / "seedling_files"
"""The policy that ships with the package."""

PROCESSORS = {
    "qwen2_vl": ("Qwen2VLVideoProcessor", "Qwen2VLProcessor"),
    "qwen2_5_vl": ("Qwen2VLVideoProcessor", "Qwen2_5_VLProcessor"),
    "qwen3_vl": ("Qwen3VLVideoProcessor", "Qwen3VLProcessor"),
    "qwen3_vl_moe": ("Qwen3VLVideoProcessor", "Qwen3VLProcessor"),
    "qwen3_5": ("Qwen3VLVideoProcessor", "Qwen3VLProcessor"),
    "qwen3_5_moe": ("Qwen3VLVideoProcessor", "Qwen3VLProcessor"),
}
"""The model types of the Qwen-VL family, with the classes of their video processor and processor."""


def locate(path: str | Path) -> tuple[str, bool]:
    """What to call a model, and whether it lies in a folder here: "seedling", a folder, or a name on the Hub.

    Raises:
        UserError: there is no model, or its weights are pickled.

    >>> locate("Qwen/Qwen2.5-VL-3B-Instruct")
    ('Qwen/Qwen2.5-VL-3B-Instruct', False)
    """
    where = SEEDLING if str(path) == "seedling" else Path(path)
    is_here = where.exists() or str(path).startswith((".", "/", "~")) or str(path).count("/") != 1
    if not is_here:
        return str(path), False
    if not (where / "config.json").exists():
        raise UserError(
            f"no model at {path}: {where / 'config.json'} is missing; "
            "give a folder in Hugging Face layout, or 'seedling'"
        )
    refuse_elsewhere(where, path)
    refuse_endless(where, path)
    if not any(where.glob("*.safetensors")) and (pickled := sorted(where.glob("*.bin"))):
        raise UserError(
            f"the weights at {path} are pickled ({pickled[0].name}), and opening a pickle runs what is in it; Vergence "
            "reads safetensors alone. Take a copy of the model that has model.safetensors, or convert one you trust"
        )
    return str(where), True


def refuse_elsewhere(where: Path, path: str | Path) -> None:
    """Raise if a model's folder names another model, which would be fetched and loaded in its place.

    Raises:
        UserError: it holds an adapter's config.
    """
    if (where / "adapter_config.json").exists():
        raise UserError(
            f"{path} holds an adapter (adapter_config.json), which names a model that would be fetched in its place; "
            "add it into the weights (PEFT: merge_and_unload), save those, and give that folder"
        )


def refuse_endless(where: Path, path: str | Path) -> None:
    """Raise if a model's config asks for more layers or experts than any model has: all are made before a weight is
    looked at.

    Raises:
        UserError: it does.
    """
    try:
        waiting = [json.loads((where / "config.json").read_bytes())] if (where / "config.json").is_file() else []
    except (OSError, ValueError, RecursionError):
        return  # said when it is loaded
    while waiting:
        part = waiting.pop()
        for name, value in part.items() if isinstance(part, dict) else ():
            if isinstance(value, dict):
                waiting.append(value)
            elif isinstance(value, int) and value > MOST_PARTS and PARTS.fullmatch(name):
                raise UserError(
                    f"{path} has {name[:40]} {str(value)[:20]} in its config.json, and no model has that many; mend it"
                )


def refuse_kernels(config: Any, path: str | Path) -> None:
    """Raise if a model's config asks for attention by code of the Hub, a "kernel": names with a slash are such.

    Raises:
        UserError: it does.
    """
    parts = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", ()))]
    for part in filter(None, parts):
        for name in ("_attn_implementation", "_experts_implementation"):
            if "/" in (asked := str(getattr(part, name, None) or "")):
                raise UserError(
                    f"{path} computes with code of {asked[:80]!r} on the Hub, which is not run unasked. Take that "
                    "out of its config.json, or give --trust-remote-code if you trust it"
                )


def why(error: Exception, path: str | Path) -> str:
    """The first line of what Hugging Face says, and what to do about it where that is known.

    >>> why(OSError("a is missing\\nYou can ..."), "m")
    'a is missing'
    """
    told = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "trust_remote_code" in str(error):
        return (
            f"{path} comes with Python code of its own, which is not run unasked. Read it, and give "
            "--trust-remote-code if you trust it; or take a model whose classes transformers has"
        )
    if "safetensors" in str(error) and "does not appear to have" in str(error):
        return f"{told} Vergence reads safetensors alone: opening a pickle runs what is in it"
    if "requires torchvision" in told.lower() or "Torchvision" in str(error) or "VIDEO_PROCESSOR_MAPPING" in told:
        return f"its processor needs torchvision, of the same build as torch ({told})"
    return told


@contextmanager
def bars(*, shown: bool) -> Iterator[None]:
    """Leave Hugging Face's progress bars to downloads: a folder is read and written in no time."""
    from transformers.utils import logging

    were_shown = logging.is_progress_bar_enabled()
    if not shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()


def share(folder: Path) -> None:
    """Let whoever may read a model's config.json read its weights: safetensors writes them for their owner alone."""
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", weights)


def save_processor_names(folder: Path, image_processor: Any, kind: str) -> None:
    """Write video_preprocessor_config.json and processor_config.json, which engines ask for even for images alone.

    Written by hand because the family's video processor and processor classes need torchvision to be built.
    """
    video_class, processor_class = PROCESSORS[kind]
    size = {
        "shortest_edge": image_processor.size["shortest_edge"],
        "longest_edge": image_processor.size["longest_edge"],
    }
    video = {
        "video_processor_type": video_class,
        "patch_size": image_processor.patch_size,
        "merge_size": image_processor.merge_size,
        "temporal_patch_size": image_processor.temporal_patch_size,
        "image_mean": list(image_processor.image_mean),
        "image_std": list(image_processor.image_std),
        "size": size,
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n")
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": processor_class}, indent=2) + "\n")
