"""`vergence eval` and `vergence answer` with a reasoner behind: a folder, or a server that follows a script."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from vergence.cli import main
from vergence.evaluate.asked import LEVELS
from vergence.evaluate.buckets import blind_seed
from vergence.evaluate.compare import compare
from vergence.evaluate.measured import renew_card
from vergence.evaluate.suite import accuracy
from vergence.models import reasoner as reasoners
from vergence.models.policy import load
from vergence.recipes import recipe
from vergence.scenes.source import open_source
from vergence.train.config_file import to_yaml


def called(capsys, *arguments: object) -> tuple[int, str, str]:
    status = 0
    try:
        main(list(map(str, arguments)))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    out, error = capsys.readouterr()
    return status, out, error


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.say(200, {"data": [{"id": "its-only"}]})

    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(wanted)
        text = self.server.answer(wanted["messages"][0]["content"])
        if text is None:
            self.say(400, {"error": {"message": "no more"}})
        else:
            self.say(200, {"choices": [{"message": {"content": text}}]})

    def say(self, status: int, found: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())


@contextmanager
def serving(answer: Callable[[str], str | None]) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.seen = answer, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> tuple[Path, str]:
    """A picture file, and a question about it."""
    (scene,) = open_source("embedded", ["bars"]).held_out("tune", 1, seed=0)
    path = tmp_path_factory.mktemp("pictures") / "bars.png"
    scene.images[0].save(path)
    return path, scene.question


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A reasoner with random weights."""
    path = tmp_path_factory.mktemp("reasoners") / "random"
    tokenizer = reasoners.build_tokenizer(["Picture: red bar: 7. What is the red bar? Answer.", "0123456789"])
    reasoners.save(reasoners.build(tokenizer, reasoners.SIZES["weak"], seed=0), tokenizer, path)
    return path


# ------------------------------------------------------------------------------------------------- answer


def test_answer_prints_caption_tentative_answer_reasoning_and_answer(capsys, picture):
    path, question = picture
    with serving(lambda text: "It is \x1b[31mseven.\n\\boxed{7}") as server:
        given = ("--image", path, "--question", question, "--extractor", "seedling", "--reasoner", url(server))
        status, out, _ = called(capsys, "answer", *given)
        assert status == 0
        lines = out.splitlines()
        assert [line.split(":")[0] for line in lines if ": " in line][:3] == ["caption", "tentative answer", "reasoner"]
        assert "reasoner: It is  [31mseven." in lines  # what would steer a terminal is taken out
        assert lines[-1] == "answer: 7"
        _, out, _ = called(capsys, "answer", *given, "--json")
        answered = json.loads(out)
    assert answered.keys() == {"caption", "tentative", "response", "extracted"}
    assert answered["extracted"] == "7"
    (first, second) = server.seen
    assert first == second  # the likeliest texts are the same each time
    assert first["model"] == "its-only"
    assert first["temperature"] == 0.0
    assert answered["caption"].strip()[:20] in first["messages"][0]["content"]
    assert question in first["messages"][0]["content"]


def test_answer_takes_several_images_and_a_named_model(capsys, picture):
    path, question = picture
    with serving(lambda text: "nothing in a box") as server:
        given = ("--image", path, "--image", path, "--question", question, "--reasoner", url(server))
        status, out, _ = called(capsys, "answer", *given, "--reasoner-model", "m", "--max-tokens", 9, "--seed", 3)
    assert status == 0
    assert out.splitlines()[-1] == "answer: none was found"
    assert server.seen[0]["model"] == "m"
    assert server.seen[0]["max_tokens"] == 9


def test_answer_with_a_reasoner_in_a_folder(capsys, picture, folder):
    path, question = picture
    given = ("--image", path, "--question", question, "--reasoner", folder, "--max-tokens", 6, "--json")
    status, out, _ = called(capsys, "answer", *given)
    assert status == 0
    assert json.loads(out)["caption"]
    assert called(capsys, "answer", *given)[1] == out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--image": "nowhere.png"}, "there is no file nowhere.png"),
        ({"--image": "."}, "there is no file ."),
        ({"--image": "text.png"}, "text.png is not a picture"),
        ({"--image": "cut.png"}, "cut.png cannot be decoded"),
        ({"--question": "What is <|image_pad|>?"}, "a literal <|image_pad|>"),
        ({"--question": " "}, "the question is empty"),
        ({"--reasoner": "nobody"}, "no reasoner 'nobody'"),
        ({"--reasoner": "http://me:secret@host"}, "environment variable VERGENCE_API_KEY"),
        ({"--extractor": "./nowhere"}, "no model at ./nowhere"),
        ({"--temperature": "-1"}, "--temperature must be 0 or more"),
        ({"--max-tokens": "0"}, "--max-tokens at least 1"),
    ],
    ids=str,
)
def test_answer_says_what_is_wrong(capsys, picture, folder, tmp_path, monkeypatch, change, told):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    Path("cut.png").write_bytes(picture[0].read_bytes()[:200])
    given = {"--image": picture[0], "--question": picture[1], "--reasoner": folder, "--max-tokens": 4} | change
    status, _, error = called(capsys, "answer", *(part for pair in given.items() for part in pair))
    assert status == 2
    assert error.startswith("error: ")
    assert told in error
    assert "secret" not in error


