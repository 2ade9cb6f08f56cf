"""One process on a run folder, no space, and which checkpoints are kept."""

import errno
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from synced import noted
from train.resumed import TINY, assert_the_same, contents, go

from vergence import disk
from vergence.train import checkpoint, keeping, opening, rollback, run
from vergence.train.interventions import Intervention
from vergence.train.run import RunFolder
from vergence.types import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run; nobody writes to it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    go(out)
    return out


def test_a_second_process_is_refused_and_changes_nothing(whole, tmp_path):
    left = Path(shutil.copytree(whole, tmp_path / "run"))
    before = contents(left)
    with (
        disk.alone(left, "run"),
        pytest.raises(UserError, match=rf"another run is at work in .* \(process {os.getpid()}\)"),
    ):
        go(left, resume=True)
    assert contents(left) == before
    seen = []

    def second(*_) -> None:
        with pytest.raises(UserError, match="another run is at work"):
            go(tmp_path / "new", resume=True)
        seen.append(1)

    go(tmp_path / "new", watch=second)
    assert len(seen) == 4
    assert_the_same(whole, tmp_path / "new")


def test_a_run_is_held_before_anything_of_it_is_read(whole, tmp_path):
    """Its interventions may be half written by who is at work there; and bad input leaves no folder behind."""
    left = Path(shutil.copytree(whole, tmp_path / "run"))
    (left / "interventions.jsonl").write_text("[]\n")
    with disk.alone(left, "run"), pytest.raises(UserError, match="another run is at work"):
        go(left, resume=True)
    with pytest.raises(UserError, match=r"interventions\.jsonl"):
        go(left, resume=True)
    with disk.alone(left, "run"):  # it was let go
        pass
    with pytest.raises(UserError):
        go(tmp_path / "new", config=replace(TINY, model=str(tmp_path / "nowhere")))
    assert not (tmp_path / "new").exists()


def test_all_processes_go_by_the_interventions_that_the_first_has_read(tmp_path, monkeypatch):
    """One that sees an older file, as network file systems show it, would train with another coefficient."""
    done = [Intervention(3, 2, "KL hacking", "it surges", "back", 1, "gamma", 0.05, 0.025)]

    class Second:
        rank, size = 1, 2

        def exchange(self, own):
            return [(done, None), own]

    class EnoughError(Exception):
        pass

    def assembled(config, *args, **more):
        assert config.options["gamma"] == "0.025"
        raise EnoughError

    monkeypatch.setattr(opening, "joined", lambda config: Second())
    monkeypatch.setattr(opening, "assemble", assembled)
    with pytest.raises(EnoughError):
        go(tmp_path, resume=True)


def test_logs_are_hashed_once_when_a_run_goes_on_and_never_in_the_grace_period(whole, tmp_path, monkeypatch):
    left, read, mark = Path(shutil.copytree(whole, tmp_path / "run")), [], run._mark
    monkeypatch.setattr(run, "_mark", lambda path, size: read.append(path.name) or mark(path, size))
    go(left, resume=True)
    assert sorted(read) == sorted(run.LOGS)
    read.clear()
    made = RunFolder.start(tmp_path / "other", TINY)
    made.append("metrics.jsonl", [{"step": 1}])
    marks = made.marks()
    made.append("metrics.jsonl", [{"step": 2}])
    made.cut(marks)  # what is done where a step is given up
    assert not read
    made.append("metrics.jsonl", [{"step": 2, "again": 1}])
    assert made.differs(made.marks()) == ""
    assert [line["step"] for line in run.read_lines(made.path / "metrics.jsonl")] == [1, 2]


def test_a_save_parses_no_line_without_an_evaluation(tmp_path, monkeypatch):
    """However long the log is: what was best, and the card's numbers, are in a few of its lines."""
    made, parsed, record = planted(tmp_path / "run", (2, 4, 6, 8), {4: 0.7}), [], run._record
    made.append("metrics.jsonl", [{"step": step, "loss": 0.5} for step in range(5, 500)])
    monkeypatch.setattr(run, "_record", lambda line: parsed.append(line) or record(line))
    keeping.prune(made, replace(KEEPING, keep_last=1), 8)
    assert there(made) == [4, 8]
    assert "No evaluation was made" in checkpoint._card(made.path, TINY, 8)
    assert len(parsed) == 2


