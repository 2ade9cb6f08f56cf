"""Some of what `make faults` does at length: kills and losses of power; and that none of it passes unnoticed."""

import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest
from faults import kills, power
from faults.disks import instants, mixed, worst
from faults.forked import Board, Moment, forked, replaced
from faults.works import differences, train_on, training, whole

from vergence.train.run import RunFolder


def test_killed_at_any_moment_a_run_becomes_what_it_would_have_been(place):
    """Three kills: before something is done with a file, amid a write, and before a sync."""
    work = training("grpo", steps=2, passes=1, save_every=1, eval_every=0, watch_every=0)
    of, chance = whole(work, place / "whole"), random.Random(0)
    folder = place / "run"
    for way, count in (("event", of.events), ("write", of.writes), ("sync", of.syncs)):
        moment = Moment(way, chance.randint(count // 4, count // 2))
        ended = forked(partial(work.do, folder), folder, [moment], prepare=work.prepare)
        assert ended.status == -signal.SIGKILL, ended.said
    ended = forked(partial(work.do, folder), folder, prepare=work.prepare)
    assert ended.status == 0, ended.said
    assert differences(folder, of.files) == []


def test_from_any_state_of_the_disk_an_evaluation_becomes_what_it_would_have_been(place):
    found = power.outcomes("eval", place / "power", number=2, seed=1)
    assert [one for one in found if one.wrong or one.lost] == []
    assert len(found) == 2


@pytest.mark.faults
def test_forty_kills(place):
    found = kills.trials(40, 7, place, workers=2)
    assert [kills.told(one) for one in found if one.wrong or one.lost] == []
    assert len(found) == 40


@pytest.mark.faults
@pytest.mark.parametrize("name", power.WORKS)
def test_twelve_states_of_a_disk(place, name):
    found = power.outcomes(name, place / "power", number=12, seed=7)
    assert [one for one in found if one.wrong or one.lost] == []


# ------------------------------------------------------------------------------------------- what must not go unnoticed


def without(which: str) -> None:
    """Take a sync away: of files, of folders, or of the logs alone."""
    sync = os.fsync

    def some(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        gone = {
            "files": path.is_file(),
            "folders": path.is_dir(),
            "logs": path.name in ("metrics.jsonl", "rollouts.jsonl"),
        }
        if not gone[which]:
            sync(handle)

    os.fsync = some


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "which"),
    [("grpo", "logs"), *((name, which) for name in ("grpo", "eval", "study") for which in ("files", "folders"))],
)
def test_a_sync_that_is_left_out_is_noticed(place, name, which):
    """By what is only safe where it was synced: some checkpoint, answer or record is lost that was said to be there."""
    work, base = power.work_of(name), place / "power"
    of = power.watched(work, base, spoil=partial(without, which))
    last = list(instants(base / "store"))[-1]
    state = worst(last, base / "store", zeros=name != "eval")
    found = power.tried(work, base, of, "worst", last, state, "state")
    assert found.lost or (name != "eval" and found.wrong)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["grpo", "eval", "study"])
def test_nothing_is_lost_at_the_end(place, name):
    """The same with all syncs: the worst that a disk can do leaves the last checkpoint, all answers and all records."""
    work, base = power.work_of(name), place / "power"
    of = power.watched(work, base)
    last = list(instants(base / "store"))[-1]
    for state in (worst(last, base / "store", zeros=True), mixed(last, base / "store", random.Random(0))):
        found = power.tried(work, base, of, "worst", last, state, "state")
        assert (found.wrong, found.lost) == ([], [])


@pytest.mark.faults
def test_logs_that_are_not_cut_and_checkpoints_that_are_passed_over_are_noticed(place):
    """The kill comes after the second save, when the next round's lines have been written."""
    work = training("grpo", steps=4, passes=1, save_every=2, eval_every=0, watch_every=0)
    of = whole(work, place / "whole")

    def uncut(board: Board) -> None:
        work.prepare(board)
        replaced("vergence.train.run.os.truncate", lambda kept: lambda *given: None)

    def older(board: Board) -> None:
        work.prepare(board)
        replaced("vergence.train.opening.newest_sound", lambda kept: lambda *given: None)

    for number, spoilt in enumerate((work.prepare, uncut, older)):
        folder = place / f"run-{number}"
        ended = forked(partial(train_to, work.config, folder, 3), folder, prepare=work.prepare)
        assert ended.status == -signal.SIGKILL, ended.said
        assert (folder / "metrics.jsonl").read_text().count("\n") == 3
        before = kills.Standing(folder, work)
        ended = forked(partial(work.do, folder), folder, prepare=spoilt)
        noticed = differences(folder, of.files), before.lost(ended)
        assert bool(noticed[0]) == (spoilt is uncut), noticed
        assert bool(noticed[1]) == (spoilt is older), noticed


def train_to(config, folder: Path, step: int) -> None:
    """To be killed when the lines of that step are written, and it is not saved."""
    kept = RunFolder.append

    def append(self, name, records):
        kept(self, name, records)
        if name == "metrics.jsonl" and any(record["step"] == step for record in records):
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.append = append
    train_on(config, folder)


def test_a_line_that_stands_twice_is_noticed(place):
    """As it would after a resume that does not cut the logs."""
    folder = place / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "timings.jsonl").write_text('{"step": 1}\n{"step": 1}\n')
    assert differences(folder, {"metrics.jsonl": b'{"step": 1}\n', "checkpoints/": b""}) == [
        "timings.jsonl has the steps [1, 1]"
    ]
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 1}\n')
    assert "metrics.jsonl differs" in differences(folder, {"metrics.jsonl": b'{"step": 1}\n', "checkpoints/": b""})
