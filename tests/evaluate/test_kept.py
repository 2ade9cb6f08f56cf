"""An evaluation that was stopped: the file at the end is the file of one that was not."""

import fcntl
import json
import os

import pytest
from synced import noted

from vergence.evaluate.asked import image_sha, prompt_text, weights_of
from vergence.evaluate.kept import alone, appending, begun, beside, refuse_unwritable
from vergence.evaluate.suite import answer, chunk, refuse_overwriting, under
from vergence.models.policy import load
from vergence.scenes import embedded
from vergence.types import ORIGINAL, Blank, UserError

HOW = {"samples": 2, "max_tokens": 24, "temperature": 1.0, "wording": "short", "show": ORIGINAL}
AT_ONCE = 6


@pytest.fixture(scope="module")
def policy():
    return load("seedling")


@pytest.fixture(scope="module")
def scenes():
    return embedded.draw_many(embedded.TRAINED, "tune", 8)


@pytest.fixture(scope="module")
def whole(policy, scenes, tmp_path_factory):
    """The file of an evaluation that nobody stopped: 16 answers in chunks of 6."""
    path = tmp_path_factory.mktemp("kept") / "whole.jsonl"
    answer(policy, scenes, seed=3, at_once=AT_ONCE, keep=appending(path), **HOW)
    return path.read_bytes()


def gone_on(path, policy, scenes) -> int:
    """Go on with a file; how many answers were asked for."""
    done = begun(path, scenes, under(policy, seed=3, **HOW), chunk=chunk(2, AT_ONCE))
    asked = []
    keep = appending(path)
    found = answer(
        policy, scenes, seed=3, at_once=AT_ONCE, done=done, keep=lambda new: (asked.extend(new), keep(new))[1], **HOW
    )
    assert [json.dumps(record) + "\n" for record in found] == path.read_text().splitlines(keepends=True)
    return len(asked)


ENDS = ["nothing", "whole chunks", "a torn line", "within a chunk", "within the last", "zeros", "zeros between", "all"]


@pytest.mark.parametrize("end", ENDS)
def test_it_goes_on_where_it_stopped(tmp_path, policy, scenes, whole, end):
    lines, path = whole.splitlines(keepends=True), tmp_path / "some.jsonl"
    there, asked = {
        "nothing": (b"", 16),
        "whole chunks": (b"".join(lines[:6]), 10),
        "a torn line": (b"".join(lines[:7])[:-9], 10),
        "within a chunk": (b"".join(lines[:11]), 10),
        "within the last": (b"".join(lines[:15]), 4),
        "zeros": (b"".join(lines[:7]) + bytes(500), 10),
        "zeros between": (b"".join(lines[:7]) + bytes(500) + b"".join(lines[8:10]), 10),
        "all": (whole, 0),
    }[end]
    path.write_bytes(there)
    assert gone_on(path, policy, scenes) == asked
    assert path.read_bytes() == whole


def test_a_line_that_lost_its_end_alone_is_torn(tmp_path, policy, scenes, whole):
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:12])[:-1])
    assert gone_on(path, policy, scenes) == 10
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kept", [0, 1, 9, 40])
@pytest.mark.parametrize("zeros", [0, 300])
def test_what_the_loss_of_power_leaves_of_a_first_chunk_is_begun_anew(tmp_path, policy, scenes, whole, kept, zeros):
    """It had not been synced: of its first line there is the beginning, and of the rest zeros."""
    path = tmp_path / "some.jsonl"
    path.write_bytes(whole[:kept] + bytes(zeros))
    refuse_overwriting(path)
    so = under(policy, seed=3, **HOW)
    assert begun(path, scenes, so, chunk=6) == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize("other", [b"{\n", b"\0\n1", b"x\0", b"{}", b'{"scene": "a"}\n', b"# scene", bytes(300) + b"1"])
def test_what_may_be_somebody_elses_is_not_written_over(tmp_path, other):
    path = tmp_path / "some.jsonl"
    path.write_bytes(other)
    with pytest.raises(UserError, match="it is not overwritten"):
        refuse_overwriting(path)


def test_it_may_be_given_more_questions(tmp_path, policy, scenes, whole):
    path = tmp_path / "some.jsonl"
    assert gone_on(path, policy, scenes[:4]) == 8
    assert gone_on(path, policy, scenes) == 10  # 2 of the second chunk were asked for alone
    assert path.read_bytes() == whole


