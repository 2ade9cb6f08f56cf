"""One process on a run folder, no space, and which checkpoints are kept."""

import errno
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from train.resumed import TINY, assert_the_same, contents, go

from vergence import disk
from vergence.train import checkpoint, keeping, run
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
    [(checkpoint, "save_file", 2), (run, "append", 7)],
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


def test_they_are_taken_away_as_the_run_goes_on(tmp_path):
    config = replace(TINY, steps=3, save_every=1, keep_last=1, eval_every=1)
    values = iter((0.1, 0.9, 0.5))
    go(tmp_path / "run", config=config, evaluate=lambda policy: {"accuracy": next(values)})
    assert [path.name for path in keeping.newest_first(tmp_path / "run" / "checkpoints")] == [
        "step-000003",
        "step-000002",
    ]
