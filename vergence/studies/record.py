"""What is kept of a run when the run itself is gone: a header, and a line of counts for each question.

A study's table, figure and sentences are made from these files alone. A line's counts are a list in the order of the
header's `counted`, without the zeros at its end: {"scene": ..., "world": ..., "image": [3, 1, 1], "blank": [1], ...}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vergence.disk import make, write_whole
from vergence.evaluate.errors import ERRORS
from vergence.evaluate.suite import Record
from vergence.train.config import Config
from vergence.train.config_file import from_yaml
from vergence.train.run import read_lines
from vergence.types import UserError

FORMAT = 1
"""Of a file of records; another number is refused."""
CONDITIONS = ("image", "blank", "best")
"""The last checkpoint as it sees the image, the same with the image blanked, and the best checkpoint if it is not the
last."""
COUNTED = ("right", "false_facts", *ERRORS, "unparsed", "cut_off", "timed_out")
"""What is counted of the answers to a question, in the order of a file that does not say another."""
MOST = 2**31
"""Answers to a question, beyond which a count is none."""
SHAPE = {
    "config": (dict,),
    "seconds": (int, float),
    "samples": (int,),
    "elsewhere": (list,),
    "last": (int,),
    "best": (int,),
}
"""Of a header: what is asked of it here, and of which types it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A run's record, read back."""

    header: Mapping[str, Any]
    questions: tuple[Mapping[str, Any], ...]
    """scene, world, and for each condition the numbers that are not 0, by name."""

    @property
    def config(self) -> Config:
        """The run's."""
        return from_yaml(json.dumps(self.header["config"]), "a study's record")

    @property
    def samples(self) -> int:
        """Answers to each question in each condition."""
        return self.header["samples"]

    def asked(self, *, away: bool = False) -> tuple[Mapping[str, Any], ...]:
        """The questions of the worlds that the run was trained on; or, `away`, of the others."""
        elsewhere = set(self.header["elsewhere"])
        return tuple(one for one in self.questions if (one["world"] in elsewhere) == away)

    def share(self, name: str = "right", condition: str = "image", *, away: bool = False) -> dict[str, float]:
        """Question -> the share of its answers of which that holds; {} where nobody asked.

        The best checkpoint's are the last one's where the two are one.
        """
        if condition == "best" and self.header["best"] == self.header["last"]:
            condition = "image"
        there = [one for one in self.asked(away=away) if condition in one]
        return {one["scene"]: one[condition].get(name, 0) / self.samples for one in there}


def counted(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Question -> how many of its answers were right, unparsed, cut off, ..., and of each kind of error.

    >>> counted([{"scene": "a", "status": "right", "finish": "stop", "false_facts": 0, "error": None},
    ...          {"scene": "a", "status": "wrong", "finish": "length", "false_facts": 2, "error": "perception"}])
    {'a': {'right': 1, 'cut_off': 1, 'false_facts': 1, 'perception': 1}}
    """
    found: dict[str, dict[str, int]] = {}
    for record in records:
        counts = found.setdefault(record["scene"], {})
        status = record["status"].replace(" ", "_")
        holds = [status] if status != "wrong" else []
        holds += ["cut_off"] * (record["finish"] == "length") + ["false_facts"] * bool(record["false_facts"])
        for name in [*holds, *([record["error"]] if record.get("error") else [])]:
            counts[name] = counts.get(name, 0) + 1
    return found


def write(path: Path, header: Mapping[str, Any], answers: Mapping[str, Sequence[Record]]) -> None:
    """Put a record in its place when it is whole.

    Args:
        header: what is known of the run; the format's number is added.
        answers: condition -> the records of an evaluation.
    """
    worlds = {record["scene"]: record["world"] for records in answers.values() for record in records}
    counts = {condition: counted(records) for condition, records in answers.items()}
    lines: list[Mapping[str, Any]] = [{"format": FORMAT, **header, "counted": COUNTED}]
    for scene, world in worlds.items():
        seen = {condition: _listed(found[scene]) for condition, found in counts.items() if scene in found}
        lines.append({"scene": scene, "world": world, **seen})
    make(path.parent)
    write_whole(path, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


def read(path: Path) -> Kept:
    """The record in a file.

    Raises:
        UserError: there is none, or it is damaged or of another format.
    """
    lines = list(read_lines(path))
    if not lines or lines[0].get("format") != FORMAT or not lines[1:]:
        raise _not_whole(path)
    try:
        header, named = lines[0], lines[0]["counted"]
        kept = Kept(header=header, questions=tuple(_named(one, named) for one in lines[1:]))
        sound = all(type(header[name]) in kinds for name, kinds in SHAPE.items()) and 0 < header["samples"] <= MOST
        sound = sound and all(isinstance(name, str) for name in (*named, *header["elsewhere"]))
        kept.config  # noqa: B018  # it is read now, so that what is wrong with it is said of this file
    except (KeyError, TypeError, AttributeError, ValueError, UserError):
        sound = False
    if not sound:
        raise _not_whole(path)
    return kept


def _not_whole(path: Path) -> UserError:
    return UserError(f"{path} is no whole record of a study's run: take it away, and the run is answered again")


def place(out: Path, arm: str, seed: int) -> Path:
    """Where the record of a run is kept.

    >>> place(Path("out"), "papo", 3).as_posix()
    'out/records/papo/seed-3.jsonl'
    """
    return out / "records" / arm / f"seed-{seed}.jsonl"


def refuse_another(kept: Kept, config: Config, seconds: float, samples: int, where: Path) -> None:
    """Raise unless a record is of this run, asked in this way.

    Raises:
        UserError: it is of another: the first field that differs is named.
    """
    old, new = asdict(kept.config), asdict(config)
    pairs = [(name, old[name], new[name]) for name in new]
    pairs += [(name, kept.header[name], value) for name, value in (("seconds", seconds), ("samples", samples))]
    for name, had, wanted in pairs:
        if had != wanted:
            raise UserError(
                f"{where} is of another run: its {name} is {had!r}, not {wanted!r}. Study in another --out, or take "
                "that file away"
            )


def _listed(counts: Mapping[str, int]) -> list[int]:
    numbers = [counts.get(name, 0) for name in COUNTED]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _named(line: Mapping[str, Any], named: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: str(line[name]) for name in ("scene", "world")}
    for condition in line.keys() & set(CONDITIONS):
        if not all(type(number) is int and 0 <= number <= MOST for number in line[condition]):
            raise TypeError(f"{condition} holds no counts")
        found[condition] = {name: number for name, number in zip(named, line[condition], strict=False) if number}
    return found
