"""A run is a folder: config.yaml, four files of JSON lines, checkpoints, a report.

No file holds a clock but timings.jsonl, so that equal runs are equal bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vergence.disk import telling_of_space
from vergence.rewards.verify import VERSION
from vergence.train.backend import ONE, Peers, first
from vergence.train.config import Config
from vergence.train.written import from_yaml, to_yaml
from vergence.types import B, Gold, Rollout, UserError

FILES = ("metrics.jsonl", "rollouts.jsonl", "traces.jsonl", "timings.jsonl")
MAY_CHANGE = {"steps", "token_budget", "scorer", "verify_scorer", "sample_batch", "save_every", "server_model"}
MAY_CHANGE |= {"shards", "offload", "gradient_checkpointing", "trust_remote_code", "sampler_memory", "most_gap"}
MAY_CHANGE |= {"server_tokens", "server_seconds"}
"""Fields that may differ when a run is resumed. Another cut into batches changes nothing but the rounding of sums."""


class RunFolder:
    """The files of one run. Of several processes the first alone writes, and all of them are told when it cannot."""

    def __init__(self, path: Path, peers: Peers = ONE) -> None:
        self.path, self.peers = path, peers

    @classmethod
    def start(cls, path: Path, config: Config, peers: Peers = ONE) -> RunFolder:
        """A new run in an empty or missing folder.

        Raises:
            UserError: something is in the folder, or it cannot be written.
        """
        first(peers, lambda: _begin(path, config))
        return cls(path, peers)

    @classmethod
    def resume(cls, path: Path, config: Config, peers: Peers = ONE) -> RunFolder:
        """A run that was started before with this config; it may have been given more steps.

        Raises:
            UserError: there is no run, or it is another one: the first field that differs is named.
        """
        first(peers, lambda: _go_on(path, config))
        return cls(path, peers)

    def append(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to one of the files."""
        first(self.peers, lambda: self._append(name, records))

    def _append(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        with telling_of_space(self.path), (self.path / name).open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps that will be taken again, and a last line that was torn."""
        first(self.peers, lambda: self._forget_after(step))

    def _forget_after(self, step: int) -> None:
        for path in (self.path / name for name in FILES):
            if not path.is_file() and path.name == "traces.jsonl":
                continue  # a run that was begun before there were any
            kept = [json.dumps(record) + "\n" for record in read_lines(path) if record["step"] <= step]
            with telling_of_space(self.path):
                partial = path.with_suffix(".partial")
                partial.write_text("".join(kept))
                os.replace(partial, path)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"


def _begin(path: Path, config: Config) -> None:
    refuse_used(path)
    with telling_of_space(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.yaml").write_text(to_yaml(config))
        for name in FILES:
            (path / name).touch()


def _go_on(path: Path, config: Config) -> None:
    if not (path / "config.yaml").is_file():
        raise UserError(f"nothing to resume: {path / 'config.yaml'} does not exist; leave --resume out to start")
    old, new = asdict(load_run_config(path)), asdict(config)
    if new["decay"] != "constant" and old["steps"] != new["steps"]:
        raise UserError(
            f"{path} was started with steps={old['steps']}, which its decaying learning rate depends on; "
            f"resume with the same, or start anew in another --out"
        )
    for name in new:
        moved = name in ("captions", "reasoner", "sampler") and all("://" in str(where[name]) for where in (old, new))
        if old[name] != new[name] and name not in MAY_CHANGE and not moved:  # a server may have another address
            raise UserError(
                f"{path} holds another run: its {name} is {old[name]!r}, not {new[name]!r}. "
                f"Resume it as it was started, or give another --out"
            )
    with telling_of_space(path):
        (path / "config.yaml").write_text(to_yaml(config))


def refuse_used(path: Path) -> None:
    """Raise unless a new run can be put there.

    Raises:
        UserError: something is there already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "holds a run already" if (path / "config.yaml").exists() else "is not empty"
        raise UserError(f"{path} {what}: give another --out, or --resume to go on with it")


def load_run_config(path: Path) -> Config:
    """The config of a run folder."""
    where = path / "config.yaml"
    if not where.is_file():
        raise UserError(f"{path} is not a run folder: it holds no config.yaml")
    return from_yaml(where.read_text(), str(where))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines; a torn last line (the process was killed while writing) is left out.

    Raises:
        UserError: no such file, or a line before the last is not JSON.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    with path.open() as file:
        torn: UserError | None = None
        for number, line in enumerate(file, 1):
            if torn:
                raise torn
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                torn = UserError(f"{path}, line {number} is not JSON: {error.msg}; the file was damaged")


def rollout_records(step: int, rollouts: Iterable[Rollout], advantage_B: B) -> Iterator[dict[str, Any]]:
    """Lines of rollouts.jsonl."""
    for rollout, advantage in zip(rollouts, advantage_B.tolist(), strict=True):
        yield {
            "step": step,
            "scene": rollout.scene.key,
            "world": rollout.scene.world,
            "sibling": rollout.sibling,
            "question": rollout.scene.question,
            "gold": rollout.scene.gold.text,
            **about_gold(rollout.scene.gold),
            "response": rollout.text,
            "extracted": rollout.verdict.extracted,
            "status": rollout.verdict.status,
            "reward": rollout.verdict.reward,
            "advantage": advantage,
            "finish": rollout.sampled.finish,
            "tokens": len(rollout.sampled.tokens),
        }


def about_gold(gold: Gold) -> dict[str, Any]:
    """What a record says of an answer besides its text, so that it can be judged again; and who judged it now.

    >>> about_gold(Gold("B", "choice", choices=("four", "five"))).keys()
    dict_keys(['kind', 'choices', 'verifier'])
    """
    more = {"choices": list(gold.choices)} if gold.choices else {}
    more |= {"tolerance": gold.tolerance} if gold.tolerance else {}
    return {"kind": gold.kind, **more, "verifier": VERSION}
