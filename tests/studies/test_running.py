"""Runs side by side: what is finished stays, what failed is told, what was stopped becomes what it would have been."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import pytest
from studies.planted import plant, plant_start

from vergence.cli import main
from vergence.disk import alone, append, write_whole
from vergence.evaluate.suite import by_question
from vergence.evaluate.tune import answering, tune_evaluation
from vergence.recipes import recipe
from vergence.studies import cost, one, running
from vergence.studies.arms import Arm, Plan
from vergence.studies.compare import found
from vergence.studies.one import Job, carry_out, from_json, to_json, trained
from vergence.studies.record import place, read
from vergence.studies.running import Process, begin, jobs, missing, run
from vergence.train.checkpoint import latest, step_of
from vergence.train.loop import train
from vergence.train.parts import load_policy, open_data
from vergence.train.run import read_lines
from vergence.train.stopping import Terminated
from vergence.types import UserError

FAST = {"scenes_per_batch": 4, "siblings": 2, "max_tokens": 12, "eval_scenes": 4, "eval_samples": 1, "watch_every": 0}


def arm(method: str, steps: int, *, every: int = 0) -> Arm:
    made = replace(recipe("demo", method), steps=steps, save_every=every, eval_every=every, **FAST)
    return Arm(method, made)


def plan_of(*arms: Arm, **more) -> Plan:
    return Plan(**{"arms": arms, "seeds": (0,), "questions": 4, "samples": 2, "elsewhere": 2, **more})


def in_place_of_runs(monkeypatch, script: str) -> list[str]:
    """Every job becomes this script, its record's path the argument; returns what is at work whenever one begins."""
    at_work: list[Popen] = []
    most: list[int] = []

    def begin(job: Job, out: Path) -> Process:
        log = out / f"{job.name}.log"
        with log.open("w") as file:
            command = [sys.executable, "-c", script, str(job.record)]
            at_work.append(Popen(command, stdin=PIPE, stdout=file, stderr=STDOUT, start_new_session=True))
        most.append(sum(one.poll() is None for one in at_work))
        return Process(job, at_work[-1], log, time.monotonic())

    monkeypatch.setattr(running, "begin", begin)
    return most


def test_a_failure_is_told_and_stops_nothing_else(tmp_path, monkeypatch):
    script = (
        "import sys, pathlib, time; path = pathlib.Path(sys.argv[1]); time.sleep(0.3)\n"
        "if 'papo' in str(path): sys.exit('error: no such thing')\n"
        "path.parent.mkdir(parents=True, exist_ok=True); path.write_text('{}')"
    )
    most = in_place_of_runs(monkeypatch, script)
    plan = plan_of(arm("grpo", 1), arm("papo", 1), arm("dapo", 1), seeds=(0, 1))
    lines = []
    failures = run(plan, tmp_path, cores=3, tell=lines.append)
    assert [one.name for one in failures] == ["papo seed 0", "papo seed 1"]
    assert failures[0].said == "error: no such thing (status 1)"
    assert len(lines) == 8
    assert max(most) == 3  # so many at once, and no more
    assert place(tmp_path, "dapo", 1).is_file()


def test_ctrl_c_stops_all_and_keeps_what_is_finished(tmp_path, monkeypatch):
    script = (
        "import signal, sys, pathlib, time; path = pathlib.Path(sys.argv[1])\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "if 'start' not in str(path): time.sleep(60)\n"
        "path.parent.mkdir(parents=True, exist_ok=True); path.write_text('{}')"
    )
    in_place_of_runs(monkeypatch, script)
    processes = []

    def told(done: int, of: int) -> None:
        if place(tmp_path, "start", 0).is_file():
            raise KeyboardInterrupt

    stop = running.stopping
    monkeypatch.setattr(running, "stopping", lambda under_way: processes.append(under_way) or stop(under_way))
    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(plan_of(arm("grpo", 1), arm("papo", 1)), tmp_path, cores=2, told=told)
    assert time.monotonic() - since < 30
    assert processes[0]
    assert all(one.popen.poll() is not None for one in processes[0])
    assert place(tmp_path, "start", 0).is_file()


def test_one_study_at_a_time_in_a_folder(tmp_path):
    with running.alone(tmp_path), pytest.raises(UserError, match="another study is at work"):
        run(plan_of(arm("grpo", 1)), tmp_path, cores=1)


def test_what_has_its_record_is_not_run_again(tmp_path, monkeypatch):
    plan = plan_of(arm("grpo", 1), samples=4, elsewhere=0)
    plant_start(tmp_path, plan.arms[0], 0, [1] * 4)
    plant(tmp_path, plan.arms[0], 0, [1] * 4)
    most = in_place_of_runs(monkeypatch, "raise SystemExit(1)")
    assert run(plan, tmp_path, cores=1) == []
    assert not most
    assert [job.name for job in missing(replace(plan, seeds=(0, 1)), tmp_path)] == ["start seed 1", "grpo seed 1"]
    with pytest.raises(UserError, match="--cores must be at least 1"):
        run(plan, tmp_path, cores=0)


