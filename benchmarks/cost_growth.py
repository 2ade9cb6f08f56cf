"""How time and memory of the training passes grow: with siblings, image tokens, response length, and number of views.

    python -m benchmarks.cost_growth --quick
    python -m benchmarks.cost_growth --shape 3b --json

One of them is varied at a time, the others are the shape's. `ours` reads each prompt once; `naive` is Vergence's own
reference scorer, one plain forward pass for every view of every rollout. All views carry gradient here, and no rollout
is gated out of one, so that what is counted is views.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

import torch

from benchmarks import ours, timing
from benchmarks.replay import draw
from benchmarks.shapes import SHAPES, Shape, build
from vergence import objectives
from vergence.types import Method

VIEWS: dict[int, Method] = {
    1: objectives.method("grpo", beta="0", entropy="0.01"),
    2: objectives.method("papo@paper", beta="0"),
    3: objectives.method("cppo@release-verl", beta="0", gate="none", select="all"),
}
"""A method of so many views, all with gradient, on all rollouts: none is left out for want of an advantage."""
AXES = {
    "siblings": (1, 2, 4, 8, 16),
    "image_tokens": (64, 256, 576, 1024),
    "response": (24, 48, 96, 192, 384),
    "views": tuple(VIEWS),
}
LARGE = {"siblings": (2, 4, 8, 16), "image_tokens": (400, 800, 1200), "response": (256, 512, 1024, 2048)}
"""Of shapes on a GPU, in the place of the above."""


def point(shape: Shape, views: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and bytes of both, and how often ours fits into naive."""
    policy = build(shape, seed=arguments.seed)
    replay = draw(shape, policy, seed=arguments.seed)
    method, zero = VIEWS[views], policy.model.zero_grad
    row = len(replay.prompts["image"][0].tokens) + shape.response
    at_once = row * (arguments.rows or shape.siblings)
    runs = {"ours": ours.training_passes(method, ours.shared(policy, method), replay)}
    if not arguments.no_naive:
        runs["naive"] = ours.training_passes(method, ours.naive(policy, method), replay, budget=at_once)
    peaks = {name: timing.peak_bytes(run, zero, policy.device) for name, run in runs.items()}
    how = {"repeats": arguments.repeats, "warm_ups": 1, "before": zero, "device": policy.device}
    times = timing.measure(runs, **how)
    found = {name: timing.spread(one) for name, one in times.items()}
    return {
        "seconds": {name: one.median for name, one in found.items()},
        "quartiles": {name: [one.low, one.high] for name, one in found.items()},
        "peak_bytes": peaks,
        "naive_over_ours": timing.ratio(times["naive"], times["ours"]).median if "naive" in times else None,
    }


def grow(base: Shape, axis: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All points along one axis, printed as they come."""
    values = {**AXES, **(LARGE if base.device == "cuda" else {})}[axis]
    values = values[:: len(values) - 1] if arguments.quick else values
    print(f"\n| {axis} | ours, s | naive, s | naive / ours | ours, MB | naive, MB |\n|---|---|---|---|---|---|")
    found = []
    for value in values:
        shape = base if axis == "views" else replace(base, **{axis: value})
        one = point(shape, value if axis == "views" else 1, arguments)
        seconds, peaks, times = one["seconds"], one["peak_bytes"], one["naive_over_ours"]
        print(
            f"| {value} | {seconds['ours']:.3f} | {seconds.get('naive', 0.0):.3f} | {times or 0.0:.2f} "
            f"| {peaks['ours'] / 1e6:.0f} | {peaks.get('naive', 0) / 1e6:.0f} |",
            flush=True,
        )
        found.append({axis: value, **one})
    return found


def main(given: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="cpu")
    parser.add_argument("--axes", choices=AXES, nargs="+", default=list(AXES))
    parser.add_argument("--device", help="cpu or cuda; default: the shape's")
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--rows", type=int, help="rollouts at once in naive; default: a group")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-naive", action="store_true", help="ours alone")
    parser.add_argument("--quick", action="store_true", help="both ends of each axis, three repeats")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.repeats = 3
    torch.set_num_threads(arguments.threads)
    base = SHAPES[arguments.shape]
    base = replace(base, groups=arguments.groups, device=arguments.device or base.device)
    found = {axis: grow(base, axis, arguments) for axis in arguments.axes}
    if arguments.json:
        print(json.dumps({"shape": base.name, "threads": torch.get_num_threads(), **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
