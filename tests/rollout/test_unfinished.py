"""What a sampler has said of a round that could not be finished is not asked again, and is believed in that round."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest

import vergence.rollout.vllm as vllm
from vergence.models.policy import load
from vergence.recipes.demo import demo
from vergence.rewards.reasoner import ReasonerDown
from vergence.rollout.decode import sampler_of
from vergence.rollout.sampler import Following, Sampler
from vergence.rollout.unfinished import SamplerDown, Unfinished, read, write
from vergence.train import parts as parts_module
from vergence.train.loop import train
from vergence.train.run import read_lines
from vergence.types import Asked, Prompt, Sampled

POLICY = load("seedling")
HOW = {"temperature": 1.0, "max_tokens": 8}


def said(key: int) -> Sampled:
    return Sampled((key % 7, 2), (-1 / 3 - key, -1e-17), (1 / 3, 5e-324), "stop")


def asked(*keys: int) -> list[Asked]:
    return [Asked(Prompt((1, 2)), key) for key in keys]


class Down:
    """Says what the key says, and after so many of a call it is down."""

    def __init__(self, *after: int) -> None:
        self.after, self.seen, self.calls = list(after), [], []

    def follow(self, policy):
        self.calls.append("follow")

    def rest(self):
        self.calls.append("rest")

    def close(self):
        self.calls.append("close")

    def __call__(self, asked, *, temperature, max_tokens):
        self.seen.append([one.key for one in asked])
        number = self.after.pop(0) if self.after else len(asked)
        drawn = [said(one.key) for one in asked]
        if number < len(asked):
            raise SamplerDown("gone", {row: drawn[row] for row in range(len(asked) - number, len(asked))})
        return drawn


def test_every_number_comes_back_as_it_was(tmp_path):
    held = {2**62 + key: said(key) for key in range(9)}
    write(tmp_path / "one.json", held)
    assert read(tmp_path / "one.json") == held
    assert [one.name for one in tmp_path.iterdir()] == ["one.json"]


@pytest.mark.parametrize("damaged", [b"", b"[1]", b"[{}]", b"7", b"\xff", b"[" * 10**5, b'[{"key": 1, "tokens": 2}]'])
def test_what_is_damaged_is_asked_again(tmp_path, damaged):
    (tmp_path / "one.json").write_bytes(damaged)
    assert read(tmp_path / "one.json") == {}
    assert read(tmp_path / "none.json") == {}


def test_the_run_that_goes_on_asks_for_the_rest_alone(tmp_path):
    """In order; the draws of a round before the one that failed are not lost either; and it may fail again."""
    file, first = tmp_path / "one.json", Unfinished(engine := Down(9, 2), tmp_path / "one.json")
    assert isinstance(first, Sampler)
    assert isinstance(first, Following)
    first.follow(POLICY)
    first(asked(1, 2), **HOW)
    with pytest.raises(SamplerDown):
        first(asked(3, 4, 5, 6), **HOW)
    first.close()
    assert engine.calls == ["follow", "close"]
    assert read(file) == {key: said(key) for key in (1, 2, 5, 6)}
    second = Unfinished(engine := Down(1), file)
    second.follow(POLICY)
    assert second(asked(1, 2), **HOW) == [said(1), said(2)]
    with pytest.raises(SamplerDown):
        second(asked(3, 4, 5, 6), **HOW)
    assert engine.seen == [[3, 4]]
    third = Unfinished(engine := Down(), file)
    third.follow(POLICY)
    third(asked(1, 2), **HOW)
    assert third(asked(3, 4, 5, 6), **HOW) == [said(key) for key in (3, 4, 5, 6)]
    assert engine.seen == [[3]]
    third.rest()
    assert not file.exists()


@pytest.mark.parametrize("over", ["rest", "follow"])
def test_it_is_believed_in_one_round_alone(tmp_path, over):
    """Later the same keys would be of other weights."""
    write(tmp_path / "one.json", {1: said(1)})
    sampler = Unfinished(engine := Down(), tmp_path / "one.json")
    sampler.follow(POLICY)
    sampler.rest() if over == "rest" else sampler.follow(POLICY)
    sampler(asked(1), **HOW)
    assert engine.seen == [[1]]
    assert not (tmp_path / "one.json").exists()


def test_a_sampler_that_does_not_come_again_loses_nothing_of_the_file(tmp_path):
    class Never(Down):
        def follow(self, policy):
            raise SamplerDown("no room")

    write(tmp_path / "one.json", {1: said(1)})
    sampler = Unfinished(Never(), tmp_path / "one.json")
    with pytest.raises(SamplerDown):
        sampler.follow(POLICY)
    sampler.close()
    assert read(tmp_path / "one.json") == {1: said(1)}


def test_a_disk_that_is_full_does_not_hide_why_the_run_ends(tmp_path):
    sampler = Unfinished(Down(1), tmp_path / "no" / "folder.json")
    sampler.follow(POLICY)
    with pytest.raises(SamplerDown, match="gone"):
        sampler(asked(1, 2), **HOW)


# ------------------------------------------------------------------------------------------------------ whole runs

SMALL = {"scenes_per_batch": 2, "siblings": 3, "max_tokens": 8, "watch_every": 0, "eval_every": 0}
CONFIG = replace(demo(), sampler="vllm", steps=3, save_every=1, **SMALL)


class Copy(Down):
    """The policy's own sampler, one by one: a function of weights and keys, to the last digit."""

    def __init__(self, policy, *after: int) -> None:
        super().__init__(*after)
        self.own = sampler_of(policy, at_once=1)

    def __call__(self, asked, **how):
        self.seen.append([one.key for one in asked])
        number = self.after.pop(0) if self.after else len(asked)
        drawn = [self.own([one], **how)[0] for one in asked[:number]]
        if number < len(asked):
            raise SamplerDown("gone", dict(enumerate(drawn)))
        return drawn


