"""What is handed to other programs: nothing is lost, nothing of the data's becomes code, a path or another question."""

import ast
import base64
import csv
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pandas
import pytest
import yaml
from PIL import Image

from vergence import chance, cli
from vergence.evaluate.suite import answer, write_records
from vergence.harnesses.export import NEUTRAL, export_neutral, neutral, said_of
from vergence.harnesses.lmms_eval import METRICS, Pack, write_pack
from vergence.harnesses.questions import SETTINGS, Putting, read_questions, slug, write_questions
from vergence.harnesses.rescore import rescore
from vergence.harnesses.vlmevalkit import CLASSES, entry, samples_by_itself, write_config, write_table
from vergence.models.folder import SEEDLING
from vergence.models.policy import load
from vergence.rewards.verify import VERSION, verify
from vergence.rollout.render import put
from vergence.scenes.source import Embedded
from vergence.types import IMAGE, Gold, Scene, UserError

FIELDS = "dataset split item_id image_sha prompt sample_index seed sampling response finish_reason n_tokens gold "
FIELDS += "extracted verdict verifier_version vd_level"
HOSTILE = "a\tb\nc\r\n\"d\" 'e' {f} %s : - !!python/object:os.system [1] #x </script> \u202e é"


def noise(key: int, width: int = 5, height: int = 4) -> Image.Image:
    return Image.fromarray(chance.rng("pixels", key).integers(0, 256, (height, width, 3), dtype=np.uint8))


def scene(key: str, question: str, gold: Gold, pictures: int = 1, **columns) -> Scene:
    images = tuple(noise(at) for at in range(pictures))
    return Scene(key=key, world="w", images=images, question=question, gold=gold, columns=columns)


SCENES = [
    scene("../../etc/passwd", HOSTILE, Gold("2001-01-01", "word"), vd_level="High"),
    scene("task: !!x", "NA", Gold("null", "word")),
    scene("=1+1", f"Is {IMAGE} in {IMAGE}?", Gold("12", "integer"), pictures=2),
    scene("", "{question}", Gold("B", "choice", choices=("four", "fi\tve"))),
]


def how(**changed) -> Putting:
    usual = {"name": "mine", "split": "report", "wording": "boxed", "samples": 2, "temperature": 1.0, "max_tokens": 9}
    return Putting(**(usual | changed))


@pytest.fixture
def folder(tmp_path):
    write_questions(tmp_path / "out", SCENES, how())
    return tmp_path / "out"


@pytest.fixture
def pack(folder):
    (folder / "tokenizer.json").write_bytes((SEEDLING / "tokenizer.json").read_bytes())
    write_pack(folder)
    return folder


def utils_of(folder: Path):
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def docs_of(folder: Path, tmp_path: Path):
    files = {"test": str(folder / "questions.parquet")}
    return datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["test"]


# ---------------------------------------------------------------------------------------------------- neutral lines


def test_a_record_of_today_leaves_no_field_of_a_neutral_line_empty():
    asked = Embedded(("digits",)).held_out("report", 1, seed=0)
    (record,) = answer(load("seedling"), asked, samples=1, max_tokens=4)
    line = neutral(record)
    assert list(line) == list(NEUTRAL) == FIELDS.split()
    assert {name for name, value in line.items() if value is None} <= {"extracted", "vd_level"}
    assert (line["dataset"], line["split"], line["item_id"]) == ("digits", "report", asked[0].key)
    assert (line["gold"], line["n_tokens"], line["finish_reason"]) == (asked[0].gold.text, 4, "length")
    assert line["sampling"] == {
        "temperature": 1.0, "top_p": 1.0, "max_tokens": 4, "wording": "short", "shown": "image"
    }  # fmt: skip
    assert line["verifier_version"] == VERSION
    assert asked[0].question in line["prompt"]


