"""How work is divided among processes, what they tell each other, and what several of them refuse: without any."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scoring.steps import batch_of, seedling

from vergence.rollout.sampler import roll_out
from vergence.scenes import embedded
from vergence.train.backend import ONE, Group, OneProcess, Peers, SaidElsewhere, alike, first, together
from vergence.train.config import Config
from vergence.train.course import keeping_what_is_finished
from vergence.train.division import PROMPT, by_itself, each, each_its_part, put_together, shares, slices
from vergence.train.memory import HalfUpdated, OutOfMemory, during
from vergence.train.opening import refuse_unlike
from vergence.train.processes import PeerGone, SampledElsewhere, hearing, joined, own_device, refuse_alone
from vergence.train.run import RunFolder
from vergence.train.states import pieces
from vergence.types import Prompt, Sampled, Stats, UserError, Verdict


@dataclass
class Told:
    """One process among others that have said what they have said."""

    rank: int
    others: list[Any]

    @property
    def size(self) -> int:
        return len(self.others) + 1

    def exchange(self, own: Any) -> list[Any]:
        return [*self.others[: self.rank], own, *self.others[self.rank :]]


LENGTHS = st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=4), min_size=1, max_size=9)


@given(LENGTHS, st.integers(1, 5))
def test_every_row_is_someone_s_and_siblings_stay_together(lengths, size):
    batch = batch_of(lengths)
    rows = shares(batch, size)
    assert sorted(torch.cat(rows).tolist()) == list(range(len(batch.key_B)))
    scenes = [set(batch.scene_B[own].tolist()) for own in rows]
    assert sum(map(len, scenes)) == len(lengths)


@given(LENGTHS, st.integers(1, 5))
def test_nobody_has_more_than_one_group_too_many(lengths, size):
    """The most that a process has is above the least by a group at most."""
    batch = batch_of(lengths)
    work = [PROMPT * len(batch.scene_B[own].unique()) + int(batch.mask_BT[own].sum()) for own in shares(batch, size)]
    assert max(work) - min(work) <= PROMPT + max(map(sum, lengths))


@given(st.integers(0, 30), st.integers(1, 7))
def test_parts_in_order_are_whole_and_even(number, size):
    parts = [list(range(number)[part]) for part in slices(number, size)]
    assert [one for part in parts for one in part] == list(range(number))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_statistics_come_back_in_order():
    batch = batch_of([[3, 1], [2, 5], [4, 4], [9, 9]])
    value_BT = torch.arange(batch.mask_BT.numel(), dtype=torch.float64).view(batch.mask_BT.shape)
    whole, rows = Stats({("image", "logp", None): value_BT}), shares(batch, 3)
    parts = [whole.rows(own) for own in rows] + [Stats({})]
    found = put_together(parts, [*rows, torch.tensor([], dtype=torch.long)])
    assert torch.equal(found.logp("image"), value_BT)


def test_prompts_of_others_are_never_made():
    made = []

    def make(scene: int) -> Prompt:
        made.append(scene)
        return Prompt((scene, scene))

    batch = batch_of([[3, 1], [2, 5], [4, 4], [9, 9]])
    own = shares(batch, 2)[1]
    wanted = sorted(set(batch.scene_B[own].tolist()))
    unchecked = getattr(by_itself, "__wrapped__", by_itself)  # who checks types looks at a prompt of the four
    here, shown = unchecked(batch.rows(own), {"image": each(range(4), make, True)})
    assert [shown["image"][scene].tokens[0] for scene in here.scene_B.tolist()] == batch.scene_B[own].tolist()
    assert made == wanted != [0, 1, 2, 3]


def test_each_process_sees_to_its_part():
    def work(part: slice) -> list[int]:
        return [10 * thing for thing in range(5)[part]]

    alone = each_its_part(ONE, range(5), work)
    assert alone == [0, 10, 20, 30, 40]
    others = [([30, 40], None)]
    assert each_its_part(Told(0, others), range(5), work) == alone
    assert each_its_part(Told(1, [([*alone], None)]), range(5), work, alone=True) == alone  # the first has seen to it
    assert each_its_part(Told(2, [([0], None), ([], None)]), range(1), work) == [0]  # there are more than things


def test_a_part_has_the_noise_that_it_has_in_the_whole():
    """Also of a scene that is drawn twice."""
    keys: list[int] = []

    def sampler(asked: Any, **_: Any) -> list[Sampled]:
        keys.extend(one.key for one in asked)
        return [Sampled((1,), (0.0,), (0.0,), "stop") for _ in asked]

    def judge(scenes: Any, texts: Any, keys: Any) -> list[Verdict]:
        return [Verdict("wrong", None, 0.0, 0.0, 0.0) for _ in scenes]

    drawn = embedded.draw_many(embedded.TRAINED, "tune", 2)
    scenes = [drawn[0], drawn[1], drawn[0], drawn[0]]
    how = {"siblings": 2, "seed": (3,), "temperature": 1.0, "max_tokens": 1, "judge": judge}
    reader = seedling().reader
    roll_out(sampler, reader, scenes, [Prompt((1,))] * 4, **how)
    roll_out(sampler, reader, scenes[2:], [Prompt((1,))] * 2, before=scenes[:2], **how)
    assert keys[8:] == keys[4:8]
    assert len(set(keys[:8])) == 8


def refuse() -> None:
    raise UserError("no such picture")


def test_bad_input_in_one_process_is_raised_in_all():
    said: list[Any] = []

    class Listening(Told):
        def exchange(self, own: Any) -> list[Any]:
            said.append(own)
            return super().exchange(own)

    with pytest.raises(UserError, match=r"^no such picture$") as own:
        together(Listening(1, [(1, None)]), refuse)
    assert not isinstance(own.value, SaidElsewhere)
    with pytest.raises(SaidElsewhere, match=r"^no such picture$"):
        together(Told(0, [said[0]]), lambda: 1)
    assert together(Told(0, [(7, None)]), lambda: 1) == [1, 7]


def test_memory_that_runs_out_in_one_process_is_told_in_all():
    said: list[Any] = []

    class Listening(Told):
        def exchange(self, own: Any) -> list[Any]:
            said.append(own)
            return super().exchange(own)

    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(OutOfMemory, match="out of memory while scoring"), during("scoring"):
        together(Listening(1, [(1, None)]), fail)
    with pytest.raises(OutOfMemory, match="out of memory while scoring"), during("scoring"):
        together(Told(0, [said[0]]), lambda: 1)


def test_what_each_does_for_itself_is_not_sent_but_what_fails_is():
    said: list[Any] = []

    class Listening(Told):
        def exchange(self, own: Any) -> list[Any]:
            said.append(own)
            return super().exchange(own)

    assert alike(Listening(1, [(None, None)]), lambda: ["scenes"]) == ["scenes"]
    assert said == [(None, None)]
    with pytest.raises(UserError, match="no such picture"):
        alike(Listening(1, [(None, None)]), refuse)
    with pytest.raises(SaidElsewhere, match="no such picture"):
        alike(Told(0, [said[1]]), lambda: ["scenes"])


def test_nothing_is_saved_where_memory_runs_out_while_others_wait():
    """They wait for weights or gradients, and would wait for ever beside one that wants to save."""
    saved = []

    def fail() -> None:
        with hearing():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    told = pytest.raises(HalfUpdated, match=r"out of memory while scoring, with 2.00 GiB more")
    with told, keeping_what_is_finished(lambda: saved.append(1)), during("scoring"):
        fail()
    assert not saved
    with pytest.raises(PeerGone, match="Connection closed"), during("scoring"), hearing():
        raise RuntimeError("Connection closed by peer")


def test_processes_that_were_given_something_else_are_refused():
    """Each draws the scenes for itself: from other data they would be others, of the same number."""
    own = {"config": {"seed": 1}, "data": {"content": "1f"}}
    refuse_unlike(ONE, own)
    refuse_unlike(Told(0, [own]), own)
    for rank in (0, 1):
        other = {**own, "data": {"content": "2e"}}
        given, others = (own, [other]) if rank == 0 else (other, [own])
        with pytest.raises(UserError, match="process 1 has another data than the first: its content is '2e', not '1f'"):
            refuse_unlike(Told(rank, others), given)


def test_any_other_error_is_told_nobody():
    """The process ends, and with it the others: nothing would be right any more."""

    class Silent(Told):
        def exchange(self, own: Any) -> list[Any]:
            raise AssertionError("it has spoken")

    def fail() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        together(Silent(0, [1]), fail)


def test_the_first_process_alone_writes(tmp_path):
    config, nothing = Config(), [(None, None)]
    RunFolder.start(tmp_path / "second", config, Told(1, nothing))
    assert not (tmp_path / "second").exists()
    run = RunFolder.start(tmp_path / "first", config, Told(0, nothing))
    run.append("metrics.jsonl", [{"step": 1}])
    RunFolder(tmp_path / "first", Told(1, nothing)).append("metrics.jsonl", [{"step": 1}])
    assert (tmp_path / "first" / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert first(Told(1, [("what it gave", None)]), lambda: "other") == "what it gave"


def test_one_process_is_a_group():
    assert isinstance(OneProcess(), Group)
    assert isinstance(Told(0, [1]), Peers)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"adapter": "qlora"}, "--adapter qlora is for one process"),
        ({"sampler": "vllm"}, "vllm serve"),
        ({"shards": 3}, "cannot be divided into copies of 3"),
    ],
)
def test_what_several_processes_refuse(change, told):
    with pytest.raises(UserError, match=told):
        refuse_alone(replace(Config(), **change), 4)
    refuse_alone(replace(Config(), shards=2, adapter="lora"), 4)


def test_an_environment_that_is_incomplete(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert joined(Config()) is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert joined(Config()) is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"RANK is not set: start the processes with torchrun"):
        joined(Config())
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE must be a number"):
        joined(Config())
    with pytest.raises(UserError, match="--device cuda:1 is one device"):
        own_device("cuda:1")


def test_a_sampler_that_is_elsewhere_is_never_asked():
    with pytest.raises(RuntimeError, match="first process alone"):
        SampledElsewhere()([], temperature=1.0, max_tokens=1)


def test_a_large_state_is_in_several_files():
    tensors = {str(number): torch.zeros(number) for number in range(1, 8)}
    parts = list(pieces(tensors, 4 * 7))
    assert [name for part in parts for name in part] == list(tensors)
    assert len(parts) > 1
    assert all(sum(one.nbytes for one in part.values()) <= 4 * 7 for part in parts)
