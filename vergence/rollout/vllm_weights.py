"""A policy as an engine is given it: tensors, or a folder of them; adapters are merged."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from vergence.models.folder import save_processor_names
from vergence.models.lora import merged
from vergence.models.policy import Policy
from vergence.types import UserError

PREFIX = "vergence-vllm-"
"""Folders of a name that begins so are ours."""
SHARD = 2**31
"""Bytes of weights in one file: writing takes so much of the CPU's memory."""


@torch.no_grad()
def tensors(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """The policy's weights by Hugging Face's names, adapters merged; they are its own where nothing is merged.

    Raises:
        UserError: they are shared out among processes. One process alone could wait for the others without end.

    A weight with two names (the output layer's, where it is the embedding's) comes under both: where a name is missing,
    vLLM's `reload_weights` leaves what was there, though Hugging Face's files name such a weight once.
    """
    for name, tensor in merged(policy.model, device="cpu").state_dict().items():
        if isinstance(tensor, DTensor):
            raise UserError(f"{name} is shared out among processes; gather the policy's weights before `follow`")
        yield name, tensor


def write_model(policy: Policy, to: Path, *, shard: int = SHARD) -> None:
    """Write a model's folder with the weights that `tensors` says, in files of not much more than `shard` bytes."""
    config = copy.deepcopy(policy.model.config)
    config.architectures = [type(policy.model).__name__]
    if hasattr(config, "quantization_config"):  # what is written has all its bits
        del config.quantization_config
    config.save_pretrained(to)
    policy.reader.save(to)
    save_processor_names(to, policy.reader.image_processor, policy.model.config.model_type)
    held: dict[str, Tensor] = {}
    for number, (name, tensor) in enumerate(tensors(policy)):
        if held and sum(one.nbytes for one in held.values()) + tensor.nbytes > shard:
            save_file(held, to / f"weights-{number:06d}.safetensors")
            held = {}
        held[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # no two share memory
    save_file(held, to / "weights.safetensors")


def written_bytes(policy: Policy) -> int:
    """How much `write_model` writes, at most: weights that are quantized are written with all their bits."""
    narrow = 4 if hasattr(policy.model.config, "quantization_config") else 1
    return narrow * sum(weight.nbytes for weight in policy.model.state_dict().values())


def scratch(size: int) -> tempfile.TemporaryDirectory[str]:
    """A new folder for weights of so many bytes: in memory (/dev/shm) where there is room, else where TMPDIR says."""
    shared, told = Path("/dev/shm"), tempfile.gettempdir() != "/tmp"
    in_memory = not told and shared.is_dir() and shutil.disk_usage(shared).free > 3 * size
    return folder(str(shared) if in_memory else None)


def folder(where: str | None = None) -> tempfile.TemporaryDirectory[str]:
    """A new folder that only its user may read; it goes when the process ends, if not before."""
    return tempfile.TemporaryDirectory(prefix=PREFIX, dir=where, ignore_cleanup_errors=True)
