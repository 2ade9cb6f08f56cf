"""The script of docs/trl.md runs as it is printed, and the README prints the same."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

ROOT = Path(__file__).parents[2]
BLOCK = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "trl.md").read_text(), re.S)[1]


def test_it_is_short_and_the_readme_has_the_same():
    assert len(BLOCK.splitlines()) <= 30
    assert BLOCK in (ROOT / "README.md").read_text()


def test_the_script_takes_a_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    smaller = BLOCK
    for printed, instead in {
        "max_steps=20, logging_steps=5": "max_steps=1, logging_steps=1",
        "per_device_train_batch_size=32, gradient_accumulation_steps=4": "per_device_train_batch_size=8",
        "num_generations=8": "num_generations=4",
        '"train", 320': '"train", 8',
    }.items():
        assert printed in smaller
        smaller = smaller.replace(printed, instead)
    (tmp_path / "script.py").write_text(smaller)
    runpy.run_path(str(tmp_path / "script.py"))
    said = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert len(said) == 1
    assert 0 < said[0] < 1


@pytest.mark.slow
def test_the_script_runs_as_printed(tmp_path):
    (tmp_path / "script.py").write_text(BLOCK)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=900,
        env={"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = ast.literal_eval(done.stdout.splitlines()[-1])
    assert len(said) == 4
    assert said[-1] > said[0]
