"""What tests of several processes have in common: a launch of some, each of which does the same list of tasks.

Starting a process takes seconds, so many cases share a launch. A task is an entry of a JSON file: a run to train, or a
gradient to take. Run as a script, this is one of the processes.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

if __name__ == "__main__" and "checked" in sys.argv:
    from jaxtyping import install_import_hook

    install_import_hook("vergence", "beartype.beartype")

import torch  # noqa: E402  (after the number of threads, and the hook)
from safetensors.torch import save_file  # noqa: E402

torch.set_num_threads(1)

LIMIT = 1200.0
"""Seconds that a launch may take."""


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    own = {"WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, **{name: str(value) for name, value in own.items()}, "PYTHONPATH": paths}


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Launch:
    """Processes that are under way, each doing the same tasks; what they write lies in `out`.

    Args:
        checked: shapes and types are checked, which takes as long again.
    """

    def __init__(self, out: Path, tasks: Sequence[Mapping[str, Any]], *, size: int = 2, checked: bool = False) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "tasks.json").write_text(json.dumps(tasks))
        self.out, port = out, free_port()
        self.logs = [out / f"log-{rank}.txt" for rank in range(size)]
        self.processes = []
        for rank, log in enumerate(self.logs):
            with log.open("w") as file:
                command = [sys.executable, __file__, str(out), *(["checked"] if checked else [])]
                self.processes.append(
                    subprocess.Popen(command, env=environment(rank, size, port), stdout=file, stderr=subprocess.STDOUT)
                )

    def wait(self) -> Path:
        """Until all are done; where one fails, the test does, with what it said."""
        try:
            codes = [process.wait(LIMIT) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        assert not any(codes), "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.logs)
        return self.out


# ---------------------------------------------------------------------------------------------------- a task


def config_of(fields: Mapping[str, Any]) -> Any:
    """The config of a task."""
    from vergence.train.config import Config

    return replace(Config(), **fields)


def train_run(out: Path, task: Mapping[str, Any]) -> None:
    """Train, or go on; the number of rows that this process had of each gradient is written beside the run."""
    from vergence.train import step
    from vergence.train.loop import train

    rows, scored = [], step._scored

    def counted(method: Any, batch: Any, *args: Any, **options: Any) -> Any:
        rows.append(len(batch.key_B))
        return scored(method, batch, *args, **options)

    step._scored = counted
    try:
        with (
            copied() if task.get("copied") else nullcontext(),
            sent(out / f"{task['run']}.sent.json" if task.get("count") else None),
            broken(task.get("broken", "")),
        ):
            train(
                config_of(task["config"]), out / task["run"], resume=task.get("resume", False), until=task.get("until")
            )
    finally:
        step._scored = scored
    (out / f"{task['run']}.rows-{os.environ['RANK']}.json").write_text(json.dumps(rows))


class Copied:
    """A sampler with weights of its own, which takes the policy's as an engine does."""

    def __init__(self) -> None:
        from vergence.models.policy import load

        self.copy = load("seedling")

    def __call__(self, asked: Any, *, temperature: float, max_tokens: int) -> Any:
        from vergence.rollout.decode import Decode

        return Decode(self.copy)(asked, temperature=temperature, max_tokens=max_tokens)

    def follow(self, policy: Any) -> None:
        self.copy.model.load_state_dict(policy.model.state_dict())

    def rest(self) -> None:
        with torch.no_grad():
            for weight in self.copy.model.parameters():
                weight.zero_()  # nobody may ask now

    def close(self) -> None:
        pass


@contextmanager
def copied() -> Iterator[None]:
    """With such a sampler in the first process, and none in the others."""
    from vergence.train import parts
    from vergence.train.processes import SampledElsewhere

    kept = parts._sampler
    parts._sampler = lambda config, policy, backend, run: SampledElsewhere() if backend.rank else Copied()
    try:
        yield
    finally:
        parts._sampler = kept


@contextmanager
def sent(file: Path | None) -> Iterator[None]:
    """What is sent of weights and gradients in here, counted by kind, is written to a file; and the number of units."""
    if file is None:
        yield
        return
    from torch.distributed.tensor.debug import CommDebugMode

    from vergence.train.sharding import Sharded

    found, names = Counter[str](), ("gather_weights", "reduce_gradient", "clip")
    kept = {name: getattr(Sharded, name) for name in names}

    def counting(method: Any) -> Any:
        def counted(self: Any, *args: Any) -> Any:
            with CommDebugMode() as seen:
                told = method(self, *args)
            found.update({str(kind).rpartition(".")[2]: number for kind, number in seen.get_comm_counts().items()})
            found["units"] = len(self._units)
            return told

        return counted

    for name, method in kept.items():
        setattr(Sharded, name, counting(method))
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Sharded, name, method)
    if os.environ["RANK"] == "0":
        file.write_text(json.dumps(found))


