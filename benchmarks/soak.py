"""Does a long run grow? 20,000 optimizer steps of a very small model, measured every hundred steps.

    OMP_NUM_THREADS=1 python -m benchmarks.soak --out soak --steps 20000

Everything of a healthy run is there: PAPO with its masked view, sampling, traces of watched rounds, guards, a display,
the tune split asked every 500 steps, a checkpoint as often of which the last three stay, and a verifier whose worker
process compares an algebraic answer every 20 steps. The model is the seedling cut to one layer of each tower, which is
taught for a minute to answer in one line, right or not.

Of the second half of the run the growth over 20,000 steps is told with its 95 % interval: a line through the medians of
ten blocks, by least squares, Student's t with 8 degrees of freedom. Nothing grows where the interval's upper end lies
below the bound, or holds 0 with the estimate below the bound. The exit status is 1 where something grows. Time is the
process's own CPU time, which other programs disturb less than the clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from rich.console import Console

from vergence.chance import dice
from vergence.evaluate.tune import tune_evaluation
from vergence.models.policy import Policy, load
from vergence.rewards.verify import verify
from vergence.rollout.render import render
from vergence.scenes import embedded
from vergence.train.config import Config
from vergence.train.display import Display
from vergence.train.loop import train
from vergence.train.warm_start import Example, Stage, WarmStart, imitate
from vergence.types import Gold, Metrics, Original

EVERY = 100
"""Steps between measurements."""
BLOCKS, T_8 = 10, 2.306
"""Of the second half; and Student's t at 0.975 with `BLOCKS` - 2 degrees of freedom."""
OVER = 20_000
"""Steps over which growth is told."""
TEACHING = 400
"""Steps of imitation that make the model answer."""


class Bound(NamedTuple):
    """What may grow by how much over 20,000 steps."""

    name: str
    unit: str
    scale: float
    """From what is recorded to the unit."""
    most: float
    """In the unit; of a share: of the mean over the second half."""
    is_share: bool = False


BOUNDS = (
    Bound("rss", "MiB", 2.0**-20, 16.0),
    Bound("children_rss", "MiB", 2.0**-20, 16.0),
    Bound("handles", "", 1.0, 0.5),
    Bound("threads", "", 1.0, 0.5),
    Bound("children", "", 1.0, 0.5),
    Bound("checkpoints", "MiB", 2.0**-20, 1.0),
    Bound("cpu_step", "ms", 1e3, 0.05, is_share=True),
    Bound("cpu_all", "ms", 1e3, 0.05, is_share=True),
)
"""`cpu_step` is the median step of a hundred; `cpu_all` their mean, with evaluations and checkpoints."""


class Growth(NamedTuple):
    """What a line through the second half says: by how much it rises over `OVER` steps."""

    mean: float
    growth: float
    low: float
    high: float

    def within(self, most: float) -> bool:
        """Whether it is no growth: see the head of this file."""
        return self.high <= most or (self.growth <= most and self.low <= 0)


