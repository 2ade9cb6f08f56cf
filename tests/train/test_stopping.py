"""SIGTERM: what is finished is saved in time, and the run that goes on is the one that nothing happened to."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from train.follower import followed_by, no_thread_is_left
from train.resumed import TINY, assert_the_same, go

from vergence.cli import main
from vergence.evaluate import kept
from vergence.train import checkpoint, loop, rounds, stopping
from vergence.train.run import read_lines
from vergence.train.stopping import Terminated
from vergence.types import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run; nobody writes to it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    go(out)
    return out


def stopped(out: Path, when: Callable[[pytest.MonkeyPatch], None], *, seconds: float = 9.0, **more) -> None:
    """A run that SIGTERM ends, so many seconds before it would have to save."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopping.Stop, "before_saving", lambda self: seconds)
        when(patch)
        with pytest.raises(Terminated) as told:
            go(out, **more)
    assert told.value.args == (checkpoint.latest(out / "checkpoints"),)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def terminate(*_) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def waiting() -> None:
    """Long, were it not for the end of the grace period."""
    terminate()
    signal.sigtimedwait([], 20.0)
    raise AssertionError("nobody has given it up")


def in_the(number: int, module, name: str, do: Callable[[], None], *, after: bool = False):
    """Something is done before (or after) the call of that number."""

    def patched(patch: pytest.MonkeyPatch) -> None:
        kept, calls = getattr(module, name), []

        def call(*args, **more):
            calls.append(1)
            if len(calls) == number and not after:
                do()
            found = kept(*args, **more)
            if len(calls) == number and after:
                do()
            return found

        patch.setattr(module, name, call)

    return patched


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "saved", "open_"),
    [
        (in_the(1, rounds, "ask", waiting), 0, False),
        (in_the(2, rounds, "rollout_records", waiting, after=True), 2, False),
        (in_the(2, loop, "accumulate", waiting, after=True), 1, False),
        (in_the(1, loop, "evaluated", waiting), 3, True),
        (in_the(1, loop, "update", terminate), 1, False),
    ],
    ids=["asking first", "logging", "a gradient", "evaluating", "a step that is soon done"],
)
def test_sigterm_saves_the_last_finished_step_within_the_grace_period(
    request, whole, tmp_path, when, saved, open_, capsys
):
    out = tmp_path / "run"
    stopped(out, when, seconds=9.0 if "step" in request.node.callspec.id else 0.02)
    assert "stopping within 25 s" in capsys.readouterr().err
    name = checkpoint.name_of(saved)
    assert checkpoint.latest(out / "checkpoints").name == name
    state = json.loads((out / "checkpoints" / name / "trainer" / "state.json").read_text())
    assert (state["open"] is not None) == open_
    for log, (size, _) in state["logs"].items():
        assert (out / log).stat().st_size == size  # nothing of the round that was given up
    go(out, resume=True)
    extra = () if saved == 2 else (name,)
    assert_the_same(whole, out, extra=extra)


@pytest.mark.parametrize("number", [1, 3])
def test_an_update_is_done_to_its_end(whole, tmp_path, number):
    """The time is over in the middle of it: the step is taken whole, and is what is saved."""
    step, calls, out = torch.optim.AdamW.step, [], tmp_path / "run"

    def slow(self, *args):
        calls.append(1)
        if len(calls) == number:
            first, *_ = self.param_groups[0]["params"]
            kept = first.detach().clone()
            first.data.zero_()  # half done
            terminate()
            for _ in range(20):
                signal.sigtimedwait([], 0.01)
            first.data.copy_(kept)
        return step(self, *args)

    stopped(out, lambda patch: patch.setattr(torch.optim.AdamW, "step", slow), seconds=0.02)
    assert checkpoint.latest(out / "checkpoints").name == f"step-{number:06d}"
    go(out, resume=True)
    assert_the_same(whole, out, extra=(f"step-{number:06d}",))


@pytest.mark.parametrize(("at", "saved"), [(1, 2), (2, 2)], ids=["between saves", "after one"])
def test_sigterm_after_a_step(whole, tmp_path, at, saved):
    """Where the step is saved already, no other is begun."""
    with pytest.raises(Terminated):
        go(tmp_path / "run", watch=lambda step, *_: step == at and terminate())
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == checkpoint.name_of(saved)
    go(tmp_path / "run", resume=True)
    assert_the_same(whole, tmp_path / "run")


