"""Checkpoints: a folder in Hugging Face layout with the trainer's state beside it. No pickle.

A checkpoint is written under another name, hashed, synced and renamed when it is whole: what has the name of one is
one, even after the loss of power. It stands for the last step that was finished, and says how far the logs were then.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vergence.disk import make, put_in_place, telling_of_space
from vergence.models.adapters import is_adapted, load_adapter, save_adapter
from vergence.models.folder import BROKEN, bars
from vergence.models.policy import Policy
from vergence.train.backend import ONE, Group, first
from vergence.train.card import card, numbers_of
from vergence.train.config import Config
from vergence.train.config_file import to_yaml
from vergence.train.data import read_data
from vergence.train.interventions import interventions
from vergence.train.parts import Parts
from vergence.train.run import Mark, Marks, RunFolder, lines_with
from vergence.train.states import optimizer_tensors, pieces, restore_optimizer
from vergence.train.sums import CARD, STATE, files_of, write_sums
from vergence.types import Batch, Metrics, Stats, UserError

ADAPTER = "adapter.safetensors"
PARTIAL = ".partial-"
"""How the name of a checkpoint begins that is being written."""
PIECE = 2**33
"""Bytes of the optimizer's state in one file, at most, unless a single tensor has more."""


class Pending(NamedTuple):
    """A batch of rollouts that more optimizer steps are to be taken on."""

    batch: Batch
    frozen: Stats
    scenes: tuple[str, ...]
    """The keys of its scenes."""


class Standing(NamedTuple):
    """Where a run stands, after a step that is finished."""

    step: int
    """Optimizer steps taken."""
    position: int
    """Scenes taken from the source."""
    pending: Pending | None
    marks: Marks | None = None
    """How far the logs have come; None in a checkpoint of an older version."""
    open: Metrics | None = None
    """What is to be logged of the last step when its evaluation is there; None once it is logged."""

    def after_a_step(self, steps_per_batch: int, metrics: Metrics, marks: Marks) -> Standing:
        """One step further, which is not logged yet; a batch that has had all its steps is put away."""
        done = (self.step + 1) % steps_per_batch == 0
        return Standing(self.step + 1, self.position, None if done else self.pending, marks, metrics)

    def logged(self, marks: Marks) -> Standing:
        """The same, its step logged."""
        return self._replace(marks=marks, open=None)


def name_of(step: int) -> str:
    """The folder of a step.

    >>> name_of(40)
    'step-000040'
    """
    return f"step-{step:06d}"


def following(config: Config, stands: Standing) -> int:
    """The number of the round that is asked next, where a run stands."""
    return stands.step // config.steps_per_batch + (stands.pending is not None)


def save(run: RunFolder, parts: Parts, stands: Standing) -> Path:
    """Write the checkpoint of where a run stands, with the round that was sampled ahead, if it is there. Several
    processes write the files that one would: what they have shares of is gathered, tensor by tensor, and the first
    writes.

    Raises:
        UserError: there is no space; what was there before is untouched.
    """
    optimizer = optimizer_tensors(parts.optimizer, parts.backend)
    parts.backend.gather_weights()
    return first(parts.backend, lambda: _write(run, parts, stands, optimizer))


def _write(run: RunFolder, parts: Parts, stands: Standing, optimizer: dict[str, Tensor]) -> Path:
    folder, name = run.checkpoints, name_of(stands.step)
    final, partial = folder / name, folder / f"{PARTIAL}{name}"
    make(folder)
    try:
        with telling_of_space(folder, run.more):
            run.sync()
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "trainer").mkdir(parents=True)
            parts.policy.save(partial)
            if is_adapted(parts.policy):  # what is saved above is merged, and rounded; these are exact
                save_adapter(parts.policy, partial / "trainer" / ADAPTER)
            for number, piece in enumerate(pieces(optimizer, PIECE)):
                save_file(piece, partial / "trainer" / f"optimizer{f'-{number}' if number else ''}.safetensors")
            if stands.pending is not None:
                save_file(_pending_tensors(stands.pending), partial / "trainer" / "pending.safetensors")
            if parts.ahead:
                parts.ahead.write(partial / "trainer", following(parts.config, stands))
            (partial / "trainer" / "config.yaml").write_text(to_yaml(parts.config))
            (partial / CARD).write_text(_card(run.path, parts.config, stands.step))
            done = len(interventions(run.path))
            state = _state(stands, done, files=len(files_of(partial)) + 1)  # and the state itself
            (partial / STATE).write_text(json.dumps(state) + "\n")
            write_sums(partial)
            put_in_place(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def _state(stands: Standing, done: int, files: int) -> dict[str, Any]:
    """What `restore` reads back, and the number of files by which a list of them that is cut short is known."""
    return {
        "step": stands.step,
        "position": stands.position,
        "scenes": stands.pending.scenes if stands.pending else (),
        "open": stands.open,
        "logs": stands.marks,
        "files": files,
        "interventions": done,
    }


def _card(run: Path, config: Config, step: int) -> str:
    metrics = run / "metrics.jsonl"
    numbers = numbers_of(lines_with(metrics, "eval/accuracy")) if metrics.is_file() else []
    return card(config, read_data(run), step=step, numbers=numbers)


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not."""
    found = (path for path in folder.glob("step-*") if path.is_dir() and re.fullmatch(r"step-\d{6,}", path.name))
    return sorted(found, key=number_of, reverse=True)


def latest(folder: Path) -> Path | None:
    """The checkpoint of the highest step, by its name and state alone: nothing is hashed. None if there is none."""
    return next((path for path in newest_first(folder) if (path / STATE).is_file()), None)


def step_of(path: Path) -> int:
    """The optimizer steps that a checkpoint has behind it.

    Raises:
        UserError: it does not say so: it is damaged, or none.
    """
    try:
        step = json.loads((path / STATE).read_bytes())["step"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        step = None
    if type(step) is not int:
        raise UserError(f"{path / STATE} does not say at which step it was written: the checkpoint is damaged, or none")
    return step


def number_of(path: Path) -> int:
    """The same by its name, as its run has named it.

    >>> number_of(Path("runs/mine/checkpoints/step-000040"))
    40
    """
    return int(path.name.removeprefix("step-"))


def marks_of(path: Path) -> Marks | None:
    """How far the logs were at a checkpoint; None where an older version does not say."""
    found = json.loads((path / STATE).read_text()).get("logs")
    return None if found is None else {name: Mark(*mark) for name, mark in found.items()}


def under(path: Path) -> int:
    """How many interventions there were when a checkpoint was written; of a damaged one, as many as can be."""
    try:
        return json.loads((path / STATE).read_text()).get("interventions", 0)
    except BROKEN:
        return sys.maxsize


def restore(path: Path, policy: Policy, optimizer: torch.optim.Optimizer, backend: Group = ONE) -> Standing:
    """Put a checkpoint's weights and optimizer state in place; of a policy with adapters, these alone. Of several
    processes each reads the files, and keeps its share: it need not be one of as many as have written them.

    Raises:
        UserError: files are missing or damaged, or belong to a model of another architecture.
    """
    try:
        state = json.loads((path / STATE).read_text())
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
    return Standing(state["step"], state["position"], pending, marks_of(path), state.get("open"))


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
