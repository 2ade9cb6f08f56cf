"""Train with Ray Train: one process of Vergence in each of its workers, as `torchrun` would start them.

    pip install 'ray[train]'
    python examples/ray_train.py --out /shared/runs/mine --workers 8 --gpus -- qwen2.5-vl-7b-lora --steps 100
    python examples/ray_train.py --out runs/mine --workers 2 -- demo --steps 2         # on a CPU

What follows `--` is what follows `vergence train`. The folder must be one that all workers see. Ray restarts nothing
here: go on with `-- ... --resume`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def worker(given: dict[str, Any]) -> None:
    """What every worker does; Ray has set RANK, WORLD_SIZE, LOCAL_RANK and the like, and the processes have met."""
    from vergence.cli import main

    try:
        main(["train", *given["arguments"]])
    except SystemExit as ended:  # which would end Ray's worker, and not tell why
        if ended.code:
            raise RuntimeError("the run ended with an error, which is told above") from None


def trainer(arguments: list[str], workers: int, *, gpus: bool, storage: Path) -> TorchTrainer:
    """The workers that will carry these arguments of `vergence train` out.

    Args:
        storage: for what Ray itself writes.
    """
    return TorchTrainer(
        worker,
        train_loop_config={"arguments": arguments},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(storage_path=str(storage)),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
    )


def main() -> None:
    """Train as the command line says."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--out", type=Path, required=True, help="the run's folder, which all workers see")
    asked.add_argument("--workers", type=int, default=2, help="processes")
    asked.add_argument("--gpus", action="store_true", help="a GPU for each")
    asked.add_argument("train", nargs="+", metavar="RECIPE ...", help="as after `vergence train`, behind --")
    given = asked.parse_args()
    out = given.out.resolve()
    where = ["--out", str(out), "--device", "cuda" if given.gpus else "cpu", "--quiet"]
    ray.init()
    trainer([*given.train, *where], given.workers, gpus=given.gpus, storage=out.parent / "ray").fit()
    print(out)


if __name__ == "__main__":
    main()
