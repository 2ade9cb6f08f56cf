"""Which variables of the environment hold secrets, and how they are kept out of texts and of other processes."""

from __future__ import annotations

import os
from collections.abc import Mapping

KEYS = ("VERGENCE_API_KEY", "OPENAI_API_KEY")
"""Variables that may hold a chat server's key; the first that is set counts."""
SECRETS = (*KEYS, "VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
"""Variables whose values stand in no text of ours, and that processes that need none are not given."""
SHORTEST = 6
"""Characters: what is shorter is no secret, and taking it out would spoil texts."""


def without_key(text: str) -> str:
    """The text with [key] in the place of what the environment keeps secret."""
    for name in SECRETS:
        secret = os.environ.get(name, "").strip()
        if secret in text and (len(secret) >= SHORTEST or (secret and name in KEYS)):
            text = text.replace(secret, "[key]")
    return text


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that needs no secret.

    >>> without_secrets({"PATH": "/bin", "OPENAI_API_KEY": "sk-1", "HF_TOKEN": "hf_1"})
    {'PATH': '/bin'}
    """
    return {name: value for name, value in environment.items() if name not in SECRETS}
