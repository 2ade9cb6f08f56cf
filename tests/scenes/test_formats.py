"""Scenes from every format and layout: the same rows are the same scenes, wherever they stand."""

import base64
import csv
import json
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vergence.scenes.files import images_of, read, read_rows, survey
from vergence.scenes.hub import load_hub
from vergence.scenes.rows import Row
from vergence.scenes.source import open_source
from vergence.types import IMAGE, UserError


def png(colour: str, size: tuple[int, int] = (8, 6)) -> bytes:
    stream = BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


ROWS: list[dict[str, Any]] = [
    {"problem": "<image>What\ncolour, say?", "images": ["red.png"], "answer": 'a "red"', "id": "0"},
    {"problem": "Is <image> like <image>?", "images": ["red.png", "deep/blue.png"], "answer": "no", "id": "1"},
    {"problem": "How much is 1 + 1?", "images": [], "answer": "2", "id": "2"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "red.png").write_bytes(png("red"))
    (tmp_path / "deep/blue.png").write_bytes(png("blue"))
    return tmp_path


def embedded(folder: Path) -> list[dict[str, Any]]:
    return [
        row | {"images": [{"bytes": (folder / name).read_bytes(), "path": name} for name in row["images"]]}
        for row in ROWS
    ]


def jsonl(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, ROWS)))


