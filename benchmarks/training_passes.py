"""The cost of an optimizer step's training passes: ours beside TRL's, on the same replay, for five methods.

    python -m benchmarks.training_passes --quick
    python -m benchmarks.training_passes --shape 3b --image-tokens 400 800 1200 --response 256 512 1024 2048 \\
        --siblings 5 8 --lengths equal lognormal --json

Timed is all that the step needs besides sampling and the optimizer: forward and backward passes of every view. Columns:

    TRL         TRL's real GRPOTrainer; where it is not installed, a re-statement of it, and the table says so
    +views      the same with every view of the method scored once more for every row (TRL has no such method itself)
    emulation   our re-statement of what the released code of PAPO and of CPPO does
    ours        Vergence

CPPO's gate lets 30 % of the rollouts through: 4 of 8 in 60 % of the groups, or 2 of the 8 of a single group. Rollouts
whose siblings were all rewarded alike have no advantage: our GRPO and CPPO leave them out, exactly, and TRL does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import emulation, ours, timing
from benchmarks.replay import Replay, draw
from benchmarks.shapes import SHAPES, Shape, build
from vergence.models.policy import Policy

RELEASED = ("papo", "cppo")
"""The methods whose released code is emulated."""
FLOOR = 1e-6
"""A parameter's gradient is compared in units of its norm, or of this share of the largest norm if that is more: some
are zero but for rounding."""

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Contest:
    """Who runs, on what."""

    replay: Replay
    policy: Policy
    runs: dict[str, Run]
    """By "method/column"."""
    zero: Run
    """Forgets all gradients."""
    peer: str
    """The version of TRL, or "re-statement"."""
    rows: int
    """Rollouts in a micro-batch of those that share nothing."""


def contest(shape: Shape, arguments: argparse.Namespace) -> Contest:
    """Everyone, ready to run."""
    policy = build(shape, seed=arguments.seed)
    replay = draw(shape, policy, lengths=arguments.lengths_now, seed=arguments.seed)
    zero, rows = policy.model.zero_grad, shape.siblings
    if find_spec("trl"):
        from benchmarks import peer_trl

        trainer = peer_trl.trainer(policy, replay)
        naive = {name: peer_trl.training_passes(trainer, replay, name) for name in arguments.methods}
        if not arguments.quick:
            naive["shuffled"] = peer_trl.training_passes(trainer, replay, "grpo", shuffled=True)
        peer = version("trl")

        def zero() -> None:
            policy.model.zero_grad()
            trainer.model.zero_grad()
    else:
        rows = fitting(policy, replay, arguments.methods)
        naive = {name: emulation.training_passes(policy, replay, name, "trl", rows=rows) for name in arguments.methods}
        peer = "re-statement"
    runs = {"grpo/TRL": naive["grpo"]} | ({"grpo/TRL, shuffled": naive["shuffled"]} if "shuffled" in naive else {})
    for name in arguments.methods:
        if name != "grpo":
            runs[f"{name}/+views"] = naive[name]
        if name in RELEASED and not arguments.no_emulation:
            runs[f"{name}/emulation"] = emulation.training_passes(policy, replay, name, "release", rows=rows)
        method = ours.METHODS[name]
        scorer = ours.shared(policy, method, keep=arguments.keep, budget=arguments.budget)
        runs[f"{name}/ours"] = ours.training_passes(method, scorer, replay, budget=arguments.budget)
    return Contest(replay, policy, runs, zero, peer, rows)


def fitting(policy: Policy, replay: Replay, methods: list[str]) -> int:
    """The most rollouts, from a group downwards by halves, whose naive passes fit into the memory."""
    rows = replay.shape.siblings
    while True:
        try:
            for name in methods:
                emulation.training_passes(policy, replay, name, "trl", rows=rows)()
            return rows
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows = (rows + 1) // 2
        finally:
            policy.model.zero_grad()
            if policy.device.type == "cuda":
                torch.cuda.empty_cache()


def gradient(model: Any, zero: Run, run: Run) -> list[torch.Tensor]:
    """Of every parameter, after this run."""
    zero()
    run()
    found = [None if one.grad is None else one.grad.detach().cpu() for one in model.parameters()]
    zero()
    return [torch.zeros(()) if one is None else one for one in found]


def relative_error(found: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """The largest over parameters of the norm of the difference, in units of the norm; see `FLOOR`."""
    floor = FLOOR * max(float(one.norm()) for one in right)
    pairs = zip(found, right, strict=True)
    errors = torch.tensor([float((one - other).norm()) / max(float(other.norm()), floor) for one, other in pairs])
    return float(errors.max())  # not a number if one is not


def gradient_errors(it: Contest, methods: list[str]) -> dict[str, float]:
    """Of ours against the scorer that defines what is correct, by method."""
    model, errors = it.policy.model, {}
    two = 2 * (len(it.replay.prompts["image"][0].tokens) + it.replay.batch.mask_BT.shape[1])
    for name in methods:
        method = ours.METHODS[name]
        right = ours.training_passes(method, ours.naive(it.policy, method), it.replay, budget=two)
        errors[name] = relative_error(
            gradient(model, it.zero, it.runs[f"{name}/ours"]), gradient(model, it.zero, right)
        )
    return errors


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of one large product, the best of ten: what a machine can do."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = min(timing.once(lambda: left @ right, device) for _ in range(10))
    return 2 * size**3 / seconds


def flops(run: Run, zero: Run) -> int:
    """Of the matrix products and attentions that are carried out."""
    zero()
    with FlopCounterMode(display=False) as counter:
        run()
    zero()
    return counter.get_total_flops()


def compare(it: Contest, arguments: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one shape; the table is printed on the way."""
    shape, device = it.replay.shape, it.policy.device
    errors = {} if arguments.no_gradients else gradient_errors(it, arguments.methods)
    rate = matmul_rate(device, shape.dtype)
    how = {"repeats": arguments.repeats, "warm_ups": arguments.warm_ups, "before": it.zero, "device": device}
    work = {name: flops(run, it.zero) for name, run in it.runs.items()}
    peaks = {name: timing.peak_bytes(run, it.zero, device) for name, run in it.runs.items()}
    times = timing.measure(it.runs, **how)
    shares = {name: work[name] / timing.spread(found).median / rate for name, found in times.items()}
    naive = {name: "grpo/TRL" if name == "grpo" else f"{name}/+views" for name in arguments.methods}
    to_trl = {name: timing.ratio(times[f"{name}/ours"], times["grpo/TRL"]) for name in arguments.methods}
    to_naive = {name: timing.ratio(times[f"{name}/ours"], times[naive[name]]) for name in arguments.methods}
    print(heading(it, arguments, rate))
    show(times, peaks, shares)
    print("\n| ours in units of | TRL's plain GRPO | the same method, naive | gradient's largest relative error |")
    print("|---|---|---|---|")
    for name in arguments.methods:
        error = f"{errors[name]:.1e}" if name in errors else "not compared"
        print(f"| {name} | {to_trl[name]} | {to_naive[name]} | {error} |")
    return {
        "shape": shape.name,
        "image_tokens": shape.grid[1] * shape.grid[2] // 4,
        "response": shape.response,
        "siblings": shape.siblings,
        "groups": shape.groups,
        "lengths": arguments.lengths_now,
        "positive": it.replay.positive,
        "peer": it.peer if it.peer == "re-statement" else "trl",
        "ratio_to_trl_grpo": {name: one.median for name, one in to_trl.items()},
        "ratio_to_naive": {name: one.median for name, one in to_naive.items()},
        "max_relative_gradient_error": max(errors.values(), default=None),
        "seconds": {name: vars_of(timing.spread(one)) for name, one in times.items()},
        "peak_bytes": peaks,
        "share_of_matmul_rate": shares,
        "matmul_flop_per_second": rate,
        "unsteady": timing.unsteady(times, arguments.max_spread),
    }


