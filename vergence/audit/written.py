"""What an audit leaves behind: every answer, and what they come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vergence.audit.conditions import KEPT, Heard
from vergence.audit.findings import Findings
from vergence.audit.reduction import Reduction
from vergence.disk import make, telling_of_space, write_whole
from vergence.evaluate.interval import Estimate
from vergence.evaluate.suite import Record, write_records

WAYS = ("image", "blank", "none", "facts", "words", "swapped", "changed", *KEPT, "against")
"""The names that files of answers may have: those of `conditions`, and the other model's."""


def as_json(found: Findings, reduced: Reduction | None = None, **about: Any) -> dict[str, Any]:
    """The findings as plain data, in the order in which one reads them: `evaluation/audit.json`.

    Args:
        reduced: of the perception errors, against another model.
        about: what was asked, and how: "model", "samples", "wording", ...
    """
    return {
        **about,
        "verdict": found.verdict,
        "measures": [{"name": one.name, "about": one.about, **one.value._asdict()} for one in found.measures],
        "errors": [
            {"name": one.name, **one.of_all._asdict(), "of_wrong": _plain(one.of_wrong)} for one in found.errors
        ],
        "probes": [{"position": position, **value._asdict()} for position, value in found.probes],
        "left_out": list(found.left_out),
        "reduction": {name: _plain(value) for name, value in reduced._asdict().items()} if reduced else None,
    }


def _plain(value: Estimate | None) -> dict[str, float] | None:
    return value._asdict() if value else None


def write(folder: Path, heard: Heard, told: dict[str, Any], others: list[Record] | None = None) -> Path:
    """Write `audit/CONDITION.jsonl`, a line per answer, and `evaluation/audit.json`; where the latter is.

    An earlier audit of the folder is replaced: answers that this one did not ask for are taken away, as the numbers
    beside them are of other answers.

    Args:
        told: of `as_json`.
        others: the answers of the model that is compared with: `audit/against.jsonl`.
    """
    answers = {**heard.records, **({"against": others} if others else {})}
    for name, records in answers.items():
        write_records(folder / "audit" / f"{name}.jsonl", records)
    with telling_of_space(folder):
        for old in (folder / "audit").glob("*.jsonl"):
            if old.stem in WAYS and old.stem not in answers:
                old.unlink()
    where = folder / "evaluation" / "audit.json"
    make(where.parent)
    write_whole(where, json.dumps(told, indent=1) + "\n")
    return where