def table(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(ROWS[0])
        writer.writerows(
            [[json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()] for row in ROWS]
        )


def urls(path: Path) -> None:
    def url(name: str) -> str:
        return "data:image/png;base64," + base64.b64encode((path.parent / name).read_bytes()).decode()

    path.write_text("\n".join(json.dumps(row | {"images": list(map(url, row["images"]))}) for row in ROWS))


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": jsonl,
    "lines.json": jsonl,
    "list.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "a.csv": table,
    "a.tsv": table,
    "urls.jsonl": urls,
    "paths.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2),
    "bytes.parquet": lambda path: pq.write_table(pa.Table.from_pylist(embedded(path.parent)), path, row_group_size=2),
    "saved": lambda path: datasets.Dataset.from_list(embedded(path.parent)).save_to_disk(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_are_the_same_scenes_in_every_format(folder, name):
    WRITERS[name](folder / name)
    rows = list(survey(folder / name))
    assert all(isinstance(row, Row) for row in rows), rows
    files = read(folder / name)
    scenes = [files.scene(row.key) for row in rows]
    assert [scene.question for scene in scenes] == [
        "What\ncolour, say?",
        f"Is {IMAGE} like {IMAGE}?",
        "How much is 1 + 1?",
    ]
    assert [scene.gold.text for scene in scenes] == ['a "red"', "no", "2"]
    assert [[image.getpixel((0, 0)) for image in scene.images] for scene in scenes] == [
        [(255, 0, 0)],
        [(255, 0, 0), (0, 0, 255)],
        [],
    ]
    assert [scene.columns["id"] for scene in scenes] == ["0", "1", "2"]
    assert files.content == read_rows(embedded(folder)).content


def test_rows_in_memory_may_hold_images_that_are_open(folder):
    opened = [row | {"images": [Image.open(folder / name) for name in row["images"]]} for row in ROWS]
    for rows in (
        opened,
        datasets.Dataset.from_list(embedded(folder)),
        [opened[0] | {"images": opened[0]["images"][0]}],
    ):
        files = read_rows(rows)
        assert files.refused == ()
        assert files.scene("rows/0").images[0].getpixel((0, 0)) == (255, 0, 0)


def test_a_data_set_of_the_hub_is_read_undecoded(tmp_path, monkeypatch):
    features = datasets.Features(
        {"problem": datasets.Value("string"), "image": datasets.Image(), "answer": datasets.Value("string")}
    )
    rows = [{"problem": f"Is it {n}?", "image": {"bytes": png("red"), "path": None}, "answer": "no"} for n in range(5)]
    (tmp_path / "set/data").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "set/data/test-00000-of-00001.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = load_hub(str(tmp_path / "set"), split="test")
    assert found.row(3)["image"]["bytes"] == png("red")
    assert read_rows(found.items).scene("rows/4").images[0].size == (8, 6)
    with pytest.raises(UserError, match=r"set@train cannot be loaded \(Unknown split \"train\".*'test'"):
        load_hub(str(tmp_path / "set"))


def test_without_a_network_the_hub_is_said_to_be_out_of_reach(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for name, loaded in (("nobody/nothing", "nobody/nothing@train"), ("geometry3k@test", "hiyouga/geometry3k@test")):
        with pytest.raises(UserError, match=rf"the data set {loaded} cannot be loaded .*is there a network"):
            open_source(name, ())


# ---------------------------------------------------------------------------------------------- access


def many(path: Path, number: int = 300) -> Path:
    rows = [
        {"question": f"Is it {n}?\n", "image": {"bytes": png("red", (1 + n % 9, 3))}, "answer": n}
        for n in range(number)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=70)
    return path


def test_any_row_of_any_row_group_is_picked(tmp_path):
    files = read(many(tmp_path / "a.parquet"))
    for number in (0, 63, 64, 69, 70, 139, 140, 299):
        scene = files.scene(f"a/{number}")
        assert (scene.question, scene.gold.text, scene.images[0].width) == (
            f"Is it {number}?",
            str(number),
            1 + number % 9,
        )
    assert survey(tmp_path / "a.parquet").expected_rows == 300


def test_a_damaged_row_group_is_refused_row_by_row(tmp_path):
    path = many(tmp_path / "a.parquet")
    column = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    files = read(path)
    assert [one.row for one in files.refused] == list(range(70, 140))
    assert "cannot be read" in files.refused[0].reason
    assert files.scene("a/140").gold.text == "140"


def test_a_file_that_is_no_parquet_says_so(tmp_path):
    path = many(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a\.parquet is not a parquet file .*is it complete"):
        read(path)


@pytest.mark.parametrize("limit", [2**17, 2**24, 100])
def test_cells_that_are_malformed_are_refused_and_the_others_read(limit, tmp_path, request):
    request.addfinalizer(partial(csv.field_size_limit, csv.field_size_limit(limit)))  # other packages change it
    head = b"question,answer\n"
    (tmp_path / "a.csv").write_bytes(
        head
        + b'"two\nlines",1\nfew\n\nmany,2,3\nl\xe4tin,4\n"un"closed,5\nsound,6\n'
        + b"long,"
        + b"7" * 200_000
        + b"\nlast,8\n"
    )
    rows = list(survey(tmp_path / "a.csv"))
    assert [row.row for row in rows] == [2, 4, 6, 7, 8, 9, 10, 11]
    assert [isinstance(row, Row) for row in rows] == [True, False, False, False, False, True, False, True]
    assert [row.reason.split(" (")[0] for row in rows if not isinstance(row, Row)] == [
        "1 cells under 2 names",
        "3 cells under 2 names",
        "not UTF-8",
        "cannot be read",
        "cannot be read",
    ]
    files = read(tmp_path / "a.csv")
    assert (files.scene("a/2").question, files.scene("a/11").gold.text) == ("two\nlines", "8")
    (tmp_path / "b.csv").write_text("question,question\na,b\n")
    with pytest.raises(UserError, match=r"b\.csv: its first line says .* it must name the columns, each once"):
        open_source(str(tmp_path / "b.csv"), ())
    (tmp_path / "c.csv").write_text("question;answer\nIs it 2,5?;2,5\n")
    assert read(tmp_path / "c.csv").scene("c/2").question == "Is it 2,5?"
    assert csv.field_size_limit() == limit


# ---------------------------------------------------------------------------------------------- folders and splits


@pytest.fixture
def splits(folder: Path) -> Path:
    for split, number in (("train", 40), ("validation", 6), ("test", 7)):
        rows = [{"question": f"{split} {n}?", "image": "red.png", "answer": "no"} for n in range(number)]
        (folder / "data").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / f"data/{split}-00000-of-00001.parquet")
    (folder / "dataset_infos.json").write_text("{}")
    (folder / ".hidden.jsonl").write_text("{}")
    return folder


def total(source: str) -> int:
    return sum(len(rows) for rows in read(source).rows.values())


def test_a_folder_is_its_train_split_unless_another_is_named(splits):
    assert total(str(splits)) == total(f"{splits}@train") == 40
    assert total(f"{splits}@test") == total(f"{splits}/*/*.parquet@test") == 7
    assert total(f"{splits}@val") == 6
    assert read(splits).scene("data/train-00000-of-00001/7").images[0].size == (8, 6)  # from the folder that was named
    with pytest.raises(UserError, match=r"has no split 'dev2'; it has test, train, validation"):
        read(f"{splits}@dev2")
    (splits / "data/train-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"has the splits test, validation; write .*@SPLIT for one of them"):
        read(splits)


def test_it_is_said_which_files_are_read(splits):
    (splits / "config.json").write_text('{"model_type": "x"}')
    told: list[str] = []
    open_source(str(splits), (), tell=told.append)
    train, test, validation = (f"data/{name}-00000-of-00001.parquet" for name in ("train", "test", "validation"))
    bare = "config.json, dataset_infos.json"
    assert told == [f"{splits}: read @train, {train}; not read {test}, {validation}; without rows {bare}"]
    assert survey(splits / train).said == ()


def test_files_of_which_some_are_called_after_a_split_are_refused(tmp_path):
    row = json.dumps({"question": "?", "answer": "3"})
    (tmp_path / "dev-kit").mkdir()
    for name in ("a-test.jsonl", "dev-kit/train_2.jsonl"):
        (tmp_path / name).write_text(row)
    assert total(str(tmp_path)) == 2  # such a word among others decides nothing
    (tmp_path / "train.jsonl").write_text(row)
    with pytest.raises(UserError, match=r"\(train\.jsonl\) and others that are not \(a-test\.jsonl\); write .*@train"):
        read(tmp_path)
    assert total(f"{tmp_path}@train") == 1
    assert total(f"{tmp_path}/train.jsonl,{tmp_path}/a-test.jsonl") == 2


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("b.parquet", b"PAR1 no more", "not a parquet file"),
        ("b.json", b'[{"question"', "not JSON"),
        ("b.json", b'{"data": [{"question": "?", "answer": "3"}]}', "one object, the rows are under 'data'"),
        ("b.csv", b"question,question\n?,3\n", "its first line says ['question', 'question']"),
        ("b.jsonl", '{"question": "?"}'.encode("utf-16"), "UTF-16, not UTF-8"),
    ],
)
def test_a_damaged_file_among_others_is_refused_and_they_are_read(tmp_path, name, data, said):
    many(tmp_path / "a.parquet", 9)
    (tmp_path / name).write_bytes(data)
    files = read(tmp_path)
    assert sum(map(len, files.rows.values())) == 9
    (refused,) = files.refused
    assert (refused.unit, refused.file) == ("file", str(tmp_path / name))
    assert refused.reason.startswith(said)
    assert refused.remedy
    assert str(refused).startswith(f"{tmp_path / name}: {said}")


def test_an_object_in_a_json_file_is_a_row_if_it_asks(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps({"problem": "?", "answer": "3"}, indent=1))
    assert total(str(tmp_path / "one.json")) == 1
    (tmp_path / "twice.json").write_text('[{"question": "a", "question": "b"}, {"question": "c", "answer": "3"}]')
    assert total(str(tmp_path / "twice.json")) == 1
    (tmp_path / "config.json").write_text(json.dumps({"layers": 3}, indent=1))
    with pytest.raises(UserError, match=r"config\.json is one object without a question, not rows; write a list"):
        read(tmp_path / "config.json")


def test_nothing_is_written_into_what_datasets_saved(folder):
    features = datasets.Features({"question": datasets.Value("string"), "answer": datasets.Value("string")})
    features["image"] = datasets.Image()
    rows = [{"question": f"Is it {n}?", "answer": "no", "image": {"bytes": png("red"), "path": None}} for n in range(3)]
    made = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict({"train": made, "test": made.select([0])}).save_to_disk(folder / "saved")
    before = sorted(folder.rglob("*"))
    files = read(folder / "saved")
    assert files.scene("saved/2").images[0].getpixel((0, 0)) == (255, 0, 0)
    assert files.said == (f"{folder / 'saved'}: read @train; not read @test",)
    read_rows(datasets.load_from_disk(str(folder / "saved/train")))
    assert sorted(folder.rglob("*")) == before


def test_rows_that_can_be_gone_through_once_are_kept():
    rows = ({"question": f"Is it {n}?", "answer": np.float32(0.1)} for n in range(3))
    assert read_rows(rows).scene("rows/2").gold.text == "0.1"
    assert len(read_rows([{"question": "?"}]).refused) == 1


def test_files_may_be_named_for_a_split(splits):
    files = read(f"{splits}@train#train, {splits}@validation#tune, {splits}@test#report")
    assert files.counts() == "train 40, tune 6, report 7"
    assert {scene.question.split()[0] for scene in files.held_out("report", 99, seed=0)} == {"test"}
    assert files.train(0, 3, seed=0) == files.train(0, 3, seed=0)
    with pytest.raises(UserError, match=r"behind # stands what all of it is used for, one of train, tune, report"):
        read(f"{splits}#test")


def test_content_in_two_splits_is_refused(splits):
    rows = [{"question": text, "image": "red.png", "answer": "no"} for text in ("TRAIN  7?", "new?")]
    (splits / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = read(f"{splits}@train#train,{splits}/own.jsonl#report")
    assert files.counts() == "train 40, tune 0, report 1"
    assert "is in the split 'train' (data/train-00000-of-00001/7)" in files.refused[0].reason


def test_shards_and_equal_names(tmp_path):
    for name in ("a/x.jsonl", "b/x.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps({"question": f"Where is {name}?", "answer": "here"}))
    assert read(tmp_path).scene("b/x/1").question == "Where is b/x.jsonl?"
    assert read(f"{tmp_path}/*/x.jsonl").scene("a/x/1").question == "Where is a/x.jsonl?"
    several = read(f"{tmp_path}/a/x.jsonl,{tmp_path}/b/x.jsonl")
    assert [several.scene(f"x~{n}/1").question[9] for n in (1, 2)] == ["a", "b"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "there is no nowhere; name a file"),
        ("a.txt", "there is no a.txt; name a file"),
        ("{}/a.txt", "is none of .jsonl, .ndjson, .json, .parquet, .csv, .tsv; convert it"),
        ("{}/*.jsonl", "is the pattern in quotes?"),
        ("{}/deep", "holds no file of .jsonl"),
        ("{}/no.csv", "cannot be read (No such file or directory)"),
        (",", "no source of scenes is named"),
        ("", "no source of scenes is named"),
        ("@train", "there is no @train"),
        ("geometry3k:{}/no.parquet", "cannot be read (No such file or directory)"),
    ],
)
def test_what_is_not_there_says_what_could_be(folder, source, message):
    (folder / "a.txt").write_text("no rows")
    with pytest.raises(UserError) as error:
        read(source.format(folder))
    assert message in str(error.value)


# ---------------------------------------------------------------------------------------------- columns


def refusal(row: dict[str, Any], **columns: str) -> str:
    return str(read_rows([row], columns=columns).refused[0])


def test_columns_of_other_names_are_mapped():
    row = {"text": "How many?", "shot": png("red"), "out": {"gold": [], "is": "3"}, "type": "photo"}
    files = read_rows([row], columns={"question": "text", "images": "shot", "answer": "out.is", "kind": ""})
    scene = files.scene("rows/0")
    assert (scene.question, len(scene.images), scene.gold.text) == ("How many?", 1, "3")
    assert scene.columns == {"out": {"gold": [], "is": "3"}, "type": "photo"}
    with pytest.raises(UserError, match="there is no field 'img'; did you mean 'images'"):
        read_rows([row], columns={"img": "shot"})


def test_a_column_that_is_missing_or_ambiguous_is_named_with_those_that_are_there():
    row = {"questoin": "How many?", "img": png("red"), "answer": "3"}
    assert "missing; the columns are questoin, img, answer, the nearest 'questoin': say which with" in refusal(row)
    assert "field 'question': missing" in refusal(row)
    assert "field 'img': may hold the images; say --columns images=img, or images= if" in refusal(
        row, question="questoin"
    )
    assert "field 'text': there is no such column in this row; the columns are" in refusal(row, question="text")
    row = {"question": "How many?", "prompt": "How few?", "answer": "3"}
    assert "'question' and 'prompt' may both be meant; say --columns question=question" in refusal(row)
    assert read_rows([row | {"prompt": "How many?"}]).refused == ()
    assert read_rows([{"question": "?", "solution": "long", "answer": "3"}]).scene("rows/0").gold.text == "3"
    assert read_rows([{"question": "?", "img": "", "answer": "3"}], columns={"images": ""}).refused == ()


def test_a_known_data_set_has_its_own_columns_and_the_users_win(folder):
    row = {
        "id": 1,
        "problem": "<image>Find x.",
        "images": [png("red")],
        "answer": "3",
        "ground_truth": "A",
        "choices": ["3", "4"],
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "known.parquet")
    assert read(folder / "known.parquet").scene("known/0").gold.kind == "choice"
    scene = read(f"geometry3k:{folder}/known.parquet").scene("known/0")
    assert (scene.question, scene.gold.text, scene.world) == ("Find x.", "3", "geometry3k")
    mapped = read(f"geometry3k:{folder}/known.parquet", columns={"answer": "id", "world": "ground_truth"}).scene(
        "known/0"
    )
    assert (mapped.question, mapped.gold.text, mapped.world) == ("Find x.", "1", "A")
    pq.write_table(pa.Table.from_pylist([{"problem": "?", "answer": "3"}]), folder / "other.parquet")
    (refused,) = read(f"geometry3k:{folder}/other.parquet").refused
    assert (refused.field, refused.remedy) == ("images", "name the data without 'geometry3k'")
    assert "has this column, here are problem, answer" in refused.reason


def test_messages_are_read_as_trl_verl_and_mm_eureka_write_them(folder):
    say = "How many?"
    parts = [{"type": "image", "text": None}, {"type": "text", "text": say}]
    user, system = {"role": "user", "content": parts}, {"role": "system", "content": "Think."}
    rows = [
        {"prompt": [system, user], "image": png("red"), "solution": "<answer>3</answer>"},
        {
            "prompt": [{"role": "user", "content": f"<image>{say}"}],
            "images": [png("red")],
            "reward_model": {"ground_truth": "3"},
        },
        {
            "conversations": json.dumps([{"role": "user", "content": say}]),
            "image_urls": [f"file://{folder}/red.png"],
            "answer": "3",
        },
        {"messages": [{"role": "user", "content": [{"type": "image", "image": png("red")}, parts[1]]}], "answer": "3"},
        {"conversations": [{"from": "human", "value": f"<image>\n{say}"}], "image": "red.png", "answer": 3},
        {"Question": say, "IMAGE": {"image": "red.png"}, "Answer": np.int64(3)},
    ]
    files = read_rows(rows, folder=folder)
    assert files.refused == ()
    for number in range(len(rows)):
        scene = files.scene(f"rows/{number}")
        assert (scene.question, scene.gold.text, len(scene.images)) == (say, "3", 1)
    turns = [user, {"role": "assistant", "content": "4"}]
    assert read_rows([{"prompt": turns, "image": png("red"), "answer": "3"}]).scene("rows/0").gold.text == "3"
    assert "ends in the assistant's words, which are not taken for the answer; write" in refusal({"prompt": turns})
    assert 'must be one message of the user\'s, got messages of "user", "assistant", "user"; keep' in refusal(
        {"prompt": [*turns, user], "answer": "3"}
    )
    assert 'must have parts of type text or image, got {"type": "video"}' in refusal(
        {"prompt": [{"role": "user", "content": [{"type": "video"}]}], "answer": "3"}
    )
    assert "there are images in 'messages' too" in refusal(rows[3] | {"image": png("red")})


def test_what_is_large_or_no_plain_data_is_not_kept_beside_a_scene():
    row = {"question": "?", "answer": "3", "rate": 0.5, "none": float("nan"), "tags": ["a"]}
    large = {"essay": "x" * 5000, "raw": b"123", "vector": np.zeros(3), "list": list(range(5000))}
    columns = read_rows([row | large]).scene("rows/0").columns
    assert columns == {"answer": "3", "rate": 0.5, "none": None, "tags": ["a"]}


def test_choices_stand_below_the_question_unless_they_are_in_it():
    row = {"question": "Who?", "answer": "B", "choices": ["Ann", "Bo"]}
    assert read_rows([row]).scene("rows/0").question == "Who?\nA. Ann\nB. Bo"
    told = "Who?\n(A)  ann (B) Bo"
    assert read_rows([row | {"question": told.replace("ann", "Ann")}]).scene("rows/0").question == told.replace(
        "ann", "Ann"
    )
    shown = read_rows(
        [row | {"question": "<image 1>?", "choices": ["<image 2>", "Bo"], "images": [png("red"), png("blue")]}]
    )
    assert shown.scene("rows/0").question == f"{IMAGE}?\nA. {IMAGE}\nB. Bo"


def test_images_are_decoded_in_the_order_of_the_question():
    row = {"question": "Put <image 2> on <image 1>.", "images": [png("red"), png("blue")], "answer": "3"}
    scene = read_rows([row]).scene("rows/0")
    assert [image.getpixel((0, 0)) for image in scene.images] == [(0, 0, 255), (255, 0, 0)]


def test_images_of_a_row_name_it_when_they_are_broken(folder):
    (folder / "red.png").write_bytes(png("red", (64, 64))[:60])
    (folder / "a.jsonl").write_text(json.dumps({"question": "?", "image": "red.png", "answer": "3"}))
    (row,) = survey(folder / "a.jsonl")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1, field 'image': red.png cannot be decoded"):
        images_of(row)
