"""Targets that take a file of data: rows in every format, pictures, what other harnesses hand back."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
from fuzz.drawing import TEXTS, Draw, changed, number, one_of, some, text, torn, value, written
from fuzz.kinds import Target, told
from PIL import Image

from vergence.harnesses.export import export_neutral
from vergence.harnesses.lmms_eval import write_pack
from vergence.harnesses.questions import Putting, gold_of, read_questions, write_questions
from vergence.harnesses.rescore import rescore
from vergence.harnesses.vlmevalkit import write_table
from vergence.scenes.files import Files, read, read_rows
from vergence.scenes.rows import by_reason
from vergence.types import Gold, Scene, UserError

ROWS: tuple[dict[str, Any], ...] = (
    {
        "image": "a.png",
        "question": "<image>How many?",
        "answer": 3,
        "id": 7,
        "facts": [["red bar", "7"]],
        "caption": "bars",
    },
    {"question": "Which?", "answer": "B", "choices": ["Ann", "Bo"], "kind": "choice", "tolerance": None, "world": "w"},
    {
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}],
        "reward_model": {"ground_truth": "2"},
    },
    {
        "images": ["a.png", "a.png"],
        "problem": "<image 1> and <image 2>?",
        "solution": "\\boxed{x+1}",
        "tolerance": 0.01,
    },
)
VALUES = (
    "a.png",
    "../../etc/passwd",
    "/dev/zero",
    "a.png\0",
    "x" * 300,
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
)
VALUES += (
    "https://evil.example/a.png",
    "[" * 2000,
    "[0, 1)",
    '["a.png"]',
    "A",
    "1/2",
    "2.50",
    "1e999",
    "9" * 5000,
    *TEXTS,
)
COLUMNS: tuple[dict[str, str], ...] = (
    {},
    {},
    {},
    {"images": ""},
    {"question": "problem"},
    {"answer": "reward_model.x"},
)


@cache
def workplace() -> Path:
    """A folder of this process's own, with one picture in it."""
    folder = Path(tempfile.mkdtemp(prefix="vergence-fuzz-"))
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    return folder


def a_row(draw: Draw) -> Any:
    """A row, mostly near one that is right."""
    found = dict(one_of(draw, ROWS))
    for _ in range(draw.below(3)):
        found[one_of(draw, list(found))] = one_of(draw, VALUES) if draw.below(2) else value(draw)
    return some(draw, found, 2)


def _account(found: Files | None, rows: int | None) -> None:
    """Every row is read or refused, and what is refused says where and what to do; what is read can be shown."""
    if found is None:
        return
    good = sum(map(len, found.rows.values()))
    assert rows is None or good + len(found.refused) == rows
    for one in found.refused:
        said = str(one)
        assert one.reason
        assert one.remedy
        assert one.file in said
        assert len(said) < 20_000
    by_reason(found.refused)
    found.counts()
    for split, those in found.rows.items():
        if not len(those):
            continue
        for scene in told(lambda split=split: found.held_out(split, 2, seed=0)) or []:
            scene.question.encode()
            scene.gold.text.encode()
            json.dumps(dict(scene.columns), default=str)


def _row(draw: Draw) -> None:
    rows = [a_row(draw) for _ in range(1 + draw.below(3))]
    if draw.below(6) == 0:
        rows.append(value(draw))
    if draw.below(6) == 0:
        rows[0] = {
            **ROWS[0],
            "image": changed(draw, {"bytes": draw.blob(), "path": None}) if draw.below(2) else draw.blob(),
        }
    columns = one_of(draw, COLUMNS)
    _account(told(lambda: read_rows(rows, "rows", folder=workplace(), columns=columns)), len(rows))


def _put(name: str, data: bytes) -> Path:
    path = workplace() / name
    path.write_bytes(data)
    return path


def _from(path: Path, draw: Draw, rows: int | None = None) -> None:
    columns = one_of(draw, COLUMNS)
    _account(told(lambda: read(path, columns=columns), path.name), rows)


