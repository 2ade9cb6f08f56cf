"""What a record says of what was asked: the prompt, the pictures, and the weights that answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import Any, Literal

import torch

from vergence.models.policy import Policy, Reader
from vergence.types import Prompt, Scene

Level = Literal["low", "medium", "high"]
"""Vision dependency: the text carries the facts; some of them; hardly any (PAPO, arXiv:2507.06448, section 4.2)."""
LEVELS: tuple[Level, ...] = ("low", "medium", "high")
DECLARES = ("vd_level", "vision_dependency", "vision_dependence")
"""Columns in which a data set may say a question's level."""
VERSIONS: dict[str, Level] = {
    "text dominant": "low",
    "text lite": "medium",
    "vision intensive": "medium",
    "vision dominant": "high",
    "vision only": "high",
}
"""MathVerse's `problem_version` says which facts stand in the text. That these are PAPO's levels is our reading."""
MOST_VALUES = 256
"""Of each weight matrix, so many values are looked at."""


def prompt_text(reader: Reader, prompt: Prompt) -> str:
    """A prompt in words as the model gets it, special tokens included; the many places of an image are told as one.

    >>> from vergence.models.policy import load
    >>> reader = load("seedling").reader
    >>> "What is the red bar?" in prompt_text(reader, reader.prompt("What is the red bar?", []))
    True
    """
    told = reader.tokenizer.decode(list(prompt.tokens), skip_special_tokens=False)
    return re.sub(rf"(?:{re.escape(reader.image_token)}\s*)+(?={re.escape(reader.image_token)})", "", told)


def image_sha(scene: Scene) -> list[str]:
    """SHA-256 of the size and the RGB pixels of each of a scene's pictures, whatever file they came in.

    >>> from PIL import Image
    >>> from vergence.types import Gold
    >>> scene = Scene(key="a", world="w", images=(Image.new("RGB", (2, 1)),), question="?", gold=Gold("1", "integer"))
    >>> image_sha(scene) == [sha256(b"2x1\\n" + bytes(6)).hexdigest()]
    True
    """
    return [
        sha256(f"{image.width}x{image.height}\n".encode() + image.convert("RGB").tobytes()).hexdigest()
        for image in scene.images
    ]


def weights_of(policy: Policy) -> str:
    """A name for a policy's weights: 16 hexadecimal digits from up to `MOST_VALUES` values of every parameter.

    One step of training changes it, and so does another dtype. It tells checkpoints apart; it proves nothing.
    """
    values = [
        one.detach().flatten()[:: max(1, one.numel() // MOST_VALUES)][:MOST_VALUES].float()
        for one in policy.model.parameters()
    ]
    return blake2b(torch.cat(values).cpu().numpy().tobytes(), digest_size=8).hexdigest() if values else ""


def pixels_of(policy: Policy) -> list[int] | None:
    """The least and the most pixels to which a policy's images are brought; None where its processor does not say.

    >>> from vergence.models.policy import load
    >>> pixels_of(load("seedling", max_pixels=2304))
    [256, 2304]
    """
    size = getattr(policy.reader.image_processor, "size", None) or {}
    found = [size.get(name) if hasattr(size, "get") else None for name in ("shortest_edge", "longest_edge")]
    return [int(one) for one in found] if all(isinstance(one, int) for one in found) else None


def level_of(columns: Mapping[str, Any]) -> Level | None:
    """The vision dependency that a question's data declares; None where it says nothing of it.

    >>> level_of({"vd_level": "High"}), level_of({"problem_version": "Text Lite"}), level_of({"vd_level": 3})
    ('high', 'medium', None)
    """
    for name in DECLARES:
        said = str(columns.get(name, "")).strip().lower()
        if said in LEVELS:
            return said
    return VERSIONS.get(str(columns.get("problem_version", "")).strip().lower())


def about_asking(reader: Reader, scene: Scene, prompt: Prompt) -> dict[str, Any]:
    """What the records of all answers to one question share: the prompt, the pictures, the level."""
    return {
        "prompt": prompt_text(reader, prompt),
        "image_sha": image_sha(scene),
        "level": level_of(scene.columns),
    }
