"""Where two studies first differ: plan, then the records in the order of their names, then the runs behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vergence.same.records import fields
from vergence.same.runs import Difference, Same, read_json, same_runs
from vergence.studies.record import read
from vergence.types import UserError

CLOCKS = ("seconds", "seconds_per_step")
"""What a record's cost has of a clock."""


def same_studies(one: Path, other: Path, *, told: Callable[[int, int], None] = lambda done, of: None) -> Same:
    """Compare the records of two studies: each run's config, versions, results and counts of answers. Of the first run
    that differs the folders are compared too, where both are there, so that one learns where it began.

    Seconds are left out; so are table, figure and sentences, which are made of the records.

    Raises:
        UserError: one is no study, or a file is damaged.
    """
    mine, theirs = (_records(folder) for folder in (one, other))
    found, noted, same = _planned(one, other), [], 0
    for name in sorted(mine.keys() ^ theirs.keys()):
        found.append(Difference(0, name, told=f"only the {'first' if name in mine else 'second'} has it"))
    both = sorted(mine.keys() & theirs.keys())
    for number, name in enumerate(both):
        told(number, len(both))
        differences = _record(name, mine[name], theirs[name])
        same += not differences
        if differences and not noted:
            noted += _behind(name, one, other)
        found += differences
    left = {path.name for folder in (one, other) for path in folder.iterdir()} - {"records", "study.json"}
    return Same(tuple(found), {"records": same}, tuple(noted), tuple(sorted(left - {"runs"})))


def _records(folder: Path) -> dict[str, Path]:
    """Name -> the file of a record."""
    found = {path.relative_to(folder).as_posix(): path for path in (folder / "records").glob("*/*.jsonl")}
    if not found:
        raise UserError(f"{folder} is no study: it holds no records of runs that have ended")
    return found


def _planned(one: Path, other: Path) -> list[Difference]:
    plans = [read_json(folder / "study.json") if (folder / "study.json").is_file() else {} for folder in (one, other)]
    apart = tuple(fields(*(plan.get("plan", {}) for plan in plans))) if all(plans) else ()
    return [Difference(0, "study.json", fields=apart)] if apart else []


def _record(name: str, one: Path, other: Path) -> list[Difference]:
    """In what two records differ: first their headers, then the first question."""
    mine, theirs = read(one), read(other)
    headers = [dict(kept.header) | {"cost": _without_clocks(kept.header.get("cost", {}))} for kept in (mine, theirs)]
    if apart := tuple(fields(*headers)):
        return [Difference(0, name, "what is told of the run", apart)]
    unlike = [pair for pair in zip(mine.questions, theirs.questions, strict=False) if [*fields(*pair)]]
    lengths = [len(kept.questions) for kept in (mine, theirs)]
    told = f"{len(unlike):,} of {min(lengths):,} questions differ" if unlike else ""
    told += f"{'; ' * bool(told)}{lengths[0]:,} and {lengths[1]:,} questions" if lengths[0] != lengths[1] else ""
    if not told:
        return []
    which = f"question {unlike[0][0]['scene']}" if unlike else ""
    return [Difference(0, name, which, tuple(fields(*unlike[0])) if unlike else (), told)]


def _without_clocks(cost: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cost.items() if name not in CLOCKS}


def _behind(name: str, one: Path, other: Path) -> list[str]:
    """Where the two runs behind a record part, if they are still there."""
    arm, seed = Path(name).parts[-2], Path(name).stem
    runs = [folder / "runs" / arm / seed for folder in (one, other)]
    if not all((run / "config.yaml").is_file() for run in runs):
        return []
    apart = same_runs(*runs)
    if apart.same:
        return [f"the runs behind {name} are the same: they were answered otherwise"]
    first = apart.differences[0]
    return [f"the runs behind {name} part at step {first.step}: {first.file} {first.which}".rstrip()]
