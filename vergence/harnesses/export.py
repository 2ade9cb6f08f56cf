"""Evaluation records in a form that names no program: one line per answer, its fields the same for all who answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vergence.disk import telling_of_space
from vergence.evaluate.suite import IN_EVERY, LONGEST_LINE
from vergence.harnesses.questions import refuse_filled
from vergence.train.run import read_lines
from vergence.types import UserError

NEUTRAL = {
    "dataset": "world",
    "split": "split",
    "item_id": "scene",
    "image_sha": "image_sha",
    "prompt": "prompt",
    "sample_index": "sample",
    "seed": "seed",
    "sampling": "temperature",
    "response": "response",
    "finish_reason": "finish",
    "n_tokens": "tokens",
    "gold": "gold",
    "extracted": "extracted",
    "verdict": "status",
    "verifier_version": "verifier",
    "vd_level": "level",
}
"""The fields of a neutral line, in order, and the field of a record that each comes from."""
MAY_BE_NULL = {"extracted", "vd_level"}
"""What is null of some answers because there is nothing to say, and not because it was never written down."""
_SAMPLING = ("max_tokens", "wording", "shown", "reasoner")


def neutral(record: Mapping[str, Any], *, split: str | None = None) -> dict[str, Any]:
    """The neutral line of an answer. What its record does not hold, as of an older file, is None.

    `sampling` is all that an answer was sampled with: temperature, top_p (1: nothing is cut from the distribution),
    max_tokens, wording and what was shown; of the answers of a reasoner, who that was.

    >>> line = neutral({"scene": "a/0", "sample": 0, "status": "right", "temperature": 1.0, "max_tokens": 9})
    >>> line["item_id"], line["verdict"], line["sampling"], line["seed"]
    ('a/0', 'right', {'temperature': 1.0, 'top_p': 1.0, 'max_tokens': 9}, None)

    Args:
        split: the split that was asked, where the record does not say so.
    """
    line = {name: record.get(source) for name, source in NEUTRAL.items()}
    if line["split"] is None:
        line["split"] = split or _split_in(str(line["item_id"]))
    if line["sampling"] is not None:
        line["sampling"] = {"temperature": line["sampling"], "top_p": 1.0}
        line["sampling"] |= {name: record[name] for name in _SAMPLING if name in record}
    return line


def _split_in(key: str) -> str | None:
    """The split that the key of an embedded scene names: world/split/seed/index."""
    parts = key.split("/")
    return parts[1] if len(parts) == 4 and parts[1] in ("train", "tune", "report") else None


class Written(NamedTuple):
    """A file of neutral lines."""

    path: Path
    answers: int
    lacking: tuple[str, ...]
    """Fields that are null because some record does not hold them."""


def write_neutral(path: Path, lines: Iterable[Mapping[str, Any]]) -> Written:
    """One JSON line per answer, in `path`; its folder must be there.

    Raises:
        UserError: it cannot be written, or a line holds a number that JSON has no word for.
    """
    answers, lacking = 0, set()
    with telling_of_space(path), path.open("w", encoding="utf-8") as file:
        for line in lines:
            try:
                file.write(json.dumps(line, allow_nan=False) + "\n")
            except ValueError as error:
                raise UserError(f"answer {answers + 1} of {path.name} cannot be written as JSON: {error}") from error
            answers += 1
            lacking |= {name for name, value in line.items() if value is None} - MAY_BE_NULL
    return Written(path, answers, tuple(name for name in NEUTRAL if name in lacking))


def records_in(given: Path) -> list[Path]:
    """The files of evaluation records that are meant: the file itself, or those of a run folder.

    Raises:
        UserError: there are none.
    """
    found = sorted((given / "evaluation").glob("*.jsonl")) if given.is_dir() else [given]
    found = [path for path in found if holds_records(path)]
    if not found:
        raise UserError(
            f"{given} holds no answers of an evaluation; give a run folder that was evaluated, or a file that "
            f"`vergence eval --out FILE` wrote"
        )
    return found


def holds_records(path: Path) -> bool:
    """Whether a file begins with an evaluation record."""
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(LONGEST_LINE))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() >= IN_EVERY


def export_neutral(
    given: Path, out: Path, *, split: str | None = None, told: Callable[[int, int], None] = lambda done, of: None
) -> list[Written]:
    """The neutral files of all records of a run, or of one file of them, in the folder `out`, which is made.

    Raises:
        UserError: there are none; `out` is not empty; or a line is no record.
    """
    paths = records_in(given)
    refuse_filled(out)
    with telling_of_space(out):
        out.mkdir(parents=True, exist_ok=True)
    done: list[Written] = []
    for path in paths:
        done.append(write_neutral(out / path.name, _neutral_of(path, split)))
        told(len(done), len(paths))
    return done


def _neutral_of(path: Path, split: str | None) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(read_lines(path), 1):
        if not isinstance(record, dict) or not record.keys() >= IN_EVERY:
            raise UserError(f"{path}, line {number} is no answer of an evaluation; take it out")
        yield neutral(record, split=split)


def said_of(written: Sequence[Written]) -> list[str]:
    """What a person should know of files that were written: where they are, and what is missing in them.

    >>> said_of([Written(Path("a.jsonl"), 2, ("prompt", "seed"))])[1]
    'a.jsonl: prompt, seed null: the records do not hold them'
    """
    lines = [f"{one.path}: {one.answers} answers" for one in written]
    lines += [
        f"{one.path}: {', '.join(one.lacking)} null: the records do not hold them" for one in written if one.lacking
    ]
    return lines
