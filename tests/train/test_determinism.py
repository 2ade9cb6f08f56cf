"""Same seed, same bits: training, evaluation and studies draw from keys alone, and a draw is nobody's but its key's."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vergence import chance
from vergence.evaluate.tune import tune_evaluation
from vergence.same.runs import same_runs
from vergence.scenes.canvas import handwriting
from vergence.studies.one import Job, carry_out
from vergence.studies.same import same_studies
from vergence.train.config import Config
from vergence.train.config_file import to_yaml
from vergence.train.loop import train
from vergence.train.parts import open_data
from vergence.train.run import read_lines

TINY = Config(
    method="papo", steps=2, scenes_per_batch=4, siblings=2, parts=2, max_tokens=8, eval_scenes=4, watch_every=1
)
RUNS = {
    "papo, adapters and evaluation": replace(TINY, adapter="lora", lora_rank=4, eval_every=1, eval_samples=1),
    "cppo, whose views draw much": replace(TINY, method="cppo"),
    "vppo with selections at random": replace(TINY, method="vppo-grpo+random"),
    "racro, with a reasoner": replace(TINY, method="racro", reasoner_tokens=8, eval_every=2, eval_samples=1),
}


@contextmanager
def global_state(seed: int) -> Iterator[None]:
    """What everyone could draw from is seeded with this, and is afterwards as it was; but for `random`, from which the
    checker of types draws, in tests: nothing may depend on that."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    before = str(np.random.get_state()), torch.get_rng_state()
    yield
    assert str(np.random.get_state()) == before[0], "somebody drew from `numpy.random`"
    assert torch.equal(torch.get_rng_state(), before[1]), "somebody drew from torch's generator"


def trained(config: Config, out: Path) -> Path:
    train(config, out, evaluate=tune_evaluation(config, out) if config.eval_every else None)
    return out


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name[:4] in ("cppo", "vppo") else name for name in RUNS]
)
def test_a_run_draws_nothing_from_global_state(name, tmp_path):
    for seed in (1, 2):
        with global_state(seed):
            trained(RUNS[name], tmp_path / str(seed))
    assert same_runs(tmp_path / "1", tmp_path / "2").same


def test_a_study_draws_nothing_from_global_state(tmp_path):
    config = replace(TINY, method="grpo", steps=1, parts=1, eval_every=1, eval_samples=1, watch_every=0)
    for seed in (1, 2):
        out = tmp_path / str(seed)
        job = Job(
            name="grpo seed 0",
            config=config,
            run=out / "runs" / "grpo" / "seed-0",
            record=out / "records" / "grpo" / "seed-0.jsonl",
            seconds=0.0,
            questions=4,
            samples=2,
            elsewhere=2,
        )
        with global_state(seed):
            carry_out(job)
    assert same_studies(tmp_path / "1", tmp_path / "2").same
    assert same_runs(*(tmp_path / seed / "runs" / "grpo" / "seed-0" for seed in "12")).same


@pytest.mark.parametrize("draws", [np.random.rand, lambda: torch.rand(1)], ids=["numpy", "torch"])
def test_a_draw_from_global_state_is_noticed(draws):
    with pytest.raises(AssertionError, match="somebody drew"), global_state(0):
        draws()


class Draws:
    """Every key that is made, by its parts, and every number that noise is made of, by key and position."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: set[tuple[int | str, ...]] = set()
        self.noise: dict[tuple[int, int], float] = {}
        handwriting.cache_clear()  # which is drawn once in a process
        key, uniform = chance.key, chance.uniform

        def told_key(*parts: int | str) -> int:
            self.keys.add(parts)
            return key(*parts)

        def told_uniform(key_B: torch.Tensor, position: int, size: int) -> torch.Tensor:
            drawn = uniform(key_B, position, size)
            for one, first in zip(key_B.tolist(), drawn[:, 0].tolist(), strict=True):
                assert self.noise.setdefault((one, position), first) == first
            return drawn

        monkeypatch.setattr(chance, "uniform", told_uniform)
        for module in [module for name, module in sys.modules.items() if name.startswith("vergence")]:
            for name, value in list(vars(module).items()):
                if value is key:
                    monkeypatch.setattr(module, name, told_key)


@contextmanager
def told() -> Iterator[Draws]:
    with pytest.MonkeyPatch.context() as patch:
        yield Draws(patch)


def drawn(config: Config, out: Path) -> Draws:
    with told() as found:
        trained(config, out)
    return found


ASKED = replace(TINY, eval_every=2, eval_samples=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Draws, Path]:
    """A run that nobody stopped, and its draws."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return drawn(ASKED, out), out


