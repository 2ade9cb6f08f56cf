"""Files that are damaged: a checkpoint is skipped, and said to be; a log is cut; what cannot be mended is told."""

import json
import os
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
from faults.forked import Ended, forked
from faults.works import Whole, answering, differences, files, training

pytestmark = pytest.mark.faults
WAYS = ("cut", "flipped", "zeroed", "removed", "longer")
TAILS = {
    "a torn line": b'{"step": 5, "rew',
    "zeros": bytes(4096),
    "no text": bytes(range(128, 256)),
    "a step to come": b'{"step": 5, "reward": 0.0}\n',
    "a step twice": b'{"step": 4, "reward": 0.0}\n',
    "no object": b"17\n[]\nnull\n",
}
LOGS = ("metrics.jsonl", "rollouts.jsonl", "traces.jsonl")


def damage(path: Path, way: str, chance: random.Random) -> None:
    """Spoil a file, as disks and people do."""
    content = path.read_bytes()
    at = chance.randrange(max(1, len(content)))
    if way == "removed":
        path.unlink()
    elif way == "cut":
        path.write_bytes(content[:at])
    elif way == "flipped":
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :])
    elif way == "zeroed":
        path.write_bytes(bytes(len(content)))
    else:
        path.write_bytes(content + b"\n")


def copied(half: Path, place: Path) -> Path:
    return Path(shutil.copytree(half, place / "run"))


def gone_on(folder: Path) -> Ended:
    work = training("papo")
    ended = forked(partial(work.do, folder), folder, prepare=work.prepare)
    assert "Traceback" not in ended.said, ended.said
    return ended


def of_checkpoint() -> list[str]:
    there = ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    there += ["chat_template.jinja", "preprocessor_config.json", "processor_config.json"]
    return [*there, "trainer/optimizer.safetensors", "trainer/config.yaml", "trainer/state.json", "SHA256SUMS"]


def damages() -> list[tuple[str, str]]:
    """Of the files that a run goes on from, all that can happen; of the others, one thing each."""
    ours = [name for name in of_checkpoint() if name.endswith(("tensors", "state.json", "SUMS"))]
    others = [name for name in of_checkpoint() if name not in ours]
    return [(name, way) for name in ours for way in WAYS] + list(zip(others, WAYS * 2, strict=False))


def test_these_are_a_checkpoints_files(half):
    there = {str(path.relative_to(half / "checkpoints/step-000004")) for path in files_of(half, 4)}
    assert there - set(of_checkpoint()) <= {"README.md", "video_preprocessor_config.json"}
    assert set(of_checkpoint()) <= there


def files_of(run: Path, step: int) -> list[Path]:
    return [path for path in (run / f"checkpoints/step-{step:06d}").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("name", "way"), damages())
def test_a_damaged_checkpoint_is_skipped_and_the_run_is_what_it_would_have_been(papo, half, place, name, way):
    run = copied(half, place)
    damage(run / "checkpoints/step-000004" / name, way, random.Random(f"{name} {way}"))
    ended = gone_on(run)
    assert ended.status == 0, ended.said
    assert differences(run, papo.files) == []
    assert ended.began == 2
    assert "step-000004" in ended.said
    assert "step-000002" in ended.said
    assert Path(name).name in ended.said or name == "SHA256SUMS"


def test_where_every_checkpoint_is_damaged_it_is_told_and_nothing_is_taken_away(half, place):
    run = copied(half, place)
    for step in (2, 4):
        damage(run / f"checkpoints/step-{step:06d}/model.safetensors", "flipped", random.Random(step))
    before = files(run)
    ended = gone_on(run)
    assert ended.status == 2
    assert "error: " in ended.said
    assert files(run) == before


