"""Checkpoints: a folder in Hugging Face layout with the trainer's state beside it. No pickle.

A checkpoint is written under another name and renamed when it is whole, so what has the name of one is one.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vergence.disk import telling_of_space
from vergence.models.adapters import is_adapted, load_adapter, save_adapter
from vergence.models.folder import BROKEN, bars
from vergence.models.policy import Policy
from vergence.train.backend import ONE, Group, first
from vergence.train.card import card, numbers_of
from vergence.train.config import Config
from vergence.train.data import read_data
from vergence.train.parts import Parts
from vergence.train.run import read_lines
from vergence.train.states import optimizer_tensors, pieces, restore_optimizer
from vergence.train.written import to_yaml
from vergence.types import Batch, Stats, UserError

ADAPTER = "adapter.safetensors"
PIECE = 2**33
"""Bytes of the optimizer's state in one file, at most, unless a single tensor has more."""


class Pending(NamedTuple):
    """A batch of rollouts that more optimizer steps are to be taken on."""

    batch: Batch
    frozen: Stats
    scenes: tuple[str, ...]
    """The keys of its scenes."""


class Standing(NamedTuple):
    """Where a run stands."""

    step: int
    """Optimizer steps taken."""
    position: int
    """Scenes taken from the source."""
    pending: Pending | None

    def after_a_step(self, steps_per_batch: int) -> Standing:
        """One step further; a batch that has had all its steps is put away."""
        done = (self.step + 1) % steps_per_batch == 0
        return Standing(self.step + 1, self.position, None if done else self.pending)


def name_of(step: int) -> str:
    """The folder of a step.

    >>> name_of(40)
    'step-000040'
    """
    return f"step-{step:06d}"


def save(folder: Path, parts: Parts, stands: Standing) -> Path:
    """Write the checkpoint of where a run stands. Several processes write the files that one would: what they have
    shares of is gathered, tensor by tensor, and the first writes.

    Raises:
        UserError: there is no space; what was there before is untouched.
    """
    following = stands.step // parts.config.steps_per_batch + (stands.pending is not None)  # the round to be asked next
    if parts.ahead:
        parts.ahead.wait(following)
    optimizer = optimizer_tensors(parts.optimizer, parts.backend)
    parts.backend.gather_weights()
    return first(parts.backend, lambda: _write(folder, parts, stands, optimizer, following))


def _write(folder: Path, parts: Parts, stands: Standing, optimizer: dict[str, Tensor], following: int) -> Path:
    name, pending = name_of(stands.step), stands.pending
    final, partial = folder / name, folder / f".partial-{name}"
    state = {"step": stands.step, "position": stands.position, "scenes": pending.scenes if pending else ()}
    try:
        with telling_of_space(folder):
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "trainer").mkdir(parents=True)
            parts.policy.save(partial)
            if is_adapted(parts.policy):  # what is saved above is merged, and rounded; these are exact
                save_adapter(parts.policy, partial / "trainer" / ADAPTER)
            for number, piece in enumerate(pieces(optimizer, PIECE)):
                save_file(piece, partial / "trainer" / f"optimizer{f'-{number}' if number else ''}.safetensors")
            if pending is not None:
                save_file(_pending_tensors(pending), partial / "trainer" / "pending.safetensors")
            if parts.ahead:
                parts.ahead.write(partial / "trainer", following)
            (partial / "trainer" / "config.yaml").write_text(to_yaml(parts.config))
            (partial / "trainer" / "state.json").write_text(json.dumps(state) + "\n")
            (partial / "README.md").write_text(_card(folder.parent, parts.config, stands.step))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def _card(run: Path, config: Config, step: int) -> str:
    metrics = run / "metrics.jsonl"
    numbers = numbers_of(read_lines(metrics)) if metrics.is_file() else []
    return card(config, read_data(run), step=step, numbers=numbers)


def save_unless_there(folder: Path, parts: Parts, stands: Standing) -> None:
    """Write the checkpoint of where a run stands, if it has got anywhere and has none."""
    if stands.step and not first(parts.backend, lambda: (folder / name_of(stands.step)).exists()):
        save(folder, parts, stands)


def latest(folder: Path) -> Path | None:
    """The checkpoint of the highest step; None if there is none."""
    whole = [path for path in folder.glob("step-*") if (path / "trainer" / "state.json").is_file()]
    return max(whole, key=lambda path: path.name, default=None)


def step_of(path: Path) -> int:
    """The optimizer steps that a checkpoint has behind it."""
    return json.loads((path / "trainer" / "state.json").read_text())["step"]


def restore(path: Path, policy: Policy, optimizer: torch.optim.Optimizer, backend: Group = ONE) -> Standing:
    """Put a checkpoint's weights and optimizer state in place; of a policy with adapters, these alone. Of several
    processes each reads the files, and keeps its share: it need not be one of as many as have written them.

    Raises:
        UserError: files are missing or damaged, or belong to a model of another architecture.
    """
    try:
        state = json.loads((path / "trainer" / "state.json").read_text())
        if is_adapted(policy):
            load_adapter(policy, path / "trainer" / ADAPTER, put=backend.put)
        else:
            _restore_weights(path, policy, backend)
        files = sorted((path / "trainer").glob("optimizer*.safetensors"))
        restore_optimizer(optimizer, {name: one for file in files for name, one in load_file(file).items()}, backend)
        pending_file = path / "trainer" / "pending.safetensors"
        device = str(getattr(backend, "device", policy.device))
        keys = tuple(state["scenes"])
        pending = _pending(load_file(pending_file, device=device), keys) if pending_file.exists() else None
    except BROKEN as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"cannot resume from {path}: {str(error).splitlines()[0]}. Delete that checkpoint to resume from the one "
            f"before it"
        ) from error
    return Standing(state["step"], state["position"], pending)


def _restore_weights(path: Path, policy: Policy, backend: Group) -> None:
    """All of the model's weights: Hugging Face knows under which names, and in how many files, it has written them."""
    with bars(shown=False):
        saved, found = type(policy.model).from_pretrained(
            path, dtype=policy.model.dtype, use_safetensors=True, output_loading_info=True
        )
    if odd := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
        raise UserError(
            f"cannot resume from {path}, a checkpoint of another architecture: {odd[0]} does not fit. "
            f"Resume with the model that the run was started with"
        )
    weights = saved.state_dict()
    if backend.size == 1:
        policy.model.load_state_dict(weights)
        return
    for name, own in (*policy.model.named_parameters(), *policy.model.named_buffers()):
        if name in weights:  # a buffer that is computed is in no file
            backend.put(own, weights[name])


def _pending_tensors(pending: Pending) -> dict[str, Tensor]:
    batch = {f"batch.{field.name}": getattr(pending.batch, field.name) for field in fields(Batch)}
    frozen = {f"frozen.{'|'.join(part or '' for part in key)}": value for key, value in pending.frozen.value.items()}
    return {name: tensor.contiguous().cpu() for name, tensor in {**batch, **frozen}.items()}


def _pending(tensors: dict[str, Tensor], scenes: tuple[str, ...]) -> Pending:
    batch = {name.removeprefix("batch."): value for name, value in tensors.items() if name.startswith("batch.")}
    frozen = {}
    for name, value in tensors.items():
        if name.startswith("frozen."):
            view, quantity, against = name.removeprefix("frozen.").split("|")
            frozen[view, quantity, against or None] = value
    return Pending(Batch(**batch), Stats(frozen), scenes)
