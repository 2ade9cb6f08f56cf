"""`vergence look` and `vergence tokens`: what they print, write and refuse."""

import json

import pytest

from vergence.cli import main
from vergence.scenes import embedded
from vergence.train import loop
from vergence.train.config import Config
from vergence.train.run import read_lines

RULES = 10


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    (scene,) = embedded.draw_many(("digits",), "report", 1)
    file = tmp_path_factory.mktemp("pictures") / "digits.png"
    scene.images[0].save(file)
    return scene, str(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mine"
    loop.train(Config(steps=2, save_every=1, scenes_per_batch=4, siblings=2, max_tokens=24, watch_every=0), path)
    return path


def called(capsys, *arguments: object) -> tuple[int, str, str]:
    status = 0
    try:
        main([*map(str, arguments)])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    out, error = capsys.readouterr()
    return status, out, error


def test_an_answer_to_ones_own_picture(asked, capsys):
    scene, file = asked
    given = ["look", "seedling", "--image", file, "--question", scene.question, "--temperature", 0]
    status, out, _ = called(capsys, *given, "--gold", scene.gold.text)
    assert status == 0
    assert "most on the picture" in out
    assert "highest: " in out
    assert "kl masked, nats:" in out
    assert "\x1b" not in out
    assert "underlined" not in out  # nobody knows the facts of a user's picture
    assert f"the answer is {scene.gold.text}" in out
    status, out, _ = called(capsys, *given, "--by", "entropy gain blank")
    assert status == 0
    assert "of all entropy gain blank" in out or "more than 0.01 of entropy gain blank" in out


def test_held_out_questions_as_json(capsys):
    given = ["look", "seedling", "--number", 2, "--samples", 2, "--json"]
    first, again = (json.loads(called(capsys, *given)[1]) for _ in range(2))
    assert first == again
    assert len(first["looks"]) == len(first["sentences"]) == 4
    assert first["looks"][0]["stats"].keys() >= {"entropy", "kl masked", "k3 removed", "entropy gain no image"}


def test_a_given_response_and_a_page(asked, capsys, tmp_path):
    scene, file = asked
    out = tmp_path / "look.html"
    given = ["look", "seedling", "--image", file, "--question", scene.question, "--out", out]
    status, said, error = called(capsys, *given, "--response", "top row: 1 2 3. <script>alert(1)</script>")
    assert status == 0
    assert "top row: 1 2 3. <script>alert(1)</script>" in said
    assert str(out) in error
    page = out.read_text()
    assert "<script>alert" not in page
    assert "data:image/" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["look", "seedling", "--question", "What?"], "--image is missing"),
        (["look", "seedling", "--gold", "3"], "belongs to a --question"),
        (["look", "seedling", "--by", "kl nothing", "--number", "1"], "--by takes"),
        (["look", "seedling", "--number", "0"], "at least 1"),
        (["look", "seedling", "--samples", "0"], "at least 1"),
        (["tokens"], "at least one model"),
        (["tokens", "seedling", "--number", "0"], "at least 1"),
        (["tokens", "seedling", "--fraction", "2"], "lie in"),
        (["tokens", "/nowhere/at/all"], "nowhere"),
    ],
)
def test_bad_input_is_a_message(arguments, said, capsys):
    status, _, error = called(capsys, *arguments)
    assert status == 2
    assert said in " ".join(error.split())
    assert "Traceback" not in error


def test_a_folder_or_a_file_that_is_there_is_not_written_over(asked, tmp_path, capsys):
    scene, file = asked
    status, _, error = called(
        capsys, "look", "seedling", "--image", file, "--question", scene.question, "--out", tmp_path
    )
    assert status == 2
    assert "is a folder" in error
    (tmp_path / "kept.jsonl").write_text("mine")
    given = ["look", "seedling", "--image", file, "--question", scene.question, "--max-tokens", 4, "--out"]
    status, _, error = called(capsys, *given, tmp_path / "kept.jsonl")
    assert status == 2
    assert "no page of ours" in error
    assert (tmp_path / "kept.jsonl").read_text() == "mine"
    assert [called(capsys, *given, tmp_path / "page.html")[0] for _ in range(2)] == [0, 0]  # its own page is its own
    assert "on the picture" in (tmp_path / "page.html").read_text()  # the sentence of an only response
    status, _, error = called(capsys, "tokens", "seedling", "--number", 1, "--out", tmp_path / "kept.jsonl")
    assert status == 2
    assert (tmp_path / "kept.jsonl").read_text() == "mine"


def test_tokens_of_one_checkpoint(tmp_path, capsys):
    out = tmp_path / "tokens.jsonl"
    status, said, _ = called(capsys, "tokens", "seedling", "--number", 8, "--samples", 1, "--out", out)
    assert status == 0
    for word in ("full KL", "JS", "random", "precision at", "AP, wrong", "of their tokens look"):
        assert word in said
    records = list(read_lines(out))
    assert 6 <= len(records) <= 8
    assert len(records[0]["rules"]) == RULES
    assert all(len(record["tokens"]) == len(record["looks"]) for record in records)
    assert "NaN" not in out.read_text()


def test_tokens_of_every_checkpoint_of_a_run(run, capsys):
    given = ["tokens", run, "--steps", "all", "--number", 4, "--samples", 1, "--json"]
    status, said, _ = called(capsys, *given)
    assert status == 0
    found = json.loads(said)
    assert [one["step"] for one in found["checkpoints"]] == [0, 1, 2]
    assert {one["model"] for one in found["checkpoints"]} == {str(run)}
    rules = found["checkpoints"][2]["groups"]["all"]["rules"]
    assert len(rules) == RULES
    assert rules["JS"]["AP"].keys() == {"mean", "low", "high", "n"}
    status, said, _ = called(capsys, *[one for one in given if one != "--json"])
    assert "average precision" in said
    assert "step 2" in said
    last = json.loads(called(capsys, "tokens", run, "--number", 4, "--samples", 1, "--json")[1])["checkpoints"]
    assert [{**one, "step": 2} for one in last] == found["checkpoints"][2:]


def test_what_is_grounded_is_said(capsys):
    given = ["tokens", "seedling", "--worlds", "digits", "--number", 3, "--samples", 1, "--grounding"]
    status, said, _ = called(capsys, *given)
    assert status == 0
    assert "1/9 by chance" in " ".join(said.split())


def test_the_name_of_a_step():
    from vergence.commands.looking import step_of

    assert [step_of(one) for one in ("a/step-000007", "step-7x", "seedling")] == [7, 0, 0]
