"""A disk that takes its time, and a clock that jumps: the same bytes, and no more time than there is."""

import os
import random
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faults.forked import Board, Ended, Moment, forked, replaced
from faults.works import Whole, Work, answering, differences, studying, train_on, training, whole

pytestmark = pytest.mark.faults
HOUR = 3600.0


def done(work: Work, folder: Path, *moments: Moment) -> Ended:
    ended = forked(partial(work.do, folder), folder, moments, prepare=work.prepare)
    assert "Traceback" not in ended.said, ended.said
    return ended


def slowly(seconds: float, work: Work) -> Work:
    """With every sync, and every file that is put in its place, taking so long."""

    def prepare(board: Board) -> None:
        work.prepare(board)
        for name in ("fsync", "replace"):
            kept = getattr(os, name)

            def slow(*given, kept=kept):
                time.sleep(seconds)
                return kept(*given)

            setattr(os, name, slow)

    return work._replace(prepare=prepare)


def test_a_slow_disk_changes_nothing(papo, place):
    ended = done(slowly(0.03, training("papo")), place / "run")
    assert ended.status == 0, ended.said
    assert differences(place / "run", papo.files) == []


@pytest.fixture(scope="module")
def graced(ready, tmp_path_factory) -> Whole:
    return whole(training("papo", grace=6.0), tmp_path_factory.mktemp("graced") / "run")


@pytest.mark.parametrize("number", [2, 30, 45, 70])
def test_told_to_stop_while_a_slow_disk_saves_it_ends_in_time(graced, place, number):
    """A save takes about a second here; there are six."""
    work = training("papo", grace=6.0)
    slow = slowly(0.04, work)

    def noting(board: Board) -> None:
        slow.prepare(board)
        os.kill = noted(os.kill, place / "since")

    ended = done(slow._replace(prepare=noting), place / "run", Moment("sync", number, signal.SIGTERM))
    took = time.time() - float((place / "since").read_text())
    assert ended.status == 0 or (number == 2 and ended.status == -signal.SIGTERM), ended.said
    assert took < 6.0
    again = done(work, place / "run")
    assert again.status == 0, again.said
    assert again.began >= ended.began
    assert differences(place / "run", graced.files, saved_more=True) == []


def noted(kill, file: Path):
    """The same, and the time is written down."""

    def noting(*given) -> None:
        file.write_text(str(time.time()))
        kill(*given)

    return noting


def endless(work: Work, seconds: float) -> Work:
    """With a third step that takes that long."""

    def prepare(board: Board) -> None:
        work.prepare(board)

        def slow(kept):
            def update(*given, **options):
                if given[3] == 2:
                    until = time.monotonic() + seconds
                    while time.monotonic() < until:
                        sum(range(1000))
                return kept(*given, **options)

            return update

        replaced("vergence.train.loop.update", slow)

    return work._replace(prepare=prepare)


def test_a_step_that_is_too_long_is_given_up_and_taken_again(place):
    """The grace period is two seconds, the step takes a minute."""
    work = training("papo", grace=2.0)
    of = whole(work, place / "whole")
    slow = endless(work, 60.0)
    ended = done(slow, place / "run", Moment("time", 0.8 * of.seconds + 2.0, signal.SIGTERM))
    assert ended.status == 0, ended.said
    assert ended.seconds < 0.8 * of.seconds + 2.0 + 2.0 + 1.0
    again = done(work, place / "run")
    assert again.status == 0, again.said
    assert again.began == 2
    assert differences(place / "run", of.files, saved_more=True) == []


# ------------------------------------------------------------------------------------------------------------- clocks


def jumping(work: Work, seed: int) -> Work:
    """With a clock that is set hours forward or back all the time, and one that never goes back and leaps ahead."""

    def prepare(board: Board) -> None:
        work.prepare(board)
        chance, ahead = random.Random(seed), [0.0]
        day, steady, fine = time.time, time.monotonic, time.perf_counter

        def leapt() -> float:
            ahead[0] += chance.choice((0.0, 0.0, 0.0, 0.0, HOUR))
            return ahead[0]

        time.time = lambda: day() + chance.choice((0.0, -9 * HOUR, 5 * HOUR, -1e9))
        time.monotonic = lambda: steady() + leapt()
        time.perf_counter = lambda: fine() + leapt()

    return work._replace(prepare=prepare)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("work", [training("papo"), training("captions"), answering()], ids=lambda work: work.name)
def test_clocks_that_jump_change_nothing(place, work, seed):
    of = whole(work, place / "whole")
    ended = done(jumping(work, seed), place / "run")
    assert ended.status == 0, ended.said
    assert differences(place / "run", of.files) == []


def test_a_study_by_the_clock_ends_when_it_leaps(place):
    """Runs of a study that train so many seconds stop after fewer steps, with their records."""

    def do(folder: Path) -> None:
        from faults.works import plan

        from vergence.studies.study import study

        outcome = study(replace(plan(), seconds=2 * HOUR), folder, cores=1)
        assert not outcome.failures

    def prepare(board: Board) -> None:
        work.prepare(board)
        from vergence.train.rounds import Clock

        lap = Clock.lap

        def leaping(self, name: str) -> None:
            lap(self, name)
            self.laps[name] = HOUR / 2

        Clock.lap = leaping

    work = studying()
    ended = done(work._replace(do=do, prepare=prepare), place / "study")
    assert ended.status == 0, ended.said
    assert len(list((place / "study/records").rglob("seed-0.jsonl"))) == 3


def test_a_verdict_that_is_there_is_taken_however_late_it_is_looked_at():
    """The process stood still for hours while the answer came: it is no timeout."""
    from vergence.rewards.pool import Job, Pool
    from vergence.types import Gold

    pool, steady, ahead = Pool(1), time.monotonic, [0.0]
    job = Job("0.5x+1", *Gold("\\frac{x}{2}+1", "expression"))
    assert pool.ask([job]) == ["right"]
    worker = pool._places.get()
    pool._places.put(worker)
    write = worker._write

    def leaping() -> float:
        ahead[0] += HOUR * leaps[0]
        return steady() + ahead[0]

    def written(request: bytes) -> None:
        write(request)
        time.sleep(2.0)  # it is answered now
        leaps[0] = 1

    leaps, worker._write = [0], written
    time.monotonic = leaping
    try:
        assert pool.ask([job]) == ["right"]
    finally:
        time.monotonic = steady
        pool.close()


def test_the_runs_seed_is_no_clock(place):
    """What is compared here does differ by a seed."""
    work = training("papo")
    of = whole(work, place / "whole")
    other = replace(work.config, seed=1)
    done(work._replace(do=partial(train_on, other)), place / "run")
    assert "metrics.jsonl differs" in differences(place / "run", of.files)
