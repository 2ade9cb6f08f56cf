"""Commands that verify answers: a file of them, or what other verifiers say of a run's."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vergence.harmless import one_line, printable
from vergence.types import UserError, Wording

_SHOWN = 20
"""Errors that are printed; all of them stand in what is written."""


def verify(
    given: Annotated[Path | None, tyro.conf.arg(name="in")] = None,
    out: Path | None = None,
    audit: Path | None = None,
    wording: Wording = "think",
    extract: Literal["box", "text"] = "text",
    arithmetic: bool = True,
    seconds: float = 5.0,
    json: bool = False,
) -> None:
    """Judge a file of responses, or list where other verifiers differ from ours on a run's.

    Example: vergence verify --in answers.jsonl --out verdicts.jsonl

    Each line of the file is a JSON object with the fields gold and response, and optionally kind, choices and
    tolerance. What comes out has reward, status (right, wrong, unparsed, timed out), kind, extracted and seconds
    besides. A line that cannot be judged has the status error and says why; then the command ends with status 1.

    Args:
        given: A JSONL file.
        out: Where to write the lines with their verdicts.
        audit: A run folder, or a JSONL file as above: where Math-Verify and MathRuler differ from ours.
        wording: How the question was put: "answer" reads <answer>...</answer>, all others a box.
        extract: text: where there is no box, what the text says at its end; a bare text is its answer. box: an answer
            stands in a box, or there is none: training's rule, which --audit always takes.
        arithmetic: Take 3+8 for 11 where the gold is a number. Training and --audit do not: a question would be its
            own answer.
        seconds: What one comparison may take.
        json: Print one line of JSON.
    """
    if not seconds > 0:
        raise UserError(f"--seconds must be above 0, got {seconds}")
    if audit is not None:
        if given or out:
            raise UserError("--audit takes a run or a file of its own; leave out --in and --out")
        _audit(audit, wording, seconds, json=json)
        return
    if given is None or out is None:
        raise UserError("say what to judge and where to write it: vergence verify --in FILE.jsonl --out FILE.jsonl")
    if out.exists() and given.exists() and out.samefile(given):
        raise UserError(f"--in and --out are the same file {out}; write to another")
    _judge(
        given, out, {"wording": wording, "extract": extract, "arithmetic": arithmetic, "seconds": seconds}, json=json
    )


def _judge(given: Path, out: Path, how: dict[str, Any], *, json: bool) -> None:
    import json as lines

    from vergence.report.table import print_json
    from vergence.rewards.rows import judged, read_rows
    from vergence.rewards.verify import VERSION
    from vergence.train.display import counting

    statuses: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    total = sum(1 for line in _lines(given) if line.strip())
    with _written(out) as file, counting("verdicts") as told:
        found = judged(read_rows(_lines(given)), **how, told=lambda done: told(done, total))
        for row in found:
            file.write(lines.dumps(row) + "\n")
            statuses[row["status"]] += 1
            kinds[row.get("kind") or "none"] += row["status"] != "error"
            if row["status"] == "error" and statuses["error"] <= _SHOWN:
                print(printable(f"{given}, {row['error']}"), file=sys.stderr)
    if json:
        print_json({"rows": total, "status": statuses, "kind": +kinds, "verifier": VERSION})
    else:
        said = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
        of = ", ".join(f"{number} {kind}" for kind, number in sorted((+kinds).items()))
        print(f"{total} rows: {said or 'none'}\nkinds: {of or 'none'}\n{VERSION}", file=sys.stderr)
    if statuses["error"]:
        sys.exit(1)


def _audit(where: Path, wording: Wording, seconds: float, *, json: bool) -> None:
    from vergence.report.table import print_json, print_table
    from vergence.rewards.audit import audit
    from vergence.rewards.rows import read_rows

    path = where / "rollouts.jsonl" if where.is_dir() else where
    found = audit(read_rows(_lines(path)), wording=wording, seconds=seconds)
    if len(found.errors) == found.rows:
        why = found.errors[0] if found.errors else "it is empty"
        raise UserError(
            f"{path} holds no answers ({why}); give a run, or a JSONL file with gold and response on each line"
        )
    for error in found.errors[:_SHOWN]:
        print(printable(f"{path}, {error}"), file=sys.stderr)
    for name in found.missing:
        print(f"{name} is not installed and was not asked: pip install 'vergence[audit]'", file=sys.stderr)
    if json:
        print_json(found._asdict() | {"differences": [one._asdict() for one in found.differences]})
    else:
        names = list(found.counts)
        rows = []
        for one in found.differences:
            texts = [one_line(text or "", 40) for text in (one.gold, one.extracted)]
            rows.append([str(one.line), one.kind, *texts, *(one.verdicts[name] for name in names)])
        print_table(
            f"{len(rows)} of {found.rows} judged otherwise", ["line", "kind", "gold", "extracted", *names], rows
        )
        for name in names:
            said = ", ".join(f"{number} {status}" for status, number in sorted(found.counts[name].items()))
            print(f"{name}: {said}")
    if found.errors:
        sys.exit(1)


def _lines(path: Path) -> Any:
    """The lines of a file. A byte that is no UTF-8 becomes a surrogate, which `read_rows` refuses."""
    if not path.is_file():
        raise UserError(f"no file {path}")
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        yield from file


def _written(path: Path) -> Any:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {path} ({error.strerror}); give another --out") from error
