"""What fuzzing has found, each as the input that broke the law: it is a message now, or a value."""

import json
import time
from itertools import pairwise

import pytest
from page.planted import trace
from report.planted import evaluate, lines, plant

from vergence.harnesses.questions import Putting, read_questions, write_questions
from vergence.harnesses.rescore import rescore
from vergence.harnesses.vlmevalkit import write_table
from vergence.report.coloured import legend, scale_of
from vergence.report.drawing import marks
from vergence.report.page import report
from vergence.report.template import templates
from vergence.rewards.completion import read_completion
from vergence.rewards.rows import asked
from vergence.scenes.embedded import of_key
from vergence.scenes.files import read, read_rows
from vergence.scenes.question import shown
from vergence.scenes.source import Embedded
from vergence.scenes.stored import looks_like_images
from vergence.train.config import Config
from vergence.train.config_file import DEEPEST, LONGEST, from_yaml, load_config, to_yaml
from vergence.train.recorded import ANSWER, METRICS, ROLLOUT, checked
from vergence.types import Gold, Scene, UserError


def nested(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


# ------------------------------------------------------------------------------------------------ configs


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "options: " + "{a: " * 3000,
        "- " * 4000,
        "steps: " + "9" * 5000,
        "seed: 2001-99-99",
        "seed: 0b_",
        "? {a: b}\n: c",
        "lr: " + "9" * 400,
        "betas: [1" + "0" * 400 + ", 1]",
        "worlds: bars",
        "a" * (LONGEST + 1),
        "steps: -" + "9" * 3000,
        "lr: -1",
        "options: {a: " * (DEEPEST + 2) + "1" + "}" * (DEEPEST + 2),
    ],
    ids=lambda text: text[:12],
)
def test_no_config_is_more_than_a_message(text):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"a/config\.yaml") as told:
        from_yaml(text, "a/config.yaml")
    assert len(str(told.value)) < 1000
    assert time.monotonic() - began < 20


def test_few_lines_of_a_config_are_not_a_billion_values():
    names = "abcdefgh"
    bomb = "options: {a: &a [x,x,x,x,x,x,x,x,x], " + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}], " for old, new in pairwise(names)
    )
    with pytest.raises(UserError, match="write the value out"):
        from_yaml(bomb + "}")


def test_a_config_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    for data in (b"\xff\xfes\0t\0", b"seed: \xe9", b"seed: 7\n" * 100_000):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"config\.yaml"):
            load_config(path)
    path.write_bytes(b"\xef\xbb\xbfseed: 7\r\n")
    assert load_config(path) == Config(seed=7)
    assert from_yaml(to_yaml(Config(worlds=("bars",), options={"gamma": "0.1"}))).worlds == ("bars",)


# ------------------------------------------------------------------------------------------------ data


@pytest.mark.parametrize("value", [10**400, -(10**400), nested(3000), float("nan"), {"a": nested(2000)}])
def test_a_tolerance_is_refused_as_a_row(value):
    found = read_rows([{"question": "1+1?", "answer": "2", "tolerance": value}])
    assert [one.field for one in found.refused] == (["tolerance"] if value == value else [])


@pytest.mark.parametrize(
    "name", ["question", "answer", "choices", "kind", "facts", "photo", "world", "caption", "images"]
)
def test_what_is_nested_without_end_is_refused_as_a_row(name):
    found = read_rows([{"question": "1+1?", "answer": "2", name: nested(3000)}])
    assert len(found.refused) + sum(map(len, found.rows.values())) == 1
    assert looks_like_images({"seen": nested(3000)}) == []


@pytest.mark.parametrize("key", [f"bars/train/0/{'9' * 4400}", "a" * 5000, f"bars/train/{'7' * 5000}/0"], ids=len)
def test_a_key_that_is_too_long_is_a_message(key):
    with pytest.raises(UserError, match="not the key of an embedded scene") as told:
        of_key(key)
    assert len(str(told.value)) < 400


def test_any_value_is_shown_in_few_words():
    for value in (nested(5000), 10**5000, {"a": nested(5000)}, b"\xff", float("inf")):
        assert 0 < len(shown(value)) <= 80


