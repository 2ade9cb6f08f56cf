"""Weights, gradients and the optimizer's state in shares, by PyTorch's own FSDP2 (`fully_shard`, arXiv 2304.11277).

Of W processes, k share one copy of the weights that learn (`config.shards`): each holds 1/k of every weight, in
float32, with 1/k of its gradient and of the optimizer's state, and W/k of them hold the same. What does not learn is
whole everywhere. An optimizer step is

    gather      each unit's weights are put together once, in the type in which the model computes
    (sampling, scoring, micro-batches: the model is as in one process, and processes need not do the same in number)
    reduce      each unit's gradients are added over all processes once, and each keeps its share; weights are let go
    clip, AdamW on shares

A unit is a layer of the language model or of the tower; the rest is one. No forward of the model goes through FSDP: a
unit is a module beside the model that has the layer's weights, and whose own forward is never called. So the model's
classes, caches and hooks are what they are without, and nothing waits for others inside of a forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from vergence.models.lora import adapters
from vergence.train.masters import is_narrow
from vergence.train.processes import Processes, hearing
from vergence.types import B, UserError


class Sharded:
    """The processes of a run, a model's learning weights shared among them: a `train.backend.Group`.

    The model's weights are shares from now on, but between `gather_weights` and `reduce_gradient`. Every method but
    `gather`, `put` and `keep_gradient` is called by all processes, in the same order.

    Args:
        processes: who takes part.
        model: its learning weights become float32, and it computes with them in the type that they had.
        shards: how many processes share one copy; 0 is all.
        offload: whether shares, and the optimizer's state with them, stay in the CPU's memory.

    Raises:
        UserError: weights of a unit that learn are of different types.
    """

    def __init__(self, processes: Processes, model: nn.Module, *, shards: int = 0, offload: bool = False) -> None:
        self.rank, self.size, self.device = processes.rank, processes.size, processes.device
        self.exchange, self.model = processes.exchange, model
        self.mesh = _mesh(processes, shards or processes.size)
        _tell_whole(model)
        narrow = [name for name, weight in _learning(model).items() if is_narrow(weight)]
        with hearing():
            self._root = _sharded(model, self.mesh, offload=offload and processes.device.type != "cpu")
        self._units = [part for part in self._root.modules() if isinstance(part, FSDPModule)]
        learning = _learning(model)
        self._masters = {learning[name] for name in narrow}
        self._moved = set[str]()

    def gather(self, value_B: B) -> B:
        """The numbers themselves: every process has those of the whole round."""
        return value_B

    def gather_weights(self) -> None:
        """See `Group`. One all-gather for each unit that is not whole."""
        with hearing():
            for unit in self._units:
                unit.unshard()

    def let_go(self) -> None:
        """Go back to shares of the weights; there must be no gradient."""
        for unit in self._units:
            unit.reshard()

    def keep_gradient(self) -> None:
        """See `Group`. Weights of float32 have their gradients beside them."""
        if self._masters:
            self._moved |= self._with_gradient()
            self._backward(reduce=False)

    def reduce_gradient(self) -> None:
        """See `Group`. One reduce-scatter for each unit, and one all-reduce where there are several copies.

        A weight that has a gradient in some processes has one of zero in the others; that has none anywhere, has none.
        """
        self.gather_weights()
        own = self._moved | self._with_gradient()
        anywhere = set().union(*self.exchange(own))
        with hearing():
            for name, weight in _learning(self.model).items():
                if name in anywhere and name not in own:
                    weight.grad = torch.zeros_like(weight)
            self.keep_gradient()  # so that those of a unit are of one type
            self._backward(reduce=True)
        self._moved = set()

    def clip(self, weights: Iterable[Tensor], norm: float) -> float:
        """See `Group`."""
        with hearing():
            length = torch.nn.utils.clip_grad_norm_(weights, norm)
            return float(length.full_tensor() if isinstance(length, DTensor) else length)

    def whole(self, share: Tensor) -> Tensor:
        """See `Group`. What is no share is given as it is."""
        with hearing():
            return share.detach().full_tensor() if isinstance(share, DTensor) else share.detach()

    def share_of(self, whole: Tensor, weight: Tensor) -> Tensor:
        """See `Group`. Nothing is sent."""
        if not isinstance(weight, DTensor) or whole.shape != weight.shape:
            return whole
        there = whole.to(weight.to_local().device, weight.dtype)
        shared = distribute_tensor(there, weight.device_mesh, weight.placements, src_data_rank=None)
        return shared.to(weight.device)  # the mesh is of GPUs, the share perhaps in the CPU's memory

    @torch.no_grad()
    def put(self, weight: Tensor, whole: Tensor) -> None:
        """See `Group`. Whole weights that are here are let go: they are of before."""
        self.let_go()
        weight.copy_(self.share_of(whole, weight))

    def is_master(self, weight: Tensor) -> bool:
        """See `Group`."""
        return isinstance(weight, DTensor) and weight in self._masters

    def _with_gradient(self) -> set[str]:
        return {name for name, weight in _learning(self.model).items() if weight.grad is not None}

    def _backward(self, *, reduce: bool) -> None:
        """A backward pass through nothing: it makes FSDP do, with the gradients that are there, what it does after one:
        put those of a narrow type by in float32, or add them over processes and take the shares."""
        self._root.set_requires_gradient_sync(reduce)
        self._root.set_reshard_after_backward(reduce)
        with torch.enable_grad():
            self._root(torch.ones(1, device=self.device, requires_grad=True)).backward()


class _Unit(nn.Module):
    """Weights that are sent together, of modules that it stands beside."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


