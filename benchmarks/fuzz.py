"""Fuzz whatever takes input from elsewhere, with Hypothesis or atheris, and print what was found.

    python benchmarks/fuzz.py --engine atheris --target form,numbers --runs 1000000 --seconds 600

Each target of `tests/fuzz` runs in a process of its own, which is killed where an input takes longer than it may and no
alarm ends it. What breaks the law is written to --out, a file for each, with the bytes that make it again:

    python benchmarks/fuzz.py --again fuzz/form-1.bin

atheris (coverage-guided; CPython 3.11 to 3.13 on Linux) is no part of the tests: pip install atheris==3.0.0
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0:1] = [str(ROOT / "tests"), str(ROOT)]  # without benchmarks/ itself, whose fuzz.py would hide tests/fuzz
INSTRUMENTED = (
    "vergence.rewards",
    "vergence.scenes",
    "vergence.harnesses",
    "vergence.report",
    "vergence.train.config_file",
)
INSTRUMENTED += ("vergence.train.run", "vergence.train.recorded", "vergence.train.data", "vergence.studies.record")
"""What atheris is to see the branches of. torch and the other packages stay as they are."""
GRACE = 30.0
"""Seconds beyond a target's own after which its process is killed."""
HEAD = ("target", "engine", "inputs", "seconds", "slowest", "MiB more", "crashes", "hangs", "unescaped")


class Tally:
    """What one process has tried and found, in a file that its parent reads whenever it likes."""

    def __init__(self, name: str, out: Path, runs: int) -> None:
        self.name, self.out, self.runs = name, out, runs
        self.inputs = 0
        self.slowest = 0.0
        self.found: dict[str, list[Any]] = {}
        self.began, self.memory = time.time(), _memory()
        self.beat = 0.0

    def one(self, target: Any, draw: Any, data: bytes | None) -> bool:
        """Try an input; whether the law holds for it."""
        from fuzz.kinds import Hang, Unescaped, within

        began, holds = time.process_time(), True
        try:
            with within(target.seconds):
                target.run(draw)
        except (Exception, Hang) as error:
            if type(error).__module__.startswith("hypothesis"):
                raise  # Hypothesis's own way to end an example
            holds = False
            kind = "unescaped" if isinstance(error, Unescaped) else "hangs" if isinstance(error, Hang) else "crashes"
            self._keep(kind, error, data)
        self.inputs += 1
        self.slowest = max(self.slowest, time.process_time() - began)
        if time.time() - self.beat > 1 or not holds or self.inputs == self.runs:
            self.write()
        return holds

    def _keep(self, kind: str, error: BaseException, data: bytes | None) -> None:
        frames = [
            one for one in traceback.extract_tb(error.__traceback__) if f"{os.sep}vergence{os.sep}" in one.filename
        ]
        where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "the target"
        said = re.sub("[0-9]+", "N", str(error))[:60] if isinstance(error, AssertionError) else ""
        key = f"{kind}: {type(error).__name__} at {where} {said}".rstrip()
        if key not in self.found:
            path = self.out / f"{self.name.replace(' ', '-')}-{len(self.found) + 1}"
            path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), errors="replace")
            if data is not None:
                path.with_suffix(".bin").write_bytes(data)
            self.found[key] = [kind, 0]
        self.found[key][1] += 1

    def write(self) -> None:
        """Say how far it is."""
        self.beat = time.time()
        row = {
            "target": self.name,
            "inputs": self.inputs,
            "seconds": self.beat - self.began,
            "slowest": self.slowest,
            "more": _memory() - self.memory,
            "found": self.found,
        }
        partial = self.out / f".{self.name.replace(' ', '-')}.partial"
        partial.write_text(json.dumps(row))
        partial.replace(self.out / f"{self.name.replace(' ', '-')}.json")


