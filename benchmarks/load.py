"""What the commands take that open a run, where the run has 100,000 rollouts.

    OMP_NUM_THREADS=1 python -m benchmarks.load make --out load             # writes load/small, load/large, load/other
    OMP_NUM_THREADS=1 python -m benchmarks.load measure --out load

`small` is a run that was really trained: 10 steps of the seedling, 10 scenes with 5 siblings each, evaluated before and
after. `large` is made from it: 2,000 steps, whose lines are those of `small` in turn, with new steps, new numbers of
scenes, metrics and measurements moved by up to a tenth (by a key, so that equal sizes give equal bytes), and with every
response, and whatever was measured at its tokens, twelve times in a row: 1,400 characters, 370 tokens, as larger models
write. Its pictures are those of the scenes' new numbers, not those that the words are about. `other` is a second such
run, from another key. Every command runs in a process of its own, whose seconds and peak memory are told.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vergence.chance import rng
from vergence.evaluate.suite import answer, write_records
from vergence.models.policy import Policy, load
from vergence.scenes.source import Embedded
from vergence.train.checkpoint import name_of
from vergence.train.config import Config
from vergence.train.loop import train
from vergence.train.sums import write_sums
from vergence.types import ORIGINAL, Blank

STEPS, SCENES, SIBLINGS, LONGER = 2_000, 10, 5, 12
KERNEL = 10
"""Steps that are really trained."""
QUESTIONS, SAMPLES = 60, 4
"""Of `small`; `large` has ten times the questions."""
ALLOWED = 3600
"""Seconds a command may take; then it is ended, with the status 124."""
LAUNCH = """
import atexit, sys
from pathlib import Path

def tell():
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=open(file, "w"))

