"""`vergence ask`: the shipped policy and a run's checkpoint, with pictures of every kind of file, and bad input."""

import json

import pytest

from vergence.cli import main
from vergence.recipes import recipe
from vergence.scenes import embedded
from vergence.train.config_file import to_yaml


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    (scene,) = embedded.draw_many(("digits",), "report", 1)
    file = tmp_path_factory.mktemp("pictures") / "digits.png"
    scene.images[0].save(file)
    return scene, str(file)


def called(capsys, *arguments: object) -> tuple[int, str, str]:
    status = 0
    try:
        main(["ask", *map(str, arguments)])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    out, error = capsys.readouterr()
    return status, out, error


def test_a_question_is_answered_and_judged(asked, capsys):
    scene, file = asked
    given = ["seedling", "--image", file, "--question", scene.question]
    status, out, _ = called(capsys, *given, "--gold", scene.gold.text)
    assert status == 0
    assert "\nanswer: " in out
    assert "\nverdict: " in out
    assert "as integer" in out
    status, out, _ = called(capsys, *given)
    assert "verdict" not in out


def test_json_holds_every_sample_and_a_seed_decides(asked, capsys):
    scene, file = asked
    given = ["seedling", "--image", file, "--question", scene.question, "--samples", 3, "--temperature", 1, "--json"]
    first, again, other = (json.loads(called(capsys, *given, "--seed", seed)[1]) for seed in (1, 1, 2))
    assert first == again
    assert len(first["replies"]) == 3
    assert first["replies"][0].keys() == {"response", "extracted", "finish"}
    assert [one["response"] for one in first["replies"]] != [one["response"] for one in other["replies"]]


def test_choices_stand_under_the_question_and_are_judged(asked, capsys):
    _, file = asked
    given = ["seedling", "--image", file, "--question", "Which?", "--choices", "four", "five", "--gold", "B", "--json"]
    told = json.loads(called(capsys, *given)[1])
    assert "B. five" in told["question"] or "(B) five" in told["question"]
    assert told["replies"][0]["kind"] == "choice"


def test_a_checkpoint_is_asked_as_it_was_trained(asked, capsys, tmp_path):
    from vergence.models.policy import load

    scene, file = asked
    folder = tmp_path / "checkpoint"
    load("seedling").save(folder)
    (folder / "trainer").mkdir()
    (folder / "trainer" / "config.yaml").write_text(to_yaml(recipe("demo")))
    (folder / "trainer" / "state.json").write_text('{"step": 1, "position": 0}')
    told = json.loads(called(capsys, folder, "--image", file, "--question", scene.question, "--json")[1])
    assert told["wording"] == "short"
    told = json.loads(
        called(capsys, folder, "--image", file, "--question", "So?", "--wording", "boxed", "--max-tokens", 4, "--json")[
            1
        ]
    )
    assert told["wording"] == "boxed"
    assert told["replies"][0]["finish"] == "length"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["seedling", "--question", " "], "the question is empty"),
        (["seedling", "--question", "a", "--image", "nowhere.png"], "no file nowhere.png"),
        (["./nowhere", "--question", "a"], "no model at ./nowhere"),
        (["seedling", "--question", "a", "--samples", "0"], "at least 1"),
        (["seedling", "--question", "a", "--temperature", "-1"], "temperature must be 0 or more"),
        (["seedling", "--question", "a", "--gold", "x", "--kind", "integer"], "integer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_told(capsys, arguments, told):
    status, _, error = called(capsys, *arguments)
    assert status == 2
    assert told in error
