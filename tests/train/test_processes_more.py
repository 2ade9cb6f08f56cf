"""Several processes are one, in the cases that take minutes: every system either way, three processes, bfloat16."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train.several import Launch, config_of
from train.test_processes import (
    BASE,
    GRADIENTS,
    PLAIN,
    SYSTEMS,
    WAYS,
    assert_noticed,
    assert_one_gradient,
    assert_one_run,
    assert_same_bytes,
    fields,
    gone_back,
)

from vergence.train.loop import train

pytestmark = pytest.mark.slow

NARROW: dict[str, Any] = {**fields("papo"), "dtype": "bfloat16", "watch_every": 0, "verify_scorer": True}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The runs of one process."""
    out = tmp_path_factory.mktemp("one")
    for system in SYSTEMS:
        train(config_of(fields(system)), out / system)
    train(config_of(NARROW), out / "narrow")
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("two")
    tasks: list[dict[str, Any]] = [
        {"run": f"{system}, {way}", "config": fields(system, way)} for system in SYSTEMS for way in WAYS
    ]
    tasks += [{"name": name, **GRADIENTS[name]} for name in PLAIN]
    tasks += [{"name": "wrong, twice", **BASE, "broken": "twice"}]
    tasks += [{"run": "naive", "config": {**fields("grpo"), "scorer": "naive"}}]
    tasks += [{"run": "a sampler's own weights", "config": fields("papo"), "copied": True}]
    for name, config in {
        "narrow": NARROW,
        "adapters": fields("adapters"),
        "replicas": fields("cppo", "replicated"),
    }.items():
        tasks += [{"run": f"{name}, whole", "config": config}]
        tasks += [{"run": f"{name}, in two", "config": config, "until": 2}]
        tasks += [{"run": f"{name}, in two", "config": config, "resume": True}]
    tasks += [{"run": "begun alone", "config": fields("papo"), "resume": True}]
    train(config_of(fields("papo")), out / "begun alone", until=1)
    return Launch(out, tasks, checked=True).wait()


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """Four scenes in three processes; and, of four processes, two share a copy."""
    out = tmp_path_factory.mktemp("three")
    tasks = [{"run": system, "config": fields(system)} for system in ("grpo", "papo", "racro", "cappo")]
    tasks += [{"run": "two scenes", "config": fields("grpo", scenes_per_batch=2)}]
    Launch(out, tasks, size=3).wait()
    mixed = [{"run": f"{system}, mixed", "config": {**fields(system), "shards": 2}} for system in ("papo", "adapters")]
    return Launch(out, mixed, size=4).wait()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_is_that_of_one_process(two, alone, system, way):
    assert_one_run(two / f"{system}, {way}", alone / system)


@pytest.mark.parametrize("name", PLAIN)
def test_the_gradient_is_that_of_one_process(two, name):
    assert_one_gradient(two, name)


def test_rows_that_two_processes_score_are_noticed(two):
    assert_noticed(two, "twice")


def test_two_processes_go_on_with_what_one_has_saved(two, alone):
    """Stopped in the middle of a batch of rollouts."""
    assert_one_run(two / "begun alone", alone / "papo")


def test_the_naive_scorer(two, tmp_path):
    train(config_of({**fields("grpo"), "scorer": "naive"}), tmp_path / "run")
    assert_one_run(two / "naive", tmp_path / "run")


def test_a_sampler_with_weights_of_its_own_has_those_of_training(two, alone):
    """It is asked by the first process, for all of them."""
    assert_one_run(two / "a sampler's own weights", alone / "papo")


@pytest.mark.parametrize("system", ["grpo", "papo", "racro", "cappo"])
def test_three_processes_with_four_scenes(three, alone, system):
    assert_one_run(three / system, alone / system)


def test_three_processes_with_two_scenes(three, tmp_path):
    """One of them has nothing to do, ever."""
    train(config_of(fields("grpo", scenes_per_batch=2)), tmp_path / "run")
    assert_one_run(three / "two scenes", tmp_path / "run")


@pytest.mark.parametrize("system", ["papo", "adapters"])
def test_two_copies_of_two_shares(three, alone, system):
    assert_one_run(three / f"{system}, mixed", alone / system)


@pytest.mark.parametrize("name", ["narrow", "adapters", "replicas"])
def test_going_on_is_exact(two, name):
    assert_same_bytes(two / f"{name}, in two", two / f"{name}, whole")


def masters(run: Path, step: str = "step-000003") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / step / "trainer" / "optimizer.safetensors")


def test_bfloat16_is_that_of_one_process_but_for_its_digits(two, alone):
    """The float32 weights have moved alike: Adam's first steps go by the gradient's sign, so some go the other way."""
    got, want = masters(two / "narrow, whole"), masters(alone / "narrow")
    assert {name: (one.dtype, one.shape) for name, one in got.items()} == {
        name: (one.dtype, one.shape) for name, one in want.items()
    }
    moment = [
        torch.cat([held[name].flatten() for name in sorted(held) if name.endswith("exp_avg")]) for held in (got, want)
    ]
    assert torch.nn.functional.cosine_similarity(*moment, dim=0) > 0.99
    kinds = {
        name: one.dtype
        for name, one in load_file(two / "narrow, whole/checkpoints/step-000003/model.safetensors").items()
    }
    assert set(kinds.values()) == {torch.bfloat16}


def test_one_process_goes_on_in_bfloat16_and_with_adapters(two, tmp_path):
    """With the float32 weights, bit for bit, that two have saved."""
    for name, config in {"narrow": NARROW, "adapters": fields("adapters")}.items():
        run = gone_back(two / f"{name}, in two", tmp_path / name, 2)
        train(config_of(config), run, resume=True)
        if name == "adapters":
            assert_one_run(run, two / f"{name}, whole")
