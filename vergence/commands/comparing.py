"""The command that says where two runs part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vergence.types import UserError

if TYPE_CHECKING:
    from vergence.same.records import Field
    from vergence.same.runs import Difference, Same

Positional = tyro.conf.Positional
SHOWN = 6
"""Fields of a difference that are shown; --json has them all."""
WIDEST = 60
"""Characters of a value that are shown."""


def same(one: Positional[Path], other: Positional[Path], json: bool = False) -> None:
    """Say where two runs first differ, or that they are the same, bit for bit.

    Example: vergence same runs/mine runs/again
    Example: vergence same answers.jsonl again.jsonl

    Compared in the order of a run's time: config, data and versions; rollouts, traces, metrics and checkpoints, step by
    step; then the answers of evaluations. Clocks are left out, and so is what is made of the rest. The exit status is
    0 if they are the same, 1 if they differ, 2 if they cannot be compared.

    Args:
        one: A run folder; or a checkpoint, a file of answers that `vergence eval` wrote, or a study's folder.
        other: Another of the same kind.
        json: Print one line of JSON, with all that differs.
    """
    import sys

    from vergence.report.table import print_json
    from vergence.train.display import counting

    with counting("checkpoints") as told:
        found = _compared(one, other, told)
    if json:
        print_json(_as_json(found))
    else:
        print("\n".join(_told(found)))
    if not found.same:
        sys.exit(1)


def _compared(one: Path, other: Path, told: Any) -> Same:
    from vergence.same.runs import same_checkpoints, same_lines, same_runs

    kinds = [_kind(path) for path in (one, other)]
    if kinds[0] != kinds[1]:
        raise UserError(f"{one} is {kinds[0]} and {other} is {kinds[1]}: give two of a kind")
    if one.samefile(other):
        raise UserError(f"{one} and {other} are one and the same; give two")
    if kinds[0] == "a file":
        return same_lines(one, other)
    if kinds[0] == "a checkpoint":
        return same_checkpoints(one, other)
    if kinds[0] == "a run":
        return same_runs(one, other, told=told)
    from vergence.studies.same import same_studies

    return same_studies(one, other, told=told)


def _kind(path: Path) -> str:
    if path.is_file():
        return "a file"
    if (path / "config.yaml").is_file():
        return "a run"
    if (path / "trainer").is_dir():
        return "a checkpoint"
    if (path / "records").is_dir():
        return "a study"
    what = "holds no config.yaml, no trainer and no records" if path.is_dir() else "is not there"
    raise UserError(f"{path} {what}: give a run folder, a checkpoint, a file of answers or a study's folder")


def _told(found: Same) -> list[str]:
    """The lines that are printed."""
    if found.same:
        counted = ", ".join(
            f"{number:,} {what if number != 1 else what[:-1]}" for what, number in found.counted.items()
        )
        lines = [f"the same: {counted}, bit for bit"]
    else:
        first, *rest = found.differences
        lines = ["they first differ here:", *_lines(first), *(["after that:"] if rest else [])]
        lines += [line for difference in rest for line in _lines(difference)]
    lines += [f"beside that: {_shown(note)}" for note in found.noted]
    return lines + ([f"not compared: {', '.join(map(_shown, found.left_out))}"] if found.left_out else [])


def _lines(difference: Difference) -> list[str]:
    from vergence.same.runs import LAST

    when = (
        "before step 1"
        if not difference.step
        else f"step {difference.step}"
        if difference.step < LAST - 1
        else "after training"
    )
    told = f": {_shown(difference.told, 1000)}" if difference.told else ""
    more = len(difference.fields) - SHOWN
    return [
        f"  {when:<14} {' '.join(filter(None, map(_shown, (difference.file, difference.which))))}{told}",
        *(f"  {'':<14}   {_field(field)}" for field in difference.fields[:SHOWN]),
        *([f"  {'':<14}   and {more} more field{'s' * (more > 1)}"] if more > 0 else []),
    ]


def _field(field: Field) -> str:
    apart = "" if field.apart is None else f", {field.apart:.3g} apart"
    place = "" if field.at is None else f", from character {field.at + 1}"
    return f"{_shown(field.name)}: {_shown(field.one)} and {_shown(field.other)}{apart}{place}"


def _shown(value: Any, most: int = WIDEST) -> str:
    """What a model or a file says, as one legible line of bounded length."""
    from vergence.report.legible import bounded

    return bounded("none" if value is None else value, most).replace("\n", "⏎").replace("\t", " ")


def _as_json(found: Same) -> dict[str, Any]:
    from vergence.same.runs import LAST

    return {
        "same": found.same,
        "counted": dict(found.counted),
        "differences": [
            difference._asdict()
            | {"step": difference.step if difference.step < LAST - 1 else None}
            | {"fields": [field._asdict() for field in difference.fields]}
            for difference in found.differences
        ],
        "noted": list(found.noted),
        "left_out": list(found.left_out),
    }
