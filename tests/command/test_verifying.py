"""`vergence verify`: a file of answers, row by row; and where others differ."""

import importlib.util
import json

import pytest

from vergence.cli import main
from vergence.rewards import audit as audits
from vergence.rewards.rows import asked
from vergence.rewards.verify import VERSION
from vergence.types import Gold

ROWS = (
    {"gold": "12", "response": "<think>x</think>\\boxed{12}", "id": 7},
    {"gold": 12, "response": "\\boxed{13}"},
    {"gold": "x+1", "response": "\\boxed{1+x}"},
    {"gold": "blue", "response": "\\boxed{lbeu}"},
    {"gold": "B", "response": "it is B"},
    {"gold": "two", "choices": ["one", "two"], "response": "\\boxed{(b)}"},
    {"gold": "A", "kind": "word", "response": "\\boxed{a}"},
    {"gold": "50", "tolerance": 0.05, "response": "\\boxed{48}"},
    {"gold": "x", "response": "\\boxed{\\prod_{k=1}^{9999}\\sum_{j=1}^{9999} \\frac{x^k}{j}}"},
)
STATUSES = ["right", "wrong", "right", "wrong", "right", "right", "right", "right", "timed out"]
BAD = (
    ('{"gold": "", "response": "x"}', "gold: empty"),
    ('{"gold": "red", "kind": "integer", "response": "x"}', "not of the kind 'integer'"),
    ('{"gold": "1"}', "no field 'response'"),
    ('{"gold": "1", "response": 1}', "response: 1 is no text"),
    ('{"gold": [1], "response": "x"}', "neither a text nor a number"),
    ('{"gold": true, "response": "x"}', "neither a text nor a number"),
    ('{"gold": "1", "response": "x", "choices": "AB"}', "no list of up to 26 texts"),
    ('{"gold": "1", "response": "x", "choices": {"A": "1", "C": "2"}}', "no list of up to 26 texts"),
    ('{"gold": "1", "response": "x", "choices": [null]}', "no list of up to 26 texts"),
    ('{"gold": "1", "response": "x", "tolerance": "x"}', "is no number"),
    ('{"gold": "1", "response": "x", "tolerance": "1"}', "lies in [0, 1)"),
    ("[1]", "not a JSON object"),
    ("gold: 1", "not a JSON object"),
    ("[" * 100_000, "not a JSON object"),
)


def called(capsys, *arguments: object) -> tuple[int, str, str]:
    status = 0
    try:
        main(list(map(str, arguments)))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    out, error = capsys.readouterr()
    return status, out, error


@pytest.fixture
def paths(tmp_path):
    given = tmp_path / "in.jsonl"
    given.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    return given, tmp_path / "out.jsonl"


def test_each_row_gets_its_verdict(paths, capsys):
    given, out = paths
    status, printed, told = called(capsys, "verify", "--in", given, "--out", out, "--seconds", 1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert status == 0
    assert [row["status"] for row in rows] == STATUSES
    assert [row["reward"] for row in rows] == [float(status == "right") for status in STATUSES]
    assert rows[0]["id"] == 7
    assert [row["kind"] for row in rows[:6]] == ["integer", "integer", "expression", "word", "choice", "choice"]
    assert rows[4]["extracted"] == "B"
    assert rows[5]["extracted"] == "(b)"
    assert all(row["verifier"] == VERSION for row in rows)
    assert 0.4 < rows[-1]["seconds"] < 5 > rows[0]["seconds"] >= 0
    assert printed == ""
    assert "9 rows: 6 right, 1 timed out, 2 wrong" in told


def test_bad_rows_are_told_and_stop_nothing(paths, capsys):
    given, out = paths
    lines = [line for bad, _ in BAD for line in (bad, json.dumps(ROWS[0]))]
    given.write_text("\n".join(lines))
    status, printed, told = called(capsys, "verify", "--in", given, "--out", out, "--json")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert status == 1
    assert [row["status"] for row in rows] == ["error", "right"] * len(BAD)
    for at, (row, (_, message)) in enumerate(zip(rows[::2], BAD, strict=True)):
        assert message in row["error"]
        assert row["error"].startswith(f"line {2 * at + 1}: ")
        assert row["reward"] is None
    assert json.loads(printed)["status"] == {"error": len(BAD), "right": len(BAD)}
    assert f"{given}, line 1: gold: empty" in told


def test_a_mark_of_byte_order_is_none_of_the_text_and_bytes_that_are_no_utf8_are_told(paths, capsys):
    given, out = paths
    row = b'{"gold": "gr\xc3\xbcn", "response": "\\\\boxed{gr\xc3\xbcn}"}'
    given.write_bytes(b"\xef\xbb\xbf" + row + b"\n\n" + row.replace(b"\xc3\xbc", b"\xfc") + b"\n" + row)
    status, _, told = called(capsys, "verify", "--in", given, "--out", out)
    assert status == 1
    assert [json.loads(line)["status"] for line in out.read_text().splitlines()] == ["right", "error", "right"]
    assert f"{given}, line 3: not UTF-8; save the file as UTF-8" in told


@pytest.mark.parametrize("choices", [["30", 45], {"B": 45, "A": "30"}, '["30", "45"]', '{"A": "30", "B": "45"}'])
def test_choices_may_be_given_as_data_has_them(choices):
    _, gold = asked({"gold": "45", "response": "x", "choices": choices, "tolerance": "0.05"})
    assert gold == Gold("B", "choice", ("30", "45"), 0.05)


@pytest.mark.parametrize(
    ("rows", "why"), [((), "it is empty"), (({"question": "?"}, {"question": "?"}), "line 1: no field 'gold'")]
)
def test_an_audit_of_what_holds_no_answers_is_told_once(paths, capsys, rows, why):
    paths[0].write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, printed, told = called(capsys, "verify", "--audit", paths[0])
    assert status == 2
    assert printed == ""
    assert f"holds no answers ({why}" in " ".join(told.split())
    assert told.count("no field") <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to judge"),
        (("--in", "{in}"), "say what to judge"),
        (("--in", "{in}", "--out", "{in}"), "the same file"),
        (("--in", "{in}.not", "--out", "{out}"), "no file"),
        (("--in", "{in}", "--out", "{out}/no/such"), "cannot write"),
        (("--audit", "{in}", "--out", "{out}"), "leave out"),
        (("--in", "{in}", "--out", "{out}", "--seconds", "0"), "above 0"),
    ],
)
def test_what_cannot_be_done_is_told(paths, capsys, arguments, message):
    named = [each.replace("{in}", str(paths[0])).replace("{out}", str(paths[1])) for each in arguments]
    status, _, told = called(capsys, "verify", *named)
    assert status == 2
    assert message in told


