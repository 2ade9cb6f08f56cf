"""SIGTERM: what is finished is saved in time, and the run that goes on is the one that nothing happened to."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faults.forked import end_with_parent, ended_as_a_command
from train.follower import followed_by, no_thread_is_left
from train.resumed import TINY, assert_the_same, go

from vergence.cli import main
from vergence.disk import bytes_in
from vergence.evaluate import kept
from vergence.report import page
from vergence.train import checkpoint, guarded, loop, rounds, stopping
from vergence.train.interventions import Stopped
from vergence.train.loop import train
from vergence.train.run import RunFolder, read_lines
from vergence.train.stopping import Terminated
from vergence.train.sums import damage
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


def late() -> None:
    """The grace period is over in here, where nothing may be given up."""
    terminate()
    for _ in range(20):
        signal.sigtimedwait([], 0.01)


def test_a_save_that_has_begun_is_done_to_its_end_and_once(tmp_path):
    saves, write_sums = [], checkpoint.write_sums

    def slowly(folder: Path) -> None:
        saves.append(folder.name)
        late() if len(saves) == 1 else None
        write_sums(folder)

    stopped(tmp_path / "run", lambda patch: patch.setattr(checkpoint, "write_sums", slowly), seconds=0.02)
    assert saves == [".partial-step-000002"]


def test_a_step_that_is_being_logged_is_logged(tmp_path):
    """With its evaluation, which would have to be made again."""
    append, out = RunFolder.append, tmp_path / "run"

    def slowly(self, name: str, records) -> None:
        if name == "metrics.jsonl":
            late()
        append(self, name, records)

    stopped(out, lambda patch: patch.setattr(RunFolder, "append", slowly), seconds=0.02)
    state = json.loads((out / "checkpoints" / "step-000001" / "trainer" / "state.json").read_text())
    assert state["open"] is None
    assert [line["step"] for line in read_lines(out / "metrics.jsonl")] == [1]


def test_the_watch_may_ask_for_the_next_step_to_be_the_last(tmp_path):
    assert go(tmp_path / "run", watch=lambda step, *_: step == 2).name == "step-000003"


def test_what_a_guard_has_ended_ends_by_its_guard(tmp_path, monkeypatch):
    """The grace period is over just when the stop is written down: the run is saved, and its status is 3."""
    record = guarded.record

    def told_to_stop(*args) -> None:
        record(*args)
        late()

    monkeypatch.setattr(guarded, "record", told_to_stop)
    monkeypatch.setattr(stopping.Stop, "before_saving", lambda self: 0.02)
    config = replace(TINY, guards={"all unparsed": "stop"}, max_tokens=2, steps=8, eval_every=0)
    with pytest.raises(Stopped) as told:
        go(tmp_path / "run", config=config)
    assert told.value.status == 3
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_grace_period_that_a_save_does_not_fit_into_is_told_of_by_the_guess_and_by_the_first_save(monkeypatch):
    told, now = [], [0.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])

    def saved(stop: stopping.Stop, seconds: float) -> None:
        with stop.saving():
            now[0] += seconds

    stop = stopping.Stop(25.0, 42 * 2**30, told.append)
    (guess,) = told
    assert guess.startswith("warning, a save is guessed to take 226 s (42.0 GiB), and --grace is 25: after SIGTERM")
    assert "given 340 s or more" in guess
    saved(stop, 7.0)
    assert told == [guess]  # it takes less, and fits
    assert stop.before_saving() == 25.0 - 1.5 * 7.0
    stop = stopping.Stop(25.0, 2**20, told.append)
    assert told == [guess]
    saved(stop, 17.0)
    assert told[1].startswith("warning, a save took 17 s, and --grace is 25: ")
    assert "given 26 s or more" in told[1]
    saved(stop, 18.0)
    assert len(told) == 2  # once


def test_a_run_tells_of_it_before_its_first_step(tmp_path):
    told = []
    go(tmp_path / "run", config=replace(TINY, grace=1.0, steps=2), tell=told.append, watch=lambda *_: told.append(""))
    heard = [line.split(",")[1] for line in told if line.startswith("warning, a save")]
    assert heard == [" a save is guessed to take 1 s (10.3 MiB)", " a save took 1 s"]
    assert told.index("") > next(at for at, line in enumerate(told) if "guessed to take" in line)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_as_large_as_is_guessed_before_the_first_step(tmp_path, monkeypatch, dtype):
    guessed, guess = [], loop.checkpoint_bytes
    monkeypatch.setattr(loop, "checkpoint_bytes", lambda parts: guessed.append(guess(parts)) or guessed[0])
    last = go(tmp_path / "run", config=replace(TINY, dtype=dtype, steps=2, eval_every=0, verify_scorer=False))
    assert guessed[0] == pytest.approx(bytes_in(last) - (last / "tokenizer.json").stat().st_size, rel=0.05)


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


# ----------------------------------------------------------------------------------------------------- by the clock


def by_the_clock(out: Path, *, grace: float, endless: int = 0) -> tuple[int, float]:
    """A run in a process of its own that SIGTERM meets in its third step, and how long it takes to end: (status,
    seconds). The step of that number takes a minute."""
    update = loop.update

    def run() -> None:
        def slowly(*args):
            if args[3] == 2:
                (out / "third").touch()
            until = time.monotonic() + (60.0 if args[3] + 1 == endless else 0.1)
            while time.monotonic() < until:
                sum(range(1000))
            return update(*args)

        loop.update = slowly
        train(replace(TINY, steps=1000, save_every=0, eval_every=0, grace=grace), out)

    child, said = os.fork(), out.with_name("said")
    if not child:
        status = 1
        try:
            end_with_parent()
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
            torch.set_num_threads(1)
            status = ended_as_a_command(run)
        finally:
            os._exit(status)
    while not (out / "third").exists():
        assert os.waitpid(child, os.WNOHANG)[0] == 0, said.read_text()
        time.sleep(0.01)
    os.kill(child, signal.SIGTERM)
    since = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, time.monotonic() - since


@pytest.mark.parametrize(("grace", "endless", "saved"), [(4.0, 0, 3), (4.0, 3, 2)], ids=["short", "endless"])
def test_the_run_ends_within_the_grace_period_whatever_its_step_takes(tmp_path, grace, endless, saved):
    status, seconds = by_the_clock(tmp_path / "run", grace=grace, endless=endless)
    assert status == 0
    assert seconds < grace
    last = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert (last.name == checkpoint.name_of(saved)) if endless else checkpoint.number_of(last) >= saved
    assert damage(last) == ""
    told = {line["step"] for line in read_lines(tmp_path / "run" / "rollouts.jsonl")}
    assert max(told) <= checkpoint.number_of(last)  # nothing of a round that was given up


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


@pytest.mark.parametrize(("last", "status"), [("step-999999", 130), ("step-1000000", None)])
def test_a_run_that_ends_early_says_so_however_many_digits_its_steps_have(tmp_path, monkeypatch, last, status):
    monkeypatch.setattr(loop, "train", lambda *_, **__: tmp_path / last)
    monkeypatch.setattr(page, "report", lambda *_, **__: tmp_path / "report.html")
    given = ["train", "demo", "--out", str(tmp_path / "run"), "--steps", "1000000", "--eval-every", "0", "--quiet"]
    with pytest.raises(SystemExit) if status else nullcontext() as ended:
        main(given)
    assert not status or ended.value.code == status


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
