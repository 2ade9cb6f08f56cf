"""Every system on the embedded default: does it learn, and is its signature visible in its own metric?

    python experiments/catalogue.py --out runs/catalogue --seeds 0

Trains each system with the demo's recipe, then asks the same 240 held-out questions of the report split before and
after (4 answers each; for RACRO through the whole pipeline, with both reasoners), and measures how far views move the
responses to 120 of them. All systems on GRPO share one base here (token mean, clip 0.2/0.28, no dual clip, no
reference KL), the run `grpo`: they differ in what the paper adds. Runs that are there are not trained again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from papo_against_grpo import interval

from vergence.chance import rng
from vergence.evaluate.interval import Estimate, paired_difference
from vergence.evaluate.perception import divergences
from vergence.evaluate.pipeline import answer_by_reasoner
from vergence.evaluate.suite import answer, by_question
from vergence.models.policy import load
from vergence.objectives.cppo import VIEWS
from vergence.recipes import recipe
from vergence.recipes.demo import CLOSER
from vergence.rollout.reason import load_reasoner
from vergence.scenes.source import open_source
from vergence.train.checkpoint import name_of
from vergence.train.loop import train
from vergence.types import Blank, Caption, Erase

ON_GRPO = {"mean": "token", "clip_low": "0.2", "clip_high": "0.28", "beta": "0"}
SYSTEMS = {
    "grpo": ("grpo", ON_GRPO),
    "dapo": ("dapo", {}),
    "papo": ("papo", {**ON_GRPO, "dual": "0", "gamma": "0.1", "cell": "8"}),
    "papo-dapo": ("papo-dapo", {"dual": "0", "overlong": "0.2", "gamma": "0.1", "eta": "0", "cell": "8"}),
    "papo-0.2": ("papo", {**ON_GRPO, "dual": "0", "gamma": "0.2", "cell": "8"}),
    "papo-dapo-0.2": ("papo-dapo", {"dual": "0", "overlong": "0.2", "gamma": "0.2", "eta": "0", "cell": "8"}),
    "cppo": ("cppo", {**ON_GRPO, "dual": "0", "coefficient": "0.01"}),
    "cappo": ("cappo", {**ON_GRPO, **CLOSER}),
    "vppo": ("vppo", {"entropy": "0", "cell": "8"}),
    "racro": ("racro", {**ON_GRPO, "dual": "0"}),
    "blind": ("grpo+blind", ON_GRPO),
}


def nearness(kl: dict) -> tuple[dict[str, float], dict[str, float]]:
    """How much nearer the image is to what keeps than to what removes, whatever the size of both."""
    kept, removed = kl["kept"], kl["removed"]
    return {one: removed[one] - kept[one] for one in kept}, {one: removed[one] + kept[one] for one in kept}


SHOWS = {"masked": Erase(0.6, 8), "kept": VIEWS["release"][0], "removed": VIEWS["release"][1], "caption": Caption()}
SIGNATURES = {
    "papo": ("grpo", "k3 to the masked view", lambda kl: (kl["masked k3"], None), +1),
    "papo-dapo": ("dapo", "k3 to the masked view", lambda kl: (kl["masked k3"], None), +1),
    "papo-0.2": ("grpo", "k3 to the masked view", lambda kl: (kl["masked k3"], None), +1),
    "papo-dapo-0.2": ("dapo", "k3 to the masked view", lambda kl: (kl["masked k3"], None), +1),
    "cppo": ("grpo", "nearness to the keeping view: (KL removed - KL kept) / (KL removed + KL kept)", nearness, +1),
    "cappo": ("grpo", "KL to the caption", lambda kl: (kl["caption"], None), -1),
}
"""System -> its base, what is compared, (numerator, denominator) of each question, and which way it should differ."""


def run(system: str, seed: int, out: Path, steps: int) -> Path:
    """The last checkpoint of a system, trained if it is not there."""
    method, options = SYSTEMS[system]
    folder = out / f"{system}-{seed}"
    last = folder / "checkpoints" / name_of(steps)
    if not last.exists():
        config = replace(recipe("demo", method), options=options, seed=seed, steps=steps, eval_every=0, watch_every=10)
        train(config, folder, resume=(folder / "config.yaml").exists())
    return last


def measured(model: Path | str, seed: int, cached: Path) -> dict:
    """Accuracies per question, and the divergences; kept in a file beside the run."""
    if cached.exists():
        return json.loads(cached.read_text())
    scenes = open_source("embedded", recipe("demo").worlds).held_out("report", 240, seed=seed)
    policy = load(model)
    found = {
        "image": by_question(answer(policy, scenes, seed=seed)),
        "blank": by_question(answer(policy, scenes, seed=seed, show=Blank())),
        "kl": divergences(policy, scenes[:120], SHOWS, seed=seed),
    }
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_text(json.dumps(found))
    return found


def piped(model: Path | str, seed: int, cached: Path) -> dict:
    """Accuracies per question of caption, tentative answer (or none) and reasoner; kept in a file beside the run."""
    if cached.exists():
        return json.loads(cached.read_text())
    scenes = open_source("embedded", recipe("demo").worlds).held_out("report", 240, seed=seed)
    policy, found = load(model), {}
    for name in ("weak", "strong"):
        for tentative in (True, False):
            records = answer_by_reasoner(policy, load_reasoner(name), scenes, seed=seed, tentative=tentative)
            found[f"{name} reasoner, {'joint prompt' if tentative else 'caption alone'}"] = by_question(records)
    cached.write_text(json.dumps(found))
    return found


def main() -> None:
    """Train what is missing, measure what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[tuple[str, int], dict] = {}
    for seed in given.seeds:
        found["seedling", seed] = measured("seedling", seed, given.out / f"seedling-{seed}.json")
        for system in given.systems:
            last = run(system, seed, given.out, given.steps)
            found[system, seed] = measured(last, seed, given.out / f"{system}-{seed}.json")
            if system == "racro":
                found["seedling", seed] |= piped("seedling", seed, given.out / f"seedling-{seed}-pipeline.json")
                found[system, seed] |= piped(last, seed, given.out / f"{system}-{seed}-pipeline.json")
            _print_learning(system, seed, found)
    _print_signatures(given.systems, given.seeds, found)