def test_answer_needs_an_image_and_a_question(capsys, picture):
    for given in (["--question", "What?"], ["--image", picture[0]]):
        status, out, error = called(capsys, "answer", *given)
        assert status == 2
        assert "--image" in out + error or "--question" in out + error


# ------------------------------------------------------------------------------------------------- eval


def test_eval_with_a_reasoner_says_so_and_counts_its_answers(capsys, tmp_path):
    asked = open_source("embedded", ["bars"]).held_out("tune", 3, seed=0)
    gold = {scene.question: scene.gold.text for scene in asked}

    def oracle(text: str) -> str:
        return next((f"\\boxed{{{right}}}" for question, right in gold.items() if question in text), "no idea")

    given = ("eval", "seedling", "--worlds", "bars", "--number", 3, "--samples", 2, "--max-tokens", 24)
    with serving(oracle) as server:
        more = ("--reasoner", url(server), "--reasoner-model", "m", "--reasoner-cache", tmp_path / "answers")
        _, out, _ = called(capsys, *given, *more, "--out", tmp_path / "records.jsonl")
        assert f"answered by the reasoner {url(server)} from the model's captions" in " ".join(out.split())
    # the questions of some scenes may be alike, so accuracy is checked on the records
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(records) == 6
    assert all(record["caption"] and record["response"].startswith("\\boxed{") for record in records)
    _, out, _ = called(capsys, *given, *more, "--json")  # the server is gone: what it said is kept
    right = sum(record["status"] == "right" for record in records)
    assert json.loads(out)["overall"]["accuracy"]["mean"] == pytest.approx(right / 6)


def test_eval_without_a_reasoner_does_not_speak_of_one(capsys):
    _, out, _ = called(capsys, "eval", "seedling", "--number", 4, "--samples", 1, "--show", "blank")
    assert "shown: blank" in out
    assert "reasoner" not in out
    assert "caption" not in out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--reasoner", "nobody"], "no reasoner 'nobody'"),
        (["--reasoner", "http://127.0.0.1:9/v1?key=secret"], "environment variable VERGENCE_API_KEY"),
    ],
    ids=str,
)
def test_eval_with_a_reasoner_says_what_is_wrong(capsys, more, told):
    status, _, error = called(capsys, "eval", "seedling", "--number", 1, *more)
    assert status == 2
    assert told in error
    assert "secret" not in error


def test_what_was_answered_is_kept_when_the_reasoner_refuses_and_the_rest_is_asked_for_later(capsys, tmp_path):
    """Two answers to a chunk, and the server has three in it; then it has one, for what is missing, and answers all."""
    out, left = tmp_path / "some.jsonl", [iter(["\\boxed{1}"] * 3)]
    given = ("eval", "seedling", "--worlds", "bars", "--number", 2, "--samples", 2, "--max-tokens", 8, "--at-once", 2)
    with serving(lambda text: next(left[0], None)) as server:
        more = ("--reasoner", url(server), "--reasoner-model", "m")
        status, _, error = called(capsys, *given, *more, "--out", out)
        assert status == 2
        assert "no more" in error
        there = out.read_text()
        assert len(there.splitlines()) == 2
        left[0], before = iter(["\\boxed{1}"] * 9), len(server.seen)
        assert called(capsys, *given, *more, "--out", out)[0] == 0
        assert len(server.seen) - before == 2
        assert out.read_text().startswith(there)
        assert len(out.read_text().splitlines()) == 4
        status, _, error = called(capsys, *given, *more[:3], "other", "--out", out)
        assert (status, "reasoner is" in error) == (2, True)


# ------------------------------------------------------------------------------------------------- to go on, to compare


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_bytes(capsys, tmp_path):
    given = ["eval", "seedling", "--number", "16", "--samples", "2", "--max-tokens", "24", "--at-once", "4", "--out"]
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    code = f"from vergence.cli import main; main({[*given, str(killed)]!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    until = time.monotonic() + 120
    while not (killed.exists() and killed.stat().st_size) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    begun = killed.read_bytes()
    assert 0 < begun.count(b"\n") < 32
    with killed.open("ab") as file:
        file.write(b'{"scene": "dig')  # what a machine that lost its power may leave
    assert called(capsys, *given, killed)[0] == 0
    assert called(capsys, *given, whole)[0] == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert whole.read_bytes().count(b"\n") == 32