def growth(records: Sequence[Mapping[str, Any]], name: str) -> Growth:
    """Of one number, over the second half of what was recorded.

    >>> flat = [{"step": step, "rss": 7.0} for step in range(100, 8100, 100)]
    >>> growth(flat, "rss")
    Growth(mean=7.0, growth=0.0, low=0.0, high=0.0)
    >>> round(growth([one | {"rss": one["step"] / 100} for one in flat], "rss").growth)
    200
    """
    half = [one for one in records if one["step"] > records[-1]["step"] / 2]
    edges = [len(half) * at // BLOCKS for at in range(BLOCKS + 1)]
    blocks = [half[start:end] for start, end in pairwise(edges)]
    x = [fmean(one["step"] for one in block) for block in blocks]
    y = [median(float(one[name]) for one in block) for block in blocks]
    middle, mean = fmean(x), fmean(y)
    spread = sum((at - middle) ** 2 for at in x)
    slope = sum((at - middle) * (value - mean) for at, value in zip(x, y, strict=True)) / spread
    left = sum((value - mean - slope * (at - middle)) ** 2 for at, value in zip(x, y, strict=True))
    error = (left / (BLOCKS - 2) / spread) ** 0.5 * T_8
    return Growth(mean, slope * OVER, (slope - error) * OVER, (slope + error) * OVER)


class Meter:
    """Takes the run's numbers every `EVERY` steps, and writes them to a file beside the run folder."""

    def __init__(self, run: Path, file: Path) -> None:
        self.run, self.file, self.records = run, file, list[dict[str, Any]]()
        self.steps, self.since, self.began = list[float](), time.process_time(), time.perf_counter()
        self.start = self.since

    def __call__(self, step: int, metrics: Metrics, seconds: float) -> None:
        """After every step."""
        now = time.process_time()
        self.steps.append(now - self.since)
        if step % 20 == 0:  # what only the worker can compare, and has not yet
            found = verify(rf"\boxed{{\frac{{2x + {2 * step}}}{{2}}}}", Gold(f"x + {step}", "expression"))
            assert found.status == "right", found
        if step % EVERY == 0:
            self._take(step, now)
        self.since = time.process_time()

    def _take(self, step: int, now: float) -> None:
        clock, children = time.perf_counter(), _children()
        self.records.append(
            {
                "step": step,
                "rss": _status(os.getpid())["VmRSS"],
                "most_rss": _status(os.getpid())["VmHWM"],
                "children_rss": sum(_status(child).get("VmRSS", 0) for child in children),
                "children": len(children),
                "handles": len(os.listdir("/proc/self/fd")),
                "threads": len(os.listdir("/proc/self/task")),
                "cpu_step": median(self.steps),
                "cpu_all": (now - self.start) / len(self.steps),
                "seconds": (clock - self.began) / len(self.steps),
                "checkpoints": _size(self.run / "checkpoints"),
                "folder": _size(self.run),
            }
        )
        with self.file.open("a") as file:
            file.write(json.dumps(self.records[-1]) + "\n")
        self.steps, self.began, self.start = [], time.perf_counter(), time.process_time()


def _status(process: int) -> dict[str, int]:
    """The sizes in a process's status, bytes; {} of one that is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sprout(folder: Path) -> None:
    """The model: the seedling with the first layer of each tower, taught to answer in one line."""
    policy = load("seedling")
    core = policy.model.model
    core.language_model.layers = core.language_model.layers[:1]
    core.visual.blocks = core.visual.blocks[:1]
    core.visual.deepstack_visual_indexes, core.visual.deepstack_merger_list = [], torch.nn.ModuleList()
    config = policy.model.config
    config.text_config.num_hidden_layers, config.vision_config.depth = 1, 1
    config.vision_config.deepstack_visual_indexes = []
    settings = WarmStart(curriculum=(Stage(TEACHING, 800, (1, 0, 0, 0, 0, 0)),), batch=16, lr=1e-3)
    imitate(policy, [_answers(policy, 800)], settings)
    policy.model.eval()
    policy.save(folder)


def _answers(policy: Policy, number: int) -> list[Example]:
    made, encode = [], policy.reader.tokenizer
    for index in range(number):
        die, scene = dice("soak", index), embedded.draw("digits", "train", index, seed=7, partner=False).scene
        said = scene.gold.text if die.random() < 0.4 else str(die.randrange(10))
        text = f"{die.choice(('I see', 'Let me look.', 'First'))} \\boxed{{{said}}}"
        response = (*encode(text, add_special_tokens=False)["input_ids"], policy.reader.eos_id)
        made.append(Example(render(policy.reader, scene, Original(), 0), response, None))
    return made


def config_of(model: Path, steps: int, every: int) -> Config:
    """The run: one scene, four siblings and short answers, so that a step takes a twentieth of a second."""
    return Config(
        model=str(model),
        method="papo",
        options={"gamma": "0.01", "eta": "0.0", "beta": "0", "cell": "8"},
        worlds=("digits",),
        steps=steps,
        scenes_per_batch=1,
        siblings=4,
        max_tokens=16,
        lr=1e-6,
        watch_every=5,
        eval_every=every,
        eval_scenes=16,
        eval_samples=1,
        save_every=every,
        keep_last=3,
    )


def soak(out: Path, steps: int, every: int) -> list[dict[str, Any]]:
    """Train, and measure; what was measured."""
    out.mkdir(parents=True, exist_ok=True)
    model, run, file = out / "model", out / "run", out / "soak.jsonl"
    if not (model / "config.json").is_file():
        sprout(model)
    shutil.rmtree(run, ignore_errors=True)
    file.unlink(missing_ok=True)
    config, meter = config_of(model, steps, every), Meter(run, file)
    with open(os.devnull, "w") as nowhere:
        display = Display(steps, console=Console(file=nowhere, force_terminal=True, width=100))
        with display:

            def watch(step: int, metrics: Metrics, seconds: float) -> None:
                display(step, metrics, seconds)
                meter(step, metrics, seconds)

            train(config, run, evaluate=tune_evaluation(config, run), watch=watch, tell=print)
    return meter.records


def told(records: Sequence[Mapping[str, Any]]) -> bool:
    """Print the table; whether nothing grows."""
    fine, steps = True, records[-1]["step"]
    print(f"{steps:,} steps; growth over {OVER:,} steps by the second half, [95 % interval]")
    for bound in BOUNDS:
        found = growth(records, bound.name)
        unit = found.mean if bound.is_share else 1 / bound.scale
        within = found.within(bound.most * unit)
        mean, *grown = (f"{value * bound.scale:.4g}" for value in found)
        limit = f"{bound.most:.0%} of the mean" if bound.is_share else f"{bound.most:g} {bound.unit}".rstrip()
        print(
            f"  {bound.name:<14} mean {mean:>8} {bound.unit:<4} grows {grown[0]:>9} [{grown[1]}, {grown[2]}], "
            f"bound {limit}: {'no growth' if within else 'GROWS'}"
        )
        fine = fine and within
    seconds = [one["seconds"] for one in records]
    print(
        f"  a step takes {median(seconds):.3f} s by the clock (median over hundreds of steps), {max(seconds):.3f} most"
    )
    print(
        f"  the folder has {records[-1]['folder'] / 2**20:.1f} MiB, {records[-1]['folder'] / steps:,.0f} bytes a step"
    )
    return fine


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for the model, the run and soak.jsonl")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=500, help="steps between evaluations, and checkpoints")
    parser.add_argument("--read", action="store_true", help="only read soak.jsonl of --out again")
    given = parser.parse_args()
    if given.steps < 2 * BLOCKS * EVERY:
        parser.error(f"--steps must be at least {2 * BLOCKS * EVERY:,}: half of them make {BLOCKS} blocks of {EVERY}")
    if given.read:
        records = [json.loads(line) for line in (given.out / "soak.jsonl").read_text().splitlines()]
    else:
        records = soak(given.out, given.steps, given.every)
    sys.exit(0 if told(records) else 1)


if __name__ == "__main__":
    main()
