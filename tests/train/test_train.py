"""Training on the real seedling: resume is exact, micro-batches are memory, checkpoints load, bad input is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vergence.models.policy import load
from vergence.train import checkpoint
from vergence.train.config import Config
from vergence.train.config_file import to_yaml
from vergence.train.loop import learning_rate, train
from vergence.train.run import RunFolder, read_lines
from vergence.train.sums import write_sums
from vergence.types import UserError

TINY = Config(
    method="papo",
    options={"gamma": "0.05", "eta": "0.01", "beta": "0.01", "cell": "8"},
    steps=4,
    scenes_per_batch=4,
    siblings=3,
    parts=2,
    token_budget=400,
    max_tokens=40,
    watch_every=1,
)
SAME = ("metrics.jsonl", "rollouts.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run; nobody writes to it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(TINY, out)
    return out


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / checkpoint.name_of(step)
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "trainer" / "optimizer.safetensors")}


def assert_equal_runs(first: Path, second: Path, step: int) -> None:
    for name in SAME:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    one, other = tensors(first, step), tensors(second, step)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("until", [1, 2, 3], ids=lambda step: f"until {step}")
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(whole, tmp_path, until):
    """With two steps to a batch, 1 and 3 stop in the middle of one."""
    train(TINY, tmp_path / "run", until=until)
    train(TINY, tmp_path / "run", resume=True)
    assert_equal_runs(whole, tmp_path / "run", 4)


def test_what_came_after_the_last_checkpoint_is_taken_again_not_twice(whole, tmp_path):
    run = tmp_path / "run"
    train(TINY, run, until=2)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "reward": -1}) + "\n" + '{"step": 4, "rew')
    train(TINY, run, resume=True)
    assert_equal_runs(whole, run, 4)


def test_resume_notices_another_seed_by_its_bits(whole, tmp_path):
    """The comparison above can fail."""
    train(replace(TINY, seed=1), tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_equal_runs(whole, tmp_path / "run", 4)


def test_micro_batches_are_memory_only(whole, tmp_path):
    train(replace(TINY, token_budget=5004), tmp_path / "run", until=1)
    one, other = next(read_lines(whole / "metrics.jsonl")), next(read_lines(tmp_path / "run" / "metrics.jsonl"))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == pytest.approx(other[name], abs=2e-5, rel=1e-3), name


def test_on_policy_the_ratio_is_one_and_nothing_is_clipped(whole):
    """Sampler and scorer agree: at the first step on a batch no token is clipped and the reference KL is zero."""
    first = next(read_lines(whole / "metrics.jsonl"))
    assert first["clip_ratio/low"] == first["clip_ratio/high"] == 0.0
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    assert first["loss/surrogate"] == pytest.approx(surrogate_at_ratio_one(whole), abs=1e-4)


def surrogate_at_ratio_one(run: Path) -> float:
    """-mean over tokens of the advantage, of the rollouts of the first part."""
    rows = [row for row in read_lines(run / "rollouts.jsonl") if row["step"] == 1][: 2 * TINY.siblings]
    return -sum(row["advantage"] * row["tokens"] for row in rows) / sum(row["tokens"] for row in rows)


def test_the_terms_add_up_to_the_loss(whole):
    for line in read_lines(whole / "metrics.jsonl"):
        assert line["loss"] == pytest.approx(sum(v for k, v in line.items() if k.startswith("loss/")), abs=1e-9)


def test_records_hold_no_clock(whole):
    for name in SAME:
        assert not any("second" in key or key.endswith("_s") for line in read_lines(whole / name) for key in line)


def test_a_checkpoint_is_a_hugging_face_model(whole):
    from transformers import AutoModelForImageTextToText

    folder = whole / "checkpoints" / "step-000004"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    ours = load(folder).model
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), ours.state_dict().values(), strict=True))
    moved = [
        name
        for name, value in load("seedling").model.state_dict().items()
        if not torch.equal(value, ours.state_dict()[name])
    ]
    assert any("visual" in name for name in moved), "the vision tower trains too"


def test_learning_rate_decays_to_a_tenth():
    config = Config(lr=0.1, warmup=0, decay="linear", steps=11)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 10) == pytest.approx(0.01)


# ------------------------------------------------------------------------------------------------------ bad input


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(UserError, match="is not empty: give another --out"):
        train(TINY, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "do not lose me"


def test_the_folder_of_another_run_is_refused(whole, tmp_path):
    with pytest.raises(UserError, match="holds a run already"):
        train(TINY, whole)
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    with pytest.raises(UserError, match=r"its lr is 0.00015, not 0.1"):
        train(replace(TINY, lr=0.1), run, resume=True)
    with pytest.raises(UserError, match="nothing to resume"):
        train(TINY, tmp_path / "nowhere", resume=True)


def test_a_server_may_come_back_at_another_address(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    started = replace(TINY, captions="http://one:8000")
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(started))
    RunFolder.resume(tmp_path / "run", replace(started, captions="http://two:9000", server_model="m"))
    with pytest.raises(UserError, match="its captions is 'http://two:9000', not 'scene'"):
        RunFolder.resume(tmp_path / "run", replace(started, captions="scene", server_model="m"))


def test_a_key_in_an_address_is_refused_before_it_is_written():
    for field in ("captions", "reasoner"):
        with pytest.raises(UserError) as told:
            replace(TINY, **{field: "https://user:hidden@host/v1"})
        assert "hidden" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "./nowhere"}, "no model at ./nowhere"),
        ({"method": "papa"}, "did you mean 'papo'"),
        ({"options": {"gama": "1"}}, "did you mean 'gamma'"),
        ({"options": {"gamma": "much"}}, "must be a finite number"),
        ({"worlds": ("digits", "moon")}, "no world 'moon'"),
        ({"scenes": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_what_does_not_exist_is_named_before_anything_is_written(tmp_path, change, told):
    with pytest.raises(UserError, match=told):
        train(replace(TINY, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_architecture_is_refused(whole, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    weights = load_file(run / "checkpoints" / "step-000004" / "model.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name][..., :1].contiguous()
    from safetensors.torch import save_file

    save_file(weights, run / "checkpoints" / "step-000004" / "model.safetensors")
    write_sums(run / "checkpoints" / "step-000004")
    with pytest.raises(UserError, match=r"cannot resume from .*step-000004"):
        train(replace(TINY, steps=5), run, resume=True)


def test_a_damaged_checkpoint_is_told(whole, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "checkpoints" / "step-000004" / "trainer" / "optimizer.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"no checkpoint in .*optimizer\.safetensors is not what"):
        train(replace(TINY, steps=5), run, resume=True)
    write_sums(run / "checkpoints" / "step-000004")  # it was damaged before it was hashed, or by a version without
    with pytest.raises(UserError, match=r"cannot resume from .*Delete that checkpoint"):
        train(replace(TINY, steps=5), run, resume=True)


LIMITED = """
import resource, sys
from vergence.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
main(sys.argv[2:])
"""


def command(out: Path, *more: str) -> list[str]:
    given = ["train", "demo", "--steps", "3", "--scenes-per-batch", "4", "--siblings", "2", "--eval-every", "0"]
    return [*given, "--out", str(out), "--threads", "1", "--save-every", "1", *more]


def run(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, **options
    )


@pytest.mark.slow
def test_no_space_while_saving_loses_nothing_that_was_finished(tmp_path):
    """A real failing write: files may not grow past 2 MB, so the weights cannot be saved but records can."""
    out = tmp_path / "run"
    result = run(LIMITED, str(2_000_000), *command(out))
    assert result.returncode == 2, result.stderr
    assert "no space left while" in result.stderr
    assert "Traceback" not in result.stderr
    assert "--resume" in result.stderr
    assert [path.name for path in (out / "checkpoints").iterdir()] == []
    assert (out / "rollouts.jsonl").stat().st_size > 0
    again = run("import sys; from vergence.cli import main; main(sys.argv[1:])", *command(out, "--resume"))
    assert again.returncode == 0, again.stderr
    assert checkpoint.latest(out / "checkpoints").name == "step-000003"


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_goes_on(tmp_path):
    out = tmp_path / "run"
    code = "import sys; from vergence.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command(out, "--steps", "500", "--save-every", "0")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:
        if line.startswith("step "):
            os.kill(process.pid, signal.SIGINT)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "stopping after this step" in errors
    saved = checkpoint.latest(out / "checkpoints")
    assert saved is not None
    step = json.loads((saved / "trainer" / "state.json").read_text())["step"]
    assert 0 < step < 500
    assert [line["step"] for line in read_lines(out / "metrics.jsonl")] == list(range(1, step + 1))
