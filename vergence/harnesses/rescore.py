"""Answers that came back from a harness of others, judged by our verifier: in a file of any of its formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile, is_zipfile

from vergence.harnesses.questions import Putting, counter, gold_of, read_questions, seen_first
from vergence.rewards.rows import ACCURACY
from vergence.rewards.verify import verify_all
from vergence.scenes.cells import within
from vergence.train.run import about_gold
from vergence.types import UserError

FORMATS = (".jsonl", ".json", ".tsv", ".xlsx")
FAILED = "Failed to obtain answer"
"""How VLMEvalKit begins what it writes in the place of an answer that it did not get."""
MOST_CHARACTERS = 2**24
"""Of a cell."""
MOST_UNPACKED = 2**30
"""Bytes of a workbook's parts."""
_CHUNK = 512


class Said(NamedTuple):
    """One answer of the file."""

    item: int
    """Its question's number in the folder."""
    sample: int
    text: str
    asked: str = ""
    """What the file says was asked or right, where it does: of another folder's questions it is something else."""


def rescore(
    folder: Path, file: Path, *, told: Callable[[int, int], None] = lambda done, of: None
) -> tuple[list[dict[str, Any]], int]:
    """(records of the answers in `file`, how many answers are missing), judged as `vergence eval` judges.

    The questions are those that `vergence export` wrote to `folder`. No pickle is read. `tokens` is counted again from
    the text, and an answer that reaches the longest is taken to have been cut off; both are null where the folder has
    no tokenizer. Where the harness got no answer, `finish` is "error" and the status is "unparsed".

    Args:
        told: called with (answers judged, answers), for a progress bar.

    Raises:
        UserError: the folder or the file is none of these; or an answer is to no question of the folder, or to one
            that has been answered under its number already.
    """
    how, rows = read_questions(folder)
    said = list(read_answers(file, how))
    seen: set[tuple[int, int]] = set()
    for one in said:
        if not (0 <= one.item < len(rows) and one.sample >= 0):
            raise UserError(f"{file}: an answer to question {one.item}, and {folder} has 0 to {len(rows) - 1}")
        if (one.item, one.sample) in seen:
            raise UserError(f"{file}: two answers to question {one.item} have the number {one.sample}; give one run")
        if one.asked and one.asked not in (seen_first(rows[one.item]), rows[one.item]["gold"]):
            raise UserError(f"{file}: question {one.item} is another than in {folder}: {one.asked[:80]!r}")
        seen.add((one.item, one.sample))
    count, records = counter(folder), []
    for start in range(0, len(said), _CHUNK):
        some = said[start : start + _CHUNK]
        records += _judged(some, rows, how, count)
        told(start + len(some), len(said))
    asked = {(item, sample) for item in {one.item for one in said} for sample in range(how.samples)}
    return records, len(asked - seen) + how.samples * (len(rows) - len({one.item for one in said}))


def _judged(
    some: Sequence[Said], rows: Sequence[Mapping[str, Any]], how: Putting, count: Callable[[str], int] | None
) -> Iterator[dict[str, Any]]:
    texts = ["" if one.text.startswith(FAILED) else one.text for one in some]
    golds = [gold_of(rows[one.item]) for one in some]
    verdicts = verify_all(texts, golds, ACCURACY, wording=how.wording)
    for one, text, gold, verdict in zip(some, texts, golds, verdicts, strict=True):
        row, tokens = rows[one.item], count(text) if count else None
        finish = None if tokens is None else "length" if tokens >= how.max_tokens else "stop"
        yield {
            "scene": row["item_id"],
            "world": row["world"],
            "split": how.split,
            "sample": one.sample,
            "prompt": row["prompt"],
            "image_sha": row["image_sha"],
            "gold": row["gold"],
            **about_gold(gold),
            "response": one.text,
            "extracted": verdict.extracted,
            "status": verdict.status,
            "finish": "error" if text != one.text else finish,
            "false_facts": None,
            "tokens": tokens,
            "level": row["vd_level"],
            "wording": how.wording,
            "max_tokens": how.max_tokens,
            "temperature": how.temperature,
            "samples": how.samples,
            "shown": "image",
        }


def read_answers(file: Path, how: Putting) -> Iterator[Said]:
    """The answers of lmms-eval's `*_samples_*.jsonl`, or of VLMEvalKit's table of predictions.

    Raises:
        UserError: there is no such file, it is of no format that is read, or a row of it is no answer.
    """
    if not file.is_file():
        raise UserError(f"no file {file}")
    if file.suffix not in FORMATS:
        raise UserError(f"{file}: {file.suffix or 'no ending'} is not read; {', '.join(FORMATS)} are. No pickle is")
    for number, row in enumerate(_rows(file), 1):
        try:
            yield from _of_lmms_eval(row) if "prediction" not in row else _of_vlmevalkit(row)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{file}, row {number} is no answer of lmms-eval (--log_samples) or of VLMEvalKit "
                f"({type(error).__name__}: {str(error)[:80]})"
            ) from error


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if file.suffix == ".xlsx":
            yield from _sheet(file)
            return
        with file.open(encoding="utf-8-sig", newline="") as text:
            if file.suffix == ".tsv":
                table = csv.DictReader(text, delimiter="\t")
                with suppress(StopIteration):
                    while True:
                        yield within(MOST_CHARACTERS, table)
            elif file.suffix == ".json":
                rows = json.load(text)
                yield from rows if isinstance(rows, list) else [rows]
            else:
                yield from (json.loads(line) for line in text if line.strip())
    except UserError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}; export it from the harness again") from error


def _sheet(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a workbook, as text where they are text; formulas are not computed."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise UserError(
            f"{file}: an .xlsx is read with openpyxl: pip install 'vergence[xlsx]'; or have PRED_FORMAT=json"
        ) from error
    try:
        if (unpacked := _unpacked(file)) > MOST_UNPACKED:
            raise UserError(f"{file} would be {unpacked:,} bytes, and no more than {MOST_UNPACKED:,} are unpacked")
        cells = load_workbook(file, read_only=True).active.iter_rows(values_only=True)
        names = next(cells, ())
        yield from (dict(zip(names, row, strict=False)) for row in cells)
    except UserError:
        raise
    except Exception as error:  # a broken zip or XML: openpyxl names no common error
        raise UserError(f"{file} is no workbook ({type(error).__name__}); have PRED_FORMAT=json") from error


def _unpacked(file: Path) -> int:
    """Bytes that the parts of a zip say they have; 0 of what is none."""
    if not is_zipfile(file):
        return 0
    with ZipFile(file) as packed:
        return sum(one.file_size for one in packed.infolist())


def _of_vlmevalkit(row: Mapping[str, Any]) -> Iterator[Said]:
    text = row["prediction"]
    asked = row.get("question")
    text = "" if text is None or text != text else str(text)
    yield Said(_whole(row["item"]), _whole(row["sample"]), text, asked if isinstance(asked, str) else "")


def _of_lmms_eval(row: Mapping[str, Any]) -> Iterator[Said]:
    answers = row["resps"] if "resps" in row else row["filtered_resps"]
    for sample, text in enumerate(_flat(answers)):
        yield Said(_whole(row["doc_id"]), sample, text, str(row.get("target", "")))


def _whole(value: Any) -> int:
    """A whole number as files spell it, 3, 3.0 or "3"; nothing else is rounded to one."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _flat(answers: Any) -> Iterator[str]:
    if isinstance(answers, list):
        for one in answers:
            yield from _flat(one)
    elif isinstance(answers, str):
        yield answers
    else:
        raise TypeError("an answer that is no text")
