"""Does the perception term do what it says? KL to the masked view under PAPO and GRPO, at equal seeds.

    python experiments/papo_against_grpo.py --out runs/papo-against-grpo --seeds 0 1 2 --gammas 0.02 0.1

Everything but gamma is the same: `papo` with gamma=0 is plain GRPO with its base settings, bit for bit (a law).
Prints, for each gamma, the mean over the last third of training of the KL to the masked view, its difference to gamma=0
at the same seed with a t interval over seeds, and the accuracy. The measured view erases cells of 14 pixels with
probability 0.6, for all runs alike; the trained one those of the demo's recipe (8 pixels).
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from scipy import stats

from vergence.recipes import recipe
from vergence.train.checkpoint import name_of
from vergence.train.loop import train
from vergence.train.run import read_lines

WATCHED = ("perception/k3_masked", "perception/kl_masked", "rewards/accuracy")


def last_third(run: Path, steps: int) -> dict[str, float]:
    """The mean of each watched metric over the last third of the steps."""
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["step"] > steps * 2 / 3]
    return {name: fmean(line[name] for line in lines if name in line) for name in WATCHED}


def interval(differences: list[float]) -> str:
    """Mean and 95 % t interval over seeds."""
    mean = fmean(differences)
    if len(differences) < 2:
        return f"{mean:+.4f} (one seed: no interval)"
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}] seeds={len(differences)}"


def main() -> None:
    """Run what has not been run, then print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--gammas", nargs="+", default=["0.02", "0.1"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    base = replace(recipe("demo", "papo"), steps=given.steps, eval_every=0, watch_every=2)
    found: dict[str, list[dict[str, float]]] = {}
    for gamma in ("0", *given.gammas):
        for seed in given.seeds:
            run = given.out / f"gamma-{gamma}-seed-{seed}"
            if not (run / "checkpoints" / name_of(given.steps)).exists():
                config = replace(base, seed=seed, options={**base.options, "gamma": gamma})
                if train(config, run, resume=(run / "config.yaml").exists()).name != name_of(given.steps):
                    return  # stopped by Ctrl-C; the same command goes on
            found.setdefault(gamma, []).append(last_third(run, given.steps))
    for gamma, runs in found.items():
        print(f"gamma {gamma}:", "  ".join(f"{name} {fmean(run[name] for run in runs):.4f}" for name in WATCHED))
        for name in WATCHED if gamma != "0" else ():
            print(
                f"    {name} against gamma 0:",
                interval([a[name] - b[name] for a, b in zip(runs, found["0"], strict=True)]),
            )


if __name__ == "__main__":
    main()