def test_one_thing_that_differs_is_named_and_nothing_is_lost(capsys, tmp_path):
    out = tmp_path / "mine.jsonl"
    given = ("eval", "seedling", "--number", 2, "--samples", 1, "--max-tokens", 8, "--out", out)
    assert called(capsys, *given)[0] == 0
    before = out.read_bytes()
    for more, told in (
        (("--seed", 1), "seed is 0 there and 1 now"),
        (("--temperature", 0.5), "temperature is 1.0 there"),
        (("--worlds", "mosaic"), "scene (of mosaic/tune/0/0) is"),
    ):
        status, _, error = called(capsys, *given, *more)
        assert status == 2
        assert told in error
        assert "give another --out" in error
    assert out.read_bytes() == before


def test_against_a_model_and_against_its_file_are_the_same(capsys, tmp_path):
    run = tmp_path / "other"
    other = load("seedling")
    with torch.no_grad():  # another model: what it sees is made faint
        for weight in other.model.model.visual.parameters():
            weight.mul_(0.5)
    other.save(run)
    given = ("eval", "seedling", "--worlds", "bars", "digits", "--number", 16, "--samples", 2, "--json")
    _, first, _ = called(capsys, *given, "--against", run, "--out", tmp_path / "a.jsonl")
    _, second, _ = called(capsys, *given, "--against", tmp_path / "a-against.jsonl")
    found = json.loads(first)
    assert found == json.loads(second)
    records = [
        list(map(json.loads, (tmp_path / name).read_text().splitlines())) for name in ("a-against.jsonl", "a.jsonl")
    ]
    told = compare(*records)
    assert found["against"]["tests"] == 2
    assert set(found["against"]["rows"]) == {"bars", "digits", "overall"}
    for name, row in found["against"]["rows"].items():
        assert row["p"] == told[name].p
        assert row["difference"]["mean"] == pytest.approx(told[name].difference.mean)
    assert found["against"]["rows"]["overall"]["difference"]["mean"] > 0
    assert found["overall"]["accuracy"]["mean"] == pytest.approx(accuracy(records[1]))
    _, out, _ = called(capsys, *given[:-1], "--against", tmp_path / "a-against.jsonl")
    assert "Holm over 2 tests" in " ".join(out.split())
    for more, wrong in (
        (("--temperature", 0.5), "temperature is 1.0 on the one side and 0.5 on the other"),
        (("--number", 8), "put to one side only"),
        (("--reasoner", "weak"), "one side answered by itself"),
    ):
        status, _, error = called(capsys, *given, *more, "--against", tmp_path / "a-against.jsonl")
        assert (status, wrong in error) == (2, True)
    (tmp_path / "notes.txt").write_text("{}\n")
    assert "holds no answers" in called(capsys, *given, "--against", tmp_path / "notes.txt")[2]


def test_buckets_ask_without_the_picture_too(capsys, tmp_path):
    given = ("eval", "seedling", "--worlds", "bars", "--number", 12, "--samples", 4)
    _, out, _ = called(capsys, *given, "--buckets", "--json", "--out", tmp_path / "a.jsonl")
    found = json.loads(out)["buckets"]
    assert found["by"] == "measured"
    blind = [json.loads(line) for line in (tmp_path / "a-blind.jsonl").read_text().splitlines()]
    assert {(one["shown"], one["seed"]) for one in blind} == {("blank", blind_seed(0))}
    assert sum(found[level]["accuracy"]["n"] for level in LEVELS if level in found) == 12
    assert found["high"]["gain"]["mean"] > 0.2
    _, out, _ = called(capsys, *given, "--buckets")
    assert "the picture adds" in out
    status, _, error = called(capsys, *given, "--buckets", "--show", "blank")
    assert (status, "leave --show blank out" in error) == (2, True)


def test_declared_levels_are_told_without_asking_twice(capsys, tmp_path):
    data = tmp_path / "own.jsonl"
    levels = ("low", "high", "high")
    data.write_text(
        "".join(json.dumps({**ONE, "vd_level": level, "answer": str(at)}) + "\n" for at, level in enumerate(levels))
    )
    given = ("eval", "seedling", "--scenes", f"{data}#tune", "--samples", 1, "--columns", "question=question", "--json")
    _, out, _ = called(capsys, *given)
    found = json.loads(out)["buckets"]
    assert found["by"] == "declared"
    assert (found["low"]["accuracy"]["n"], found["high"]["accuracy"]["n"], found["high"]["blind"]) == (1, 2, None)


# ------------------------------------------------------------------------------------------------- a run as a model