def vars_of(one: timing.Spread) -> list[float]:
    """[lower quartile, median, upper quartile]"""
    return [one.low, one.median, one.high]


def heading(it: Contest, arguments: argparse.Namespace, rate: float) -> str:
    """What was run, in three lines."""
    shape, batch = it.replay.shape, it.replay.batch
    trl = f"TRL {it.peer}" if it.peer != "re-statement" else "a RE-STATEMENT of TRL (it is not installed)"
    prompt = len(it.replay.prompts["image"][0].tokens)
    return (
        f"\n## {shape.name}: {shape.groups} groups of {shape.siblings}, prompts of {prompt} tokens with "
        f"{shape.grid[1] * shape.grid[2] // 4} of an image, responses of {shape.response} ({arguments.lengths_now}, "
        f"longest {batch.mask_BT.shape[1]}), vocabulary {shape.vocabulary}, {shape.dtype}\n"
        f"{it.replay.positive:.0%} of the rollouts have A > 0, {it.replay.idle:.0%} A = 0. TRL is {trl}, in "
        f"micro-batches of {it.rows} rollouts; ours of {arguments.budget} tokens, prompts kept as {arguments.keep!r}. "
        f"{arguments.repeats} repeats in ABBA order, median [quartiles].\n"
        f"{it.policy.device}, {torch.get_num_threads()} threads, matrix products at {rate / 1e12:.3f} TFLOP/s\n"
    )