def _memory() -> float:
    """The most that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _load(engine: str) -> None:
    """Import the targets, once for all processes; atheris is then to see the branches of what is fuzzed."""
    import torch  # noqa: F401  (before anything is instrumented)

    if engine != "atheris":
        import fuzz.targets

        return
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        import fuzz.targets  # noqa: F401


def _target(name: str) -> Any:
    from fuzz.targets import TARGETS

    return next(one for one in TARGETS if one.name == name)


def by_hypothesis(name: str, runs: int, seconds: float, seed: int, out: Path) -> None:
    """So many inputs of a target by Hypothesis; one that breaks the law does not end it."""
    from fuzz.targets import FromHypothesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    target, tally = _target(name), Tally(name, out, runs)

    @seeded(seed)
    @settings(
        max_examples=runs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: Any) -> None:
        if time.time() - tally.began > seconds:
            raise KeyboardInterrupt  # what Hypothesis lets through
        tally.one(target, FromHypothesis(data), None)

    with contextlib.suppress(KeyboardInterrupt):
        run()
    tally.write()


def by_atheris(name: str, runs: int, seconds: float, seed: int, out: Path) -> None:
    """So many inputs of a target by atheris; it ends the process."""
    import atheris
    from fuzz.drawing import FromBytes

    target, tally = _target(name), Tally(name, out, runs)

    def run(data: bytes) -> None:
        tally.one(target, FromBytes(data), data)

    corpus = out / f"corpus-{name.replace(' ', '-')}"
    corpus.mkdir(exist_ok=True)
    how = [
        "fuzz",
        f"-runs={runs}",
        f"-max_total_time={int(seconds)}",
        f"-seed={seed}",
        "-max_len=600",
        "-rss_limit_mb=8192",
        "-timeout=0",
        "-verbosity=0",
    ]
    atheris.Setup([*how, "-print_final_stats=0", str(corpus)], run)
    atheris.Fuzz()


def fuzz(engine: str, name: str, runs: int, most: float, seed: int, out: Path) -> dict[str, Any]:
    """What a process of its own found; it is killed where it says nothing for longer than an input may take."""
    from fuzz.kinds import WAITING

    seconds = _target(name).seconds
    file = out / f"{name.replace(' ', '-')}.json"
    file.unlink(missing_ok=True)
    work = by_atheris if engine == "atheris" else by_hypothesis
    child = multiprocessing.get_context("fork").Process(target=_alone, args=(work, name, runs, most, seed, out))
    child.start()
    killed, since = False, time.time()
    while child.is_alive():
        child.join(1.0)
        beat = file.stat().st_mtime if file.exists() else since + 300  # it has to start
        if time.time() - beat > WAITING * seconds + GRACE and child.is_alive():
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            killed = True
    row = json.loads(file.read_text()) if file.exists() else {"target": name, "inputs": 0, "seconds": 0.0}
    row = {"slowest": 0.0, "more": 0.0, "found": {}} | row
    if killed:
        row["found"]["hangs: killed"] = ["hangs", 1]
    elif child.exitcode:
        row["found"][f"crashes: the process ended with {child.exitcode}"] = ["crashes", 1]
    return row


def _alone(work: Any, name: str, runs: int, most: float, seed: int, out: Path) -> None:
    """In the process of a target, which says nothing: what a parser prints goes to a file."""
    quiet = os.open(out / f"{name.replace(' ', '-')}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    from fuzz.drawing import FromBytes

    with contextlib.suppress(Exception):  # what is imported late, or made once, is no input's time
        _target(name).run(FromBytes(b""))
    work(name, runs, most, seed, out)


def line(row: dict[str, Any], engine: str) -> list[str]:
    """A row of the table: broken laws are counted by place, however often each was hit."""
    count = {kind: sum(one == kind for one, _ in row["found"].values()) for kind in ("crashes", "hangs", "unescaped")}
    cells = [row["target"], engine, f"{row['inputs']:,}", f"{row['seconds']:.0f}", f"{row['slowest']:.2f}"]
    return [*cells, f"{max(0.0, row['more']):.0f}", *map(str, count.values())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and print the table; 1 where a law was broken."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    given.add_argument("--target", default="all", help="names with commas between, or all")
    given.add_argument("--runs", type=int, default=1000, help="inputs of each")
    given.add_argument("--seconds", type=float, default=3600.0, help="of each, at most")
    given.add_argument("--seed", type=int, default=1)
    given.add_argument("--out", type=Path, default=Path("fuzz"))
    given.add_argument("--again", type=Path, help="a .bin of an earlier run: do that one again, and raise")
    asked = given.parse_args(arguments)
    if asked.again:
        from fuzz.drawing import FromBytes

        name = re.sub("-[0-9]+$", "", asked.again.stem).replace("-", " ")
        _target(name).run(FromBytes(asked.again.read_bytes()))
        return 0
    if asked.engine == "atheris":
        try:
            import atheris  # noqa: F401
        except ImportError:
            print("atheris is not installed: pip install atheris==3.0.0 (CPython 3.11 to 3.13, Linux)", file=sys.stderr)
            return 2
    _load(asked.engine)
    from fuzz.targets import TARGETS

    names = [one.name for one in TARGETS] if asked.target == "all" else asked.target.split(",")
    if unknown := [name for name in names if name not in {one.name for one in TARGETS}]:
        print(f"no target {unknown[0]!r}; there are: {', '.join(one.name for one in TARGETS)}", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    print(" | ".join(HEAD), flush=True)
    found: list[str] = []
    for name in names:
        row = fuzz(asked.engine, name, asked.runs, asked.seconds, asked.seed, asked.out)
        print(" | ".join(line(row, asked.engine)), flush=True)
        found += [f"{name}: {key} ({times}x)" for key, (_, times) in row["found"].items()]
    print("\n".join(found), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