def test_a_job_reads_back(tmp_path):
    for job in jobs(plan_of(arm("papo", 3), arm("racro", 3)), tmp_path):
        assert from_json(to_json(job)) == job


def test_a_run_ends_by_the_clock(tmp_path):
    plan = plan_of(arm("grpo", 1_000_000), seconds=2.0)
    job = jobs(plan, tmp_path)[1]
    assert not job.whole
    trained(job, open_data(job.config))
    assert job.whole
    steps = step_of(latest(job.run / "checkpoints"))
    spent = cost.trained_seconds(job.run)
    assert 1 < steps < 1000
    assert 2.0 - 2 * spent / steps < spent
    # by its steps alone it is not at an end
    assert not replace(job, seconds=0.0).whole
    assert not replace(job, seconds=100.0).whole


def test_time_that_is_over_stays_over(tmp_path):
    """The first step of a process is slow: the mean falls after it."""
    lines = [json.dumps({"step": 1, "update_s": 1.5}) + "\n", json.dumps({"step": 2, "update_s": 0.1}) + "\n"]
    (tmp_path / "timings.jsonl").write_text(lines[0])
    assert cost.Time(tmp_path, 2.0).is_over()
    (tmp_path / "timings.jsonl").write_text("".join(lines))
    assert cost.Time(tmp_path, 2.0).is_over()
    assert not cost.Time(tmp_path, 10.0).is_over()
    assert not cost.Time(tmp_path, 0.0).is_over()


def test_time_is_counted_on_where_it_was(tmp_path, monkeypatch):
    """Asked after every step, the whole file is not read every time; one that is another by now is."""
    path, starts, whole_lines = tmp_path / "timings.jsonl", [], cost.whole_lines
    monkeypatch.setattr(cost, "whole_lines", lambda path, at=0: starts.append(at) or whole_lines(path, at))
    time, line = cost.Time(tmp_path, 4.5), json.dumps({"step": 1, "update_s": 1.0}) + "\n"
    over = []
    for _ in range(3):
        append(path, line)
        over.append(time.is_over())
    assert over == [False, False, True]
    assert starts == [0, len(line), 2 * len(line)]
    write_whole(path, 3 * line.replace("1.0", "0.1"))  # the run has gone back: its steps are others
    assert not time.is_over()
    append(path, line.replace("1.0", "4.0"))
    assert time.is_over()


def test_sigterm_just_before_the_time_is_over_is_no_second_ctrl_c(tmp_path, monkeypatch):
    """The study asks its run to stop, which has been asked by the system already: it is saved."""
    job = jobs(plan_of(arm("grpo", 1_000), seconds=100.0), tmp_path)[1]

    def is_over(_) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    monkeypatch.setattr(cost.Time, "is_over", is_over)
    with pytest.raises(Terminated) as stopped:
        trained(job, open_data(job.config))
    assert stopped.value.args == (latest(job.run / "checkpoints"),)
    assert step_of(latest(job.run / "checkpoints")) in (1, 2)


@pytest.mark.parametrize("grace", [0.0, 1.0])
def test_a_run_that_does_not_stop_has_its_grace_period_and_is_then_killed(tmp_path, monkeypatch, grace):
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    most, since, ended, stop = in_place_of_runs(monkeypatch, script), [], [], running.stopping
    plan = plan_of(Arm("grpo", replace(arm("grpo", 1).config, grace=grace)))
    monkeypatch.setattr(one, "BESIDE", 0.2)
    monkeypatch.setattr(running, "stopping", lambda under_way: ended.append(under_way) or stop(under_way))

    def told(done: int, of: int) -> None:
        if len(list(tmp_path.glob("*.log"))) == 2 and all(log.read_text() for log in tmp_path.glob("*.log")):
            since.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path, cores=2, told=told)
    assert grace + 0.2 <= time.monotonic() - since[0] < grace + 5.0
    assert [process.popen.returncode for process in ended[0]] == [-signal.SIGKILL] * 2
    assert max(most) == 2


def test_a_run_that_is_still_being_saved_is_waited_for(tmp_path, monkeypatch):
    """A study was killed, and its run has not ended yet when the next one comes."""
    job = jobs(plan_of(arm("grpo", 1)), tmp_path)[1]
    trains = []
    monkeypatch.setattr(one, "trained", lambda *_: trains.append(1) or _stop())

    def _stop():
        raise KeyboardInterrupt

    held = ExitStack()
    held.enter_context(alone(job.run, "run"))
    job = replace(job, config=replace(job.config, grace=0.0))
    monkeypatch.setattr(one, "BESIDE", 0.1)
    with pytest.raises(UserError, match="another run is at work"):
        carry_out(job)
    assert not trains
    monkeypatch.setattr(one, "BESIDE", 60.0)
    threading.Timer(0.3, held.close).start()
    with pytest.raises(KeyboardInterrupt):
        carry_out(job)
    assert trains


