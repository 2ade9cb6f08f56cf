"""A real vLLM server: started here and killed, or somebody else's; it says what the trainer would say."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from with_vllm.held import CLOSE, FAR, asked, gaps, moved

from vergence.models.policy import load
from vergence.rollout import vllm_place, vllm_server
from vergence.rollout.vllm import SamplerDown, open_vllm
from vergence.rollout.vllm_place import environment
from vergence.types import UserError

HOW = {"temperature": 1.0, "max_tokens": 24}


def kill(sampler) -> int:
    """As kernels do when memory is short."""
    pid = sampler.engine.place.process.pid
    os.kill(pid, signal.SIGKILL)
    return pid


def running(group: int) -> list[str]:
    """What runs in a group of processes; not who waits to be noticed as ended."""
    states = [file.read_text().rpartition(")")[2].split() for file in Path("/proc").glob("[0-9]*/stat")]
    return [state[0] for state in states if int(state[2]) == group and state[0] != "Z"]


@pytest.fixture(scope="module")
def one():
    policy = load("seedling")
    sampler = open_vllm("vllm-server", policy)
    sampler.follow(policy)
    yield policy, sampler
    sampler.close()


@pytest.fixture
def held(one):
    policy, sampler = one
    policy.model.load_state_dict(load("seedling").model.state_dict())
    sampler.follow(policy)
    return policy, sampler


def test_log_probabilities_are_the_trainers_before_and_after_a_push(held):
    policy, sampler = held
    for seed, siblings, length in ((1, 4, 24), (2, 2, 5)):
        rows, how = asked(siblings, seed), {"temperature": 1.0, "max_tokens": length}
        drawn = sampler(rows, **how)
        assert max(gaps(policy, rows, drawn)) < CLOSE
        assert sampler(rows, **how) == drawn
        sampler.rest()
        moved(policy, seed)
        sampler.follow(policy)
        drawn = sampler(rows, **how)
        assert max(gaps(policy, rows, drawn)) < CLOSE
        assert max(gaps(load("seedling"), rows, drawn)) > FAR


def test_a_server_that_is_killed_in_the_middle_is_started_again_for_the_rest(held, monkeypatch):
    policy, sampler = held
    moved(policy, 3)
    sampler.follow(policy)
    moved(policy, 4)  # sampling ahead: the weights of the last push are kept in their folder
    old, calls, lost = load("seedling"), [], []
    ask, exchange = sampler.engine.ask, vllm_server.exchange
    moved(old, 3)

    def noting(requests, wanted):
        calls.append(list(requests))
        return ask(requests, wanted)

    async def dying(client, method, url, body, *, most):
        answer = await exchange(client, method, url, body, most=most)
        if not lost:
            lost.append(kill(sampler))
        return answer

    monkeypatch.setattr(sampler.engine, "ask", noting)
    monkeypatch.setattr(vllm_server, "exchange", dying)
    rows, how = asked(4), {"temperature": 1.0, "max_tokens": 60}
    drawn = sampler(rows, **how)
    assert len(calls) == 2
    assert 0 < len(calls[1]) < len(calls[0])  # what was finished was not asked again
    assert max(gaps(old, rows, drawn)) < CLOSE
    assert sampler.engine.place.process.pid != lost[0]


def test_a_server_that_is_killed_between_two_rounds_is_started_again(held):
    policy, sampler = held
    kill(sampler)
    sampler.rest()
    moved(policy, 5)
    sampler.follow(policy)
    rows = asked(2)
    assert max(gaps(policy, rows, sampler(rows, **HOW))) < CLOSE


def test_a_server_that_cannot_be_had_again_is_said_to_be_down(held, monkeypatch):
    _, sampler = held
    monkeypatch.setattr(vllm_place, "flags", lambda given: ["--model=/nowhere"])
    pid = kill(sampler)
    with pytest.raises(SamplerDown, match="ended with status") as refusal:
        sampler(asked(1), **HOW)
    assert "nowhere" in str(refusal.value)
    assert not running(pid)
    with pytest.raises(UserError, match="follow"):
        sampler(asked(1), **HOW)


def test_closing_ends_a_call_and_leaves_nothing(monkeypatch):
    policy, begun, exchange = load("seedling"), threading.Event(), vllm_server.exchange

    async def beginning(*given, **how):
        begun.set()
        return await exchange(*given, **how)

    monkeypatch.setattr(vllm_server, "exchange", beginning)
    sampler, raised = open_vllm("vllm-server", policy), []
    sampler.follow(policy)
    process, weights = sampler.engine.place.process, sampler.engine._weights
    sockets = sampler.engine.address.socket

    def call():
        try:
            sampler(asked(60), temperature=1.0, max_tokens=390)
        except UserError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(60)
    sampler.close()
    thread.join(60)
    assert [type(error) for error in raised] == [SamplerDown]
    assert process.poll() is not None
    assert not weights.exists()
    assert not sockets.exists()
    assert not running(process.pid)


def test_a_server_of_ones_own_is_given_weights_and_asked(tmp_path):
    """Started as docs/vllm.md says, at an address."""
    policy = moved(load("seedling"), 7)
    load("seedling").save(tmp_path)  # it begins with others
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={tmp_path}", f"--port={port}"]
    command += ["--host=127.0.0.1", "--enable-scale-out", '--mm-processor-kwargs={"do_resize": false}']
    command += [
        "--dtype=float32",
        "--enforce-eager",
        "--kv-cache-memory-bytes=268435456",
        "--no-enable-chunked-prefill",
    ]
    command += ["--logprobs-mode=processed_logprobs", '--limit-mm-per-prompt={"video": 0}']
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, env=environment(policy), stdout=log, stderr=log, start_new_session=True)
    sampler = open_vllm(f"http://127.0.0.1:{port}", policy)
    try:
        with pytest.MonkeyPatch.context() as patience:
            patience.setattr(vllm_place, "WAIT", 240.0)
            sampler.follow(policy)
        for temperature in (1.0, 0.8, 0.0):
            rows = asked(2)
            drawn = sampler(rows, temperature=temperature, max_tokens=16)
            assert max(gaps(policy, rows, drawn, temperature or 1.0)) < CLOSE
        sampler.close()
        assert process.poll() is None  # it is not ours to end
        sampler.follow(moved(policy, 8))
        assert max(gaps(policy, rows, sampler(rows, **HOW))) < CLOSE
        process.kill()
        with pytest.MonkeyPatch.context() as patience:
            patience.setattr(vllm_place, "WAIT", 1.0)
            with pytest.raises(SamplerDown, match="not ready within"):
                sampler(rows, **HOW)
    finally:
        sampler.close()
        os.killpg(process.pid, signal.SIGKILL)  # its engine too, which goes on without it
        process.wait()
    assert not running(process.pid)
