"""What an optimizer knows of each weight, as tensors by name: the same for one process and for several.

`3.exp_avg` is the first moment of the fourth weight that learns; `3.master` that weight in float32, where the model
computes with it in a narrower type. Of several processes each has shares of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vergence.train.backend import Group
from vergence.train.masters import masters_of

MASTER = "master"


def optimizer_tensors(optimizer: torch.optim.Optimizer, backend: Group) -> dict[str, Tensor]:
    """The whole of it, by name. Of several processes, which all call this, the first has it, on the CPU; the others
    nothing."""
    told: dict[str, Tensor] = {}
    for index, entry in optimizer.state_dict()["state"].items():
        _tell(told, index, entry, backend)
    for index, weight in enumerate(_weights(optimizer)):
        if backend.is_master(weight):
            _tell(told, index, {MASTER: weight}, backend)
    return told


def _tell(told: dict[str, Tensor], index: int, entry: Mapping[str, Tensor], backend: Group) -> None:
    for name, value in entry.items():
        whole = backend.whole(value)
        if backend.rank == 0:
            told[f"{index}.{name}"] = whole.contiguous() if backend.size == 1 else whole.cpu().contiguous()


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], backend: Group) -> None:
    """Put back what `optimizer_tensors` gave, of one process or of any number."""
    weights, state = _weights(optimizer), dict[int, dict[str, Tensor]]()
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        weight = weights[int(index)]
        if name == MASTER and backend.is_master(weight):
            backend.put(weight, value)
        else:
            state.setdefault(int(index), {})[name] = backend.share_of(value, weight)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def optimizer_bytes(optimizer: torch.optim.Optimizer, backend: Group) -> int:
    """How many bytes that comes to, before the first step too: two moments of each weight, and float32 copies of narrow
    ones.

    >>> from vergence.train.backend import ONE
    >>> from vergence.train.masters import Masters
    >>> weight = torch.zeros(10, dtype=torch.bfloat16)
    >>> optimizer_bytes(torch.optim.AdamW([weight.float()]), ONE), optimizer_bytes(Masters([weight]), ONE)
    (80, 120)
    """
    weights = _weights(optimizer)
    copied = [one for one in weights if backend.is_master(one)] or masters_of(optimizer)
    return sum(2 * one.nbytes for one in weights) + sum(one.nbytes for one in copied)


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def pieces(tensors: Mapping[str, Tensor], most: int) -> Iterator[dict[str, Tensor]]:
    """The tensors in order, in parts of at most so many bytes, each of at least one.

    >>> [list(part) for part in pieces({"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(9)}, 16)]
    [['a', 'b'], ['c']]
    """
    part, held = {}, 0
    for name, tensor in tensors.items():
        if part and held + tensor.nbytes > most:
            yield part
            part, held = {}, 0
        part, held = {**part, name: tensor}, held + tensor.nbytes
    yield part