def _jsonl(draw: Draw) -> None:
    lines = [written(a_row(draw)) for _ in range(1 + draw.below(3))]
    _from(_put("rows.jsonl", torn(draw, one_of(draw, ("\n", "\r\n", "\n\n")).join(lines).encode())), draw)


def _json(draw: Draw) -> None:
    rows: Any = [a_row(draw) for _ in range(1 + draw.below(3))]
    if draw.below(3) == 0:
        rows = one_of(draw, (rows[0], {"data": rows}, {"rows": {"a": 1}}))
    _from(_put("rows.json", torn(draw, written(rows).encode())), draw)


def _csv(draw: Draw) -> None:
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter=one_of(draw, (",", ";", "\t")))
    names = [
        text(draw, VALUES) if draw.below(20) == 0 else name
        for name in ("image", "question", "answer", "choices", "kind")
    ]
    for row in (names, *((text(draw, VALUES) for _ in range(4 + draw.below(3))) for _ in range(1 + draw.below(3)))):
        table.writerow([cell[:2000] for cell in row])
    data = out.getvalue().encode("utf-8", "surrogatepass")
    _from(_put(one_of(draw, ("rows.csv", "rows.tsv")), torn(draw, data)), draw)


def _parquet(draw: Draw) -> None:
    path = workplace() / "rows.parquet"
    if draw.below(2):
        data = bytearray(_sound_parquet())
        for _ in range(1 + draw.below(4)):
            at, new = draw.below(len(data)), draw.blob()[:8]
            data[at : at + len(new)] = new
        path.write_bytes(bytes(data[: len(data) if draw.below(3) else draw.below(len(data))]))
    else:
        rows = [a_row(draw) for _ in range(1 + draw.below(3))]
        try:
            parquet.write_table(pa.Table.from_pylist([row for row in rows if isinstance(row, dict)]), path)
        except Exception:  # what Arrow cannot hold is no parquet file
            return
    _from(path, draw)


@cache
def _sound_parquet() -> bytes:
    out = io.BytesIO()
    rows = [
        {"question": f"{number}?", "answer": str(number), "image": {"bytes": b"\x89PNG", "path": None}}
        for number in range(9)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), out, compression="none", row_group_size=4)
    return out.getvalue()


HOW = Putting(name="a", split="report", wording="boxed", samples=2, temperature=1.0, max_tokens=9)


@cache
def _exported() -> tuple[Path, dict[str, bytes]]:
    folder = workplace() / "exported"
    image = Image.new("RGB", (8, 8), "red")
    scenes = [
        Scene(key=f"a/{at}", world="a", images=(image,), question="1+1?", gold=Gold("2", "integer")) for at in range(2)
    ]
    write_questions(folder, scenes, HOW)
    return folder, {name: (folder / name).read_bytes() for name in ("questions.jsonl", "settings.json")}


def _questions(draw: Draw) -> None:
    folder, files = _exported()
    which = draw.below(2)
    lines = [json.loads(line) for line in files["questions.jsonl"].splitlines()]
    if which:
        lines = [some(draw, line, 2) for line in lines]
    settings = (
        files["settings.json"]
        if which
        else torn(draw, written(some(draw, json.loads(files["settings.json"]))).encode())
    )
    data = "".join(written(line) + "\n" for line in lines).encode()
    (folder / "questions.jsonl").write_bytes(torn(draw, data) if which else data)
    (folder / "settings.json").write_bytes(settings)
    found = told(lambda: read_questions(folder), str(folder))
    if found:
        for row in found[1]:
            gold_of(row)
        told(lambda: write_table(folder))
        told(lambda: write_pack(folder))
        for path in folder.iterdir():
            if path.suffix in (".tsv", ".yaml", ".py"):
                path.unlink()


RESULTS: dict[str, Any] = {
    "lmms": {"doc_id": 0, "resps": [["\\boxed{2}", "3"]], "filtered_resps": ["2"], "target": "2"},
    "kit": {"item": 1, "sample": 0, "prediction": "\\boxed{2}", "question": "1+1?", "index": 3},
}