def test_a_round_that_is_sampled_ahead_is_waited_for_while_there_is_time(tmp_path, monkeypatch):
    """After that it is asked anew when the run goes on."""
    config = replace(TINY, method="grpo", options={}, sampler="vllm", ahead=1, correction="truncate", eval_every=0)
    made, asks, out = followed_by(monkeypatch), rounds.ask, tmp_path / "run"

    def ask_slowly(parts, round_, position):
        made[0].slow = 60.0 if round_ else 0.0
        return asks(parts, round_, position)

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "ask", ask_slowly)
        stopped(out, in_the(2, loop, "update", terminate, after=True), seconds=0.5, config=config)
    assert not (out / "checkpoints" / "step-000002" / "trainer" / "ahead.json").exists()
    assert no_thread_is_left()
    go(out, config=config, resume=True)
    assert [line["step"] for line in read_lines(out / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [line["step"] for line in read_lines(out / "rollouts.jsonl")] == [1] * 4 + [3] * 4


def test_sigterm_said_twice_is_said_once_and_ctrl_c_after_it_stops_at_once(whole, tmp_path):
    def twice() -> None:
        terminate()
        terminate()

    stopped(tmp_path / "run", in_the(2, loop, "update", twice))
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "step-000002"

    def impatient() -> None:
        terminate()
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        in_the(4, loop, "update", impatient)(patch)
        with pytest.raises(KeyboardInterrupt) as told:
            go(tmp_path / "other")
    assert told.type is KeyboardInterrupt
    assert checkpoint.latest(tmp_path / "other" / "checkpoints").name == "step-000002"
    go(tmp_path / "other", resume=True)
    assert_the_same(whole, tmp_path / "other")


def test_ctrl_c_lets_the_step_finish_however_long_it_takes(tmp_path):
    def slowly() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 0.3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopping.Stop, "before_saving", lambda self: 0.0)
        in_the(3, loop, "update", slowly)(patch)
        assert go(tmp_path / "run").name == "step-000003"


def test_signals_are_what_they_were_afterwards(whole, tmp_path):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    go(tmp_path / "run", until=1)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before


def test_an_evaluation_that_failed_is_made_up_for(whole, tmp_path):
    """The step is logged once, with its evaluation, as if nothing had been."""

    def down(policy):
        raise UserError("the server at nowhere does not answer")

    with pytest.raises(UserError, match="nowhere"):
        go(tmp_path / "run", evaluate=down)
    assert [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    go(tmp_path / "run", resume=True)
    assert_the_same(whole, tmp_path / "run", extra=("step-000003",))


def test_the_command_ends_with_status_0_and_names_the_checkpoint(tmp_path, capsys):
    out = tmp_path / "run"
    given = ["train", "demo", "--out", str(out), "--steps", "3", "--scenes-per-batch", "2", "--siblings", "2"]
    with pytest.MonkeyPatch.context() as patch:
        in_the(1, loop, "update", terminate)(patch)
        with pytest.raises(SystemExit) as ended:
            main([*given, "--max-tokens", "6", "--eval-every", "0", "--watch-every", "0", "--threads", "1"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out / "checkpoints" / "step-000001")
    assert "stopped early; what was finished is kept" in said.err


def test_sigterm_ends_any_other_command_with_status_0(tmp_path, monkeypatch, capsys):
    """What it had kept by then is kept: answers, above all."""
    out, keep = tmp_path / "answers.jsonl", kept.append
    monkeypatch.setattr(kept, "append", lambda *args: (keep(*args), terminate()))
    given = ["eval", "seedling", "--number", "4", "--samples", "2", "--max-tokens", "6", "--at-once", "4"]
    with pytest.raises(SystemExit) as ended:
        main([*given, "--out", str(out)])
    assert ended.value.code == 0
    assert len(out.read_text().splitlines()) == 4
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.undo()
    main([*given, "--out", str(out)])
    main([*given, "--out", str(tmp_path / "whole.jsonl")])
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
