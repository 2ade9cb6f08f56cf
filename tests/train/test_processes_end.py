"""Runs of several processes as people start them, by torchrun: how they end, however they end, and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from train.several import LIMIT, free_port

pytestmark = pytest.mark.slow

REWARDS = """
import os, signal
from pathlib import Path


HERE, CALLS = Path(__file__).parent, [0]

def reward(completions, **columns):
    CALLS[0] += 1
    if os.environ.get("RANK") == "1" and CALLS[0] == 3 and (HERE / "crash").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("RANK") == "1" and CALLS[0] == 3 and (HERE / "refuse").exists():
        raise ValueError("the stars are not right")
    (HERE / f"called-{os.environ.get('RANK', 0)}").write_text(str(CALLS[0]))
    return [float(len(str(one))) for one in completions]
"""
OPTIONS = "--method grpo --steps 6 --scenes-per-batch 4 --siblings 3 --max-tokens 24 --eval-every 0 --save-every 2"


def command(folder: Path, *more: str, processes: int = 2) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    start += ["--master-port", str(free_port()), "-m", "vergence"]
    options = [*OPTIONS.split(), "--rewards", f"{folder / 'rewards.py'}:reward", "--out", str(folder / "run"), *more]
    return [*start, "train", "demo", *options]


def begin(folder: Path, *more: str) -> subprocess.Popen[str]:
    (folder / "rewards.py").write_text(REWARDS)
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(folder, *more), env={**os.environ, "PYTHONPATH": paths}, **told)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def saved(run: Path) -> list[str]:
    return sorted(folder.name for folder in (run / "checkpoints").glob("step-*"))


def wait_for(file: Path, text: str) -> None:
    until = time.monotonic() + LIMIT
    while not file.is_file() or text not in file.read_text():
        assert time.monotonic() < until, f"{text!r} never came into {file}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    code, out, err = ended(begin(folder))
    assert code == 0, err
    assert out.splitlines() == [
        str(folder / "run" / "checkpoints" / "step-000006"),
        str(folder / "run" / "report.html"),
    ]
    assert err.count("step    1/6") == 1  # said by the first process alone
    return folder / "run"


def assert_goes_on(folder: Path, whole: Path) -> None:
    """With --resume it comes to the run that nothing happened to, bit for bit."""
    code, _, err = ended(begin(folder, "--resume"))
    assert code == 0, err
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert (folder / "run" / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_process_that_dies_ends_the_run_and_the_last_checkpoint_is_there(whole, tmp_path):
    (tmp_path / "crash").touch()
    since = time.monotonic()
    code, _, err = ended(begin(tmp_path))
    assert code != 0
    assert time.monotonic() - since < 100  # nobody waits for who is gone
    assert saved(tmp_path / "run") == ["step-000002"]
    assert "another process of this run has ended" in err
    (tmp_path / "crash").unlink()
    assert_goes_on(tmp_path, whole)


def test_bad_input_in_one_process_ends_the_run_in_good_order(whole, tmp_path):
    """What is finished is saved, by all of them, and it is said once what was wrong."""
    (tmp_path / "refuse").touch()
    code, _, err = ended(begin(tmp_path, "--save-every", "5"))
    assert code != 0
    assert err.count("the stars are not right") == 1  # by the first, for the one that it happened to
    assert "error: " in err
    assert saved(tmp_path / "run") == ["step-000002"]


def test_what_is_wrong_with_all_is_said_once(whole, tmp_path):
    code, _, err = ended(begin(tmp_path, "--scenes", str(tmp_path / "nowhere.jsonl")))
    assert code != 0
    assert err.count("error: ") == 1, err
    assert "nowhere.jsonl" in err


@pytest.mark.parametrize("whom", ["all", "another"])
def test_ctrl_c_lets_all_processes_finish_the_step(whole, tmp_path, whom):
    """Said to torchrun, or to a process that is not the first."""
    process = begin(tmp_path)
    wait_for(tmp_path / "called-1", "2")
    if whom == "all":
        process.send_signal(signal.SIGINT)
    else:
        os.kill(worker(process.pid, rank=1), signal.SIGINT)
    code, _, err = ended(process)
    assert code != 0
    last = steps(tmp_path / "run")[-1]
    assert saved(tmp_path / "run")[-1] == f"step-{last:06d}", err
    assert last < 6
    assert_goes_on(tmp_path, whole)


def test_sigterm_saves_though_torchruns_status_says_otherwise(whole, tmp_path):
    """As docs/checkpoints.md says: it passes the signal on and waits, and has a status and a traceback of its own."""
    process, run = begin(tmp_path), tmp_path / "run"
    wait_for(tmp_path / "called-1", "2")
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    last = steps(run)[-1]
    assert last < 6
    assert saved(run)[-1] == f"step-{last:06d}", err
    assert out.splitlines()[-1] == str(run / "checkpoints" / saved(run)[-1])
    assert (code, err.count("what was finished is kept")) == (1, 2)
    assert "SignalException" in err.splitlines()[-1]
    assert_goes_on(tmp_path, whole)


def worker(parent: int, rank: int) -> int:
    """The process of that rank, among the children."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                status = (folder / "status").read_text()
                own = dict(pair.split("=", 1) for pair in (folder / "environ").read_text().split("\0") if "=" in pair)
            except OSError:
                continue
            if f"PPid:\t{parent}\n" in status and own.get("RANK") == str(rank):
                return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")