def test_an_older_record_is_written_with_nulls_that_are_told(tmp_path):
    old = {"scene": "a/0", "world": "a", "sample": 1, "response": HOSTILE, "status": "wrong", "extracted": None}
    run = tmp_path / "run"
    write_records(run / "evaluation" / "after.jsonl", [old, old | {"split": "tune"}])
    (run / "evaluation" / "other.jsonl").write_text('{"no": "record"}\n')
    (written,) = export_neutral(run, tmp_path / "out", split="report")
    lines = [json.loads(line) for line in written.path.read_text().splitlines()]
    assert [line["response"] for line in lines] == [HOSTILE, HOSTILE]
    assert [line["split"] for line in lines] == ["report", "tune"]
    assert written.lacking == (
        "image_sha", "prompt", "seed", "sampling", "finish_reason", "n_tokens", "gold", "verifier_version"
    )  # fmt: skip
    assert "prompt" in said_of([written])[1]


@pytest.mark.parametrize("text", ["", "{}", '{"scene": 1}', "[" * 10_000, "\x00\xff", '["a"]'])
def test_what_holds_no_answers_is_refused(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(UserError, match="no answers of an evaluation"):
        export_neutral(tmp_path / "a.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_line_that_is_no_record_is_named(tmp_path):
    record = {"scene": "a", "sample": 0, "response": "", "status": "wrong"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n7\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2"):
        export_neutral(tmp_path / "a.jsonl", tmp_path / "out")


def test_a_number_that_json_has_no_word_for_is_refused(tmp_path):
    record = {"scene": "a", "sample": 0, "response": "", "status": "wrong", "seed": float("nan")}
    write_records(tmp_path / "a.jsonl", [record])
    with pytest.raises(UserError, match="answer 1"):
        export_neutral(tmp_path / "a.jsonl", tmp_path / "out")


# ---------------------------------------------------------------------------------------------------- the questions


def test_questions_come_back_as_they_were_put_and_stay_in_their_folder(folder, tmp_path):
    asked, rows = read_questions(folder)
    assert asked == how()
    assert [row["prompt"] for row in rows] == [put(one.question, wording="boxed") for one in SCENES]
    assert [row["item_id"] for row in rows] == [one.key for one in SCENES]
    assert [row["vd_level"] for row in rows] == ["high", None, None, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert sorted(path.name for path in folder.iterdir()) == ["images", "questions.jsonl", "settings.json"]
    assert len(list((folder / "images").iterdir())) == 2  # the scenes share their pictures


def test_nothing_is_written_over(folder):
    with pytest.raises(UserError, match="not an empty folder"):
        write_questions(folder, SCENES, how())
    with pytest.raises(UserError, match="not an empty folder"):
        write_questions(folder / SETTINGS, SCENES, how())
    with pytest.raises(UserError, match="no questions"):
        write_questions(folder / "new", [], how())


@pytest.mark.parametrize("changed", [{"name": "../x"}, {"name": "A"}, {"name": ""}, {"name": "a" * 99}, {"samples": 0},
    {"max_tokens": 0}, {"temperature": float("nan")}, {"temperature": -1.0}, {"samples": 10**9}])  # fmt: skip
def test_what_cannot_be_asked_is_refused(changed):
    with pytest.raises(UserError):
        how(**changed)


@pytest.mark.parametrize("text", ["", HOSTILE, "../../x", "-rf", "ABC", "a" * 500, "é", "_", "__a__" * 40])
def test_any_text_has_a_name_that_is_one(text):
    assert how(name=slug(text)).name == slug(text)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (SETTINGS, None),
        (SETTINGS, b"[]"),
        (SETTINGS, b"{}"),
        (SETTINGS, b"\xff"),
        ("questions.jsonl", None),
        ("questions.jsonl", b""),
        ("questions.jsonl", b'{"index": 1}\n'),
    ],
)
def test_a_damaged_folder_is_told(folder, file, damage):
    (folder / file).unlink()
    if damage is not None:
        (folder / file).write_bytes(damage)
    with pytest.raises(UserError, match="export again"):
        read_questions(folder)


# ---------------------------------------------------------------------------------------------------- lmms-eval


class _Tagged(yaml.SafeLoader):
    pass


_Tagged.add_constructor("!function", lambda loader, node: ("function", loader.construct_scalar(node)))


def test_the_yaml_says_what_lmms_eval_would_otherwise_do_wrong(pack):
    (path,) = pack.glob("*.yaml")
    task = yaml.load(path.read_text(), Loader=_Tagged)
    assert path.stem == task["task"] == "vergence_mine"
    assert task["generation_kwargs"] == {
        "max_new_tokens": 9, "temperature": 1.0, "top_p": 1.0, "do_sample": True, "until": []
    }  # fmt: skip
    assert (task["repeats"], task["filter_list"], task["reasoning_tags"]) == (
        2,
        [{"name": "all", "filter": []}],
        "none",
    )
    assert task["dataset_kwargs"]["data_files"] == {"test": "questions.parquet"}
    assert [metric["metric"] for metric in task["metric_list"]] == list(METRICS)
    module = utils_of(pack)
    called = {name: value[1] for name, value in task.items() if isinstance(value, tuple)}
    assert called.keys() == {"doc_to_visual", "doc_to_text", "doc_to_messages", "process_results"}
    assert all(name == f"utils.{key}" and callable(getattr(module, key)) for key, name in called.items())


def test_greedy_sampling_is_said_to_be_greedy(tmp_path):
    write_questions(tmp_path / "out", SCENES, how(temperature=0.0))
    write_pack(tmp_path / "out", tell=lambda line: None)
    task = yaml.load((tmp_path / "out" / "vergence_mine.yaml").read_text(), Loader=_Tagged)
    assert (task["generation_kwargs"]["do_sample"], task["generation_kwargs"]["temperature"]) == (False, 0.0)


def test_the_table_gives_texts_as_texts(pack, tmp_path):
    docs = docs_of(pack, tmp_path)
    assert docs["gold"][:] == ["2001-01-01", "null", "12", "B"]  # of JSON the first would be read as a time
    assert docs["prompt"][:] == [put(one.question, wording="boxed") for one in SCENES]
    assert docs["item_id"][:] == [one.key for one in SCENES]


def test_what_the_task_calls_gives_our_prompt_and_our_pictures(pack, tmp_path):
    module = utils_of(pack)
    for doc, one in zip(docs_of(pack, tmp_path), SCENES, strict=True):
        (turn,) = module.doc_to_messages(doc)
        shown = [part["url"] for part in turn["content"] if part["type"] == "image"]
        for pictures in (shown, module.doc_to_visual(doc)):
            assert [np.asarray(image).tolist() for image in pictures] == [np.asarray(i).tolist() for i in one.images]
        text = "".join(part.get("text", IMAGE) for part in turn["content"])
        prompt = put(one.question, wording="boxed")
        assert text == (prompt if IMAGE in prompt else IMAGE * len(one.images) + prompt)
        assert module.doc_to_text(doc) == prompt.replace(IMAGE, "").strip()


def test_all_answers_count_not_the_first_alone(pack):
    judged = Pack(pack).judged
    answers = ["\\boxed{12}", "\\boxed{13}", "", "\\boxed{12}"]
    wanted = {"accuracy": 0.5, "unparsed": 0.25, "timed_out": 0.0, "truncated": 0.0}
    for results in (answers, [answers], [[one] for one in answers]):
        assert judged({"index": 2}, results) == wanted
    assert judged({"index": 2}, [])["unparsed"] == judged({"index": 2}, [None])["unparsed"] == 1.0


def test_its_verdicts_are_the_verifiers(pack):
    draw = chance.rng("answers", 0)
    said = ["\\boxed{12}", "\\boxed{B}", "\\boxed{null}", "<think>\\boxed{12}</think>", "x", "\\boxed{2001-01-01}", ""]
    for index, one in enumerate(SCENES):
        answers = [said[at] for at in draw.integers(0, len(said), 9)]
        found = Pack(pack).judged({"index": index}, [answers])
        verdicts = [verify(text, one.gold, wording="boxed") for text in answers]
        assert found["accuracy"] == pytest.approx(np.mean([verdict.accuracy for verdict in verdicts]))
        assert found["unparsed"] == pytest.approx(np.mean([verdict.status == "unparsed" for verdict in verdicts]))


def test_truncation_is_counted_with_the_models_tokenizer(pack):
    judged = Pack(pack).judged
    assert judged({"index": 0}, ["1" * 8])["truncated"] == 0.0
    assert judged({"index": 0}, ["1" * 9, "1"])["truncated"] == 0.5


def test_without_a_tokenizer_truncation_is_left_out_and_told(folder):
    told = []
    write_pack(folder, tell=told.append)
    assert "truncated" not in Pack(folder).judged({"index": 0}, ["1" * 99])
    assert "truncated" not in (folder / "vergence_mine.yaml").read_text()
    assert len(told) == 1


# ---------------------------------------------------------------------------------------------------- VLMEvalKit


def rows_of(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("*.tsv")
    before = csv.field_size_limit(2**24)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    csv.field_size_limit(before)
    return rows


def test_the_table_holds_each_question_once_for_each_answer(folder):
    name = write_table(folder)
    assert name.startswith("vergence_mine_")
    assert name.endswith("_openended")  # else it is taken for multiple choice
    rows = rows_of(folder)
    assert [(row["index"], row["item"], row["sample"]) for row in rows] == [
        (str(at), str(at // 2), str(at % 2)) for at in range(8)
    ]
    assert [row["question"] for row in rows[::2]] == [
        put(one.question, wording="boxed").replace(IMAGE, "").strip() for one in SCENES
    ]
    assert [row["image"] for row in rows[1::2]] == ["0", "2", "4", "6"]
    theirs = pandas.read_csv(folder / f"{name}.tsv", sep="\t")  # as VLMEvalKit reads it
    assert theirs["question"].tolist() == [row["question"] for row in rows]


def test_its_pictures_are_ours(folder):
    write_table(folder)
    for row, one in zip(rows_of(folder)[::2], SCENES, strict=True):
        encoded = ast.literal_eval(row["image"]) if row["image"].startswith("[") else [row["image"]]
        opened = [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]
        assert [np.asarray(image).tolist() for image in opened] == [np.asarray(image).tolist() for image in one.images]
        assert all(len(text) > 64 for text in encoded)  # a shorter one is taken for the number of a row


def test_other_questions_have_another_name(folder, tmp_path):
    write_questions(tmp_path / "other", SCENES[1:], how())
    assert write_table(folder) != write_table(tmp_path / "other")


def test_questions_without_pictures_are_left_out_and_told(tmp_path):
    told = []
    blind = scene("blind", "1+1?", Gold("2", "integer"), pictures=0)
    write_questions(tmp_path / "some", [blind, SCENES[2]], how())
    write_table(tmp_path / "some", tell=told.append)
    assert [row["item"] for row in rows_of(tmp_path / "some")] == ["1", "1"]
    assert len(told) == 1
    write_questions(tmp_path / "none", [blind], how())
    with pytest.raises(UserError, match="no question has a picture"):
        write_table(tmp_path / "none")


@pytest.mark.parametrize("kind", CLASSES)
def test_the_config_samples_as_we_do(folder, kind):
    one = entry(kind, "a/b", how(), min_pixels=3)
    assert (one["temperature"], one["top_p"], one["top_k"], one["repetition_penalty"]) == (1.0, 1.0, 0, 1.0)
    assert (one["use_custom_prompt"], one["post_process"], one["max_new_tokens"]) == (False, False, 9)
    assert one.get("presence_penalty", 0.0) == 0.0
    assert one.get("do_sample", True) is True
    assert "use_vllm" not in one
    assert (one["min_pixels"], "max_pixels" in one) == (3, False)
    assert entry(kind, "a/b", how(temperature=0.0))["top_k"] == 1  # the likeliest, by either way to sample
    config = json.loads(write_config(folder, "d", one, "m").read_text())
    assert config == {"model": {"m": one}, "data": {"d": {"class": "CustomVQADataset", "dataset": "d"}}}


def test_a_model_that_vlmevalkit_has_no_class_for_is_refused():
    with pytest.raises(UserError, match="lmms-eval"):
        entry("llava", "a/b", how())


@pytest.mark.parametrize(("text", "wanted"), [('{"do_sample": true}', True), ('{"do_sample": false}', False),
    ("{}", False), ("[]", False), ("{", False), ('{"do_sample": 1}', False)])  # fmt: skip
def test_whether_a_model_says_that_it_samples(tmp_path, text, wanted):
    assert not samples_by_itself(tmp_path)
    (tmp_path / "generation_config.json").write_text(text)
    assert samples_by_itself(tmp_path) is wanted


# ---------------------------------------------------------------------------------------------------- what comes back


PREDICTED = [{"item": 2, "sample": 0, "prediction": "\\boxed{12}"}, {"item": 2, "sample": 1, "prediction": "no\n\t\""},
    {"item": 1, "sample": 0, "prediction": "Failed to obtain answer via API."}]  # fmt: skip


def written(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".tsv":
        pandas.DataFrame(rows).to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_ALL)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("ending", ["json", "tsv", "jsonl"])
def test_predictions_are_judged_whatever_file_they_come_in(pack, tmp_path, ending):
    records, missing = rescore(pack, written(tmp_path / f"a.{ending}", PREDICTED))
    assert [record["status"] for record in records] == ["right", "unparsed", "unparsed"]
    assert [record["finish"] for record in records] == ["stop", "stop", "error"]
    assert [record["response"] for record in records] == [row["prediction"] for row in PREDICTED]
    assert [record["scene"] for record in records] == ["=1+1", "=1+1", "task: !!x"]
    assert missing == 5
    assert list(neutral(records[0])) == list(NEUTRAL)


def test_samples_of_lmms_eval_are_judged(pack, tmp_path):
    rows = [{"doc_id": 2, "target": "12", "filtered_resps": ["\\boxed{12}", "1 " * 99]},
            {"doc_id": 3, "target": "B", "resps": [["\\boxed{b}"]], "filtered_resps": ["cut"]}]  # fmt: skip
    records, missing = rescore(pack, written(tmp_path / "a.jsonl", rows))
    assert [(record["scene"], record["sample"], record["status"]) for record in records] == [
        ("=1+1", 0, "right"), ("=1+1", 1, "unparsed"), ("", 0, "right")
    ]  # fmt: skip
    assert [record["finish"] for record in records] == ["stop", "length", "stop"]
    assert missing == 5


def test_without_a_tokenizer_no_length_is_made_up(folder, tmp_path):
    records, _ = rescore(folder, written(tmp_path / "a.json", PREDICTED))
    assert [(record["tokens"], record["finish"]) for record in records] == [(None, None), (None, None), (None, "error")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.pkl", "", "No pickle"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.json", "[7]", "row 1"),
        ("a.json", '{"a": 1}', "row 1"),
        ("a.json", '[{"prediction": "x"}]', "row 1"),
        ("a.json", '[{"prediction": "x", "item": 9, "sample": 0}]', "question 9"),
        ("a.json", '[{"prediction": "x", "item": -1, "sample": 0}]', "question -1"),
        ("a.json", '[{"prediction": "x", "item": "1e9", "sample": 0}]', "row 1"),
        ("a.json", '[{"prediction": "x", "item": 1, "sample": 0, "question": "another"}]', "another"),
        ("a.jsonl", '{"doc_id": 0, "filtered_resps": [7]}', "row 1"),
        ("a.jsonl", '{"doc_id": 0, "filtered_resps": ["a"], "target": "another"}', "another"),
        ("a.jsonl", '{"doc_id": 0, "filtered_resps": ["a"]}\n' * 2, "two answers"),
        ("a.json", "5", "row 1"),
        ("a.jsonl", '{"doc_id": 1e400, "filtered_resps": ["a"]}', "no whole number"),
        ("a.jsonl", '{"doc_id": true, "filtered_resps": ["a"]}', "no whole number"),
        ("a.tsv", "item\tsample\n1\t2\n", "row 1"),
        ("a.xlsx", "no zip", "no workbook|openpyxl"),
    ],
)
def test_a_file_that_is_none_of_these_is_told(folder, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        rescore(folder, tmp_path / name)


def test_a_workbook_is_read_by_its_heads(folder, tmp_path, monkeypatch):
    rows = [("index", "item", "sample", "prediction"), (0, 2, 0, "\\boxed{12}"), (1, 2, 1, None)]
    book = SimpleNamespace(active=SimpleNamespace(iter_rows=lambda values_only: iter(rows)))
    monkeypatch.setitem(sys.modules, "openpyxl", SimpleNamespace(load_workbook=lambda path, read_only: book))
    (tmp_path / "a.xlsx").touch()
    records, _ = rescore(folder, tmp_path / "a.xlsx")
    assert [(record["sample"], record["status"]) for record in records] == [(0, "right"), (1, "unparsed")]


def test_a_workbook_without_openpyxl_says_what_to_do(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(UserError, match=r"vergence\[xlsx\]"):
        rescore(folder, tmp_path / "a.xlsx")


# ---------------------------------------------------------------------------------------------------- the command


def said_by(capsys, *words) -> dict | list:
    cli.main(["export", *map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def test_there_and_back(tmp_path, capsys):
    asked = ("--worlds", "digits", "--number", 3, "--samples", 2)
    told = said_by(capsys, "seedling", "--to", "lmms-eval", "--out", tmp_path / "pack", *asked)
    assert (told["questions"], told["task"]) == (3, "vergence_digits")
    assert "max_new_tokens=64" in told["command"]
    assert f"--include_path {tmp_path / 'pack'}" in told["command"]
    scenes = Embedded(("digits",)).held_out("report", 3, seed=0)
    docs = docs_of(tmp_path / "pack", tmp_path)
    assert docs["item_id"][:] == [one.key for one in scenes]
    rows = [{"doc_id": at, "target": one.gold.text, "filtered_resps": [f"\\boxed{{{one.gold.text}}}", ""]}
            for at, one in enumerate(scenes)]  # fmt: skip
    file = written(tmp_path / "samples.jsonl", rows)
    found = said_by(capsys, tmp_path / "pack", "--to", "neutral", "--score", file, "--out", tmp_path / "scored")
    assert (found["answers"], found["missing"], found["failed"]) == (6, 0, 0)
    overall = found["worlds"]["overall"]
    assert (overall["accuracy"]["mean"], overall["passes"]["2"]["mean"], overall["unparsed"]) == (0.5, 1.0, 0.5)
    lines = [json.loads(line) for line in (tmp_path / "scored" / "answers.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["right", "unparsed"] * 3


def test_what_vlmevalkit_is_handed(tmp_path, capsys):
    told = said_by(
        capsys, "seedling", "--to", "vlmevalkit", "--out", tmp_path / "kit", "--worlds", "bars", "--number", 2
    )
    assert (tmp_path / "kit" / f"{told['dataset']}.tsv").is_file()
    config = json.loads((tmp_path / "kit" / "vlmevalkit.json").read_text())
    assert config["model"]["seedling"]["model_path"] == str(SEEDLING)
    assert len(rows_of(tmp_path / "kit")) == 16
    assert "--mode infer" in told["command"]


@pytest.mark.parametrize("words", [("seedling", "--to", "lmms-eval", "--score", "a.jsonl"),
    ("seedling", "--to", "lmms-eval", "--samples", "0"), ("nowhere", "--to", "vlmevalkit"),
    ("nowhere", "--to", "neutral"), ("nowhere", "--to", "neutral", "--score", "a.jsonl")])  # fmt: skip
def test_bad_input_is_a_message_and_nothing_is_written(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["export", *words, "--out", "out"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()