def show(times: dict[str, list[float]], peaks: dict[str, int], shares: dict[str, float]) -> None:
    """One line for each contestant."""
    print("| contestant | seconds | peak memory, MB | share of the matmul rate |\n|---|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {timing.spread(found)} | {peaks[name] / 1e6:.0f} | {shares[name]:.0%} |")


def points(arguments: argparse.Namespace) -> Iterator[Shape]:
    """Every combination that was asked for; `lengths_now` goes along in the arguments."""
    base = SHAPES[arguments.shape]
    base = replace(base, device=arguments.device or base.device, groups=arguments.groups or base.groups)
    many = (arguments.image_tokens, arguments.response, arguments.siblings)
    given = (
        one or [default] for one, default in zip(many, (base.image_tokens, base.response, base.siblings), strict=True)
    )
    for image_tokens, response, siblings, lengths in product(*given, arguments.lengths):
        arguments.lengths_now = lengths
        yield replace(base, image_tokens=image_tokens, response=response, siblings=siblings)


def parsed(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="cpu")
    parser.add_argument("--image-tokens", type=int, nargs="+", help="default: the shape's; likewise the next three")
    parser.add_argument("--response", type=int, nargs="+", help="mean length of a response")
    parser.add_argument("--siblings", type=int, nargs="+", help="rollouts of a group")
    parser.add_argument("--groups", type=int)
    parser.add_argument("--lengths", choices=("equal", "lognormal"), nargs="+", default=["equal"])
    parser.add_argument("--methods", choices=ours.METHODS, nargs="+", default=list(ours.METHODS))
    parser.add_argument("--keep", choices=("graph", "leaf", "recompute"), default="leaf", help="of prompts, by ours")
    parser.add_argument("--budget", type=int, default=ours.BUDGET, help="tokens at once, in ours")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warm-ups", type=int, default=3)
    parser.add_argument("--max-spread", type=float, default=0.1, help="largest interquartile range over median")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu or cuda; default: the shape's")
    parser.add_argument("--no-emulation", action="store_true", help="leave the released code out")
    parser.add_argument("--no-gradients", action="store_true", help="do not compare gradients")
    parser.add_argument(
        "--quick", action="store_true", help="one group, five repeats, no emulation, and no demand on the spread"
    )
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    found = parser.parse_args(given)
    if found.quick:
        found.groups, found.repeats, found.warm_ups, found.no_emulation = 1, 5, 0, True  # memory was looked at before
    if "grpo" not in found.methods:
        found.methods.insert(0, "grpo")
    return found


def main(given: list[str] | None = None) -> int:
    """The exit status: 1 if times were too unsteady to be told apart."""
    arguments = parsed(given)
    torch.set_num_threads(arguments.threads)
    results = [compare(contest(shape, arguments), arguments) for shape in points(arguments)]
    complaints = [line for result in results for line in result["unsteady"]]
    for line in complaints:
        print(f"unsteady: {line}", file=sys.stderr)
    if arguments.json:
        versions = {name: version(name) for name in ("torch", "transformers", "trl") if find_spec(name)}
        machine = {"versions": versions, "threads": torch.get_num_threads()}
        print(json.dumps({**(results[0] if len(results) == 1 else {"points": results}), **machine}))
    return 1 if complaints and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
