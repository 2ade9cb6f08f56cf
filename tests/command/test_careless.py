"""What someone careless asks for is told before anything is asked of a model, and nothing is lost by it."""

import json

import pytest

from vergence.cli import main
from vergence.evaluate.kept import refuse_unwritable
from vergence.types import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with questions that have no pictures, a file, and nothing else."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(30)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("eval seedling --out .", "is a folder"),
        ("eval seedling --out file/answers.jsonl", "cannot write to"),
        ("eval seedling --number 0", "--number must be at least 1"),
        ("eval seedling --against nosuch", "no model at nosuch"),
        ("eval seedling --min-pixels -1", "must be 0 or more"),
        ("eval seedling --scenes sums.jsonl --number 3 --buckets", "no question has a picture"),
        ("audit seedling --number 0", "--number must be at least 1"),
        ("audit seedling --out file", "cannot write to"),
        ("look seedling --number 1 --out file", "no page of ours"),
        ("look seedling --number 1 --out file/page.html", "cannot write to"),
        ("tokens seedling --number 1 --out file/tokens.jsonl", "cannot write to"),
        ("export seedling --to lmms-eval --out file/task", "cannot write to"),
        ("export seedling --to vlmevalkit --out kit --scenes sums.jsonl --number 3", "no question has a picture"),
        ("study --methods grpo --out file", "cannot write to"),
        ("study --methods grpo --out new --cores 0", "--cores must be at least 1"),
        ("study --methods grpo --out new --questions 0", "--questions"),
        ("study --tiny --plan full --out new", "give one of them"),
    ],
)
def test_it_is_a_message_and_leaves_nothing_behind(here, line, said, capsys):
    before = sorted(here.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert sorted(here.rglob("*")) == before
    assert (here / "file").read_text() == "mine"


def test_fewer_questions_than_were_asked_for_are_told(here, capsys):
    line = "eval seedling --scenes sums.jsonl --number 500 --samples 1 --max-tokens 2 --json"
    main(line.split())
    out, error = capsys.readouterr()
    n = json.loads(out)["overall"]["accuracy"]["n"]
    assert f"has {n} of the 500 questions" in error


def test_an_audit_takes_away_the_answers_of_the_one_before(here, capsys):
    line = "audit seedling --number 4 --samples 1 --max-tokens 8 --out audited --reasoner"
    audit = [*line.split(), ""]
    main([*audit, "--against", "seedling"])
    kept = {path.stem for path in (here / "audited" / "audit").iterdir()}
    (here / "audited" / "audit" / "notes.jsonl").write_text("mine")
    main(audit)
    assert {path.stem for path in (here / "audited" / "audit").iterdir()} == kept - {"against"} | {"notes"}
    assert "against" in kept


def test_a_file_that_can_be_written_is_left_as_it_is(here):
    refuse_unwritable(here / "file")
    refuse_unwritable(here / "a" / "b" / "new")
    assert (here / "file").read_text() == "mine"
    assert not (here / "a").exists()
    with pytest.raises(UserError, match="cannot write"):
        refuse_unwritable(here / "file" / "new")
