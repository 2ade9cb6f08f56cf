"""Workers and servers that die, hang or talk nonsense; and two processes that want one folder."""

import json
import os
import random
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from faults.forked import Board, Ended, Moment, end_with_parent, forked, replaced, waited
from faults.works import Work, answering, differences, newest, studying, training, whole
from rewards.fake_server import Fake, Reply, counted, text_of

pytestmark = pytest.mark.faults


def done(work: Work, folder: Path, *moments: Moment) -> Ended:
    ended = forked(partial(work.do, folder), folder, moments, prepare=work.prepare)
    assert "Traceback" not in ended.said, ended.said
    return ended


# ------------------------------------------------------------------------------------------------------------ workers

PAIRS = [("0.5x+1", "\\frac{x}{2}+1"), ("x+1", "\\frac{x}{2}+1"), ("2\\sqrt{2}", "\\sqrt{8}"), ("(x+1)^2", "x^2+2x+1")]


def children() -> list[int]:
    """Processes that compare expressions for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
            command = path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(rest.split()[1]) == os.getpid() and b"vergence.rewards.worker" in command and rest.split()[0] != "Z":
            found.append(int(name.split()[0]))
    return found


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_workers_that_die_or_hang_cost_time_and_no_verdict_of_others(what):
    """One at a time, at random; of those that hang, the ones that are asked meanwhile are timed out."""
    from vergence.rewards.pool import Job, Pool
    from vergence.types import Gold

    jobs = [Job(answer, *Gold(gold, "expression")) for answer, gold in PAIRS] * 6
    pool, chance, over = Pool(2), random.Random(0), threading.Event()
    expected = pool.ask(jobs, 20.0)
    assert set(expected) == {"right", "wrong"}

    def kill() -> None:
        while not over.wait(0.3):
            for pid in chance.sample(there := children(), min(1, len(there))):
                os.kill(pid, what)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = [pool._one(job, 2.0) for job in jobs]
    finally:
        over.set()
        killer.join()
        pool.close()
    allowed = {"unparsed"} if what == signal.SIGKILL else {"timed out"}
    assert all(one == other or one in allowed for one, other in zip(found, expected, strict=True))
    assert sum(one == other for one, other in zip(found, expected, strict=True)) >= len(jobs) // 2
    assert children() == []


def test_a_worker_cannot_fork():
    """A bomb in what it compares has no processes to be made of."""
    from vergence.rewards.pool import Worker

    worker = Worker()
    try:
        limits = Path(f"/proc/{worker._process.pid}/limits").read_text().splitlines()
        (line,) = [one for one in limits if one.startswith("Max processes")]
        assert line.split()[2] == "0", line
    finally:
        worker.end()


# ------------------------------------------------------------------------------------------------------------ servers


def last_word(wanted, tried) -> Reply:
    """Boxes the last word of the caption."""
    words = text_of(wanted).split("Picture: ")[-1].split(".")[0].split()
    return counted(f"\\boxed{{{words[-1] if words else ''}}}", 20, 10)


class Spoilt:
    """Answers so many requests well, and then never again."""

    def __init__(self, well: int, way: str) -> None:
        self.well, self.way, self.lock = well, way, threading.Lock()

    def __call__(self, wanted, tried) -> Reply:
        with self.lock:
            self.well -= 1
            if self.well >= 0:
                return last_word(wanted, tried)
        if self.way == "dies":
            os._exit(0)
        body = json.dumps({"choices": [{"message": {"content": "\\boxed{7}"}}]}).encode()
        return {
            "garbles": Reply(b"\xff\xfe<html>busy</html>"),
            "half": Reply(body[: len(body) // 2]),
            "breaks off": Reply(body[: len(body) // 2], cut=True),
            "is silent": Reply(body, hang=60.0),
            "fails": Reply({"error": "internal"}, 500),
            "is busy": Reply({"error": "later"}, 429, Retry_After="0"),
            "is deep": Reply(b"[" * 100_000),
        }[self.way]


WAYS = ("dies", "garbles", "half", "breaks off", "is silent", "fails", "is busy", "is deep")


def serving_in_a_process(behave, port: int = 0) -> tuple[int, int]:
    """(process, port) of a server that can be killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        end_with_parent()
        try:
            fake = Fake(behave, port)
            os.write(writing, str(fake.server_address[1]).encode())
            os.close(writing)
            fake.serve_forever(poll_interval=0.01)
        finally:
            os._exit(1)
    os.close(writing)
    found = int(os.read(reading, 10))
    os.close(reading)
    return child, found


