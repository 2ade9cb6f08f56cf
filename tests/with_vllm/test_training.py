"""Whole runs whose responses vLLM samples."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from vergence.models.policy import load
from vergence.recipes.demo import demo
from vergence.rollout import vllm_place, vllm_server
from vergence.rollout.unfinished import read
from vergence.rollout.vllm import SamplerDown
from vergence.train.loop import train
from vergence.train.run import read_lines

SMALL = ("--scenes-per-batch", "4", "--siblings", "4", "--max-tokens", "24", "--watch-every", "0")


def vergence(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vergence", *words], capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.parametrize("name", ["vllm", "vllm-server"])
def test_the_demo_is_trained_on_what_vllm_samples(tmp_path, name):
    done = vergence("train", "demo", "--sampler", name, "--steps", "3", "--out", str(tmp_path / "run"), *SMALL)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = [*read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert all(0 <= line["sampler/gap_max"] < 1e-4 for line in metrics)
    assert any(line["grad_norm"] > 0 for line in metrics)
    assert (tmp_path / "run" / "checkpoints" / "step-000003" / "model.safetensors").exists()


def test_a_run_whose_server_is_killed_goes_on_or_ends_with_a_checkpoint_and_is_resumed(tmp_path, monkeypatch):
    small = {"scenes_per_batch": 4, "siblings": 4, "max_tokens": 24, "watch_every": 0, "eval_every": 0}
    config = replace(demo(), sampler="vllm-server", steps=6, **small)
    children, armed, up, exchange = [], [], vllm_place.Child.up, vllm_server.exchange

    def noting(child, *given):
        address = up(child, *given)
        children.append(child.process.pid)
        return address

    async def dying(client, method, url, *more, **how):
        answer = await exchange(client, method, url, *more, **how)
        if armed and url.endswith(vllm_server.GENERATE):  # of the answers to four prompts, asked in turn, one is there
            os.kill(children[-1], armed.pop())
            monkeypatch.setattr(vllm_place, "flags", lambda given: ["--model=/nowhere"])
        return answer

    monkeypatch.setattr(vllm_place.Child, "up", noting)
    monkeypatch.setattr(vllm_server, "exchange", dying)
    monkeypatch.setattr(vllm_server, "IN_FLIGHT", 1)

    def watch(step, metrics, seconds):
        if step == 1:
            os.kill(children[-1], signal.SIGKILL)  # and the run goes on
        if step == 3:
            armed.append(signal.SIGKILL)

    with pytest.raises(SamplerDown, match="--resume"):
        train(config, tmp_path / "run", watch=watch)
    assert len(children) == 2
    assert [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3]
    state = tmp_path / "run" / "checkpoints" / "step-000003" / "trainer" / "state.json"
    assert json.loads(state.read_text())["step"] == 3
    kept = read(tmp_path / "run" / "unfinished.json")
    assert len(kept) == 4
    monkeypatch.undo()
    asked, ask = [], vllm_server.Served.ask
    monkeypatch.setattr(
        vllm_server.Served, "ask", lambda self, all_, wanted: asked.append(len(all_)) or ask(self, all_, wanted)
    )
    last = train(config, tmp_path / "run", resume=True)
    assert last.name == "step-000006"
    assert asked == [3, 4, 4]
    rows = [*read_lines(tmp_path / "run" / "rollouts.jsonl")]
    said = [load("seedling").reader.text(one.tokens) for one in kept.values()]
    assert set(said) <= {row["response"] for row in rows if row["step"] == 4}
    assert not (tmp_path / "run" / "unfinished.json").exists()
    metrics = [*read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert all(line["sampler/gap_max"] < 1e-4 for line in metrics)
