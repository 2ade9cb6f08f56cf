"""The command line as a user meets it: what it prints, and how it says no."""

import json
import re
import subprocess
import sys
import time

import pytest

from vergence.cli import main
from vergence.commands import COMMANDS


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    status = 0
    try:
        main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    out, error = capsys.readouterr()
    return status, out, error


def test_every_command_has_help_with_an_example(capsys):
    _, listing, _ = called(capsys, "--help")
    promised = {"demo", "train", "eval", "ask", "answer", "report", "push", "methods", "recipes", "data check"}
    assert set(COMMANDS) >= promised | {"data pixels", "seedling", "reasoners", "env"}
    for command in COMMANDS:
        assert command in listing
        status, out, _ = called(capsys, *command.split(), "--help")
        assert status == 0
        assert f"Example: vergence {command}" in " ".join(out.split())


def test_help_waits_for_nothing():
    code = "import sys; from vergence.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "data pixels" in done.stdout
    for heavy in ("torch", "transformers", "numpy", "PIL", "pyarrow", "datasets", "huggingface_hub", "sympy", "tyro"):
        assert f"'{heavy}'" not in done.stderr, heavy


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tarin"], "did you mean 'train'"),
        (["train", "dmeo", "--out", "x"], "did you mean 'demo'"),
        (["train", "demo", "--out", "x", "--method", "papoo"], "did you mean 'papo'"),
        (["train", "demo", "--out", "x", "--set", "gama=1"], "did you mean 'gamma'"),
        (["train", "demo", "--out", "x", "--set", "gamma"], "--set takes NAME=VALUE"),
        (["train", "demo", "--out", "x", "--columns", "question"], "--columns takes NAME=VALUE"),
        (["eval", "seedling", "--columns", "question=a", "question=b"], "--columns has 'question' twice"),
        (["data", "pixels", "--memory", "much"], "such as 24GiB"),
        (["data", "pixels", "--memory", "24", "--model", "./nowhere"], "no model at ./nowhere"),
        (["recipes", "qwen-vl-3"], "did you mean 'qwen-vl-3b'"),
        (["recipes", "demo", "--method", "papoo"], "did you mean 'papo'"),
        (["eval", "seedling", "--scenes", "a.jsonl", "--worlds", "nosuch"], "no world 'nosuch'"),
        (["train", "demo", "--out", "x", "--scenes", "a.jsonl", "--worlds", "nosuch"], "no world 'nosuch'"),
        (["eval", "seedling", "--temperature", "-1"], "temperature must be 0 or more"),
        (["data"], "There are: data check, data sources, data pixels\n"),
        (["data", "chek"], "did you mean 'data check'? There are: data check, data sources, data pixels\n"),
        (["train", "demo", "--out", "x", "--lr", "-1"], "lr must be between 0 and 1, got -1"),
        (["train", "--out", "x", "qwen-vl-3b"], "put the recipe first"),
        (["train", "demo", "--out", "x", "--until", "0"], "--until must be at least 1"),
        (["train", "demo", "--out", "x", "--threads", "0"], "--threads must be at least 1"),
        (["demo", "--method", "papoo"], "did you mean 'papo'"),
        (["eval", "seedling", "--samples", "0", "--number", "1"], "must be at least 1"),
        (["train", "demo", "--out", "x", "--siblings", "1"], "siblings must be at least 2"),
        (["train", "demo", "--out", "x", "--parts", "5"], "a multiple of parts=5"),
        (["train", "--config", "nowhere.yaml", "--out", "x"], "no config at nowhere.yaml"),
        (["train", "demo", "--config", "a.yaml", "--out", "x"], "a recipe or --config, not both"),
        (["eval", "./nowhere"], "no model at ./nowhere"),
        (["eval", "seedling", "--scenes", "nowhere.jsonl"], "nowhere.jsonl"),
        (["report", "nowhere"], "nowhere"),
        (["data", "check", "nowhere.jsonl"], "nowhere.jsonl"),
        (["methods", "papoo"], "did you mean 'papo'"),
        (["seedling", "--out", "x", "--threads", "0"], "--threads must be at least 1"),
        (["reasoners", "--out", "x", "--threads", "0"], "--threads must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_with_a_message_and_status_2(capsys, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    status, _, error = called(capsys, *arguments)
    assert status == 2
    assert error.startswith("error: ")
    assert told in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--stepz", "3"], "--steps"), (["--steps", "many"], "invalid literal"), (["--wording", "long"], "short")],
)
def test_unknown_options_name_the_nearest(capsys, tmp_path, arguments, told):
    status, out, error = called(capsys, "train", "demo", "--out", str(tmp_path / "x"), *arguments)
    assert status == 2
    assert told in out + error


def test_eval_prints_an_interval_for_every_world(capsys):
    _, out, _ = called(capsys, "eval", "seedling", "--number", "8", "--samples", "1")
    for world in ("digits", "shapes", "bars", "geometry", "overall"):
        assert world in out
    _, out, _ = called(capsys, "eval", "seedling", "--number", "4", "--samples", "1", "--json")
    assert json.loads(out)["overall"]["accuracy"]["n"] == 4


@pytest.mark.slow
def test_running_out_of_memory_says_what_to_lower(tmp_path):
    """A real allocation that fails: the address space is bounded."""
    code = (
        "import resource, sys, torch, transformers, sklearn.datasets\n"
        "from vergence.cli import main\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20,) * 2)\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["train", "demo", "--out", str(tmp_path / "run"), "--steps", "1", "--scenes-per-batch", "64"]
    more = ["--siblings", "16", "--token-budget", "100000", "--threads", "1", "--eval-every", "0", "--quiet"]
    done = subprocess.run([sys.executable, "-c", code, *arguments, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "error: out of memory while scoring, with " in done.stderr
    assert re.search(r"the estimate was [\d.]+ GiB\. To go on, take --token-budget 50000 \(about ", done.stderr)
    assert "memory, GiB (estimated)" not in done.stderr  # --quiet


def test_a_hub_that_cannot_be_reached_is_told_at_once(capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for given in (
        ["eval", "owner/nowhere", "--number", "1"],
        ["data", "pixels", "--memory", "24", "--model", "owner/nowhere"],
    ):
        since = time.monotonic()
        status, _, error = called(capsys, *given)
        assert status == 2
        assert "no model at owner/nowhere: there is no such folder, and the Hub at http://127.0.0.1:9 cannot" in error
        assert time.monotonic() - since < 8
