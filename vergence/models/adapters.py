"""Which weights of a policy learn, and what is kept for that: the whole model, all but its tower, or adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vergence.models import lora
from vergence.models.policy import Policy
from vergence.models.recompute import recompute_layers
from vergence.types import UserError


def adapt(
    policy: Policy,
    *,
    adapter: Literal["none", "lora", "qlora"] = "none",
    rank: int = 16,
    alpha: int = 32,
    tower: Literal["trained", "frozen"] = "trained",
    gradient_checkpointing: bool = False,
    seed: int = 0,
) -> Policy:
    """The same policy, of whose weights the chosen ones learn. Its answers are what they were.

    Args:
        adapter: "lora": matrices of this rank beside the language model's linear layers learn, and nothing else.
            "qlora": the same beside weights that were loaded in 4 bits.
        tower: "frozen": what sees (the vision tower, its merger or projector) does not learn; with an adapter it never
            does.
        gradient_checkpointing: keep a layer's input alone, and compute it again in the backward pass.
        seed: of the adapters' first values.

    Raises:
        UserError: PEFT is not installed, or the model for "qlora" has all its bits.
    """
    model = policy.model
    if adapter == "qlora" and not getattr(model, "is_loaded_in_4bit", False):
        raise UserError("adapter qlora is beside weights of 4 bits: load the policy with quantize=True")
    if adapter != "none":
        lora.with_adapters(model, rank=rank, alpha=alpha, seed=seed)
    elif tower == "frozen":
        speaks = {id(weight) for weight in model.get_decoder().parameters()}
        speaks |= {id(weight) for weight in model.get_output_embeddings().parameters()}
        for weight in model.parameters():
            weight.requires_grad_(weight.requires_grad and id(weight) in speaks)
    if gradient_checkpointing:
        recompute_layers(model)
    return policy


def is_adapted(policy: Policy) -> bool:
    """Whether it has adapters.

    >>> from vergence.models.policy import load
    >>> is_adapted(load("seedling"))
    False
    """
    return bool(lora.adapters(policy.model))


def reference(policy: Policy) -> Policy:
    """What the policy was before its adapters learned, frozen. It shares all weights, so that it takes no memory.

    Raises:
        ValueError: it has none, and its own weights change.
    """
    if not is_adapted(policy):
        raise ValueError("a policy without adapters shares its weights with nobody: load it a second time")
    return replace(policy, model=lora.without(policy.model))


def merged(policy: Policy) -> Policy:
    """The policy with its adapters added into its weights; itself without any. See `lora.merged`."""
    return replace(policy, model=lora.merged(policy.model))


def save_adapter(policy: Policy, file: Path) -> None:
    """Write the adapters' matrices, as they are."""
    save_file({name: weight.detach().cpu().contiguous() for name, weight in lora.adapters(policy.model).items()}, file)


@torch.no_grad()
def load_adapter(policy: Policy, file: Path, put: Callable[[Tensor, Tensor], object] = Tensor.copy_) -> None:
    """Put the matrices of a file in the place of the adapters' own, bit for bit.

    Args:
        put: (matrix, that of the file) how, where the policy has only a share of its weights.

    Raises:
        UserError: the file is missing or damaged, or of other adapters.
    """
    try:
        kept = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the adapters in {file}: {str(error).splitlines()[0]}") from error
    own = lora.adapters(policy.model)
    forms = [{name: (tuple(x.shape), x.dtype) for name, x in tensors.items()} for tensors in (kept, own)]
    if forms[0] != forms[1]:
        odd = sorted(name for name in kept.keys() | own.keys() if forms[0].get(name) != forms[1].get(name))
        raise UserError(
            f"the adapters in {file} are not those of this policy: {len(odd)} differ, e.g. {odd[0]}; "
            "give the same model, --adapter and --lora-rank"
        )
    for name, weight in own.items():
        put(weight, kept[name])