def test_other_conditions_are_refused_and_the_file_is_left_alone(tmp_path, policy, scenes, whole):
    path = tmp_path / "some.jsonl"
    torn = whole[:-7]
    path.write_bytes(torn)
    so = under(policy, seed=3, **HOW)
    other = [*scenes[1:2], *scenes[1:]]
    for asked, how, told in (
        (scenes, so | {"wording": "think"}, "wording is 'short' there and 'think' now"),
        (scenes, so | {"max_tokens": 25}, "max_tokens is 24 there and 25 now"),
        (scenes, so | {"temperature": 0.5}, r"temperature is 1\.0 there"),
        (scenes, so | {"samples": 4}, "samples is 2 there and 4 now"),
        (scenes, under(policy, seed=3, **{**HOW, "show": Blank()}), "shown is 'image' there and 'blank' now"),
        (scenes, so | {"seed": 4}, "seed is 3 there and 4 now"),
        (scenes, so | {"weights": "0" * 16}, "weights is '[0-9a-f]{16}' there"),
        (scenes, so | {"reasoner": "weak"}, "reasoner is 'not told' there"),
        (other, so, "scene .* is 'digits/tune/0/0' there and 'shapes/tune/0/0' now"),
        (scenes[:7], so, "the number of answers is 15 there and 14 now"),
    ):
        with pytest.raises(UserError, match=told):
            begun(path, asked, how, chunk=6)
        assert path.read_bytes() == torn


def test_other_pictures_under_the_same_names_are_refused(tmp_path, policy, scenes, whole):
    path = tmp_path / "some.jsonl"
    records = [json.loads(line) for line in whole.splitlines()]
    records[2]["image_sha"] = ["0" * 64]
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    with pytest.raises(UserError, match=r"image_sha \(of shapes/tune/0/0\)"):
        begun(path, scenes, under(policy, seed=3, **HOW), chunk=6)


@pytest.mark.parametrize("name", ["verifier", "question", "gold"])
def test_what_was_judged_or_asked_otherwise_is_refused(tmp_path, policy, scenes, whole, name):
    """An answer under another verifier, or to another question of the same name, is not one of these."""
    path = tmp_path / "some.jsonl"
    records = [json.loads(line) for line in whole.splitlines()]
    records[3][name] = "another"
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    with pytest.raises(UserError, match=f"{name}.* is 'another' there"):
        begun(path, scenes, under(policy, seed=3, **HOW), chunk=6)


def test_a_damaged_file_is_told(tmp_path, policy, scenes, whole):
    path, lines = tmp_path / "some.jsonl", whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{not\n" + lines[2])
    with pytest.raises(UserError, match=r"line 2 is not JSON"):
        begun(path, scenes, under(policy, seed=3, **HOW), chunk=6)
    assert begun(tmp_path / "none.jsonl", scenes, {}, chunk=6) == []


def test_zeros_before_the_last_chunk_are_damage(tmp_path, scenes, whole):
    """No loss of power leaves them there: each chunk is on the disk before the next one is written."""
    path, lines = tmp_path / "some.jsonl", whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + bytes(9) + b"\n" + b"".join(lines[2:9]))
    with pytest.raises(UserError, match=r"line 2 is not JSON"):
        begun(path, scenes, {"samples": 2}, chunk=6)


def test_a_chunk_is_on_the_disk_before_the_next_is_asked_for(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("vergence.evaluate.kept.sync", lambda path: synced.append((path.name, path.stat().st_size)))
    keep = appending(tmp_path / "some.jsonl")
    keep([{"a": 1}])
    keep([{"a": 2}])
    assert [one for one in synced if one[0] == "some.jsonl"] == [("some.jsonl", 9), ("some.jsonl", 18)]
    assert synced[1][0] == tmp_path.name  # its name, once


def test_two_processes_do_not_add_to_one_file(tmp_path):
    path = tmp_path / "some.jsonl"
    with alone(path), pytest.raises(UserError, match="another process is adding answers to"), alone(path):
        raise AssertionError("both hold it")
    assert not path.exists()  # nothing came
    with alone(path):
        appending(path)([{"a": 1}])
    assert path.read_text() == '{"a": 1}\n'
    with alone(None):
        pass


def test_what_is_no_file_and_what_was_there_stays(tmp_path):
    """A device has no size, and must not be taken away for it; nor an empty file that somebody made."""
    pipe, empty = tmp_path / "pipe", tmp_path / "empty"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="is no file"), alone(pipe):
        pass
    empty.touch()
    with alone(empty), alone(tmp_path / "new"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "pipe"]