def ended(child: int) -> None:
    if waited(child, 0.0) is None:
        os.kill(child, signal.SIGKILL)
        waited(child, time.monotonic() + 10.0)


def impatient(work: Work) -> Work:
    """A server is given tenths of seconds, and not many."""

    def prepare(board: Board) -> None:
        work.prepare(board)

        def hasty(kept):
            def made(self, *given, **options):
                kept(self, *given, **options)
                self.patience = self.patience._replace(retries=2, wait=0.05, timeout=0.5)

            return made

        replaced("vergence.rewards.server.Server.__init__", hasty)

    return work._replace(prepare=prepare)


@pytest.mark.parametrize(("well", "way"), [*((5, way) for way in WAYS), (0, "dies"), (14, "dies"), (14, "is silent")])
def test_a_server_that_fails_ends_the_run_with_a_checkpoint_and_it_goes_on(place, way, well):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)
    server, port = serving_in_a_process(last_word)
    work = impatient(training("captions", reasoner=f"http://127.0.0.1:{port}", server_model="m", steps=4, eval_every=0))
    try:
        of = whole(work, place / "whole")
        ended(server)
        server, _ = serving_in_a_process(Spoilt(well, way), port)
        broken = done(work, place / "run")
        assert broken.status == 2, broken.said
        assert "error: " in broken.said
        assert newest(place / "run") == {0: -1, 5: 1, 14: 3}[well], broken.said
        ended(server)
        server, _ = serving_in_a_process(last_word, port)
        again = done(work, place / "run")
        assert again.status == 0, again.said
        assert again.began == max(0, newest(place / "run") and {0: 0, 5: 1, 14: 3}[well])
        assert differences(place / "run", of.files, saved_more=True) == []
    finally:
        ended(server)


# ------------------------------------------------------------------------------------------------- two on one folder


def held(work: Work, folder: Path) -> tuple[int, Path]:
    """A process that is at work in the folder, and stays so."""
    sign = folder.with_name("at-work")
    child = os.fork()
    if not child:
        end_with_parent()
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            for standard in (1, 2):
                os.dup2(devnull, standard)
            import torch

            torch.set_num_threads(1)
            work.prepare(Board())

            def stay(kept):
                def waiting(*given, **options):
                    sign.touch()
                    time.sleep(100)

                return waiting

            where = "train.loop.update" if work.of == "train" else "rollout.decode.Decode.__call__"
            replaced(f"vergence.{where}", stay)
            work.do(folder)
        finally:
            os._exit(1)
    until = time.monotonic() + 60
    while not sign.exists():
        assert waited(child, 0.0) is None, "it ended"
        assert time.monotonic() < until
        time.sleep(0.01)
    return child, sign


@pytest.mark.parametrize("work", [training("grpo"), answering()], ids=lambda work: work.name)
def test_a_second_process_is_refused_and_after_kill_9_a_third_starts(place, work):
    of = whole(work, place / "whole")
    child, _ = held(work, place / "run")
    try:
        second = done(work, place / "run")
        assert second.status == 2
        assert "another" in second.said
        assert "wait for it" in second.said
    finally:
        os.kill(child, signal.SIGKILL)
        waited(child, time.monotonic() + 10)
    third = done(work, place / "run")
    assert third.status == 0, third.said
    assert differences(place / "run", of.files) == []


def test_a_second_study_is_refused(place):
    from vergence.disk import alone

    with alone(place / "run", "study"):
        second = done(studying(), place / "run")
    assert second.status == 2
    assert "another study is at work" in second.said
