"""Where two runs first differ: what was settled before they began, then step by step in the order of a run's time.

Nothing is told of clocks: timings.jsonl is left out, and so is what is made of the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from vergence.same.records import Field, fields, lines_apart
from vergence.same.tensors import same_bytes, tensors_apart
from vergence.scenes.folders import below
from vergence.train.run import load_run_config
from vergence.train.sums import damage
from vergence.types import UserError

LOGS = {"rollouts.jsonl": "rollouts", "traces.jsonl": "", "metrics.jsonl": "steps", "interventions.jsonl": ""}
"""The files that grow with a run, in the order in which a step is written to them; what their lines are counted as."""
ASKED = ("evaluation", "audit")
"""Folders with what was asked after the training."""
TENSORS = {
    "weights": "*.safetensors",
    "adapter": "trainer/adapter.safetensors",
    "optimizer": "trainer/optimizer*.safetensors",
    "batch under way": "trainer/pending.safetensors",
}
"""The tensors of a checkpoint, and the files that they are in."""
STATES = ("trainer/state.json", "trainer/ahead.json")
OF_FILES = {"logs", "files"}
"""What a state says of other files, which are compared themselves."""
MADE = ("README.md", "SHA256SUMS", "trainer/config.yaml")
"""Files of a checkpoint that are made of what is compared anyway."""
LAST = 2**62
"""In the place of a step: after the training."""
LARGEST = 2**28
"""Bytes of a file that is read whole."""
LONGEST = 2**20
"""Characters of a card that are read."""
VERSION = re.compile(r"^- (\S+) (\S.*)$", re.MULTILINE)
Told = Callable[[int, int], None]
"""(checkpoints compared, of) for a progress bar."""


class Difference(NamedTuple):
    """Where one file of a run differs for the first time."""

    step: int
    """The optimizer step it belongs to: 0 before the first, `LAST` after the training."""
    file: str
    which: str = ""
    """The record: its scene, sibling or sample."""
    fields: tuple[Field, ...] = ()
    told: str = ""
    """In words, what is no matter of fields; and how much more of this file differs."""


class Same(NamedTuple):
    """What comparing two of a kind has found."""

    differences: tuple[Difference, ...]
    """In the order of time: the first is where they part."""
    counted: Mapping[str, int]
    """What was compared: steps, rollouts, checkpoints, answers."""
    noted: tuple[str, ...] = ()
    """What is no difference, but one might wonder."""
    left_out: tuple[str, ...] = ()
    """What was there and was not compared."""

    @property
    def same(self) -> bool:
        """Whether there is no difference at all."""
        return not self.differences


def same_runs(one: Path, other: Path, *, told: Told = lambda done, of: None) -> Same:
    """Compare two run folders: config, data, versions; logs; checkpoints, up to the first that differs; answers.

    A checkpoint that one run alone has is noted and is no difference, since runs may be stopped anywhere; but both must
    have come to the same last one.

    Raises:
        UserError: one is no run folder, or a file in it is damaged.
    """
    found = [*_settled(one, other)]
    counted = {what: 0 for what in LOGS.values() if what}
    for name, what in LOGS.items():
        number, differences = _lines(one, other, name)
        found += differences
        counted |= {what: number} if what else {}
    number, differences, noted = _checkpoints(one, other, told)
    answers, later = _asked(one, other)
    counted |= {"checkpoints": number} | ({"answers": answers} if answers else {})
    return Same(in_order([*found, *differences, *later]), counted, tuple(noted), _left_out(one, other))


def in_order(found: list[Difference]) -> tuple[Difference, ...]:
    """By time; what belongs to one step in the order in which it was found."""
    return tuple(sorted(found, key=lambda difference: difference.step))


def same_lines(one: Path, other: Path) -> Same:
    """Compare two files of JSON lines, such as the answers of an evaluation.

    Raises:
        UserError: one is no such file, or is damaged.
    """
    number, found = _lines(one.parent, other.parent, one.name, other.name)
    return Same(tuple(found), {"lines": number})


def same_checkpoints(one: Path, other: Path) -> Same:
    """Compare two checkpoint folders: tensors, bit by bit, and where the run stood.

    Raises:
        UserError: one is none.
    """
    for path in (one, other):
        if not (path / "trainer" / "state.json").is_file():
            raise UserError(f"{path} is no whole checkpoint: it holds no trainer/state.json")
    found = _checkpoint(one, other)
    step = read_json(one / "trainer" / "state.json").get("step", 0)
    return Same(() if found is None else (found._replace(step=step),), {"checkpoints": 1})


def _settled(one: Path, other: Path) -> Iterator[Difference]:
    """What was settled before the first step: the config, the data, and the versions that the cards tell."""
    configs = [asdict(load_run_config(run)) for run in (one, other)]
    if found := tuple(fields(*configs)):
        yield Difference(0, "config.yaml", fields=found)
    there = [run / "data.json" for run in (one, other)]
    if found := tuple(fields(*(read_json(path) if path.is_file() else {} for path in there))):
        yield Difference(0, "data.json", fields=found)
    versions = [_versions(run) for run in (one, other)]
    if all(versions) and (found := tuple(fields(*versions))):
        yield Difference(0, "versions", fields=found)


def _versions(run: Path) -> dict[str, str]:
    """What the card of the first checkpoint says of versions; {} where there is none."""
    cards = (path for path in sorted((run / "checkpoints").glob("step-*/README.md")) if path.is_file())
    for card in cards:
        with card.open(errors="replace") as file:
            said = file.read(LONGEST).partition("\n## Versions\n")[2].partition("\n## ")[0]
        return dict(VERSION.findall(said))
    return {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        UserError: it is damaged, or too large to be one of ours.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} has more than {LARGEST:,} bytes: it is no file of ours")
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}; the file was damaged") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no object, but {type(found).__name__}; the file was damaged")
    return found


def _lines(
    one: Path, other: Path, name: str, of_other: str = "", step: int | None = None
) -> tuple[int, list[Difference]]:
    """How many lines both have of a file, and where they first differ."""
    paths = one / name, other / (of_other or name)
    there = [path.is_file() for path in paths]
    if not all(there):
        told = f"only the {'first' if there[0] else 'second'} has it"
        return 0, [Difference(LAST if step is None else step, name, told=told)] if any(there) else []
    apart = lines_apart(*paths)
    if apart.first is None:
        return min(apart.whole), []
    first = apart.first
    rest = [f"{apart.unlike:,} of {min(apart.whole):,} lines differ"] if apart.unlike > 1 else []
    rest += [f"{apart.whole[0]:,} and {apart.whole[1]:,} lines"] if apart.whole[0] != apart.whole[1] else []
    when = first.step if step is None and first.step is not None else LAST if step is None else step
    which = first.which or ("" if first.step is not None else f"line {first.line}")
    told = "; ".join(filter(None, (first.told, *rest)))
    return min(apart.whole), [Difference(when, name, which, first.fields, told)]


def _checkpoints(one: Path, other: Path, told: Told) -> tuple[int, list[Difference], list[str]]:
    """How many were found the same, the first that is not, and what one run alone has."""
    mine, theirs = ({path.name: path for path in _steps(run)} for run in (one, other))
    noted, both = [], sorted(mine.keys() & theirs.keys())
    for side, own, against in (("first", mine, theirs), ("second", theirs, mine)):
        if odd := sorted(own.keys() - against.keys()):
            noted.append(f"only the {side} has {', '.join(odd[:4])}{' and more' if len(odd) > 4 else ''}")
    found: list[Difference] = []
    last = [max(names, default="none") for names in (mine, theirs)]
    if last[0] != last[1]:
        found.append(Difference(LAST - 1, "checkpoints", fields=(Field("the last one", *last),)))
    for number, name in enumerate(both):
        told(number, len(both))
        if difference := _checkpoint(mine[name], theirs[name]):
            left = len(both) - number - 1
            words = "; ".join(filter(None, (difference.told, f"the {left} after it were not read" if left else "")))
            where = difference._replace(step=_number(name), file=f"checkpoints/{name}", told=words)
            return number, [where, *found], noted
    return len(both), found, noted


def _steps(run: Path) -> list[Path]:
    return [path for path in (run / "checkpoints").glob("step-*") if path.is_dir()]


def _number(name: str) -> int:
    digits = name.removeprefix("step-")
    return int(digits) if digits.isdecimal() and len(digits) < 16 else LAST


def _checkpoint(one: Path, other: Path) -> Difference | None:
    """In what two checkpoints differ; a damaged one differs by that."""
    said, states = [], []
    try:
        for what, files in TENSORS.items():
            ones, others = (sorted(folder.glob(files)) for folder in (one, other))
            if bool(ones) != bool(others):
                said.append(f"{what}: only the {'first' if ones else 'second'} has them")
            elif apart := tensors_apart(ones, others):
                said.append(f"{what}: {apart.told()}")
        for name in STATES:
            held = [_state(folder / name) for folder in (one, other)]
            states += [field._replace(name=f"{name}: {field.name}") for field in fields(*held)]
    except UserError as error:
        said.append(str(error))
    odd = sorted(set(_others(one)) ^ set(_others(other)))
    odd += [name for name in _others(one) if (other / name).is_file() and not same_bytes(one / name, other / name)]
    said += [f"other files differ: {', '.join(odd[:4])}"] if odd and not (said or states) else []
    if not (said or states):
        return None
    broken = [f"{folder} is damaged: {why}" for folder in (one, other) if (why := damage(folder))]
    return Difference(LAST, one.name, fields=tuple(states), told="; ".join((*broken, *said)))


def _state(path: Path) -> dict[str, Any]:
    """Where a run stood, as a checkpoint has it; {} where there is no such file."""
    found = read_json(path) if path.is_file() else {}
    return {name: value for name, value in found.items() if name not in OF_FILES}


def _others(folder: Path) -> list[str]:
    """The files that hold neither tensors nor states, and are not made of something else."""
    held = (path.relative_to(folder).as_posix() for path in below(folder, hidden=True) if path.is_file())
    return [name for name in sorted(held) if not name.endswith((".safetensors", *STATES, *MADE))]


def _asked(one: Path, other: Path) -> tuple[int, list[Difference]]:
    """What was asked after the training: how many answers are in both, and where each file first differs."""
    number, found = 0, []
    for folder in ASKED:
        names = sorted({path.name for run in (one, other) for path in (run / folder).glob("*.json*")})
        for name in names:
            if name.endswith(".jsonl"):
                lines, differences = _lines(one, other, f"{folder}/{name}", step=LAST)
                number, found = number + lines, found + differences
            else:
                held = [run / folder / name for run in (one, other)]
                apart = tuple(fields(*(read_json(path) if path.is_file() else {} for path in held)))
                found += [Difference(LAST, f"{folder}/{name}", fields=apart)] if apart else []
    return number, found


def _left_out(one: Path, other: Path) -> tuple[str, ...]:
    """What is in the folders and was not compared."""
    compared = {"config.yaml", "data.json", "checkpoints", *LOGS, *ASKED}
    return tuple(sorted({path.name for run in (one, other) for path in run.iterdir()} - compared))