def _results(draw: Draw) -> None:
    folder, files = _exported()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    rows = [some(draw, one_of(draw, list(RESULTS.values())), 2) for _ in range(1 + draw.below(3))]
    ending = one_of(draw, (".jsonl", ".json", ".tsv", ".xlsx", ".xlsx"))
    path = workplace() / f"answers{ending}"
    match ending:
        case ".jsonl":
            path.write_bytes(torn(draw, "\n".join(map(written, rows)).encode()))
        case ".json":
            path.write_bytes(torn(draw, written(one_of(draw, (rows, rows[0]))).encode()))
        case ".tsv":
            line = "\t".join(text(draw, ("1", "0", "nan", '"', *TEXTS))[:500] for _ in range(3 + draw.below(3)))
            path.write_bytes(
                torn(draw, f"item\tsample\tprediction\n0\t0\t2\n{line}\n".encode("utf-8", "surrogatepass"))
            )
        case _:
            path.write_bytes(_workbook(draw, rows))
    told(lambda: rescore(folder, path), path.name)


def _workbook(draw: Draw, rows: list[Any]) -> bytes:
    try:
        from openpyxl import Workbook
    except ImportError:
        return torn(draw, b"PK\x03\x04 no workbook")
    book, out = Workbook(), io.BytesIO()
    for row in (list(RESULTS["kit"]), *([*row.values()] if isinstance(row, dict) else [row] for row in rows)):
        try:
            small = [not isinstance(cell, int) or abs(cell) < 2**63 for cell in row]  # others cannot be written
            held = zip(row, small, strict=True)
            book.active.append(
                [cell if fits and isinstance(cell, (str, float, int)) else str(cell) for cell, fits in held]
            )
        except Exception:  # what Excel cannot hold
            continue
    book.save(out)
    data = bytearray(out.getvalue())
    for _ in range(draw.below(3)):
        data[draw.below(len(data))] ^= 1 + draw.below(255)
    return bytes(data)


ANSWER: dict[str, Any] = {
    "scene": "bars/report/0/1", "world": "bars", "split": "report", "sample": 0, "prompt": "1+1?", "image_sha": ["ab"],
    "gold": "2", "kind": "integer", "verifier": "v", "response": "\\boxed{2}", "extracted": "2", "status": "right",
    "finish": "stop", "false_facts": 0, "error": None, "tokens": 9, "level": None, "wording": "short", "max_tokens": 64,
    "temperature": 1.0, "samples": 1, "shown": "image", "seed": 0,
}  # fmt: skip


def _neutral(draw: Draw) -> None:
    lines = some(draw, [dict(ANSWER, sample=at) for at in range(2)], 3)
    path = _put(
        "answers.jsonl",
        torn(draw, "".join(written(one) + "\n" for one in (lines if isinstance(lines, list) else [lines])).encode()),
    )
    out = workplace() / "neutral"
    if out.is_dir():
        for old in out.iterdir():
            old.unlink()
    told(lambda: export_neutral(path, out), path.name)


def _number(draw: Draw) -> None:
    """One answer that is a number or a text of any kind: rows that differ in it alone."""
    row = {"question": "1+1?", "answer": number(draw) if draw.below(2) else text(draw, VALUES)}
    row |= {"tolerance": number(draw)} if draw.below(2) else {"choices": value(draw)}
    try:
        _account(told(lambda: read_rows([row], "rows")), 1)
    except UserError as error:
        raise AssertionError(str(error)) from error


FILE_TARGETS = (
    Target("row", _row, 3.0, "rows in memory: prompts, marks, choices, answers, paths, picture bytes"),
    Target("answer", _number, 2.0, "answers, tolerances and choices of any type"),
    Target("jsonl", _jsonl, 3.0, ".jsonl files"),
    Target("json", _json, 3.0, ".json files"),
    Target("csv", _csv, 3.0, ".csv and .tsv files"),
    Target("parquet", _parquet, 5.0, ".parquet files, bytes changed or columns of any type"),
    Target("questions", _questions, 5.0, "a folder that `vergence export` wrote"),
    Target("results", _results, 5.0, "answers that harnesses hand back: .jsonl .json .tsv .xlsx"),
    Target("neutral", _neutral, 3.0, "evaluation answers that are exported"),
)
