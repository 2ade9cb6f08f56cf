"""Two processes of accelerate's data parallelism say what one says: losses, metrics, and where the weights go."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")

SCRIPT = Path(__file__).parent / "trl_two.py"


def outcome(folder: Path, method: str, processes: int) -> dict:
    folder.mkdir()
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), str(SCRIPT), str(folder), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "outcome.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["papo@paper", "cppo", "vppo", "dapo"])
def test_two_processes_are_one(method, tmp_path):
    one, two = outcome(tmp_path / "one", method, 1), outcome(tmp_path / "two", method, 2)
    assert len(one["log"]) == len(two["log"]) == 3
    for single, both in zip(one["log"], two["log"], strict=True):
        for name in single:
            if name == "loss" or name.startswith(("loss/", "clip_ratio", "reward", "entropy", "sampling/kept")):
                assert both[name] == pytest.approx(single[name], rel=1e-5, abs=1e-6), name
    assert any(line["loss"] for line in one["log"])
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-6, atol=1e-7, msg=name)