def test_a_tolerance_in_a_file_is_refused_as_a_row(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "answer": "2", "tolerance": 1' + "0" * 400 + "}\n")
    (one,) = read(tmp_path / "rows.jsonl").refused
    assert "rows.jsonl, line 1, field 'tolerance'" in str(one)


# ------------------------------------------------------------------------------------------------ servers, harnesses


def test_an_answer_of_a_server_that_is_nested_without_end_is_a_message():
    with pytest.raises(UserError, match="no chat completion"):
        read_completion({"choices": nested(5000)}, "http://127.0.0.1:1")


@pytest.fixture
def exported(tmp_path):
    how = Putting(name="a", split="report", wording="boxed", samples=2, temperature=1.0, max_tokens=9)
    from PIL import Image

    scene = Scene(key="a/0", world="a", images=(Image.new("RGB", (4, 4)),), question="1+1?", gold=Gold("2", "integer"))
    write_questions(tmp_path / "pack", [scene], how)
    return tmp_path / "pack"


def change(path, **new):
    row = json.loads(path.read_text())
    path.write_text(json.dumps({name: one for name, one in (row | new).items() if one is not ...}) + "\n")


@pytest.mark.parametrize(
    "new",
    [
        {"gold": ...},
        {"prompt": ...},
        {"prompt": "\ud800"},
        {"image_sha": ...},
        {"image_sha": ["../../../etc/passwd"]},
        {"image_sha": ["a" * 5000]},
        {"choices": None},
        {"kind": "none"},
        {"tolerance": "0.1"},
        {"tolerance": float("nan")},
        {"index": 7},
    ],
    ids=str,
)
def test_a_question_that_is_not_as_it_was_written_is_named(exported, new):
    change(exported / "questions.jsonl", **new)
    with pytest.raises(UserError, match="pack is no folder"):
        read_questions(exported)


@pytest.mark.parametrize(
    "new",
    [
        {"samples": 1.5},
        {"samples": True},
        {"seed": "x"},
        {"split": []},
        {"max_tokens": None},
        {"temperature": "hot"},
        {"wording": []},
    ],
    ids=str,
)
def test_settings_that_are_not_as_they_were_written_are_named(exported, new):
    change(exported / "settings.json", **new)
    with pytest.raises(UserError, match="pack is no folder"):
        read_questions(exported)


def test_settings_that_are_nested_without_end_are_a_message(exported):
    (exported / "settings.json").write_text("[" * 5000)
    with pytest.raises(UserError, match="pack is no folder"):
        read_questions(exported)


def test_a_picture_that_is_gone_is_named(exported):
    for path in (exported / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"\.png cannot be read"):
        write_table(exported)


def test_a_workbook_that_is_none_is_named(exported, tmp_path):
    from zipfile import ZIP_DEFLATED, ZipFile

    pytest.importorskip("openpyxl")
    path = tmp_path / "answers.xlsx"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="no workbook"):
        rescore(exported, path)
    with ZipFile(path, "w", ZIP_DEFLATED) as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b"\0" * 2**20)
    with pytest.raises(UserError, match="no workbook"):
        rescore(exported, path)


# ------------------------------------------------------------------------------------------------ run folders


ROLL = {
    "step": 1, "scene": "a", "world": "w", "question": "?", "gold": "2", "response": "2", "extracted": None,
    "status": "right", "reward": 1.0, "advantage": 0.0, "finish": "stop", "tokens": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "sound", "new"),
    [
        *((METRICS, {"step": 1}, new) for new in ({"step": ...}, {"step": "1"}, {"step": -1}, {"step": 10**30})),
        *((METRICS, {"step": 1}, new) for new in ({"step": True}, {"step": 1.0}, {"reward": 10**400})),
        *((ROLLOUT, ROLL, {name: ...}) for name in ROLL),
        *(
            (ROLLOUT, ROLL, new)
            for new in ({"reward": None}, {"advantage": float("nan")}, {"response": 7}, {"scene": []})
        ),
        (ANSWER, {**ROLL, "false_facts": 0}, {"status": "right evil"}),
        *(
            (ANSWER, {**ROLL, "false_facts": None}, new)
            for new in ({"false_facts": "2"}, {"error": 3}, {"world": None})
        ),
    ],
    ids=lambda given: str(given)[:60] if given not in (METRICS, ROLLOUT, ANSWER) else f"{len(given)} fields",
)
def test_a_line_that_lacks_what_its_readers_need_is_named(tmp_path, fields, sound, new):
    assert list(checked([sound], tmp_path / "a.jsonl", fields)) == [sound]
    wrong = {name: one for name, one in (sound | new).items() if one is not ...}
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: .*(mend it|from a copy)"):
        list(checked([sound, wrong], tmp_path / "a.jsonl", fields))