@pytest.mark.parametrize("tail", TAILS, ids=str)
@pytest.mark.parametrize("name", [*LOGS, "timings.jsonl"])
def test_what_follows_in_a_log_is_cut(papo, half, place, name, tail):
    if name == "timings.jsonl" and tail == "a step twice":
        pytest.skip("these are told apart by their steps alone")
    run = copied(half, place)
    with (run / name).open("ab") as file:
        file.write(TAILS[tail])
    ended = gone_on(run)
    assert ended.status == 0, ended.said
    assert ended.began == 4
    assert differences(run, papo.files) == []


@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_is_shorter_than_a_checkpoint_says_leads_to_the_one_before(papo, half, place, name):
    run = copied(half, place)
    os.truncate(run / name, (run / name).stat().st_size - 7)
    ended = gone_on(run)
    assert ended.status == 0, ended.said
    assert ended.began == 2
    assert name in ended.said
    assert differences(run, papo.files) == []


@pytest.mark.parametrize("name", LOGS)
def test_a_log_whose_beginning_is_another_is_refused(half, place, name):
    run = copied(half, place)
    content = bytearray((run / name).read_bytes())
    content[10] ^= 1
    (run / name).write_bytes(content)
    before = files(run)
    ended = gone_on(run)
    assert ended.status == 2
    assert name in ended.said
    assert files(run) == before


@pytest.mark.parametrize("way", WAYS)
def test_timings_are_nobodys_loss(papo, half, place, way):
    run = copied(half, place)
    damage(run / "timings.jsonl", way, random.Random(way))
    ended = gone_on(run)
    assert ended.status == 0, ended.said
    assert differences(run, papo.files) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["config.yaml", "data.json"])
def test_what_a_run_is_about_is_never_guessed(papo, half, place, name, way):
    """It is told, or it makes no difference."""
    run = copied(half, place)
    damage(run / name, way, random.Random(f"{name} {way}"))
    ended = gone_on(run)
    assert ended.status in (0, 2), ended.said
    if ended.status:
        assert "error: " in ended.said
    else:
        assert differences(run, papo.files) == []


@pytest.fixture(scope="session")
def answered(ready, tmp_path_factory) -> Path:
    work, folder = answering(), tmp_path_factory.mktemp("eval") / "run"
    ended = forked(partial(work.do, folder), folder, prepare=work.prepare)
    assert not ended.status, ended.said
    return folder


@pytest.mark.parametrize("tail", [*TAILS, *(f"cut {share}" for share in range(0, 100, 7))], ids=str)
def test_a_damaged_file_of_answers_is_mended_or_refused(answered, place, tail):
    work, folder = answering(), Path(shutil.copytree(answered, place / "run"))
    path = folder / "answers.jsonl"
    content, chance = path.read_bytes(), random.Random(tail)
    if tail in TAILS:
        path.write_bytes(content[: content.index(b"\n", chance.randrange(len(content) - 1)) + 1] + TAILS[tail])
    else:
        path.write_bytes(content[: len(content) * int(tail.split()[1]) // 100])
    ended = forked(partial(work.do, folder), folder, prepare=work.prepare)
    assert "Traceback" not in ended.said
    if ended.status == 2:
        assert "give another --out" in ended.said
        assert tail in TAILS
    else:
        assert ended.status == 0, ended.said
        assert path.read_bytes() == content


def test_the_comparison_can_fail(papo: Whole, half, place):
    """A checkpoint that is damaged and agrees with its sums is not found out."""
    run = copied(half, place)
    state = run / "checkpoints/step-000004/trainer/state.json"
    told = json.loads(state.read_text())
    state.write_text(json.dumps(told | {"position": told["position"] + 2}) + "\n")
    sums = run / "checkpoints/step-000004/SHA256SUMS"
    from hashlib import sha256

    lines = [line for line in sums.read_text().splitlines() if not line.endswith("trainer/state.json")]
    sums.write_text("\n".join([*lines, f"{sha256(state.read_bytes()).hexdigest()}  trainer/state.json"]) + "\n")
    ended = gone_on(run)
    assert ended.began == 4, ended.said
    assert differences(run, papo.files)
