"""How far the memory plan is from the memory that is taken: `python -m benchmarks.memory [--json]`, on a CPU.

Trains the seedling for some steps and notes every allocation and release of PyTorch's; beside the plan's phases stands
the most that was held in each. Of several processes, each tells its own:

    torchrun --nproc-per-node 2 -m benchmarks.memory --out /tmp/run
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from vergence.models.policy import Policy
from vergence.train import loop, rounds
from vergence.train.config import Config
from vergence.train.memory import Memory
from vergence.train.parts import Parts

PHASES = {
    "sampling": (rounds, "ask"),
    "scoring": (loop, "accumulate"),
    "updating the weights": (torch.optim.AdamW, "step"),
}
"""What is called in each phase."""


class Taken(NamedTuple):
    """Of one process."""

    memory: Memory
    held: dict[str, int]
    """By phase: the most bytes of tensors at a time."""


def trained(config: Config, steps: int, out: Path | None) -> Taken:
    """The plan of a run of so many steps, and what it took.

    Args:
        out: the run's folder, new; of several processes the same for all. None: one that is forgotten.
    """
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    seen: dict[str, Any] = {}

    def foreseen(own: Callable[..., Memory]) -> Callable[..., Memory]:
        def begin(parts: Parts, position: int) -> Memory:
            seen["memory"], seen["there"] = own(parts, position), there(parts)
            profiler.start()
            return seen["memory"]

        return begin

    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        stack.enter_context(patch.object(loop, "foreseen", foreseen(loop.foreseen)))
        for phase, (place, name) in PHASES.items():
            stack.enter_context(patch.object(place, name, named(phase, getattr(place, name))))
        try:
            loop.train(config, out or Path(folder) / "run", until=steps)
        finally:
            profiler.stop()
    return Taken(seen["memory"], {phase: seen["there"] + most for phase, most in peaks(profiler).items()})


def there(parts: Parts) -> int:
    """Bytes of the weights that are there before the first step: the policy's, and those it started from."""
    policies = {id(parts.policy.model): parts.policy.model}
    for one in getattr(parts.scorer, "read", {}).values():
        found: Policy = one.policy
        policies[id(found.model)] = found.model
    weights = {id(weight): weight for model in policies.values() for weight in model.parameters()}
    return sum(getattr(weight, "to_local", lambda weight=weight: weight)().nbytes for weight in weights.values())


def named(phase: str, own: Callable[..., Any]) -> Callable[..., Any]:
    """The function, in whose time the profiler sees the phase."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch.profiler.record_function(phase):
            return own(*args, **kwargs)

    return call


def peaks(profiler: torch.profiler.profile) -> dict[str, int]:
    """By phase: the most that was held beyond what was there when the profiler began; the first step's is left out,
    as moments are not there before it."""
    events = profiler.profiler.kineto_results.events()
    moments = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    found = {}
    for phase in PHASES:
        times = sorted((event.start_ns(), event.end_ns()) for event in events if event.name() == phase)[1:]
        found[phase] = max((most for span in times for most in within(moments, span)), default=0)
    return found


def within(moments: list[tuple[int, int]], span: tuple[int, int]) -> Iterator[int]:
    """What is held, at every change in a span of time."""
    held = 0
    for time, change in moments:
        if time > span[1]:
            return
        before, held = held, held + change
        if time >= span[0]:
            yield max(before, held)


def main() -> None:
    """Print what was planned, what was taken, and the one over the other."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--method", default="papo")
    asked.add_argument("--model", default="seedling")
    asked.add_argument("--adapter", default="none")
    asked.add_argument("--dtype", default="float32")
    asked.add_argument("--steps", type=int, default=3)
    asked.add_argument("--shards", type=int, default=0)
    asked.add_argument("--out", type=Path)
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    torch.set_num_threads(1)
    config = Config(
        model=given.model,
        method=given.method,
        adapter=given.adapter,
        dtype=given.dtype,
        shards=given.shards,
        watch_every=0,
        token_budget=2048,
    )
    taken = trained(config, given.steps, given.out)
    plan = taken.memory.plan()
    rows = {phase: (plan.stays + plan.during(phase), held) for phase, held in taken.held.items()}
    if given.json:
        print(json.dumps({phase: {"planned": one, "taken": two} for phase, (one, two) in rows.items()}))
        return
    print("| phase | planned, MB | taken, MB | taken / planned |\n|---|---|---|---|")
    for phase, (planned, held) in rows.items():
        print(f"| {phase} | {planned / 1e6:.1f} | {held / 1e6:.1f} | {held / planned:.2f} |")


if __name__ == "__main__":
    main()
