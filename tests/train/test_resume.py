"""A run that is ended at any instant and resumed is the one that nothing happened to: every byte but the clock's.

What is killed leaves its folder as it is just then: so a copy of the folder, taken at that instant, is what is resumed.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from train.resumed import TINY, assert_the_same, contents, evaluate, go

from vergence import disk
from vergence.train import checkpoint, course, keeping, loop, rounds, run
from vergence.train.run import RunFolder, read_lines
from vergence.train.sums import damage
from vergence.types import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run; nobody writes to it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    go(out)
    return out


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[str, Path]:
    """What is left of a run at certain instants, by what was under way."""
    folder = tmp_path_factory.mktemp("killed")
    out, found = folder / "run", dict[str, Path]()

    def kill(name: str) -> None:
        if name not in found:
            found[name] = Path(shutil.copytree(out, folder / name.replace(" ", "-")))

    def before(module, name: str, instant: Callable[..., str]) -> None:
        kept = getattr(module, name)

        def first(*args, **more):
            if said := instant(*args):
                kill(said)
            return kept(*args, **more)

        patch.setattr(module, name, first)

    def replaced(*args) -> str:
        return "renamed not yet" if Path(args[1]).name == "step-000002" else ""

    def begun(path, *_) -> str:
        return "begun" if path.name == run.CONFIG else "the data told" if path.name == "data.json" else ""

    with pytest.MonkeyPatch.context() as patch:
        before(disk.os, "replace", replaced)
        before(run, "write_whole", begun)
        before(course, "prune", lambda *args: "saved" if args[2] == 2 else "")
        before(rounds, "traces", lambda *args: "sampled")
        before(loop, "update", lambda parts, pending, prompts, step, hold: f"before step {step + 1}")
        before(checkpoint, "write_sums", lambda folder: f"hashed not yet, {folder.name[-1]}")
        go(
            out,
            evaluate=lambda policy: (kill("evaluated"), evaluate(policy))[1],
            watch=lambda step, *_: kill(f"{step}"),
        )
    assert found.keys() >= {"begun", "sampled", "renamed not yet", "saved", "evaluated", "before step 4"}
    return found


INSTANTS = ["sampled", "before step 2", "renamed not yet", "hashed not yet, 4", "saved", "evaluated"]


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_run_that_is_killed_comes_to_the_same(whole, killed, tmp_path, instant):
    left = Path(shutil.copytree(killed[instant], tmp_path / "run"))
    go(left, resume=True)
    assert_the_same(whole, left)


def test_a_run_that_is_killed_before_it_has_begun_may_be_started(killed, tmp_path):
    """There is nothing but the lock, and perhaps half a config; with one, it has begun and may be resumed."""
    left = Path(shutil.copytree(killed["begun"], tmp_path / "run"))
    (left / ".config.yaml.partial").write_text("meth")
    assert {path.name for path in left.iterdir()} == run.LEFT
    with pytest.raises(UserError, match="leave --resume out"):
        go(left, resume=True)
    run.refuse_used(left)
    RunFolder.start(left, TINY)
    for name in ("data.json", *run.FILES[1:]):
        (left / name).unlink(missing_ok=True)
    RunFolder.resume(left, TINY)
    assert {path.name for path in left.iterdir()} == {".lock", "config.yaml", *run.FILES}


@pytest.mark.parametrize("tail", [b'{"step": 3}\n{"st\n\xff\xfe\n7\n', b"\0" * 300], ids=["garbage", "zeros"])
def test_whatever_follows_in_the_logs_is_cut_unread(whole, tmp_path, tail):
    left = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(left / "checkpoints" / "step-000004")
    for name in run.FILES:
        with (left / name).open("ab") as file:
            file.write(tail)
    go(left, resume=True)
    assert_the_same(whole, left)
    assert [line["step"] for line in read_lines(left / "timings.jsonl")] == [1, 2, 3, 4]


# -------------------------------------------------------------------------------------------------- damaged on the disk


def damaged(folder: Path, how: str, name: str) -> None:
    where = folder / name
    content = where.read_bytes()
    if how == "removed":
        where.unlink()
    elif how == "cut":
        where.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        where.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        where.write_bytes(b"\0" * len(content))


@pytest.mark.parametrize("how", ["removed", "cut", "flipped", "zeroed"])
def test_damage_to_any_file_is_seen(whole, tmp_path, how):
    """All but the card, which is written again by those who measure. With half of the list gone, too."""
    files = [name for name in contents(whole / "checkpoints" / "step-000004") if name != "README.md"]
    for number, name in enumerate(files):
        folder = Path(shutil.copytree(whole / "checkpoints" / "step-000004", tmp_path / str(number)))
        assert damage(folder) == ""
        damaged(folder, how, name)
        assert damage(folder), name
        assert (damage(folder, trainer=False) == "") == (name.startswith("trainer/") and name != "trainer/state.json")
    (folder / "README.md").write_text("measured since")
    shutil.copytree(whole / "checkpoints" / "step-000004", folder, dirs_exist_ok=True)
    assert damage(folder) == ""
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(lines[:-1]))
    assert damage(folder) == f"SHA256SUMS lists {len(lines) - 1} files, and {len(lines)} were written"
    (folder / "SHA256SUMS").write_text("".join([*lines[:-1], f"{'0' * 64}  ../../model.safetensors\n"]))
    assert damage(folder) == f"line {len(lines)} of SHA256SUMS is damaged"


def test_a_damaged_checkpoint_is_left_out_with_a_word_and_written_again(whole, tmp_path):
    left, told = Path(shutil.copytree(whole, tmp_path / "run")), []
    damaged(left / "checkpoints" / "step-000004", "flipped", "model.safetensors")
    told_so = r"step-000004 is damaged: model\.safetensors is not what was written\. Name another .* unless a later one"
    with pytest.raises(UserError, match=told_so):
        keeping.refuse_damaged(left / "checkpoints" / "step-000004")
    go(left, resume=True, tell=told.append)
    assert told[0] == (
        "warning, damaged checkpoint: step-000004 is left out (model.safetensors is not what was written); "
        "going on from step-000002"
    )
    assert_the_same(whole, left)


def test_where_every_checkpoint_is_damaged_it_is_said_what_to_do(whole, tmp_path):
    left = Path(shutil.copytree(whole, tmp_path / "run"))
    damaged(left / "checkpoints" / "step-000004", "removed", "SHA256SUMS")
    damaged(left / "checkpoints" / "step-000002", "zeroed", "trainer/state.json")
    with pytest.raises(UserError, match=r"step-000004: SHA256SUMS is missing; step-000002: .* take that folder away"):
        go(left, resume=True)
    assert len(list((left / "checkpoints").iterdir())) == 2  # nothing was taken away by itself
    shutil.rmtree(left / "checkpoints")
    go(left, resume=True)
    assert_the_same(whole, left)


def test_a_checkpoint_that_does_not_go_with_the_logs_is_left_out(whole, tmp_path):
    left, told = Path(shutil.copytree(whole, tmp_path / "run")), []
    rollouts = left / "rollouts.jsonl"
    content = rollouts.read_bytes()
    rollouts.write_bytes(content[:-9] + b"x" + content[-8:])
    go(left, resume=True, tell=told.append)
    assert "rollouts.jsonl are not those that it was written beside" in told[0]
    assert_the_same(whole, left)


def test_a_log_that_leads_elsewhere_is_not_written_to(whole, tmp_path):
    out, mine = Path(shutil.copytree(whole, tmp_path / "run")), tmp_path / "mine"
    mine.write_bytes((out / "metrics.jsonl").read_bytes())
    (out / "metrics.jsonl").unlink()
    (out / "metrics.jsonl").symlink_to(mine)
    with pytest.raises(UserError, match=r"metrics\.jsonl is a link"):
        RunFolder.resume(out, run.load_run_config(out))


def test_logs_are_told_by_their_first_bytes(tmp_path):
    made = RunFolder.start(tmp_path / "run", TINY)
    made.append("metrics.jsonl", [{"step": 1}])
    marks = made.marks()
    made.append("metrics.jsonl", [{"step": 2}])
    assert made.differs(marks) == made.differs(made.marks()) == ""
    log = made.path / "metrics.jsonl"
    log.write_bytes(b'{"step": 1}\n{"st')
    assert made.differs(marks) == ""
    log.write_bytes(b'{"step": 1}')
    assert made.differs(marks) == "metrics.jsonl has 11 bytes, and had 12 when it was written"
    with pytest.raises(UserError, match=r"not as it was left: metrics\.jsonl has 11 bytes"):
        made.cut(marks)
    log.write_bytes(b'{"step": 9}\n')
    assert "are not those" in made.differs(marks)
    log.write_bytes(b'{"step": 1}\n\0\0')
    made.cut(marks)
    made.append("metrics.jsonl", [{"step": 2}])
    assert log.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert made.differs(made.marks()) == ""
    log.unlink()
    assert made.differs(marks)


def test_what_was_not_finished_is_swept_and_what_was_being_replaced_is_put_back(whole, tmp_path):
    left = Path(shutil.copytree(whole, tmp_path / "run"))
    folder = left / "checkpoints"
    shutil.copytree(folder / "step-000002", folder / ".partial-step-000003")
    shutil.copytree(folder / "step-000002", folder / ".removed-step-000001")
    shutil.copytree(folder / "step-000002", folder / ".replaced-step-000002")
    os.rename(folder / "step-000004", folder / ".replaced-step-000004")
    go(left, resume=True)
    assert_the_same(whole, left)


def test_a_run_of_a_version_without_hashes_goes_on_by_its_steps(whole, tmp_path):
    left = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(left / "checkpoints" / "step-000004")
    old = left / "checkpoints" / "step-000002"
    (old / "SHA256SUMS").unlink()
    state = json.loads((old / "trainer" / "state.json").read_text())
    (old / "trainer" / "state.json").write_text(
        json.dumps({name: state[name] for name in ("step", "position", "scenes")})
    )
    with (left / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "rew')
    go(left, resume=True)
    for name in run.LOGS:
        assert (left / name).read_bytes() == (whole / name).read_bytes()
