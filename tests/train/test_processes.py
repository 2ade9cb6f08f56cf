"""Several processes are one: the same gradient to the last digits of float64, the same runs to those of float32."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train.several import Launch, config_of, gradient_of

from vergence.models.policy import load
from vergence.train import checkpoint
from vergence.train.loop import train

UNEVEN = [[9, 3, 4], [1, 1, 2], [30, 2, 7], [5, 6, 7]]
BASE = {"method": "papo", "scenes": ["image", "two images", "text", "again"], "lengths": UNEVEN}
GRADIENTS: dict[str, dict[str, Any]] = {
    "sharded": BASE,
    "replicated": {**BASE, "shards": 1},
    "no images in one process": {**BASE, "scenes": ["image", "text"], "lengths": [[9, 3], [8, 5]]},
    "one group with an advantage": {**BASE, "method": "grpo", "options": {"beta": "0"}, "quiet": [0, 1, 2]},
    "no images anywhere": {**BASE, "method": "grpo", "options": {"beta": "0"}, "quiet": [0, 1, 3]},
    "nothing to learn": {**BASE, "method": "grpo", "options": {"beta": "0"}, "quiet": [0, 1, 2, 3]},
    "adapters": {**BASE, "dtype": "float32", "adapter": "lora"},
    "bfloat16": {**BASE, "dtype": "bfloat16"},
}
PLAIN = ("no images anywhere", "nothing to learn", "adapters")
"""Of these the slow ones, for their number alone: see test_processes_more.py; likewise of what follows."""
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 0.02}
"""Of a weight's gradient, relative; bfloat16 rounds within one backward pass."""

TINY = {"steps": 3, "scenes_per_batch": 4, "siblings": 3, "token_budget": 400, "max_tokens": 24, "watch_every": 2}
SYSTEMS: dict[str, dict[str, Any]] = {
    "grpo": {"method": "grpo", "options": {"beta": "0"}, "watch_every": 0},
    "dapo": {"method": "dapo", "temperature": 1.3},
    "papo": {"method": "papo", "parts": 2},
    "papo@paper": {"method": "papo@paper"},
    "papo@full": {"method": "papo@full"},
    "cppo": {"method": "cppo"},
    "cappo": {"method": "cappo"},
    "racro": {"method": "racro"},
    "vppo": {"method": "vppo"},
    "cppo on dapo": {"method": "cppo-dapo", "temperature": 1.3},
    "adapters": {"method": "papo", "adapter": "lora"},
    "frozen tower": {"method": "grpo", "tower": "frozen"},
}
WAYS = {"sharded": 0, "replicated": 1}
QUICK = {"grpo": 3, "papo": 3, "cppo": 2, "racro": 2}
"""System -> steps."""
FAULTS = ("means", "local")


def fields(system: str, way: str = "sharded", **more: Any) -> dict[str, Any]:
    """The fields of a run's config that are not the defaults."""
    return {**TINY, **SYSTEMS[system], "shards": WAYS[way], **more}


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    """What two processes have done of every case here, in one launch; meanwhile one process does the same."""
    out = tmp_path_factory.mktemp("two")
    tasks = [{"name": name, **task} for name, task in GRADIENTS.items() if name not in PLAIN]
    tasks += [{"name": f"wrong, {fault}", **BASE, "broken": fault} for fault in FAULTS]
    tasks += [
        {"run": f"{system}, sharded", "config": fields(system, steps=steps), "count": system == "grpo"}
        for system, steps in QUICK.items()
    ]
    tasks += [{"run": "in two parts", "config": fields("papo"), "until": 1}]
    tasks += [{"run": "in two parts", "config": fields("papo"), "resume": True}]
    under_way = Launch(out, tasks)
    for system, steps in QUICK.items():
        train(config_of(fields(system, steps=steps)), out / f"{system}, alone")
    return under_way.wait()


def taken(out: Path, name: str) -> tuple[dict[str, float], dict[str, torch.Tensor], list[int]]:
    """What several processes have told of a gradient, the gradient, and how many rows each of them has of the batch."""
    held = json.loads((out / f"{name}.json").read_text())
    return held["told"], load_file(out / f"{name}.safetensors"), held["rows"]


def apart(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> float:
    """The largest difference of a tensor, in units of its length or of a thousandth of the longest's."""
    assert got.keys() == want.keys()
    longest = max((float(one.double().norm()) for one in want.values()), default=0.0)
    away = {name: float((got[name].double() - one.double()).norm()) for name, one in want.items()}
    return max((away[name] / max(float(want[name].double().norm()), 1e-3 * longest) for name in want), default=0.0)


def right(name: str) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """What one process tells of a gradient, and the gradient."""
    return _right("sharded" if name == "replicated" else name)


@cache
def _right(name: str) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    return gradient_of(GRADIENTS[name])[:2]


def assert_one_gradient(out: Path, name: str) -> None:
    """What is told of a gradient, which weights have one at all, and the gradient are those of one process."""
    told, grads = right(name)
    got_told, got, rows = taken(out, name)
    tolerance = TOLERANCE[GRADIENTS[name].get("dtype", "float64")]
    assert got_told == pytest.approx(told, rel=tolerance, abs=tolerance)
    assert apart(got, grads) <= tolerance
    assert all(rows)


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name not in PLAIN])
def test_the_gradient_is_that_of_one_process(launched, name):
    assert_one_gradient(launched, name)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(launched, fault):
    """Gradients averaged instead of added; terms of one's own rows alone."""
    assert_noticed(launched, fault)