def test_answers_are_added_to_the_file_that_has_the_name(tmp_path, monkeypatch):
    """Another process that asked for nothing takes its empty file away just before this one holds it."""
    path, late, flock = tmp_path / "some.jsonl", [], fcntl.flock

    def taken_away(handle: int, how: int) -> None:
        if not late:
            late.append(path.unlink())
        flock(handle, how)

    path.touch()
    monkeypatch.setattr(fcntl, "flock", taken_away)
    with alone(path):
        appending(path)([{"scene": "a"}])
        with pytest.raises(UserError, match="another process is adding answers"), alone(path):
            raise AssertionError("both hold it")
    assert path.read_text() == '{"scene": "a"}\n'


def test_a_file_of_another_process_is_not_taken_away(tmp_path):
    """One that has come in the place of the one that was held, which stayed empty."""
    path = tmp_path / "some.jsonl"
    with alone(path):
        path.unlink()
        path.touch()
    assert path.exists()


def test_whether_a_file_can_be_written_is_asked_without_a_name(tmp_path, monkeypatch):
    """Whatever another process makes there meanwhile stays; so does its folder, for as long as it was empty."""
    named = []
    for name in ("mkdir", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, lambda path, *_, **__: named.append(path))
    refuse_unwritable(tmp_path / "new" / "some.jsonl")
    assert not [path for path in named if "new" in str(path)]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").write_text("mine")
    refuse_unwritable(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(UserError, match="cannot write to"):
        refuse_unwritable(tmp_path / "there" / "new")


def test_what_was_answered_is_on_the_disk_before_more_is_asked(tmp_path, monkeypatch):
    """Its file's name is when the file is held; a file that nobody holds has it with its first chunk."""
    path, done = tmp_path / "new" / "some.jsonl", noted(monkeypatch)
    with alone(path):
        assert done[-1] == ("sync", "new")
        for _ in range(2):
            appending(path)([{"scene": "a"}])
            assert done.pop() == ("sync", "some.jsonl")
    done.clear()
    appending(tmp_path / "other.jsonl")([{"scene": "a"}])
    assert done == [("sync", "other.jsonl"), ("sync", tmp_path.name)]


def test_a_record_says_what_was_asked(policy, scenes, whole):
    records = [json.loads(line) for line in whole.splitlines()]
    for at, record in enumerate(records):
        scene = scenes[at // 2]
        assert record["image_sha"] == image_sha(scene)
        assert scene.question in record["prompt"]
        assert record["prompt"].count(policy.reader.image_token) == 1
        assert (record["seed"], record["weights"]) == (3, weights_of(policy))
        assert 1 <= record["tokens"] <= 24
        assert (record["tokens"] == 24) >= (record["finish"] == "length")
        assert (record["error"] is None) == (record["status"] == "right")
        assert record["level"] is None


def test_the_prompt_keeps_every_picture_and_every_word(policy, scenes):
    both = policy.reader.prompt("Is it in both? Answer.", (scenes[0].images[0], scenes[1].images[0]))
    assert prompt_text(policy.reader, both).count(policy.reader.image_token) == 2
    none = policy.reader.prompt("Is it there?", ())
    assert prompt_text(policy.reader, none) == policy.reader.tokenizer.decode(list(none.tokens))


def test_the_weights_have_a_name_that_training_changes(policy):
    again = load("seedling")
    assert weights_of(again) == weights_of(policy)
    last = list(again.model.parameters())[-1]
    last.data += 1e-6
    assert weights_of(again) != weights_of(policy)


def test_the_files_beside(tmp_path):
    assert beside(None, "-blind") is None
    assert beside(tmp_path / "a", "-blind") == tmp_path / "a-blind.jsonl"


def test_another_seed_has_other_noise(policy, scenes, whole):
    again = answer(policy, scenes[:3], seed=4, at_once=AT_ONCE, **HOW)
    assert [one["response"] for one in again] != [json.loads(line)["response"] for line in whole.splitlines()[:6]]