def test_a_damaged_checkpoint_is_no_end_of_a_run_and_nothing_is_answered_from_it(tmp_path):
    job = jobs(plan_of(arm("grpo", 2, every=1)), tmp_path)[1]
    trained(job, open_data(job.config))
    before = {path: path.read_bytes() for path in job.run.rglob("*.safetensors")}
    assert job.whole
    best, last = (job.run / "checkpoints" / name for name in ("step-000001", "step-000002"))
    (best / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"is damaged: model\.safetensors.* those of later steps with it, and ask"):
        one._checkpoint(job, 1)
    for folder in (best, last):
        shutil.rmtree(folder)
    trained(job, open_data(job.config))
    assert {path: path.read_bytes() for path in before} == before
    (last / "model.safetensors").write_bytes(b"torn")
    assert not job.whole


def test_the_cost_counts_steps_whose_time_was_lost(tmp_path):
    """Killed between a checkpoint and the line of its step's times: what has no clock is what it would be."""
    job = jobs(plan_of(arm("grpo", 2)), tmp_path)[1]
    trained(job, open_data(job.config))
    lines = list(read_lines(job.run / "metrics.jsonl"))
    before = cost.measured(job.run, job.config, lines)
    timings = job.run / "timings.jsonl"
    timings.write_bytes(timings.read_bytes().splitlines(keepends=True)[1] + b"\0\0")
    after = cost.measured(job.run, job.config, lines)
    assert {name for name in before if before[name] != after[name]} <= {"seconds", "seconds_per_step"}
    assert after["steps"] == 2


@pytest.mark.slow
def test_a_run_left_alone_stops_and_goes_on_to_what_it_would_have_been(tmp_path):
    """A real run in a process of its own: its starter goes, it saves itself, the study takes it up again."""
    plan = plan_of(arm("papo", 12, every=6))
    start, job = jobs(plan, tmp_path)
    process = begin(job, tmp_path)
    while not running.trained_so_far(job) and process.popen.poll() is None:
        time.sleep(0.02)
    process.popen.stdin.close()  # what the system does when the starter is gone
    assert process.popen.wait(60) == 130
    stopped = step_of(latest(job.run / "checkpoints"))
    assert 0 < stopped < 12
    assert not job.record.exists()

    carry_out(start)
    carry_out(job)
    assert not missing(plan, tmp_path)
    whole = replace(job, run=tmp_path / "whole")
    evaluate = tune_evaluation(job.config, whole.run)
    last = train(job.config, whole.run, evaluate=evaluate)
    assert (job.run / "metrics.jsonl").read_bytes() == (whole.run / "metrics.jsonl").read_bytes()

    kept = read(job.record)
    source = open_data(job.config)
    asked = source.held_out("report", 4, seed=0)
    expected = by_question(answering(job.config)(load_policy(job.config, last), asked, samples=2))
    assert kept.share() == expected
    assert kept.config == job.config
    assert set(kept.header["elsewhere"]) == {one["world"] for one in kept.asked(away=True)} == {"mosaic", "novel"}
    assert kept.header["tune"].keys() == {"6", "12"}
    assert kept.header["best"] in (6, 12)
    assert kept.header["cost"]["steps"] == 12
    assert kept.header["cost"]["passes"] == cost.passes(job.config)
    (row,) = found(plan, tmp_path).rows
    assert row.by_seed[0] == pytest.approx(sum(expected.values()) / 4)


@pytest.mark.slow
def test_a_whole_study(tmp_path, capsys):
    """Two methods and a control, each run in a process of its own; asked for once more, nothing is run."""
    told = ["study", "--methods", "grpo", "papo", "--controls", "shuffled", "--seeds", "0", "--steps", "2", "--json"]
    told += ["--set", *(f"{name}={value}" for name, value in FAST.items()), "--questions", "8", "--cores", "2"]
    main([*told, "--out", str(tmp_path)])
    first = capsys.readouterr()
    said = json.loads(first.out)
    assert [row["arm"] for row in said["rows"]] == ["grpo", "papo", "papo+shuffled"]
    assert said["missing"] == []
    assert all(row["cost"]["steps"] == 2 for row in said["rows"])
    shutil.rmtree(tmp_path / "runs")
    main([*told, "--out", str(tmp_path)])
    again = capsys.readouterr()
    assert again.out == first.out
    assert "done in" in first.err
    assert "done in" not in again.err