def case_of(task: Mapping[str, Any]) -> tuple[Any, ...]:
    """(policy, method, batch, prompts) of a gradient: random responses of given lengths to scenes of given kinds."""
    from scoring import steps

    from vergence.models.adapters import adapt
    from vergence.objectives import method

    dtype = getattr(torch, task.get("dtype", "float64"))
    policy = adapt(steps.policy_of("qwen3_vl", dtype), adapter=task.get("adapter", "none"))
    chosen = method(task["method"], **task.get("options", {}))
    prompts = steps.prompts_of(policy, chosen, steps.scenes(task["scenes"]))
    batch = steps.batch_of(task["lengths"], torch.float64 if dtype is torch.float64 else torch.float32)
    batch = steps.as_sampled(policy, batch, prompts, chosen)
    if quiet := task.get("quiet", []):  # groups without advantage
        from vergence.types import with_advantage

        silent_B = torch.isin(batch.scene_B, torch.tensor(quiet))
        batch = with_advantage(batch, batch.advantage_B.masked_fill(silent_B, 0.0))
    return policy, chosen, batch, prompts


def gradient_of(task: Mapping[str, Any], group: Any = None) -> tuple[dict[str, float], dict[str, torch.Tensor], dict]:
    """(what `accumulate` tells, every weight's gradient, how many rows each process had), by one process or several."""
    from scoring import steps

    from vergence.train.backend import ONE
    from vergence.train.division import shares
    from vergence.train.sharding import Sharded
    from vergence.train.step import accumulate, freeze, reshaped

    with steps.in_float64() if task.get("dtype", "float64") == "float64" else nullcontext():
        policy, method, batch, prompts = case_of(task)
        policies = {"now": policy, "reference": steps.moved(policy) if not task.get("adapter") else policy}
        backend = ONE if group is None else Sharded(group, policy.model, shards=task.get("shards", 0))
        backend.gather_weights()
        scorer = getattr(steps, task.get("scorer", "shared"))(policies, method)
        budget = task.get("budget", 150)
        frozen = freeze(method, batch, scorer, prompts, budget=budget, backend=backend)
        batch = reshaped(method, batch, frozen, backend)
        with broken(task.get("broken", "")):
            told = accumulate(method, batch, frozen, scorer, prompts, backend=backend, budget=budget)
        told["norm"] = backend.clip(list(policy.model.parameters()), float("inf"))
        weights = {name: weight for name, weight in policy.model.named_parameters() if weight.requires_grad}
        grads = {name: backend.whole(weight.grad) for name, weight in weights.items() if weight.grad is not None}
    return told, {name: grad.clone() for name, grad in grads.items()}, {"rows": [len(own) for own in shares(batch, 2)]}


@contextmanager
def broken(way: str) -> Iterator[None]:
    """With a fault that the tests must notice, by its name; "" is none."""
    from vergence.train import sharding, step

    kept = step.shares, step.together, sharding.Sharded._backward
    if way == "means":  # FSDP's own way: gradients averaged over processes
        backward = sharding.Sharded._backward

        def averaged(self: Any, *, reduce: bool) -> None:
            for unit in self._units:
                unit.set_gradient_divide_factor(float(self.size))
            backward(self, reduce=reduce)

        sharding.Sharded._backward = averaged
    elif way == "local":  # every process adds up the terms of its own rows alone
        step.together = lambda backend, work: [kept[1](backend, work)[backend.rank]] if backend.size > 1 else [work()]
    elif way == "twice":  # a process does what another does too
        step.shares = lambda batch, size: [kept[0](batch, size)[0]] * size
    try:
        yield
    finally:
        step.shares, step.together, sharding.Sharded._backward = kept


def main(out: Path) -> None:
    """Do the tasks of a launch."""
    from vergence.train.processes import joined, leave

    for task in json.loads((out / "tasks.json").read_text()):
        print(f"{time.process_time():.1f} s:", task, flush=True)
        if "run" in task:
            train_run(out, task)
            continue
        told, grads, more = gradient_of(task, joined(config_of({})))
        if os.environ["RANK"] == "0":
            save_file({name: grad.contiguous() for name, grad in grads.items()}, out / f"{task['name']}.safetensors")
            (out / f"{task['name']}.json").write_text(json.dumps({"told": told, **more}))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