def test_logs_that_are_gone_cost_no_checkpoint(whole, tmp_path):
    """Who frees space may take a log: the weights are whole all the same, and it is not said that they should go."""
    left = Path(shutil.copytree(whole, tmp_path / "run"))
    (left / "rollouts.jsonl").write_text("")
    before = contents(left)
    with pytest.raises(
        UserError, match=r"are whole, but its logs .*rollouts\.jsonl.* from a copy.*--model .*step-00000"
    ):
        go(left, resume=True)
    assert contents(left) == before


@pytest.mark.parametrize(
    ("module", "name", "number"),
    [(checkpoint, "save_file", 2), (run, "append", 8)],
    ids=["weights", "a log"],
)
def test_a_full_disk_loses_nothing_that_is_finished(whole, tmp_path, monkeypatch, module, name, number):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out, kept, calls = tmp_path / "run", getattr(module, name), []

    def call(*args, **more):
        calls.append(1)
        if len(calls) >= number:
            with disk.telling_of_space(out):
                full()
        return kept(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, call)
        with pytest.raises(UserError) as told:
            go(out)
    assert "no space left while writing to" in str(told.value)
    assert "are free there" in str(told.value)
    assert "--resume" in str(told.value)
    assert not list((out / "checkpoints").glob(".partial-*"))
    if module is run:  # of the round that failed there is nothing
        last = checkpoint.latest(out / "checkpoints")
        assert {log: (out / log).stat().st_size for log in run.LOGS} == {
            log: mark.size for log, mark in checkpoint.marks_of(last).items()
        }
    go(out, resume=True)
    extra = {path.name for path in (out / "checkpoints").iterdir()} - {"step-000002", "step-000004"}
    assert_the_same(whole, out, extra=tuple(extra))


def planted(folder: Path, steps: Sequence[int], accuracy: Mapping[int, float]) -> RunFolder:
    """A run that has checkpoints of these steps, in name, and these evaluations in its log."""
    made = RunFolder.start(folder, TINY)
    made.append("metrics.jsonl", [{"step": step, "eval/accuracy": value} for step, value in accuracy.items()])
    for step in steps:
        (folder / "checkpoints" / checkpoint.name_of(step)).mkdir(parents=True)
        (folder / "checkpoints" / checkpoint.name_of(step) / "weights").write_bytes(bytes(2**20))
    return made


def there(made: RunFolder) -> list[int]:
    return [checkpoint.number_of(path) for path in reversed(keeping.newest_first(made.checkpoints))]


def test_what_takes_space_is_told(tmp_path, monkeypatch):
    made = planted(tmp_path / "run", (2, 4, 7), {})
    told = keeping.told_of_space(made, 3 * 2**20)
    assert told == (
        "Leave the logs (*.jsonl): without them no run goes on. "
        f"A checkpoint takes about 3.0 MiB, and the 3 of this run take 3.0 MiB: take older ones away, e.g. "
        f"{made.checkpoints / 'step-000002'}; with --keep-last 1 the run does so by itself. "
    )
    made.more = lambda: told

    def full(*_) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(disk.os, "fsync", full)
    why = rf"\(the quota is used up\)\. {re.escape(told)}What was finished is kept"
    with pytest.raises(UserError, match=why), disk.telling_of_space(made.path, made.more):
        made.sync()


KEEPING = replace(TINY, steps=12, save_every=2, keep_last=2)


def test_the_last_and_the_best_are_kept_whenever_the_others_go(tmp_path):
    """After every save, or after some, as a process that was killed in between has left it: it is the same."""
    accuracy = {2: 0.1, 4: 0.7, 6: 0.2, 8: 0.7, 10: 0.3, 12: 0.4}
    every, some = planted(tmp_path / "every", (), accuracy), planted(tmp_path / "some", (), accuracy)
    kept = []
    for step in accuracy:
        for made in (every, some):
            (made.checkpoints / checkpoint.name_of(step)).mkdir(parents=True)
        keeping.prune(every, KEEPING, step)
        kept.append(there(every))
        if step % 3 == 0:
            keeping.prune(some, KEEPING, step)
            assert there(some) == there(every)
    assert kept == [[2], [2, 4], [4, 6], [6, 8], [8, 10], [8, 10, 12]]