def run(monkeypatch, out, *after: int, resume: bool = False) -> Copy:
    made = []
    monkeypatch.setattr(vllm, "open_vllm", lambda name, policy, **_: made.append(Copy(policy, *after)) or made[-1])
    with suppress(SamplerDown, ReasonerDown):
        train(CONFIG, out, resume=resume)
    return made[0]


@pytest.mark.slow
def test_a_run_that_lost_its_sampler_is_the_uninterrupted_one(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    every = run(monkeypatch, whole).seen
    assert run(monkeypatch, cut, 6, 4).seen == every[:2]
    kept = read(cut / "unfinished.json")
    assert [*kept] == every[1][:4]
    assert [*read_lines(cut / "metrics.jsonl")] == [*read_lines(whole / "metrics.jsonl")][:1]
    assert run(monkeypatch, cut, resume=True).seen == [every[1][4:], every[2]]
    for name in ("metrics.jsonl", "rollouts.jsonl", "checkpoints/step-000003/model.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert not (cut / "unfinished.json").exists()


def test_what_was_kept_is_what_trains(tmp_path, monkeypatch):
    """Another text in the file is found in the log: so the comparison above sees the file."""
    run(monkeypatch, tmp_path / "run", 6, 4)
    file = tmp_path / "run" / "unfinished.json"
    held = json.loads(file.read_text())
    (four,) = POLICY.reader.tokenizer("4")["input_ids"]
    for one in held:
        one |= {"tokens": [four] * 5, "logp": [-1.0] * 5, "entropy": [1.0] * 5, "finish": "length"}
    file.write_text(json.dumps(held))
    run(monkeypatch, tmp_path / "run", resume=True)
    rows = [row for row in read_lines(tmp_path / "run" / "rollouts.jsonl") if row["step"] == 2]
    assert [row["response"] == "44444" for row in rows] == [True] * 4 + [False] * 2


def test_a_judge_that_is_down_loses_no_response(tmp_path, monkeypatch):
    judge, calls = parts_module._judge, []

    def failing(*given):
        own = judge(*given)

        def judged(*asked):
            calls.append(1)
            if len(calls) == 2:
                raise ReasonerDown("the judge is down")
            return own(*asked)

        return judged

    monkeypatch.setattr(parts_module, "_judge", failing)
    first = run(monkeypatch, tmp_path / "run")
    assert [*read(tmp_path / "run" / "unfinished.json")] == first.seen[1]
    assert len(run(monkeypatch, tmp_path / "run", resume=True).seen) == 1  # of two rounds