def test_a_run_folder_means_its_last_checkpoint(capsys, tmp_path, picture):
    run = tmp_path / "run"
    for step in (1, 2):
        checkpoint = run / "checkpoints" / f"step-{step:06d}"
        (checkpoint / "trainer").mkdir(parents=True)
        (checkpoint / "trainer" / "state.json").write_text('{"step": 1, "position": 0}')
    load("seedling").save(checkpoint)  # the first could not be loaded
    (run / "checkpoints" / ".partial-step-000003").mkdir()
    for name in ("seedling", run, checkpoint):
        status, out, _ = called(capsys, "eval", name, "--number", 2, "--samples", 1, "--json")
        assert status == 0
        assert re.search(r'"n": 2', out)
    with serving(lambda text: "\\boxed{1}") as server:
        given = ("--image", picture[0], "--question", picture[1], "--reasoner", url(server))
        assert called(capsys, "answer", *given, "--extractor", run)[0] == 0


def test_a_run_without_a_checkpoint_is_told(capsys, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    status, _, error = called(capsys, "eval", tmp_path)
    assert status == 2
    assert "a run without a checkpoint" in error


# ------------------------------------------------------------------------------------------------- what it depends on

ONE = {"question": "What is 1 + 1?", "answer": "2", "prompt_text": "What is 2 + 2?"}
BRIEF = ("--number", 2, "--samples", 1)


def test_answers_are_never_written_over_data(capsys, tmp_path):
    data, link, other = (tmp_path / name for name in ("own.jsonl", "link.jsonl", "notes.txt"))
    records = {"scene": "a", "sample": 0, "response": "", "status": "wrong"}  # a data set that looks like records
    data.write_text("".join(json.dumps({**ONE, **records, "answer": str(at)}) + "\n" for at in range(9)))
    link.symlink_to(data)
    other.write_text("mine\n")
    before = data.read_bytes()
    for out, told in (
        (data, "is the data set itself"),
        (link, "itself"),
        (other, "not overwritten"),
        (tmp_path, "folder"),
    ):
        status, _, error = called(capsys, "eval", "seedling", "--scenes", f"{data}#tune", *BRIEF, "--out", out)
        assert status == 2
        assert told in error
    assert data.read_bytes() == before
    assert other.read_text() == "mine\n"


def test_a_run_is_asked_as_it_was_trained_and_its_card_says_how(capsys, tmp_path, picture):
    data, run, out = tmp_path / "own.jsonl", tmp_path / "run", tmp_path / "run" / "evaluation" / "own.jsonl"
    data.write_text("".join(json.dumps({**ONE, "answer": str(at)}) + "\n" for at in range(9)))
    config = replace(
        recipe("demo", "grpo"),
        scenes=f"{data}#tune",
        columns={"question": "prompt_text"},
        wording="boxed",
        max_tokens=7,
        max_pixels=2304,
    )
    checkpoint = run / "checkpoints" / "step-000001"
    load("seedling", max_pixels=2304).save(checkpoint)
    (checkpoint / "trainer").mkdir()
    (checkpoint / "trainer" / "state.json").write_text('{"step": 1, "position": 0}')
    (checkpoint / "trainer" / "config.yaml").write_text(to_yaml(config))
    (run / "metrics.jsonl").write_text("")
    assert called(capsys, "eval", run, "--scenes", config.scenes, *BRIEF, "--out", out)[0] == 0
    written = out.read_bytes()
    for record in map(json.loads, written.splitlines()):
        assert record["question"] == "What is 2 + 2?"
        said = ("wording", "max_tokens", "temperature", "samples", "shown")
        assert [record[name] for name in said] == ["boxed", 7, 1.0, 1, "image"]
    called(capsys, "eval", run, "--scenes", config.scenes, *BRIEF, "--out", out)
    assert out.read_bytes() == written
    renew_card(checkpoint)
    assert "avg@1, wording `boxed`, at most 7 tokens, temperature 1" in (checkpoint / "README.md").read_text()
    with serving(lambda text: "\\boxed{1}") as server:
        given = ("--image", picture[0], "--question", "What?", "--extractor", run, "--reasoner", url(server))
        assert called(capsys, "answer", *given)[0] == 0
    assert server.seen[0]["max_tokens"] == 7
    more = ("--wording", "short", "--max-tokens", 9, "--temperature", 0.0, "--columns", "question=question")
    status, _, error = called(capsys, "eval", run, "--scenes", config.scenes, *BRIEF, *more, "--out", out)
    assert (status, "wording is 'boxed' there and 'short' now" in error) == (2, True)
    out.unlink()
    called(capsys, "eval", run, "--scenes", config.scenes, *BRIEF, *more, "--out", out)
    record = json.loads(out.read_text().splitlines()[0])
    assert (record["wording"], record["max_tokens"], record["temperature"]) == ("short", 9, 0.0)
    assert record["question"] == ONE["question"]
    renew_card(checkpoint)
    assert "wording `short`, at most 9 tokens, temperature 0" in (checkpoint / "README.md").read_text()
