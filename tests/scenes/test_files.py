"""Scenes from a .jsonl file: what is read, in which order, and every way in which a row is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vergence.rewards.kinds import read_gold
from vergence.scenes.files import Files, read
from vergence.scenes.source import Source, open_source
from vergence.scenes.split import SPLITS, refuse_overlap
from vergence.types import Fact, Gold, Scene, UserError

ROW = {"image": "red.png", "question": "What colour is it?", "answer": "red"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (8, 6), "red").save(tmp_path / "red.png")
    Image.new("RGB", (5, 5), "blue").save(tmp_path / "deep" / "blue.jpg")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "loop.png").symlink_to("loop.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    return tmp_path


def write(folder: Path, *rows: object) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def opened(path: Path) -> Files:
    """The source, as training opens it: one row that cannot be used is an error."""
    return open_source(str(path), ())


def only(path: Path) -> Scene:
    """The scene of a file of one line."""
    return opened(path).scene("data/1")


@pytest.fixture
def many(folder: Path) -> Files:
    return read(write(folder, *({**ROW, "question": f"Is it {number}?"} for number in range(200))))


# ---------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(("given", "read"), [({}, ""), ({"caption": None}, ""), ({"caption": " red\n"}, "red")])
def test_a_caption_is_optional(folder, given, read):
    assert only(write(folder, {**ROW, **given})).caption == read


def test_a_scene_has_what_its_line_says(folder):
    row = {
        "images": ["red.png", "deep/blue.jpg"],
        "problem": "<image>\n<image>Which is larger?\nThe first?",
        "solution": "(b)",
        "type": "choice",
        "choices": ["yes", "no"],
        "facts": [["first", "red"], ["second", "blue"]],
        "caption": "first: red.",
        "world": "colours",
        "id": 17,
    }
    scene = only(write(folder, row))
    assert [(image.size, image.mode) for image in scene.images] == [((8, 6), "RGB"), ((5, 5), "RGB")]
    assert scene.question == "Which is larger?\nThe first?\nA. yes\nB. no"
    assert scene.columns == {"id": 17, "solution": "(b)"} | {
        name: row[name] for name in ("type", "choices", "facts")
    } | {"caption": "first: red.", "world": "colours"}
    assert scene.gold == Gold("B", "choice", ("yes", "no"))
    assert scene.facts == (Fact("first", "red"), Fact("second", "blue"))
    assert (scene.key, scene.world, scene.caption) == ("data/1", "colours", "first: red.")


def test_defaults_and_precedence(folder):
    scene = only(write(folder, {**ROW, "problem": None, "solution": "long story", "choices": None, "facts": None}))
    assert (scene.question, scene.gold, scene.world) == ("What colour is it?", Gold("red", "word"), "data")
    assert (scene.facts, scene.caption, scene.counterfactual) == ((), "", None)


@pytest.mark.parametrize(
    ("fields", "text", "choices"),
    [
        ({"answer": 7}, "7", ()),
        ({"answer": "-1,234"}, "-1,234", ()),
        ({"answer": "\\boxed{17}"}, "17", ()),
        ({"answer": " Red "}, "Red", ()),
        ({"answer": "<think>So.</think> <answer> red </answer>\n"}, "red", ()),
        ({"answer": "y", "type": "choice", "choices": ["x", "y"]}, "B", ("x", "y")),
        ({"answer": "B", "options": ["x", "y"]}, "B", ("x", "y")),
        ({"answer": "B", "choices": {"B": "y", "A": "x", "C": None}}, "B", ("x", "y")),
        ({"answer": "B", "choices": '["x", "y"]'}, "B", ("x", "y")),
        ({"answer": "B", "choices": [1, 2]}, "B", ("1", "2")),
        ({"answer": 2, "choices": [1, 2]}, "B", ("1", "2")),
        ({"answer": "B. A", "choices": ["C", "A"]}, "B", ("C", "A")),
        ({"answer": "A", "choices": ["A", "B"]}, "A", ("A", "B")),
        ({"answer": r"\sqrt{2}", "choices": ["1", r"\sqrt { 2 }"]}, "B", ("1", r"\sqrt { 2 }")),
        ({"answer": "4", "choices": ["A. 3", "B. 4"]}, "B", ("A. 3", "B. 4")),
        ({"answer": "7", "type": "integer", "choices": ["x", "y"]}, "7", ()),
    ],
)
def test_answers_and_choices_in_the_forms_that_data_has_them(folder, fields, text, choices):
    gold = only(write(folder, ROW | fields)).gold
    assert (gold.text, gold.choices) == (text, choices)
    assert gold == read_gold(f"{text}." if "A" in choices else text, choices=choices, kind=fields.get("type"))


def test_a_number_keeps_the_places_it_is_written_with(folder):
    row = '{"image": "red.png", "question": "?", "answer": 2.50, "rate": 0.50, "tolerance": 0.01}'
    scene = only(write(folder, row))
    assert (scene.gold.text, scene.gold.tolerance, scene.columns["rate"]) == ("2.50", 0.01, 0.5)


def test_a_kind_that_is_declared_counts(folder):
    files = read(write(folder, ROW, {**ROW, "answer": "7", "type": "word"}, {**ROW, "answer": "7", "kind": "number"}))
    assert [files.scene(f"data/{line}").gold.kind for line in (2, 3)] == ["word", "number"]
    assert files.declared == 2
    assert sum(files.kinds.values()) == 3


def test_gaps_marks_and_separators(folder):
    path = folder / "data.jsonl"
    rows = [json.dumps({**ROW, "question": "a\u2028b"}, ensure_ascii=False), "", " ", json.dumps(ROW)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())  # no end of line at the end
    lines = read(str(path))
    assert lines.scene("data/1").question == "a\u2028b"
    assert lines.scene("data/4").question == ROW["question"]


# ---------------------------------------------------------------------------------------------- pictures


def test_pictures_are_opened_when_asked_for(folder):
    """A broken picture hurts who asks for it; the message names the line."""
    lines = opened(write(folder, {**ROW, "image": "half.png"}))
    with pytest.raises(UserError, match=r"data\.jsonl, line 1, field 'image': half\.png cannot be decoded"):
        lines.scene("data/1")


# ---------------------------------------------------------------------------------------------- order and splits


def test_it_is_a_source(many):
    assert isinstance(many, Source)
    assert opened(Path(many.name)) == many


def test_training_does_not_depend_on_how_it_is_cut(many):
    whole = [scene.key for scene in many.train(0, 40, seed=1)]
    parts = [scene.key for start, number in ((0, 3), (3, 30), (33, 7)) for scene in many.train(start, number, seed=1)]
    assert whole == parts
    assert whole != [scene.key for scene in many.train(0, 40, seed=2)]
    assert many.train(5, 0, seed=1) == []


def test_training_is_endless_and_each_epoch_has_its_order(many):
    size = len(many.rows["train"])
    epochs = [[scene.key for scene in many.train(epoch * size, size, seed=0)] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert all(len(set(epoch)) == size for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    across = [scene.key for scene in many.train(size - 2, 4, seed=0)]
    assert across == epochs[0][-2:] + epochs[1][:2]


def test_held_out(many):
    first = [scene.key for scene in many.held_out("tune", 5, seed=0)]
    assert [scene.key for scene in many.held_out("tune", 8, seed=0)][:5] == first
    everything = many.held_out("tune", 10_000, seed=0)
    assert len(everything) == len(many.rows["tune"])
    assert many.scene(first[0]).question == everything[0].question


def test_splits_are_disjoint_and_decided_by_content(many, folder):
    assert sum(len(rows) for rows in many.rows.values()) == 200
    scenes = {split: many.held_out(split, 1000, seed=0) for split in SPLITS}
    refuse_overlap(scenes["train"], scenes["report"])
    refuse_overlap(scenes["train"], scenes["tune"])
    assert 140 < len(scenes["train"]) < 180
    rows = [{**ROW, "question": scene.question, "answer": "blue"} for scene in scenes["tune"]]
    again = read(write(folder, *reversed(rows)))
    assert len(again.rows["tune"]) == len(rows)  # in another order, with another answer: the same split


def test_the_picture_file_or_the_facts_decide(folder):
    def split_of(**fields: object) -> str:
        lines = read(write(folder, ROW | fields))
        return next(split for split in SPLITS if lines.rows[split])

    Image.new("RGB", (8, 6), "red").save(folder / "copy.png")
    for number in range(30):
        question = f"Is it {number}?"
        assert split_of(question=question) == split_of(question=question, image="copy.png", answer="blue")
        facts = [["colour", "red"], ["number", str(number)]]
        assert split_of(facts=facts) == split_of(facts=facts[::-1], image="deep/blue.jpg")
    assert len({split_of(question=f"Is it {number}?") for number in range(30)}) > 1


def test_an_empty_split_says_so(folder):
    lines = read(write(folder, ROW))
    (full,) = (split for split in SPLITS if lines.rows[split])
    empty = next(split for split in SPLITS if split != full)
    with pytest.raises(UserError, match=rf"no scene belongs to the split '{empty}' \(.*{full} 1.*\).*add more rows"):
        lines.held_out(empty, 3, seed=0)


def test_an_unknown_key_is_refused(many):
    for key in ("data/0", "data/201", "other/1", "data"):
        with pytest.raises(UserError, match=rf"data\.jsonl has no scene '{key}'"):
            many.scene(key)


# ---------------------------------------------------------------------------------------------- what is refused


def test_missing_and_empty_files(folder):
    with pytest.raises(UserError, match=r"nowhere\.jsonl cannot be read \(No such file.*'embedded'"):
        opened(folder / "nowhere.jsonl")
    for text in ("", "\n\n"):
        (folder / "empty.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"empty\.jsonl is empty; write one row for each question"):
            opened(folder / "empty.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON (Expecting"),
        ('{"question": NaN}', "line 2: not JSON (NaN"),
        ('{"question": "a", "question": "b"}', "line 2, field 'question': stands twice in one object; keep the one"),
        ('{"facts": [{"a": 1, "a": 2}]}', "line 2, field 'a': stands twice in one object"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"question": ' + "9" * 5000 + "}", "line 2: not JSON"),
        ("[1, 2]", "line 2: not an object"),
        ("null", "line 2: not an object"),
    ],
)
def test_lines_that_are_not_objects(folder, line, message):
    with pytest.raises(UserError) as error:
        opened(write(folder, ROW, line))
    assert f"data.jsonl, {message}" in str(error.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_file_that_is_not_utf_8_says_so(folder, encoding, ending):
    rows = [ROW, {**ROW, "question": "größer?"}]
    path = folder / f"data.{ending}"
    text = "image,question,answer\n" + "".join(f"{','.join(row.values())}\n" for row in rows)
    jsons = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = {"csv": text, "json": f"[{','.join(jsons)}]", "jsonl": "\n".join(jsons)}[ending]
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match=r"UTF-8; save (it|the file) as UTF-8"):
        opened(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": None}, "field 'question': null; write the question, or take the row out"),
        ({"answer": None}, "field 'answer': null; write the answer, or take the row out"),
        ({"problem": "other"}, "field 'question': 'question' and 'problem' may both be meant; say --columns"),
        (
            {"images": ["red.png"]},
            "field 'images': 'images' and 'image' may both be meant; say --columns",
        ),
        ({"question": 5}, "field 'question': must be text or a list of messages, got 5"),
        ({"question": []}, "field 'question': must be text or a list of messages, got []"),
        ({"question": " <image> "}, "field 'question': empty"),
        ({"question": "a\0b"}, "field 'question': holds a null character; take it out"),
        ({"question": "a\ud800"}, "field 'question': holds half of a surrogate pair ('\\ud800'); take it out"),
        ({"answer": "\udc00"}, "field 'answer': holds half of a surrogate pair"),
        (
            {"question": "a" * 100_001},
            "field 'question': 100,001 characters long, more than the 100,000 that are taken",
        ),
        (
            {"question": "Hm <|im_end|>"},
            "field 'question': holds '<|im_end|>', which models read as a sign",
        ),
        ({"question": "<image><image>?"}, "field 'question': 2 placeholders for 1 image; write one '<image>' for each"),
        (
            {"question": "<image>?", "image": None},
            "field 'question': 1 placeholder for 0 images; give the image",
        ),
        ({"question": "<image 2>?"}, "field 'question': 1 placeholder (numbers 2) for 1 image; write one '<image>'"),
        ({"question": "<image 1> <image>"}, "field 'question': some placeholders are numbered and some are not"),
        ({"answer": ""}, "field 'answer': empty; write the answer"),
        ({"answer": "\\boxed{ }"}, "field 'answer': empty"),
        ({"answer": True}, "field 'answer': must be text or a number, text in quotes, got true"),
        ({"answer": ["red"]}, "field 'answer': must be text or a number, text in quotes, got [\"red\"]"),
        ({"type": "colour"}, "field 'type': no kind of answer \"colour\" (they are choice, choices, integer, "),
        ({"type": "colour"}, "or say --columns kind= if 'type' is about something else"),
        ({"type": ["word"]}, "no kind of answer"),
        ({"type": "integer"}, "field 'answer': 'red' is not of the kind 'integer'"),
        ({"type": "integer", "answer": "2.5"}, "field 'answer': '2.5' is not of the kind 'integer'"),
        ({"type": "choice"}, "field 'answer': 'red' is neither a letter of a choice nor the text of one"),
        ({"type": "choice", "answer": "C", "choices": ["x", "y"]}, "field 'answer': 'C' is neither"),
        ({"type": "choice", "answer": "x", "choices": ["x", "x"]}, "field 'answer': 'x' is the text of 2 choices"),
        ({"answer": "1", "choices": ["1", "1"]}, "field 'answer': '1' is the text of 2 choices; write the letter"),
        ({"answer": 0, "choices": ["x", "y"]}, "'0' is neither a letter of the 2 choices nor the text of exactly one;"),
        (
            {"answer": 0, "choices": ["x", "y"]},
            "write the letter (A for the first, which is 0 where choices are counted",
        ),
        (
            {"answer": "A", "choices": list("CAB")},
            "'A' is the letter of one choice and the text of another; write both",
        ),
        ({"answer": "A", "choices": list("CAB")}, "e.g. 'B. A' or 'A. C'"),
        ({"answer": "B", "type": "choice", "choices": list("BA")}, "the letter of one choice and the text of another"),
        ({"choices": "x, y"}, "field 'choices': must be a list of up to 26 texts"),
        ({"choices": ["x"] * 27}, "field 'choices': must be a list of up to 26 texts"),
        ({"choices": [None]}, "field 'choices': must be text in quotes, got null"),
        ({"tolerance": "much"}, "field 'tolerance': must be a number in [0, 1), got \"much\""),
        ({"facts": "red"}, "field 'facts': must be a list of pairs"),
        ({"facts": [["red"]]}, "field 'facts': must be a list of pairs"),
        ({"facts": [["red", 7]]}, "field 'facts': must be text in quotes, got 7"),
        ({"caption": 7}, "field 'caption': must be text in quotes, got 7"),
        ({"caption": "<image> red"}, "field 'caption': 1 placeholder for 0 images"),
        ({"caption": False}, "field 'caption': must be text in quotes, got false"),
        ({"caption": ["red"]}, "field 'caption': must be text in quotes, got [\"red\"]"),
        ({"world": 7}, "field 'world': must be text in quotes, got 7"),
        ({"image": 7}, "field 'image': must be a path in quotes or an image's bytes, got 7"),
        (
            {"image": None, "images": ["red.png", 3]},
            "must be a path in quotes or an image's bytes, got 3",
        ),
        ({"image": None, "images": ["red.png"] * 65}, "field 'images': 65 images, more than the 64 that one question"),
        ({"image": "green.png"}, "field 'image': there is no file 'green.png' (paths count from the folder"),
        ({"image": "deep"}, "field 'image': there is no file 'deep'"),
        ({"image": ""}, "field 'image': there is no file ''"),
        ({"image": "text.png"}, "field 'image': text.png is not a picture that Pillow can open"),
        ({"image": "../red.png"}, "field 'image': '../red.png' leads out of the file's folder"),
        ({"image": "deep/../../x.png"}, "leads out of the file's folder"),
        ({"image": "/etc/hostname"}, "field 'image': '/etc/hostname' leads out of the file's folder"),
        ({"image": "file:///etc/hostname"}, "field 'image': '/etc/hostname' leads out of the file's folder"),
        ({"image": "https://example.org/a.png"}, "is on the network; download the picture, and write its path"),
        ({"image": "data:image/png;base64," + "?" * 99}, "field 'image': is not base64"),
        ({"image": "a\0b"}, "is not a path"),
        ({"image": "a" * 5000}, "is not a path"),
        ({"image": "loop.png"}, "field 'image': there is no file 'loop.png'"),
    ],
)
def test_fields_that_are_wrong(folder, fields, message):
    with pytest.raises(UserError) as error:
        opened(write(folder, ROW, ROW, ROW | fields))
    assert str(error.value).startswith(f"{folder / 'data.jsonl'}, line 3, ")
    assert message in str(error.value)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (2, 2)).save(outside)
    (folder / "link.png").symlink_to(outside)
    with pytest.raises(UserError, match="leads out of the file's folder"):
        opened(write(folder, {**ROW, "image": "link.png"}))