def test_what_a_stop_has_saved_goes_with_the_next_that_is_due(tmp_path):
    made = planted(tmp_path / "run", (2, 4, 5), {5: 1.0})
    keeping.prune(made, KEEPING, 5)
    assert there(made) == [2, 4, 5]
    (made.checkpoints / checkpoint.name_of(6)).mkdir()
    keeping.prune(made, KEEPING, 6, also=2)
    assert there(made) == [2, 4, 6]
    keeping.prune(made, KEEPING, 6)
    assert there(made) == [4, 6]


def test_nothing_is_taken_away_unasked_and_nothing_that_is_later(tmp_path):
    made = planted(tmp_path / "run", (2, 4, 6, 8), {})
    keeping.prune(made, replace(KEEPING, keep_last=0), 8)
    assert there(made) == [2, 4, 6, 8]
    keeping.prune(made, replace(KEEPING, keep_last=1), 6)  # 8 is damaged, and will be written again
    assert there(made) == [6, 8]


def test_a_checkpoint_goes_by_its_name_first(tmp_path, monkeypatch):
    """Killed while its files go, there is none of its name."""
    made = planted(tmp_path / "run", (2,), {})
    kept = shutil.rmtree

    def killed(path, *args, **more):
        if path.exists():
            (path / "weights").unlink()
            raise ZeroDivisionError
        kept(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(keeping.shutil, "rmtree", killed)
        with pytest.raises(ZeroDivisionError):
            keeping.remove(made.checkpoints / "step-000002")
    assert there(made) == []
    keeping.sweep(made.checkpoints)
    assert list(made.checkpoints.iterdir()) == []


def test_what_a_checkpoint_stands_on_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The logs that it is written beside, whose names too; then all that is in it; then the name of it."""
    done = noted(monkeypatch)
    last = go(tmp_path / "run", config=replace(TINY, steps=2, eval_every=0, verify_scorer=False))
    at, within = done.index(("replace", last.name)), sorted(path.name for path in last.rglob("*"))
    before, beginning = done[:at], at - len(within) - 1
    assert done[at + 1] == ("sync", "checkpoints")
    assert before[-1] == ("sync", f".partial-{last.name}")
    assert sorted(name for _, name in before[beginning:-1]) == within
    logs = [*(("sync", name) for name in run.LOGS), ("sync", "run")]
    assert before[beginning - len(logs) : beginning] == logs


def test_that_a_checkpoint_has_gone_is_on_the_disk_before_its_files_go(tmp_path, monkeypatch):
    """Else its name could come back, with some of them."""
    made, done, rmtree = planted(tmp_path / "run", (2,), {}), noted(monkeypatch), shutil.rmtree

    def gone(path, *args, **more) -> None:
        if path.exists():
            done.append(("gone", path.name))
        rmtree(path, *args, **more)

    monkeypatch.setattr(keeping.shutil, "rmtree", gone)
    keeping.remove(made.checkpoints / "step-000002")
    name = ".removed-step-000002"
    assert done == [("replace", name), ("sync", "checkpoints"), ("gone", name)]


def test_what_a_run_goes_back_from_and_that_it_does_are_on_the_disk_whole(tmp_path, monkeypatch):
    made = planted(tmp_path / "run", (2,), {1: 0.5, 3: 0.7})
    (state := made.checkpoints / "step-000002" / "trainer" / "state.json").parent.mkdir()
    state.write_text("{}")
    done = noted(monkeypatch)
    rollback.put_aside(made, 1, 2)
    at = done.index(("replace", "1"))
    assert {name for _, name in done[:at]} >= {*run.FILES, ".partial-1"}
    assert done[at + 1] == ("sync", "abandoned")
    done.clear()
    rollback.record(made.path, Intervention(3, 2, "collapse", "it falls", "back", 2, "lr", 0.1, 0.05))
    assert done == [("sync", ".interventions.jsonl.partial"), ("replace", "interventions.jsonl"), ("sync", "run")]


def test_they_are_taken_away_as_the_run_goes_on(tmp_path):
    config = replace(TINY, steps=3, save_every=1, keep_last=1, eval_every=1)
    values = iter((0.1, 0.9, 0.5))
    go(tmp_path / "run", config=config, evaluate=lambda policy: {"accuracy": next(values)})
    assert [path.name for path in keeping.newest_first(tmp_path / "run" / "checkpoints")] == [
        "step-000003",
        "step-000002",
    ]
