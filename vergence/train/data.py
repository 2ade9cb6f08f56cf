"""What a run's data is: told before the first step, kept in the run's data.json, and the same when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vergence.disk import write_whole
from vergence.scenes.files import Files
from vergence.scenes.source import Embedded, Source
from vergence.scenes.split import SPLITS
from vergence.types import UserError

FILE = "data.json"

Data = Mapping[str, Any]


def describe(source: Source, name: str) -> dict[str, Any]:
    """What there is to say of a source that a config calls by this name, as JSON can hold it.

    Of files: rows by split, rows that were refused by field, kinds of answers, how many of them the data declares, and
    `content`, the hash of all rows that were read. Of embedded scenes, which are drawn without end, their worlds.
    """
    if isinstance(source, Files):
        return {
            "source": name,
            "rows": {split: len(source.rows.get(split, ())) for split in SPLITS},
            "refused": dict(sorted(source.refusals.fields.items())),
            "kinds": dict(sorted(source.kinds.items())),
            "kinds_declared": source.declared,
            "content": source.content,
        }
    return {"source": name} | ({"worlds": list(source.worlds)} if isinstance(source, Embedded) else {})


def told(data: Data) -> str:
    """In a line or two, what `describe` found; "" where there is nothing to count.

    >>> print(told({"source": "a.jsonl", "rows": {"train": 8, "tune": 1, "report": 1}, "refused": {"image": 2},
    ...             "kinds": {"choice": 4, "integer": 6}, "kinds_declared": 0, "content": "1f" * 32}))
    data: train 8, tune 1, report 1 rows of a.jsonl (content 1f1f1f1f1f1f1f1f); refused: image 2
    answers: integer 6, choice 4 (inferred from the answers themselves)
    """
    if "rows" not in data:
        return ""
    refused = f"; refused: {_counts(data['refused'])}" if data["refused"] else ""
    declared, every = data["kinds_declared"], sum(data["kinds"].values())
    how = {every: "declared by the data", 0: "inferred from the answers themselves"}
    said = how.get(declared, f"{declared} declared by the data, the others inferred")
    counted = ", ".join(f"{name} {number}" for name, number in data["rows"].items())
    return (
        f"data: {counted} rows of {data['source']} (content {data['content'][:16]}){refused}\n"
        f"answers: {_counts(data['kinds'])} ({said})"
    )


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(numbers.items(), key=lambda one: -one[1]))


def write_data(run: Path, data: Data) -> None:
    """Keep it in the run's folder, if it does not stand there so."""
    told = json.dumps(data, indent=2) + "\n"
    if not (run / FILE).is_file() or (run / FILE).read_bytes() != told.encode():
        write_whole(run / FILE, told)


def read_data(run: Path) -> dict[str, Any]:
    """What the run's folder says of its data; {} where it says nothing.

    Raises:
        UserError: the file is damaged.
    """
    path = run / FILE
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, type(error).__name__) from None
    if not isinstance(found, dict):
        raise _damaged(path, "it is no object")
    for name, holds in HOLDS.items():
        if name in found and not holds(found[name]):
            raise _damaged(path, f"its {name} is not what was written")
    if "rows" in found and (lacks := HOLDS.keys() - found.keys() - {"worlds"}):
        raise _damaged(path, f"it lacks {min(lacks)}")
    return {name: found[name] for name in HOLDS if name in found}


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}): put it back from a copy, or take it away")


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(number) is int for number in value.values())


HOLDS: Mapping[str, Callable[[Any], bool]] = {
    "source": lambda value: isinstance(value, str),
    "rows": _are_counts,
    "refused": _are_counts,
    "kinds": _are_counts,
    "kinds_declared": lambda value: type(value) is int,
    "content": lambda value: isinstance(value, str),
    "worlds": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
}
"""What `describe` says, and what each of it must be."""


def refuse_changed(run: Path, data: Data) -> None:
    """Raise if a run was started with other data than it is to be resumed with.

    Raises:
        UserError: the hash of the contents differs.
    """
    before, now = read_data(run).get("content"), data.get("content")
    if before is not None and before != now:
        raise UserError(
            f"{run} was started with other data: its content was {before[:16]}, and {data['source']} is now "
            f"{str(now)[:16]}. Put the data back as it was, or start anew in another --out"
        )