def _print_learning(system: str, seed: int, found: dict) -> None:
    before, after = found["seedling", seed], found[system, seed]
    asked = [name for name in after if "reasoner" in name] or ["image"]
    for name in asked:
        gain = paired_difference(before[name], after[name])
        line = f"{fmean(before[name].values()):.3f} -> {fmean(after[name].values()):.3f}  {gain}"
        print(f"{system} seed {seed}, {'accuracy' if name == 'image' else name}: {line}", flush=True)
    gap = [paired_difference(one["blank"], one["image"]) for one in (before, after)]
    print(f"{system} seed {seed}, blind gap: {gap[0]} -> {gap[1]}", flush=True)


def _print_signatures(systems: list[str], seeds: list[int], found: dict) -> None:
    for system in systems:
        base, what, value, sign = SIGNATURES.get(system, ("", "", None, 0))
        if not base or base not in systems:
            continue
        print(f"\n{system} against {base}, {what} (should be {'above' if sign > 0 else 'below'}):")
        differences = []
        for seed in seeds:
            other, own, difference = compared(*(value(found[name, seed]["kl"]) for name in (base, system)))
            differences.append(own - other)
            print(f"  seed {seed}: {other:.3f} -> {own:.3f}, paired {difference}")
        print(f"  {interval(differences)}")


def compared(other: tuple, own: tuple) -> tuple[float, float, Estimate]:
    """Two ratios of means over the same questions, and their difference with a bootstrap interval over questions."""
    scenes = sorted(own[0])

    def table(pair: tuple) -> np.ndarray:
        return np.array([[part[scene] if part else 1.0 for scene in scenes] for part in pair])

    first, second = table(other), table(own)
    drawn = rng("compared", len(scenes)).multinomial(len(scenes), np.full(len(scenes), 1 / len(scenes)), 10_000)

    def ratio(both: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return (counts @ both[0]) / (counts @ both[1])

    low, high = np.percentile(ratio(second, drawn) - ratio(first, drawn), [2.5, 97.5])
    a, b = (float(ratio(both, np.ones(len(scenes)))) for both in (first, second))
    return a, b, Estimate(b - a, float(low), float(high), len(scenes))


if __name__ == "__main__":
    main()
