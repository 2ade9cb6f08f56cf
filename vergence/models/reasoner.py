"""Text-only reasoners: two tiny ones in the package, of different strength, and any Hugging Face causal model.

Here is how the tiny ones are built (tokenizer, random weights) and how any is loaded; `train.reasoners` teaches them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from vergence.models.folder import bars, refuse_elsewhere, share
from vergence.models.seedling import build_reader
from vergence.types import UserError

EMBEDDED = {name: Path(__file__).parent / "reasoner_files" / name for name in ("weak", "strong")}
"""The reasoners that ship with the package."""


class Size(NamedTuple):
    """How large a tiny reasoner is."""

    layers: int
    width: int
    """Of the residual stream; heads are 32 wide, and two share their keys and values."""
    inner: int
    """Of the feed-forward layers."""


SIZES = {"weak": Size(layers=2, width=96, inner=192), "strong": Size(layers=2, width=128, inner=320)}


def build_tokenizer(corpus: Iterable[str]) -> Any:
    """A tokenizer of one token for a word or a digit, trained on `corpus`: the seedling's, on other text."""
    return build_reader(corpus).tokenizer


def build(tokenizer: Any, size: Size, *, seed: int) -> Any:
    """A `Qwen3ForCausalLM` of this size with random weights; the global generator is left alone."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 32,
        num_key_value_heads=size.width // 64,
        head_dim=32,
        max_position_embeddings=512,
        # a large base would barely turn a 32-wide head over a prompt of 40 tokens
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):  # Hugging Face draws initial weights from the global generator
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the Hugging Face layout, weights in the model's own type."""
    with bars(shown=False):
        model.save_pretrained(folder)
    share(folder)
    tokenizer.save_pretrained(folder)


def load(folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Any, Any]:
    """(model, tokenizer) of a folder in Hugging Face layout, the model ready to answer.

    Raises:
        UserError: there is no model, it is no causal language model, it has no chat template, or its files are damaged.
    """
    from huggingface_hub.errors import StrictDataclassError  # what a config.json that contradicts itself raises
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise UserError(f"no reasoner at {folder}: {folder / 'config.json'} is missing")
    refuse_elsewhere(folder, folder)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no device {device!r} here ({str(error).splitlines()[0]}); give --device cpu") from error
    try:
        with bars(shown=False):
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    except (OSError, RuntimeError, KeyError, ValueError, SafetensorError, StrictDataclassError) as error:
        raise UserError(
            f"cannot load a reasoner from {folder}: {str(error).splitlines()[0]} "
            "It takes a text-only causal language model in Hugging Face layout"
        ) from error
    if odd := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
        raise UserError(f"the weights at {folder} are not those of its config.json: {len(odd)} do not fit: {odd[0]}")
    if not tokenizer.chat_template:
        raise UserError(f"the tokenizer at {folder} has no chat template: take a model that was taught to answer")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device).eval(), tokenizer