@pytest.fixture
def run(tmp_path):
    return plant(tmp_path / "run", steps=1)


def page(run):
    return report(run, source=Embedded(("bars",)))


def test_answers_without_what_their_tables_need_are_named(run):
    evaluate(run, "before", "after")
    path = run / "evaluation" / "after.jsonl"
    path.write_text(path.read_text().replace('"status": "right"', '"status": ["right"]', 1))
    with pytest.raises(UserError, match=r"after\.jsonl, line 1: 'status'"):
        page(run)


@pytest.mark.parametrize(
    "new",
    [{"view_key": {"masked": float("inf")}}, {"views": [nested(900)]}, {"stats": [nested(3)]}],
    ids=["key", "views", "stats"],
)
def test_traces_that_cannot_be_shown_are_named(run, new):
    lines(run / "traces.jsonl", [trace(of_key("bars/train/0/0"), "red bar: 3.") | new])
    with pytest.raises(UserError, match=r"traces\.jsonl"):
        page(run)


def test_what_cannot_be_seen_is_seen_in_a_page(run):
    path = run / "rollouts.jsonl"
    one = json.loads(path.read_text().splitlines()[0])
    lines(path, [one | {"gold": "4\u202e2\x1b[31m", "question": "a\u2066b\x00"}])
    text = page(run).read_text(encoding="utf-8")
    assert not set("\u202e\u2066\x1b\x00") & set(text)
    assert "4⟨U+202E⟩2␛[31m" in text
    assert templates().from_string("{{ a }}").render(a="<\u202e>") == "&lt;⟨U+202E⟩&gt;"


def test_a_picture_with_an_endless_name_is_refused_in_short(tmp_path):
    rows = [{"question": "?", "answer": "1", "image": "a.png" + "a" * 30_000}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = read(tmp_path / "rows.jsonl").refused
    assert "is not a path" in str(refused[0])
    assert len(str(refused[0])) < 1000


def test_a_row_with_an_endless_name_is_told_in_short():
    with pytest.raises(UserError, match="no field 'gold'; it has 'response', 'xxx") as told:
        asked({"response": "4", "x" * 30_000: 1})
    assert len(str(told.value)) < 200


def test_a_world_may_have_half_of_a_pair_in_its_name(run):
    evaluate(run, "before", "after")
    for when in ("before", "after"):
        path = run / "evaluation" / f"{when}.jsonl"
        path.write_text(path.read_text().replace('"world": "bars"', '"world": "\\udcc8"'))
    assert "\\udcc8" in (run / "evaluation" / "after.jsonl").read_text()
    assert page(run).exists()


def test_a_card_that_is_a_folder_is_none(run):
    (run / "checkpoints" / "step-000004" / "README.md").mkdir(parents=True)
    assert page(run).exists()


def test_what_a_figure_says_is_visible():
    from vergence.evaluate.interval import Estimate

    estimate = Estimate(0.5, 0.4, 0.6, 9)
    assert not set("\u202e\x07") & set(marks({"a\u202e\x07b": estimate, "c": estimate}, said="at a\u202e"))


def test_endless_names_of_statistics_are_told_in_short():
    with pytest.raises(UserError, match="nothing called 'bbb") as told:
        scale_of([{"tokens": ["a"], "stats": {"x" * 20_000: [None]}, "looks": None}], "b" * 20_000)
    assert len(str(told.value)) < 200


def test_the_name_of_a_statistic_is_not_obeyed():
    record = {"tokens": ["a"], "stats": {"kl\x1b]0;owned\x07\ud800": [1.0]}, "looks": None}
    assert not set("\x1b\x07\ud800") & set(legend(scale_of([record], *record["stats"])).plain)