def _mesh(processes: Processes, shards: int) -> DeviceMesh:
    kind, copies = processes.device.type, processes.size // shards
    with hearing():
        if copies == 1:
            return init_device_mesh(kind, (shards,), mesh_dim_names=("shard",))
        return init_device_mesh(kind, (copies, shards), mesh_dim_names=("copy", "shard"))


def _learning(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _tell_whole(model: nn.Module) -> None:
    """Let a model's `state_dict` tell of the weights as they are, whole or shares: FSDP's would take them apart first.

    Not beside adapters: whoever wants to know of such a model has them merged into a copy, which FSDP does not know.
    """
    names = list(model.state_dict())

    def state_dict(*_: Any, **__: Any) -> dict[str, Tensor]:
        weights = dict(model.named_parameters(remove_duplicate=False))
        there = weights | dict(model.named_buffers(remove_duplicate=False))
        return {name: there[name].detach() for name in names}

    if not adapters(model):
        model.state_dict = state_dict


def _sharded(model: nn.Module, mesh: DeviceMesh, *, offload: bool) -> Any:
    """The module whose units hold the model's learning weights, in shares."""
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer) and _learning(part)]
    units = [_Unit(layer) for layer in layers]
    root, done = _Unit(*units, model), set[Tensor]()
    for unit in (*units, root):
        others = done | {weight for weight in unit.parameters() if not weight.requires_grad}
        fully_shard(
            unit,
            mesh=mesh,
            reshard_after_forward=False,
            mp_policy=_widened([weight for weight in unit.parameters() if weight not in others]),
            offload_policy=CPUOffloadPolicy() if offload else OffloadPolicy(),
            ignored_params=others,
        )
        done |= set(unit.parameters())
        unit.set_gradient_divide_factor(1.0)  # totals are those of all processes: gradients are added, never averaged
        unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    for part in model.modules():
        part._is_fsdp_managed_module = False  # no forward waits for others; `generate` would, for all to have ended
    return root


def _widened(weights: list[Tensor]) -> MixedPrecisionPolicy:
    """Make weights float32, and say in which type they are computed with: the one that they had."""
    kinds = {weight.dtype for weight in weights}
    if len(kinds) > 1:
        raise UserError(
            f"weights of one layer that learn are of {len(kinds)} types ({', '.join(sorted(map(str, kinds)))}), which "
            "several processes cannot share: give --dtype float32"
        )
    narrow = [weight for weight in weights if is_narrow(weight)]
    if not narrow:
        return MixedPrecisionPolicy(cast_forward_inputs=False)
    kind = narrow[0].dtype
    for weight in narrow:
        weight.data = weight.data.float()
    return MixedPrecisionPolicy(param_dtype=kind, reduce_dtype=torch.float32, cast_forward_inputs=False)