def assert_noticed(out: Path, fault: str) -> None:
    """A gradient with that fault is another one."""
    (told, grads), (got_told, got, _) = right("sharded"), taken(out, f"wrong, {fault}")
    assert got_told != pytest.approx(told, rel=1e-3, abs=1e-3) or apart(got, grads) > 1e-3


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path, step: int = 3) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / checkpoint.name_of(step) / "model.safetensors")


def assert_one_run(got: Path, want: Path, steps: int = 3) -> None:
    """The same responses, the same weights to 1e-5 of what they are; the same numbers to 1e-5, but for percentiles."""
    for one, other in zip(lines(got), lines(want), strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert one[name] == pytest.approx(value, abs=1e-5, rel=1e-4), name
    said = [[json.loads(line)["response"] for line in (run / "rollouts.jsonl").open()] for run in (got, want)]
    assert said[0] == said[1]
    here, there = weights(got, steps), weights(want, steps)
    assert here.keys() == there.keys()
    for name, weight in there.items():
        assert here[name].dtype == weight.dtype
        torch.testing.assert_close(here[name], weight, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("system", QUICK)
def test_a_run_is_that_of_one_process(launched, system):
    """Loss, metrics and parameters after the last step to 1e-5."""
    assert_one_run(launched / f"{system}, sharded", launched / f"{system}, alone", QUICK[system])


def test_some_process_had_nothing_to_do_in_a_step(launched):
    """As all of its groups were skipped: so the runs above say something of that."""
    rows = [json.loads((launched / f"grpo, sharded.rows-{rank}.json").read_text()) for rank in (0, 1)]
    assert len(rows[0]) == len(rows[1]) == 3
    assert any(0 in step and any(step) for step in zip(*rows, strict=True))


# ---------------------------------------------------------------------------------------------------- going on


def assert_same_bytes(got: Path, want: Path, step: int = 3) -> None:
    """Files and checkpoints of two runs are the same, bit for bit."""
    for name in ("metrics.jsonl", "rollouts.jsonl", "traces.jsonl"):
        assert (got / name).read_bytes() == (want / name).read_bytes(), name
    here, there = (run / "checkpoints" / checkpoint.name_of(step) for run in (got, want))
    files = sorted(file.relative_to(there) for file in there.rglob("*.safetensors"))
    assert files == sorted(file.relative_to(here) for file in here.rglob("*.safetensors"))
    for file in files:
        one, other = load_file(here / file), load_file(there / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file


def gone_back(run: Path, to: Path, step: int = 1) -> Path:
    """A copy of a run that has stopped at its checkpoint of that step."""
    shutil.copytree(run, to)
    for folder in (to / "checkpoints").iterdir():
        if folder.name > checkpoint.name_of(step):
            shutil.rmtree(folder)
    return to


def test_two_processes_go_on_bit_for_bit(launched):
    """Stopped in the middle of a batch of rollouts."""
    assert_same_bytes(launched / "in two parts", launched / "papo, sharded")


def test_one_process_goes_on_with_what_two_have_saved(launched, tmp_path):
    run = gone_back(launched / "in two parts", tmp_path / "run")
    train(config_of(fields("papo")), run, resume=True)
    assert_one_run(run, launched / "papo, alone")


def test_two_processes_write_the_files_that_one_writes(launched):
    """In the same layout, and of the same tensors: a checkpoint says nothing of who has written it."""
    here, there = (launched / f"papo, {who}" / "checkpoints" / "step-000003" for who in ("sharded", "alone"))
    files = sorted(str(file.relative_to(there)) for file in there.rglob("*") if file.is_file())
    assert files == sorted(str(file.relative_to(here)) for file in here.rglob("*") if file.is_file())
    for name in ("model.safetensors", "trainer/optimizer.safetensors"):
        one, other = load_file(here / name), load_file(there / name)
        assert {key: (value.shape, value.dtype) for key, value in one.items()} == {
            key: (value.shape, value.dtype) for key, value in other.items()
        }
    assert (here / "config.json").read_bytes() == (there / "config.json").read_bytes()


# ---------------------------------------------------------------------------------------------------- what is sent


def test_weights_and_gradients_are_sent_once_in_a_step(launched):
    """One all-gather and one reduce-scatter for each unit and step, one number for the length of the gradient; and the
    weights once more for the checkpoint in the end."""
    run = launched / "grpo, sharded"
    found, config = json.loads(run.with_name(f"{run.name}.sent.json").read_text()), load("seedling").model.config
    steps = sum(line["grad_norm"] > 0 for line in lines(run))  # in a step without advantages there is nothing to send
    assert found["units"] == config.text_config.num_hidden_layers + config.vision_config.depth + 1
    assert found["_allgather_base_"] == found["units"] * (TINY["steps"] + 1)
    assert found["_reduce_scatter_base_"] == found["units"] * steps > 0
    assert found["all_reduce"] == steps
    assert found["allgather_"] == 2 * TINY["steps"]  # what is said of them, not they: an object and its length
    assert found.keys() == {"units", "_allgather_base_", "_reduce_scatter_base_", "all_reduce", "allgather_"}
