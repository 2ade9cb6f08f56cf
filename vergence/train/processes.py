"""Several processes that train together, as `torchrun` starts them: how they meet, talk and part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from vergence.models.policy import Policy
from vergence.train.config import Config
from vergence.types import Asked, Sampled, UserError

PATIENCE = timedelta(hours=2)
"""How long others are waited for: the first evaluates and saves alone meanwhile. One that dies is noticed at once."""


class PeerGone(RuntimeError):
    """Another process of the run has ended, or does not answer any more: nothing can be agreed upon."""


class Processes:
    """The processes of a run, of which this is one, with a device of its own.

    Args:
        device: this process's.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device
        self._talk = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._said = 0

    def exchange(self, own: Any) -> list[Any]:
        """What every process has given here, in their order; any object that can be pickled.

        Raises:
            PeerGone: another process has ended.
            RuntimeError: the processes are not at the same place of the run.
        """
        everyone: list[Any] = [None] * self.size
        self._said += 1
        with hearing():
            dist.all_gather_object(everyone, (self._said, own), group=self._talk)
        if len({number for number, _ in everyone}) > 1:
            raise RuntimeError(f"the processes are at exchanges {[number for number, _ in everyone]}, not at the same")
        return [said for _, said in everyone]


@contextmanager
def hearing() -> Iterator[None]:
    """Say of what fails between processes that one is gone; memory that runs out here is another thing.

    Raises:
        PeerGone: something failed.
        Unheard: memory has run out here.
    """
    from vergence.train.memory import Unheard, is_out_of_memory  # which plans by a run's parts, and these by processes

    try:
        yield
    except (MemoryError, RuntimeError) as error:  # of gloo and NCCL alike; nothing but communication is done in here
        if is_out_of_memory(error):
            raise Unheard(str(error)) from error
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PeerGone(
            f"another process of this run has ended or does not answer ({told}); what it said stands above. "
            "Go on from the last checkpoint with --resume"
        ) from error


def number_of_processes() -> int:
    """How many processes the run has, as `torchrun` says in the environment; 1 without it."""
    return max(1, _number("WORLD_SIZE", 1))


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return number_of_processes() == 1 or _number("RANK", 0) == 0


def joined(config: Config) -> Processes | None:
    """The processes of this run, when all of them have come; None if there is only this one.

    They meet as `torchrun` says in the environment, unless whoever started them has seen to that. On GPUs they talk
    through NCCL, on CPUs through gloo, and about anything small through gloo.

    Raises:
        UserError: the environment is incomplete, or there is no GPU for this process; or the config asks for what is
            for one process alone.
    """
    if (size := number_of_processes()) == 1:
        return None
    refuse_alone(config, size)
    device = own_device(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise UserError(
                f"WORLD_SIZE is {size}, but {missing[0]} is not set: start the processes with torchrun "
                f"(torchrun --nproc-per-node {size} -m vergence train ...), or unset WORLD_SIZE for one process"
            )
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    if (met := dist.get_world_size()) != size:
        raise UserError(f"WORLD_SIZE is {size}, but {met} processes have met: start them with torchrun")
    return Processes(device)


def refuse_alone(config: Config, size: int) -> None:
    """Raise if the config asks for what one process alone can do.

    Raises:
        UserError: it does.
    """
    if config.adapter == "qlora":
        raise UserError("--adapter qlora is for one process: take --adapter lora, whose weights may be bfloat16")
    if config.sampler == "vllm":
        raise UserError(
            "--sampler vllm is beside one process that trains; several take --sampler vllm-server, or one on GPUs of "
            "its own: start it with `vllm serve`, and give its address as --sampler"
        )
    if config.shards and size % config.shards:
        raise UserError(
            f"--shards {config.shards}: {size} processes cannot be divided into copies of {config.shards}; "
            f"give a divisor of {size}, or 0 for one copy shared by all"
        )


def own_device(name: str) -> torch.device:
    """This process's device of the kind that the config names: of GPUs, the one of its number on its machine.

    Raises:
        UserError: there is none, or all processes were given the same.

    >>> own_device("cpu")
    device(type='cpu')
    """
    if name == "cpu":
        return torch.device("cpu")
    local = _number("LOCAL_RANK", _number("RANK", 0))
    if name != "cuda":
        raise UserError(f"--device {name} is one device, and there are several processes: give --device cuda (or cpu)")
    if local >= torch.cuda.device_count():
        raise UserError(
            f"process {local} of this machine has no GPU: {torch.cuda.device_count()} are visible. "
            f"Give torchrun --nproc-per-node {torch.cuda.device_count() or 1}, or --device cpu"
        )
    return torch.device("cuda", local)


def here(config: Config, processes: Processes | None) -> Config:
    """The config as this process carries it out: on its own device."""
    return config if processes is None else replace(config, device=str(processes.device))


def leave() -> None:
    """Part from the others, in the end of a run that ended well."""
    if number_of_processes() > 1 and dist.is_initialized():
        dist.destroy_process_group()


class SampledElsewhere:
    """In the place of a sampler with weights of its own, where the first process has it, and asks for all of them."""

    def __call__(self, asked: Sequence[Asked], *, temperature: float, max_tokens: int) -> list[Sampled]:
        """It is never asked anything."""
        raise RuntimeError("the first process alone asks this run's sampler")

    def follow(self, policy: Policy) -> None:
        """The first process sees to it."""

    def rest(self) -> None:
        """The first process sees to it."""

    def close(self) -> None:
        """There is nothing to close."""


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    if value and not value.isdecimal():
        raise UserError(f"the environment variable {name} must be a number, got {value!r}")
    return int(value or otherwise)
