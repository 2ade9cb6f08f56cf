"""The next round is sampled while this one trains: what comes of it depends on no clock, and nothing of it is lost."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from train.follower import Down, fingerprint, followed_by, no_thread_is_left

import vergence.train.loop as loop
import vergence.train.parts as parts_module
import vergence.train.rounds as rounds
from vergence.models.policy import load
from vergence.rewards.reasoner import ReasonerDown
from vergence.train.ahead import FILE, Ahead, Ended
from vergence.train.ask import ask
from vergence.train.asked import Round, read_round, write_round
from vergence.train.backend import OneProcess
from vergence.train.config import Config
from vergence.train.gap import GapTooWide
from vergence.train.loop import train
from vergence.train.parts import assemble
from vergence.train.run import read_lines
from vergence.types import UserError

AHEAD = Config(
    method="grpo",
    sampler="vllm",
    ahead=1,
    correction="truncate",
    steps=6,
    scenes_per_batch=2,
    siblings=3,
    parts=2,
    token_budget=800,
    max_tokens=16,
    watch_every=0,
    warmup=0,
    lr=1e-3,
)
SAME = ("metrics.jsonl", "rollouts.jsonl", "checkpoints/step-000006/model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run; nobody writes to it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        followed_by(patch)
        train(AHEAD, out)
    return out


def assert_the_same(one, other):
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_round_is_sampled_by_the_weights_of_the_round_before_the_last(whole, tmp_path, monkeypatch):
    """And in a thread, once, though the run is saved after every step."""
    (made, run) = followed_by(monkeypatch), tmp_path / "run"
    train(replace(AHEAD, save_every=1), run)
    (sampler,) = made
    start, after = fingerprint(load("seedling")), fingerprint(load(run / "checkpoints" / "step-000002"))
    assert sampler.sampled == [start, start, after]
    assert sampler.heard == [start, after]
    assert start != after
    assert sampler.threads[0] is threading.main_thread()
    assert threading.main_thread() not in sampler.threads[1:]
    assert (sampler.rests, sampler.closed) == (0, 1)
    assert_the_same(whole, run)
    asked = {(row["step"], row["scene"]) for row in read_lines(run / "rollouts.jsonl")}
    assert len({scene for _, scene in asked}) == len(asked) == 6  # each round has scenes of its own


class Eager(Ahead):
    """The definition: the round is asked for at once, and nothing else happens meanwhile."""

    def begin(self, number, ask):
        self._there[number] = ask(self._peers)


def test_what_is_sampled_ahead_is_what_would_be_sampled_at_once(whole, tmp_path, monkeypatch):
    followed_by(monkeypatch)
    monkeypatch.setattr(parts_module, "Ahead", Eager)
    train(AHEAD, tmp_path / "run")
    assert_the_same(whole, tmp_path / "run")


@pytest.mark.parametrize("slow", ["sampler", "training"])
def test_it_is_the_same_bytes_however_long_anything_takes(whole, tmp_path, monkeypatch, slow):
    followed_by(monkeypatch, slow=0.3 if slow == "sampler" else 0.0)
    if slow == "training":
        update = loop.update
        monkeypatch.setattr(loop, "update", lambda *args: no_thread_is_left() and update(*args))
    train(AHEAD, tmp_path / "run")
    assert_the_same(whole, tmp_path / "run")
    times = list(read_lines(tmp_path / "run" / "timings.jsonl"))[::2]
    assert [sorted(line.keys() & {"wait_s", "ahead_s", "push_s", "ask_s"}) for line in times] == [
        ["ask_s"],
        ["ahead_s", "push_s", "wait_s"],
        ["ahead_s", "push_s", "wait_s"],
    ]
    for line in times[1:]:
        assert line["ahead_s"] > (0.3 if slow == "sampler" else 0.0)
        assert slow == "sampler" or line["wait_s"] < 0.1


def test_it_is_not_what_is_sampled_without(whole, tmp_path, monkeypatch):
    """The comparison above can fail; and a sampler that follows every time has no gap."""
    made = followed_by(monkeypatch)
    train(replace(AHEAD, ahead=0), tmp_path / "run")
    (sampler,) = made
    assert (len(sampler.heard), sampler.rests) == (3, 3)
    assert (whole / SAME[1]).read_bytes() != (tmp_path / "run" / SAME[1]).read_bytes()
    gaps = [
        [line["sampler/gap_mean"] for line in read_lines(run / "metrics.jsonl") if "sampler/gap_mean" in line]
        for run in (whole, tmp_path / "run")
    ]
    assert max(gaps[1]) < 1e-5
    assert [gap > 1e-3 for gap in gaps[0]] == [False, True, True]


# ----------------------------------------------------------------------------------------------- saved and gone on with


@pytest.mark.parametrize(("until", "held"), [pytest.param(1, 1, marks=pytest.mark.slow), (4, 2), (5, None)])
def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path, monkeypatch, until, held):
    """With two steps to a batch, in the middle of a round and between two: what is saved is the round that comes next,
    as long as there is one, and nothing is sampled twice."""
    made = followed_by(monkeypatch)
    file = train(AHEAD, tmp_path / "run", until=until) / "trainer" / FILE
    assert (json.loads(file.read_text())["round"] if file.exists() else None) == held
    train(AHEAD, tmp_path / "run", resume=True)
    assert_the_same(whole, tmp_path / "run")
    assert sum(len(one.sampled) for one in made) == 3
    assert no_thread_is_left()


def test_a_round_reads_back_as_it_was(tmp_path):
    parts = assemble(replace(AHEAD, sampler="own", ahead=0), tmp_path)
    asked = ask(parts, 0, 3)
    write_round(tmp_path / "round.json", 5, asked)
    number, again = read_round(tmp_path / "round.json", parts.source)
    assert (number, again.position, again.metrics) == (5, asked.position, asked.metrics)
    assert list(again.metrics) == list(asked.metrics)
    for one, other in zip(asked.rollouts, again.rollouts, strict=True):
        assert (one.sampled, one.verdict, one.text, one.key) == (other.sampled, other.verdict, other.text, other.key)
        assert one.scene.images[0].tobytes() == other.scene.images[0].tobytes()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"round": 1, "position": 0, "metrics": {}, "rollouts": [{}]}'])
def test_a_damaged_round_is_told(tmp_path, damage):
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(UserError, match=r"cannot read .*ahead\.json.*Delete that checkpoint"):
        Ahead(OneProcess()).read(tmp_path, assemble(replace(AHEAD, sampler="own", ahead=0), tmp_path).source)


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_an_engine_that_is_dead_costs_no_step(tmp_path, monkeypatch):
    """It dies in the thread, while the second round trains: that one is finished, saved, and then it is told."""
    made = followed_by(monkeypatch, fails=(3,))
    with pytest.raises(Down, match="dead"):
        train(AHEAD, tmp_path / "run")
    assert no_thread_is_left()
    assert made[0].closed == 1
    saved = tmp_path / "run" / "checkpoints" / "step-000004"
    assert saved.is_dir()
    assert not (saved / "trainer" / FILE).exists()
    train(AHEAD, tmp_path / "run", resume=True)
    assert [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert made[1].sampled == [fingerprint(load(saved))]


def test_a_reasoner_that_is_down_ends_the_run_from_the_thread(tmp_path, monkeypatch):
    followed_by(monkeypatch)

    class Reasoner:
        calls = 0

        def __call__(self, asked, *, temperature, max_tokens):
            self.calls += 1
            if self.calls == 2:
                raise ReasonerDown("nobody answers")
            return [rf"\boxed{{{len(one.text) % 3}}}" for one in asked]

    reasoner = Reasoner()
    monkeypatch.setattr(parts_module, "load_reasoner", lambda *_, **__: reasoner)
    with pytest.raises(ReasonerDown):
        train(replace(AHEAD, method="racro"), tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "step-000002").is_dir()
    assert no_thread_is_left()


def test_a_batch_that_was_taken_and_not_trained_is_not_lost(whole, tmp_path, monkeypatch):
    """Captions cannot be had for the second, while the third is under way: the second is saved, and goes on."""
    made, captioned, called = followed_by(monkeypatch), rounds.captioned, []

    def down_once(*given):
        called.append(given)
        if len(called) == 2:
            raise ReasonerDown("nobody answers")
        return captioned(*given)

    monkeypatch.setattr(rounds, "captioned", down_once)
    with pytest.raises(ReasonerDown):
        train(AHEAD, tmp_path / "run")
    saved = tmp_path / "run" / "checkpoints" / "step-000002"
    assert json.loads((saved / "trainer" / FILE).read_text())["round"] == 1
    train(AHEAD, tmp_path / "run", resume=True)
    assert_the_same(whole, tmp_path / "run")
    assert no_thread_is_left()
    assert len(made[1].sampled) == 1


def test_a_batch_with_too_wide_a_gap_is_sampled_again(tmp_path, monkeypatch):
    """Nobody could go on from a checkpoint that held it, however well the sampler was mended."""
    made = followed_by(monkeypatch)
    with pytest.raises(GapTooWide):
        train(replace(AHEAD, most_gap=1e-4), tmp_path / "run")
    saved = tmp_path / "run" / "checkpoints" / "step-000002"
    assert not (saved / "trainer" / FILE).exists()
    train(AHEAD, tmp_path / "run", resume=True, until=3)
    assert made[1].sampled == [fingerprint(load(saved))] * 2  # the second batch, and the third ahead
    second = list(read_lines(tmp_path / "run" / "metrics.jsonl"))[2]
    assert second["sampler/gap_mean"] < 1e-5


def test_the_first_interrupt_saves_the_round_that_is_under_way(whole, tmp_path, monkeypatch):
    made, update = followed_by(monkeypatch, slow=0.3), loop.update
    monkeypatch.setattr(loop, "update", lambda *args: os.kill(os.getpid(), signal.SIGINT) or update(*args))
    saved = train(AHEAD, tmp_path / "run")
    assert saved.name == "step-000001"
    assert json.loads((saved / "trainer" / FILE).read_text())["round"] == 1
    assert no_thread_is_left()
    monkeypatch.setattr(loop, "update", update)
    train(AHEAD, tmp_path / "run", resume=True)
    assert_the_same(whole, tmp_path / "run")
    assert len(made) == 2


def test_the_second_interrupt_waits_for_nobody(tmp_path, monkeypatch):
    (made, since) = followed_by(monkeypatch), time.monotonic()

    def interrupted(*_):
        made[0].calling.wait()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    def slow_from_now_on(parts, round_, position):
        made[0].slow = 0.0 if round_ == 0 else 120.0
        made[0].calling.clear()
        try:
            return ask(parts, round_, position)
        finally:
            time.sleep(0.0 if round_ == 0 else 0.5)  # it is waited for

    monkeypatch.setattr(rounds, "ask", slow_from_now_on)
    monkeypatch.setattr(loop, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(AHEAD, tmp_path / "run")
    assert time.monotonic() - since < 60
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("round ")]
    assert made[0].closed == 1


# ------------------------------------------------------------------------------------------- several processes, a relay


class Meeting:
    """Processes that are threads here; what they exchange is noted with who said it."""

    def __init__(self, size):
        self.size, self.barrier = size, threading.Barrier(size, timeout=20)
        self.said, self.by = [None] * size, []

    def of(self, rank):
        meeting = self

        class Process(OneProcess):
            size = meeting.size

            def exchange(self, own):
                meeting.by.append(threading.current_thread().name)
                meeting.said[rank] = own
                meeting.barrier.wait()
                everyone = list(meeting.said)
                meeting.barrier.wait()
                return everyone

        one = Process()
        one.rank = rank
        return one


def test_what_is_said_to_all_is_said_by_the_main_thread():
    """Three processes, each of which has other things to exchange while its round is under way, and waits then."""
    meeting, found = Meeting(3), {}

    def process(rank):
        backend = meeting.of(rank)
        ahead = Ahead(backend)

        def ask(others):
            time.sleep(0.05 * others.rank)
            first = others.exchange(("first", others.rank))
            return Round([], sum(number for _, number in first) + len(others.exchange(("second", rank))), {})

        ahead.begin(0, ask)
        mine = [backend.exchange(("training", rank, step)) for step in range(3)]
        ahead.wait(7)
        found[rank] = mine, ahead.take(0)

    mains = [threading.Thread(target=process, args=(rank,), name=f"main {rank}") for rank in range(3)]
    for main in mains:
        main.start()
    for main in mains:
        main.join(30)
    assert set(meeting.by) == {"main 0", "main 1", "main 2"}
    for rank in range(3):
        mine, asked = found[rank]
        assert asked.position == 3 + 3
        assert mine == [[("training", other, step) for other in range(3)] for step in range(3)]


def test_a_thread_whose_run_has_ended_does_not_wait_for_others():
    ahead, seen = Ahead(Meeting(2).of(0)), []

    def ask(others):
        try:
            others.exchange(1)
        except Ended as error:
            seen.append(error)
            raise
        return Round([], 0, {})

    ahead.begin(0, ask)
    ahead.close()
    assert len(seen) == 1
    assert no_thread_is_left()


def broken(_):
    raise ValueError("a fault of the program")


def test_what_nobody_foresaw_costs_no_checkpoint_that_is_being_written(tmp_path):
    """It is raised where the round is taken; of several processes at once, as the others may wait for this one."""
    ahead = Ahead(OneProcess())
    ahead.begin(4, broken)
    ahead.wait(4)
    ahead.write(tmp_path, 4)
    assert not (tmp_path / FILE).exists()
    with pytest.raises(ValueError, match="a fault of the program"):
        ahead.take(4)
    assert ahead.take(4) is None
    one_of_two = Ahead(Meeting(2).of(0))
    one_of_two.begin(4, broken)
    with pytest.raises(ValueError, match="a fault of the program"):
        one_of_two.wait(4)


def test_two_rounds_are_never_under_way():
    ahead, go = Ahead(OneProcess()), threading.Event()
    ahead.begin(0, lambda _: go.wait(20) and Round([], 1, {}))
    with pytest.raises(RuntimeError, match="still under way"):
        ahead.begin(1, lambda _: Round([], 2, {}))
    go.set()
    assert ahead.take(0).position == 1
    assert ahead.take(0).position == 1
    ahead.done_with(0)
    assert ahead.take(0) is None


def test_a_thread_has_as_many_threads_of_torchs_as_who_began_it():
    ahead, before = Ahead(OneProcess()), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        ahead.begin(0, lambda _: Round([], torch.get_num_threads(), {}))
        assert ahead.take(0).position == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_it_learns(tmp_path, monkeypatch):
    """To say less, for which each character costs: by weights that are a batch older, and corrected for it.

    Beside a run that learns nothing, of the same scenes and the same noise.
    """
    followed_by(monkeypatch)
    (tmp_path / "brief.py").write_text(
        "def brief(prompts, completions, **_):\n    return [-len(one[0]['content']) / 100 for one in completions]\n"
    )
    asked = {"rewards": (f"{tmp_path / 'brief.py'}:brief",), "scenes_per_batch": 4, "siblings": 6, "max_tokens": 32}
    late = {}
    for name, lr in {"still": 1e-12, "run": AHEAD.lr}.items():
        train(replace(AHEAD, **asked, parts=1, steps=9, lr=lr), tmp_path / name)
        lines = list(read_lines(tmp_path / name / "metrics.jsonl"))
        late[name] = sum(line["reward"] for line in lines[-3:]) / 3
    assert late["run"] > late["still"] + 0.08  # 0.16 by this seed, 0.19 by another
    assert all(line["sampler/ratio_mean"] == pytest.approx(1, abs=0.2) for line in lines)
    assert max(line["sampler/gap_mean"] for line in lines) > 1e-3
