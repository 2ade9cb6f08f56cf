"""`vergence same`: what was changed in a copy of a run is what is told, at the step where it was changed, and first."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from studies.planted import plant

from vergence.cli import main
from vergence.same import tensors
from vergence.same.records import LONGEST, fields, lines_apart
from vergence.same.runs import same_checkpoints, same_lines, same_runs
from vergence.studies.arms import Arm
from vergence.train.config import Config
from vergence.train.config_file import to_yaml
from vergence.train.sums import write_sums
from vergence.types import UserError

STEPS = 4


def rollout(step: int, row: int) -> dict:
    return {
        "step": step,
        "scene": f"digits/train/0/{step}",
        "sibling": row,
        "response": f"the top row says {step} and {row}, so it is {step + row}",
        "reward": 0.5,
        "advantage": 0.25,
        "tokens": 9,
    }


def write_lines(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records))


def plant_checkpoint(folder: Path, step: int) -> None:
    (folder / "trainer").mkdir(parents=True)
    weights = {"a.weight": torch.arange(12.0).view(3, 4) + step, "b.bias": torch.zeros(5), "scale": torch.tensor(2.0)}
    save_file(weights, folder / "model.safetensors")
    save_file({"0.exp_avg": torch.ones(3, 4) * step}, folder / "trainer" / "optimizer.safetensors")
    (folder / "trainer" / "state.json").write_text(json.dumps({"step": step, "position": step * 2, "scenes": []}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text(
        "# A run\n\n## Versions\n\n- vergence 0.1.0\n- torch 2.13.0\n\n## Doing it again\n"
    )


def plant_run(run: Path) -> Path:
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(Config(steps=STEPS)))
    (run / "data.json").write_text(json.dumps({"source": "embedded", "worlds": ["digits"]}))
    steps = range(1, STEPS + 1)
    write_lines(run / "rollouts.jsonl", [rollout(step, row) for step in steps for row in range(3)])
    metrics = [{"step": step, "reward": 1 / step, "loss": -0.1 * step, "entropy": 0.5} for step in steps]
    write_lines(run / "metrics.jsonl", metrics)
    write_lines(
        run / "traces.jsonl",
        [{"step": 1, "scene": "digits/train/0/1", "tokens": ["the", " top"], "stats": {"entropy": [0.5, 1.0]}}],
    )
    write_lines(run / "timings.jsonl", [{"step": step, "ask_s": 0.1 * step} for step in steps])
    for step in (2, 4):
        plant_checkpoint(run / "checkpoints" / f"step-{step:06d}", step)
    answers = [{"scene": f"digits/report/0/{n}", "sample": 0, "response": "7", "status": "right"} for n in range(3)]
    write_lines(run / "evaluation" / "last.jsonl", answers)
    return run


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    one = plant_run(tmp_path / "one")
    return one, Path(shutil.copytree(one, tmp_path / "other"))


def change(path: Path, line: int, **values) -> None:
    """Other values in one record of a file; line from 1."""
    records = [json.loads(text) for text in path.read_text().splitlines()]
    records[line - 1] |= values
    write_lines(path, records)


def change_tensor(path: Path, name: str, index: tuple[int, ...], value: float) -> None:
    held = load_file(path)
    held[name][index] = value
    save_file(held, path)


def called(capsys, *arguments: object) -> tuple[int, str, str]:
    status = 0
    try:
        main([str(one) for one in arguments])
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def test_a_copy_is_the_same_whatever_its_clock_says(pair, capsys):
    (pair[1] / "timings.jsonl").write_text('{"step": 1, "ask_s": 99}\n')
    (pair[1] / ".lock").write_text("4711")
    (pair[1] / "report.html").write_text("<p>made later</p>")
    status, out, _ = called(capsys, "same", *pair)
    assert status == 0
    assert out.splitlines()[0] == "the same: 12 rollouts, 4 steps, 2 checkpoints, 3 answers, bit for bit"
    assert out.splitlines()[1] == "not compared: .lock, report.html, timings.jsonl"


CHANGES = {
    "config": (
        lambda run: (run / "config.yaml").write_text(to_yaml(Config(steps=4, seed=3))),
        0,
        "config.yaml",
        "seed",
    ),
    "data": (lambda run: (run / "data.json").write_text('{"source": "a.jsonl"}'), 0, "data.json", "source"),
    "reward of a rollout": (lambda run: change(run / "rollouts.jsonl", 8, reward=1.0), 3, "rollouts.jsonl", "reward"),
    "metric": (lambda run: change(run / "metrics.jsonl", 2, loss=-0.3), 2, "metrics.jsonl", "loss"),
    "trace": (
        lambda run: change(run / "traces.jsonl", 1, stats={"entropy": [0.5, 1.5]}),
        1,
        "traces.jsonl",
        "stats/entropy[1]",
    ),
    "state": (
        lambda run: (run / "checkpoints/step-000002/trainer/state.json").write_text('{"step": 2, "position": 5}'),
        2,
        "checkpoints/step-000002",
        "trainer/state.json: position",
    ),
    "answer": (
        lambda run: change(run / "evaluation/last.jsonl", 2, status="wrong"),
        None,
        "evaluation/last.jsonl",
        "status",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_is_what_is_told(pair, capsys, what):
    changed, step, file, name = CHANGES[what]
    changed(pair[1])
    status, out, _ = called(capsys, "same", *pair, "--json")
    found = json.loads(out)
    assert (status, found["same"], len(found["differences"])) == (1, False, 1)
    told = found["differences"][0]
    assert (told["step"], told["file"]) == (step, file)
    assert told["fields"][0]["name"] == name


def test_a_rollout_is_named_with_both_values_and_where_the_texts_part(pair, capsys):
    words = "the top row says 3 and 1, so it is 5"
    change(pair[1] / "rollouts.jsonl", 8, response=words, reward=0.0, advantage=-1.0)
    _, out, _ = called(capsys, "same", *pair)
    assert "step 3         rollouts.jsonl scene digits/train/0/3, sibling 1" in out
    assert f"from character {len(words)}" in out
    assert "reward: 0.5 and 0.0, 0.5 apart" in out
    assert "advantage: 0.25 and -1.0, 1.25 apart" in out


def test_a_checkpoint_comes_before_the_next_step(pair):
    change(pair[1] / "rollouts.jsonl", 8, reward=1.0)
    change_tensor(pair[1] / "checkpoints/step-000002/model.safetensors", "b.bias", (2,), 1.0)
    assert [one.step for one in same_runs(*pair).differences] == [2, 3]


def test_what_differs_first_is_told_first(pair, capsys):
    change_tensor(pair[1] / "checkpoints/step-000004/model.safetensors", "b.bias", (2,), 1.0)
    change(pair[1] / "evaluation/last.jsonl", 1, status="wrong")
    change(pair[1] / "metrics.jsonl", 3, loss=1.0)
    change(pair[1] / "rollouts.jsonl", 8, reward=1.0)
    found = json.loads(called(capsys, "same", *pair, "--json")[1])["differences"]
    assert [(one["step"], one["file"]) for one in found] == [
        (3, "rollouts.jsonl"),
        (3, "metrics.jsonl"),
        (4, "checkpoints/step-000004"),
        (None, "evaluation/last.jsonl"),
    ]


def test_tensors_are_counted_bit_by_bit(pair):
    folder = "checkpoints/step-000002/"
    change_tensor(pair[1] / folder / "model.safetensors", "a.weight", (0, 1), 3.5)  # it was 3
    change_tensor(pair[1] / folder / "model.safetensors", "b.bias", (4,), -0.0)  # another zero
    change_tensor(pair[1] / folder / "model.safetensors", "scale", (), float("nan"))
    change_tensor(pair[1] / folder / "trainer/optimizer.safetensors", "0.exp_avg", (2, 3), 2.25)
    (told,) = same_runs(*pair).differences
    assert told.step == 2
    assert told.told == (
        "weights: 3 of 3 tensors, 3 of 18 values, at most inf apart (scale); "
        "optimizer: 1 of 1 tensors, 1 of 12 values, at most 0.25 apart (0.exp_avg); the 1 after it were not read"
    )


def test_tensors_in_other_files_and_in_pieces_are_the_same_tensors(pair, monkeypatch):
    folder = pair[1] / "checkpoints/step-000002"
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({"a.weight": held.pop("a.weight")}, folder / "model-00001-of-00002.safetensors")
    save_file(held, folder / "model-00002-of-00002.safetensors")
    monkeypatch.setattr(tensors, "PIECE", 4)  # a row of `a.weight` at a time
    assert same_runs(*pair).same
    change_tensor(folder / "model-00001-of-00002.safetensors", "a.weight", (2, 3), 99.0)
    assert "1 of 3 tensors, 1 of 18 values, at most 86 apart" in same_runs(*pair).differences[0].told


def test_a_tensor_of_another_shape_or_on_one_side_only_is_told(pair):
    path = pair[1] / "checkpoints/step-000004/model.safetensors"
    held = load_file(path)
    save_file({"a.weight": held["a.weight"].T.contiguous(), "b.bias": held["b.bias"], "more": torch.zeros(1)}, path)
    told = same_runs(*pair).differences[0].told
    assert "a.weight: F32 [3, 4] and F32 [4, 3]; more: only the second has it; scale: only the first has it" in told


@pytest.mark.parametrize("cut", [3, 40], ids=["header", "data"])
def test_a_damaged_checkpoint_is_told_as_that(pair, cut):
    path = pair[1] / "checkpoints/step-000002/model.safetensors"
    path.write_bytes(path.read_bytes()[:-cut] if cut == 40 else b"\xff" * cut)
    (told,) = same_runs(*pair).differences
    assert "is damaged" in told.told
    assert "other/checkpoints/step-000002/model.safetensors" in told.told


def test_of_two_that_differ_the_damaged_one_is_named_by_its_sums(pair):
    """A value that was changed after the checkpoint was written: both files can be read."""
    for run in pair:
        folder = run / "checkpoints/step-000002"
        state = {"step": 2, "position": 4, "files": 4, "logs": {"metrics.jsonl": [len(run.name), "00"]}}
        (folder / "trainer/state.json").write_text(json.dumps(state))
        write_sums(folder)
    assert same_runs(*pair).same  # what a state says of its logs is said of files that are compared themselves
    path = pair[1] / "checkpoints/step-000002/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    (told,) = same_runs(*pair).differences
    assert told.told.startswith(f"{path.parent} is damaged: model.safetensors is not what was written; weights: 1 of 3")


def test_a_checkpoint_more_is_no_difference_unless_it_is_the_last(pair, capsys):
    """A run that was stopped on the way has saved where it stood."""
    plant_checkpoint(pair[1] / "checkpoints/step-000003", 3)
    status, out, _ = called(capsys, "same", *pair)
    assert status == 0
    assert "beside that: only the second has step-000003" in out
    plant_checkpoint(pair[1] / "checkpoints/step-000005", 5)
    (told,) = same_runs(*pair).differences
    assert told.fields[0][:3] == ("the last one", "step-000004", "step-000005")


def test_a_run_that_is_longer_differs_where_the_other_ends(pair):
    with (pair[1] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "reward": 0.1}\n')
    (told,) = same_runs(*pair).differences
    assert (told.step, told.told) == (5, "the first ends before this; 4 and 5 lines")


def test_a_torn_line_is_told_and_one_in_the_middle_is_an_error(pair, capsys):
    path = pair[1] / "metrics.jsonl"
    whole = path.read_bytes()
    for tail in (b'{"step": 5, "rew', b"\0" * 99):
        path.write_bytes(whole + tail)
        (told,) = same_runs(*pair).differences
        assert "the second ends in a torn line" in told.told
    path.write_bytes(whole[:30] + b"\n" + whole[30:])
    status, _, error = called(capsys, "same", *pair)
    assert status == 2
    assert "other/metrics.jsonl, line 1 is not JSON" in error


@pytest.mark.parametrize("line", ["[1]", "7", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\ud800"])
def test_a_line_that_is_no_record_is_an_error_or_a_difference(tmp_path, line):
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    one.write_text('{"scene": "a"}\n{"scene": "b"}\n')
    other.write_bytes(line.encode(errors="surrogatepass") + b'\n{"scene": "b"}\n')
    with pytest.raises(UserError, match=r"other\.jsonl, line 1"):
        same_lines(one, other)


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path):
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    one.write_text('{"scene": "a"}\n')
    with other.open("wb") as file:
        file.truncate(LONGEST + 2)  # a hole in the file: it takes no room
    with pytest.raises(UserError, match="longer than"):
        lines_apart(one, other)


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (("one", "nowhere"), "nowhere is not there"),
        (("one", "one"), "are one and the same"),
        (("one", "one/metrics.jsonl"), "give two of a kind"),
        (("one", "one/evaluation"), "holds no config.yaml"),
    ],
)
def test_what_cannot_be_compared_is_refused(pair, capsys, paths, told):
    status, _, error = called(capsys, "same", *(pair[0].parent / path for path in paths))
    assert status == 2
    assert told in error


def test_versions_are_read_from_the_cards(pair):
    card = pair[1] / "checkpoints/step-000002/README.md"
    card.write_text(card.read_text().replace("torch 2.13.0", "torch 2.14.0"))
    (told,) = same_runs(*pair).differences
    assert (told.step, told.file, told.fields[0][:3]) == (0, "versions", ("torch", "2.13.0", "2.14.0"))


def test_what_a_model_wrote_is_shown_without_its_controls(pair, capsys):
    change(pair[1] / "rollouts.jsonl", 1, response="\x1b[2J\u202egone\n" + "x" * 900)
    out = called(capsys, "same", *pair)[1]
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert max(map(len, out.splitlines())) < 300


def test_names_of_files_are_shown_without_their_controls(pair, capsys, tmp_path):
    name = "a\x1b[2Jb\u202ec\n.jsonl"
    for number, run in enumerate(pair):
        write_lines(run / "evaluation" / name, [{"scene": "a", "sample": number}])
    studies = [tmp_path / "a", tmp_path / "b"]
    for right, study in enumerate(studies):
        plant(study, Arm("a\x1b[2Jb", Config()), 0, [right])
    for two in (pair, studies):
        status, out, _ = called(capsys, "same", *two)
        assert status == 1
        assert "a␛[2Jb" in out
        assert not set(out) & set("\x1b\u202e")


def test_what_is_no_file_is_not_waited_for(pair):
    state = pair[1] / "checkpoints" / "step-000002" / "trainer" / "state.json"
    state.unlink()
    os.mkfifo(state)
    assert any("state.json is no file" in one.told for one in same_runs(*pair).differences)


def test_files_of_answers_and_checkpoints_are_compared_too(pair, capsys):
    files = [run / "evaluation/last.jsonl" for run in pair]
    assert called(capsys, "same", *files)[:2] == (0, "the same: 3 lines, bit for bit\n")
    change(files[1], 3, response="8")
    _, out, _ = called(capsys, "same", *files)
    assert "scene digits/report/0/2, sample 0" in out
    folders = [run / "checkpoints/step-000004" for run in pair]
    assert same_checkpoints(*folders).same
    change_tensor(folders[1] / "model.safetensors", "b.bias", (0,), 1.0)
    assert same_checkpoints(*folders).differences[0].step == 4


def test_studies_are_compared_by_their_records(tmp_path, capsys):
    arms = [Arm(name, Config(method=name)) for name in ("grpo", "papo")]
    for folder in ("one", "other"):
        for arm in arms:
            for seed in (0, 1):
                plant(tmp_path / folder, arm, seed, [3, 1, 2], header={"cost": {"steps": 4, "seconds": seed + 0.5}})
    paths = [tmp_path / "one", tmp_path / "other"]
    plant(paths[1], arms[0], 0, [3, 1, 2], header={"cost": {"steps": 4, "seconds": 77.7}})  # the clock alone
    assert called(capsys, "same", *paths)[:2] == (0, "the same: 4 records, bit for bit\n")
    plant(paths[1], arms[1], 1, [3, 1, 4])
    plant(paths[1], arms[1]._replace(name="later"), 0, [1, 1, 1])
    found = json.loads(called(capsys, "same", *paths, "--json")[1])["differences"]
    assert [one["file"] for one in found] == ["records/later/seed-0.jsonl", "records/papo/seed-1.jsonl"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_values_are_apart_exactly_when_they_are_written_otherwise(one, other):
    assert not [*fields(one, one)]
    written = [json.dumps(value, sort_keys=True) for value in (one, other)]
    assert bool([*fields(one, other)]) == (written[0] != written[1])