def test_another_cut_into_batches_changes_no_draw(whole, tmp_path):
    """Which draws are made is a matter of (seed, scene, view, sibling, step) alone: of sampling noise, of masks, of
    scenes, of the intervals of an evaluation. What is sampled at once, and scored at once, is no part of them."""
    first, second = (
        whole[0],
        drawn(replace(ASKED, sample_batch=3, token_budget=300, scorer="naive"), tmp_path / "other"),
    )
    assert first.keys == second.keys
    assert {key for key, _ in first.noise} == {key for key, _ in second.noise}
    assert all(first.noise[draw] == second.noise[draw] for draw in first.noise.keys() & second.noise.keys())
    for name in ("rollouts.jsonl", "traces.jsonl"):
        rows = [list(read_lines(run / name)) for run in (whole[1], tmp_path / "other")]
        told = [[(row["scene"], row["sibling"], row.get("view_key")) for row in run] for run in rows]
        assert told[0] == told[1]


def test_a_run_that_goes_on_makes_the_draws_of_one_that_was_not_stopped(whole, tmp_path):
    """In the middle of a batch. It looks at the next scenes besides, to foresee what memory they need."""
    out = tmp_path / "run"
    with told() as found:
        evaluate = tune_evaluation(ASKED, out)
        train(ASKED, out, until=1, evaluate=evaluate)
        train(ASKED, out, resume=True, evaluate=evaluate)
    assert whole[0].noise == found.noise
    assert whole[0].keys <= found.keys
    assert all("/train/0/1" in str(each) for each in found.keys - whole[0].keys)


def test_draws_of_another_seed_are_others(whole, tmp_path):
    """The comparisons above can fail."""
    second = drawn(replace(ASKED, seed=1), tmp_path / "run")
    assert not whole[0].noise.keys() & second.noise.keys()
    assert whole[0].keys != second.keys


def test_a_rollouts_noise_is_keyed_by_seed_round_scene_and_sibling(whole):
    """By hand: the keys of sampling noise are those, and no others are used for it."""
    draws, run = whole
    trained_on = {
        chance.key(ASKED.seed, "rollout", 0, row["scene"], row["sibling"]) for row in read_lines(run / "rollouts.jsonl")
    }
    asked = {
        chance.key(ASKED.seed, "evaluation", scene.key, sample)
        for scene in open_data(ASKED).held_out("tune", ASKED.eval_scenes, seed=ASKED.seed)
        for sample in range(ASKED.eval_samples)
    }
    assert {key for key, _ in draws.noise} == trained_on | asked


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_nothing_depends_on_the_salt_of_hashes(name, tmp_path):
    """A set of texts has another order in every process."""
    code = (
        "import json, sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from vergence.evaluate.tune import tune_evaluation\n"
        "from vergence.train.loop import train; from vergence.train.config_file import from_yaml\n"
        "config, out = from_yaml(sys.argv[1]), Path(sys.argv[2])\n"
        "train(config, out, evaluate=tune_evaluation(config, out) if config.eval_every else None)"
    )
    for salt in ("0", "1", "2"):
        arguments = [sys.executable, "-c", code, to_yaml(RUNS[name]), str(tmp_path / salt)]
        paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
        subprocess.run(arguments, check=True, env={**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": paths})
    for salt in "12":
        found = same_runs(tmp_path / "0", tmp_path / salt)
        assert found.same, found.differences
