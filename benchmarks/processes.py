"""Seconds of an optimizer step, and tokens that each process reads in it, by how many processes share the work.

    python -m benchmarks.processes [--processes 1 2] [--shards 0] [--steps 12] [--scenes 8] [--device cpu]

The work is the same: the same scenes, responses and updates of the seedling by PAPO, one batch again and again. On one
machine processes share its cores: give each --threads of its own. Median and quartiles over steps; the first two do not
count.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import spread

METHOD = "papo"


def main() -> None:
    """Start the processes, one number of them after the other, and print what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked)
        return
    for number in asked.processes:
        with tempfile.TemporaryDirectory() as folder:
            launch(asked, number, Path(folder))
            told = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("told-*.json"))]
        seconds, tokens = told[0]["seconds"][2:], [one["tokens"] / asked.steps for one in told]
        print(
            f"{number} processes: {spread(seconds)} s a step; tokens read by each in a step: "
            f"{', '.join(f'{one:,.0f}' for one in tokens)}",
            flush=True,
        )


def launch(asked: argparse.Namespace, number: int, folder: Path) -> None:
    """Run that many processes to their end."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    meeting = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "benchmarks.processes", *sys.argv[1:], "--work", str(folder)]
    running = []
    for rank in range(number):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": str(asked.threads)}
        running.append(subprocess.Popen(command, env={**os.environ, **meeting, **own}))
    codes = [process.wait() for process in running]
    if any(codes):
        sys.exit("a process failed")


def work(asked: argparse.Namespace) -> None:
    """One of the processes: every step of training but sampling, on the same batch."""
    import torch

    from vergence.models.prefix import core
    from vergence.train.config import Config
    from vergence.train.loop import update
    from vergence.train.parts import assemble
    from vergence.train.rounds import Clock, take_round

    torch.set_num_threads(asked.threads)
    config = Config(
        method=METHOD,
        steps=asked.steps,
        scenes_per_batch=asked.scenes,
        shards=asked.shards,
        device=asked.device,
        token_budget=4096,
        watch_every=0,
    )
    out = Path(asked.work)
    parts = assemble(config, out / "run")
    stands, prompts, _ = take_round(parts, _Nowhere(), _start(), Clock())
    seconds, read = [], [0]

    def count(_: Any, __: Any, given: dict[str, Any]) -> None:
        read[0] += given["inputs_embeds"].shape[:2].numel()

    core(parts.policy.model).language_model.register_forward_pre_hook(count, with_kwargs=True)
    for step in range(asked.steps):
        parts.backend.exchange(None)
        since = time.perf_counter()
        parts.backend.gather_weights()
        update(parts, stands.pending, prompts, step)
        if parts.policy.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - since)
    told = {"seconds": seconds, "tokens": read[0]}
    (out / f"told-{parts.backend.rank}.json").write_text(json.dumps(told))


def _start() -> Any:
    from vergence.train.checkpoint import Standing

    return Standing(0, 0, None)


class _Nowhere:
    """In the place of a run's folder: nothing is kept."""

    def append(self, name: str, records: Any) -> None:
        """Keep nothing."""


if __name__ == "__main__":
    main()