file, arguments = sys.argv[1], sys.argv[2:]
atexit.register(tell)
"""
"""What is run before a command in its process: at the end it writes its peak of memory, KiB."""
OURS = f"{LAUNCH}\nfrom vergence.cli import main\nmain(arguments)"


class Taken(NamedTuple):
    """What a command took."""

    seconds: float
    cpu: float
    """Of these, CPU time, that of its own processes included: other programs do not count."""
    mib: float
    """At its peak."""
    status: int
    said: str
    """Its last line."""


# ------------------------------------------------------------------------------------------------ making


def kernel(run: Path) -> None:
    """The run that everything is made from: trained, and evaluated before and after."""
    config = Config(
        method="papo",
        options={"gamma": "0.02", "eta": "0.0", "beta": "0", "cell": "8"},
        steps=KERNEL,
        scenes_per_batch=SCENES,
        siblings=SIBLINGS,
        eval_every=5,
        save_every=5,
    )
    source = Embedded(config.worlds)
    scenes = source.held_out("report", QUESTIONS, seed=0)

    def ask(policy: Policy, name: str, **how: Any) -> None:
        write_records(run / "evaluation" / f"{name}.jsonl", answer(policy, scenes, samples=SAMPLES, **how))

    def evaluate(policy: Policy) -> dict[str, float]:
        return {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "questions": 96, "perception_errors": 0.3}

    last = train(config, run, evaluate=evaluate, source=source)
    ask(load("seedling"), "before", show=ORIGINAL)
    ask(load(last), "after", show=ORIGINAL)
    ask(load(last), "after-blind", show=Blank())


def multiply(small: Path, large: Path, *, steps: int, longer: int, seed: int) -> None:
    """The large run: see the head of this file."""
    shutil.copytree(small, large, ignore=shutil.ignore_patterns("*.jsonl", "report.html", "checkpoints"))
    text = (small / "config.yaml").read_text()
    (large / "config.yaml").write_text(re.sub(r"^steps: \d+", f"steps: {steps}", text, flags=re.MULTILINE))
    for name in ("metrics.jsonl", "timings.jsonl", "rollouts.jsonl", "traces.jsonl"):
        by_step = _by_step(small / name)
        with (large / name).open("w") as file:
            for step in range(1, steps + 1):
                for at, line in enumerate(by_step.get((step - 1) % KERNEL + 1, [])):
                    die = rng("load", seed, name, step, at)
                    file.write(json.dumps(_again(line, step, longer, die)) + "\n")
    for path in sorted((small / "evaluation").glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        target = large / "evaluation" / path.name
        target.parent.mkdir(exist_ok=True)
        with target.open("w") as file:
            for turn in range(10):
                file.writelines(json.dumps(_moved(line, turn * QUESTIONS)) + "\n" for line in lines)
    for name, step in (("step-000005", steps // 2), ("step-000010", steps)):
        _checkpoint(small / "checkpoints" / name, large, step)


def _by_step(path: Path) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        found.setdefault(line["step"], []).append(line)
    return found


def _again(line: dict[str, Any], step: int, longer: int, die: np.random.Generator) -> dict[str, Any]:
    """A line as one of another step."""
    if "scene" not in line:
        return {"step": step} | {name: _jittered(value, die) for name, value in line.items() if name != "step"}
    line = _moved(line, (step - 1) // KERNEL * KERNEL * SCENES) | {"step": step}
    inside, mark, end = line["response"].rpartition("</think>")
    line["response"] = inside * longer + mark + end if mark else line["response"] * longer
    if isinstance(line["tokens"], int):
        return line | {"tokens": line["tokens"] * longer}
    line["tokens"] = line["tokens"] * longer
    line["looks"] = line["looks"] and line["looks"] * longer
    line["selected"] = {name: flags * longer for name, flags in line["selected"].items()}
    line["stats"] = {
        name: [None if value is None else float(f"{_jittered(value, die):.4g}") for value in values * longer]
        for name, values in line["stats"].items()
    }
    return line


def _jittered(value: Any, die: np.random.Generator) -> Any:
    return value * (1 + 0.1 * (2 * die.random() - 1)) if isinstance(value, float) else value


def _moved(line: dict[str, Any], by: int) -> dict[str, Any]:
    place, _, number = line["scene"].rpartition("/")
    return line | {"scene": f"{place}/{int(number) + by}"}


def _checkpoint(small: Path, run: Path, step: int) -> None:
    """The weights of a checkpoint of `small`, as if they had been written after this step of the run."""
    made = run / "checkpoints" / name_of(step)
    shutil.copytree(small, made)
    state = json.loads((made / "trainer" / "state.json").read_text()) | {"step": step, "position": step * SCENES}
    state["logs"] = {name: _mark(run / name, step) for name in state["logs"]}
    (made / "trainer" / "state.json").write_text(json.dumps(state) + "\n")
    (made / "SHA256SUMS").unlink()
    write_sums(made)


def _mark(log: Path, step: int) -> tuple[int, str]:
    """Bytes of the lines up to a step, and their hash."""
    size, found = 0, hashlib.sha256()
    with log.open("rb") as file:
        for line in file:
            if int(line[len(b'{"step": ') : 30].split(b",")[0]) > step:
                break
            size += len(line)
            found.update(line)
    return size, found.hexdigest()


# --------------------------------------------------------------------------------------------- measuring


def commands(run: Path, other: Path, pages: Path) -> Iterator[tuple[str, list[str]]]:
    """(what it is called, the arguments) of every command that opens a run."""
    yield "report", ["report", str(run), "--out", str(pages / "one.html")]
    yield "report of two", ["report", str(run), str(other), "--out", str(pages / "two.html")]
    yield "look", ["look", str(run), "--number", "1", "--max-tokens", "16"]
    yield "tokens", ["tokens", str(run), "--number", "4", "--max-tokens", "16"]
    yield "eval", ["eval", str(run), "--number", "4", "--samples", "1", "--out", str(pages / "answers.jsonl")]
    yield "export", ["export", str(run), "--to", "neutral", "--out", str(pages / "neutral")]
    yield "push --dry-run", ["push", str(run), "owner/name", "--dry-run"]
    yield "same", ["same", str(run), str(run.with_name(f"{run.name}-copy"))]
    yield "verify --audit", ["verify", "--audit", str(run), "--wording", "short"]
    longer = json.loads((run / "steps.json").read_text()) + 1
    again = ["train", "--config", str(run / "config.yaml"), "--steps", str(longer), "--resume"]
    yield "train --resume", [*again, "--out", str(run.with_name(f"{run.name}-copy")), "--quiet"]


def take(arguments: Sequence[str], log: Path, code: str = OURS) -> Taken:
    """Run one of our commands, or other code, and say what it took."""
    most = log.with_suffix(".most")
    most.unlink(missing_ok=True)
    with log.open("w") as file:
        since, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", code, str(most), *arguments]
        try:
            status = subprocess.run(command, stdout=file, stderr=file, timeout=ALLOWED).returncode
        except subprocess.TimeoutExpired:
            status = 124
            most.write_text("0")
        seconds, after = time.perf_counter() - since, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return Taken(seconds, cpu, int(most.read_text()) / 1024, status, (said or [""])[-1].strip()[:100])


def measure(out: Path, only: Sequence[str]) -> None:
    """Print the table."""
    print(f"{'':<16}{'small: s':>12}{'CPU s':>8}{'MiB':>8}{'large: s':>14}{'CPU s':>8}{'MiB':>8}")
    for (name, small), (_, large) in zip(
        *(commands(out / run, out / "other", _pages(out, run)) for run in ("small", "large")), strict=True
    ):
        if only and name not in only:
            continue
        taken = []
        for run, arguments in (("small", small), ("large", large)):
            copy = out / f"{run}-copy"
            shutil.rmtree(copy, ignore_errors=True)
            if str(copy) in arguments:
                shutil.copytree(out / run, copy)
            taken.append(take(arguments, out / "log.txt"))
            shutil.rmtree(copy, ignore_errors=True)
        cells = "  ".join(f"{one.seconds:>12.1f}{one.cpu:>8.1f}{one.mib:>8,.0f}" for one in taken)
        print(f"{name:<16}{cells}   {taken[1].status} {taken[1].said}", flush=True)
    for page in ("one.html", "two.html"):
        sizes = [out / f"pages-{run}" / page for run in ("small", "large")]
        told = ", ".join(f"{path.stat().st_size / 2**20:.1f} MiB" for path in sizes if path.is_file())
        print(f"{page}: {told}")


def _pages(out: Path, run: str) -> Path:
    pages = out / f"pages-{run}"
    shutil.rmtree(pages / "neutral", ignore_errors=True)
    pages.mkdir(exist_ok=True)
    (pages / "answers.jsonl").unlink(missing_ok=True)
    return pages


def make(out: Path, steps: int) -> None:
    """Write the runs."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "small" / "evaluation" / "after-blind.jsonl").is_file():
        shutil.rmtree(out / "small", ignore_errors=True)
        kernel(out / "small")
    (out / "small" / "steps.json").write_text(str(KERNEL))
    for name, seed in (("large", 0), ("other", 1)):
        shutil.rmtree(out / name, ignore_errors=True)
        multiply(out / "small", out / name, steps=steps, longer=LONGER, seed=seed)
        (out / name / "steps.json").write_text(str(steps))
    for path in sorted((out / "large").glob("*.jsonl")):
        with path.open("rb") as file:
            number = sum(1 for _ in file)
        print(f"{path.name:<16}{number:>9,} lines {path.stat().st_size / 2**20:>9,.1f} MiB")


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", nargs="*", default=(), help="names of the table's lines")
    given = parser.parse_args()
    make(given.out, given.steps) if given.what == "make" else measure(given.out, given.only)


if __name__ == "__main__":
    main()