@pytest.mark.parametrize(
    ("response", "statuses"),
    [
        ("<think>so</think><answer>12</answer>", ("right", "unparsed", "right")),
        ("12", ("right", "unparsed", "unparsed")),
        ("so 12 remain", ("right", "unparsed", "unparsed")),
        ("so 12 remain \\boxed{12", ("unparsed", "unparsed", "unparsed")),
        ("<think>\\boxed{12}</think> well", ("unparsed", "unparsed", "unparsed")),
        ("<think>12", ("unparsed", "unparsed", "unparsed")),
    ],
)
def test_bare_texts_are_read_unless_a_box_is_asked_for(paths, capsys, response, statuses):
    given, out = paths
    given.write_text(json.dumps({"gold": "12", "response": response}))
    for more, want in zip(
        ((), ("--extract", "box"), ("--extract", "box", "--wording", "answer")), statuses, strict=True
    ):
        assert called(capsys, "verify", "--in", given, "--out", out, *more)[0] == 0
        assert json.loads(out.read_text())["status"] == want


def test_arithmetic_counts_unless_it_is_turned_off(paths, capsys):
    given, out = paths
    given.write_text(json.dumps({"gold": "11", "response": "\\boxed{3+8}"}))
    for more, want in (((), "right"), (("--no-arithmetic",), "unparsed")):
        assert called(capsys, "verify", "--in", given, "--out", out, *more)[0] == 0
        assert json.loads(out.read_text())["status"] == want


def test_an_audit_lists_where_others_differ(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "rollouts.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS[:5]))
    status, printed, _ = called(capsys, "verify", "--audit", run, "--json")
    found = json.loads(printed)
    assert status == 0
    assert [(one["line"], one["verdicts"]["math-verify"]) for one in found["differences"]] == [(4, "right")]
    assert found["counts"]["vergence"] == {"right": 2, "wrong": 2, "unparsed": 1}
    assert "mathruler" in found["counts"]


def test_an_audit_without_mathruler_says_so(paths, capsys, monkeypatch):
    monkeypatch.setattr(
        audits, "find_spec", lambda name: None if name == "mathruler" else importlib.util.find_spec(name)
    )
    paths[0].write_text("\n".join(map(json.dumps, (ROWS[0], ROWS[3]))))
    status, printed, told = called(capsys, "verify", "--audit", paths[0])
    assert status == 0
    assert "mathruler is not installed" in told
    assert "1 of 2 judged otherwise" in printed
    assert "lbeu" in printed
    assert "vergence: 1 right, 1 wrong" in printed


def test_an_audit_shows_texts_as_they_are_on_one_line(paths, capsys, monkeypatch):
    monkeypatch.setattr(audits, "NEEDED", {"math-verify": ()})
    monkeypatch.setattr(audits, "ask_them", lambda who, responses, *rest: ["right"] * len(responses))
    paths[0].write_text(json.dumps({"gold": "blue", "response": "\\boxed{[red] \u202e and\n [bold]so}"}))
    printed = called(capsys, "verify", "--audit", paths[0])[1]
    assert "[red] and [bold]so" in printed
    assert "1 of 1 judged otherwise" in printed


def test_an_audit_holds_some_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(audits, "AT_ONCE", 3)
    monkeypatch.setattr(audits, "NEEDED", {})
    held, verify_all = [], audits.verify_all
    monkeypatch.setattr(
        audits, "verify_all", lambda texts, *rest, **how: held.append(len(texts)) or verify_all(texts, *rest, **how)
    )
    rows = [audits.Row(ROWS[0], line=line) for line in range(1, 9)]
    rows[4] = audits.Row({}, "not a JSON object", 5)
    found = audits.audit(iter(rows))
    assert held == [3, 2, 2]
    assert (found.rows, found.counts, found.errors) == (8, {"vergence": {"right": 7}}, ["line 5: not a JSON object"])


@pytest.mark.slow
def test_what_hangs_another_verifier_does_not_hang_the_audit():
    rows = [{"gold": "A", "response": "\\boxed{9**9**9**9}"}, {"gold": "None", "response": "no box"}, ROWS[0]]
    found = audits.audit([audits.Row(row, line=at) for at, row in enumerate(rows, 1)], seconds=5.0)
    assert found.counts["mathruler"] == {"timed out": 1, "right": 2}
    assert [one.line for one in found.differences] == [2]  # it pays a missing answer where the gold is None
