"""One page about several runs: in what they differ, how they went, and what they came to on the same questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from vergence.evaluate.interval import Estimate
from vergence.evaluate.suite import by_question
from vergence.guards.catalogue import Raised, raised
from vergence.report.audited import Audit, audit_of
from vergence.report.drawing import MOST as DRAWN
from vergence.report.drawing import SERIES
from vergence.report.figures import Curve, overlaid
from vergence.report.headline import Row, answers, table
from vergence.report.paired import Table, as_json, tables
from vergence.report.ran import lines_of, open_run, plain
from vergence.report.template import reach, refuse_others, write_page
from vergence.train.config import Config
from vergence.train.data import read_data
from vergence.types import UserError

MOST = 2 * len(SERIES)
"""Runs on one page: more lines cannot be told apart."""
PAGE = "comparison.html"
"""The page's name, where none is given: it is written where one stands."""
LONGEST = 200
"""Characters of a setting that are shown."""


class One(NamedTuple):
    """One of the runs."""

    name: str
    """As short as tells it from the others."""
    style: int
    """Its colour and dash: `drawing.look`."""
    config: Config
    taken: int
    """Steps."""
    data: str
    """The hash of its data's content, where it comes from files."""
    warnings: list[Raised]
    audit: Audit | None
    result: Row | None
    """Before, after and blind, over all worlds; None where nobody asked."""


class Compared(NamedTuple):
    """What the files of some runs say together."""

    runs: list[One]
    differing: list[tuple[str, list[str]]]
    """(field, its value in each run) of every setting that is not the same in all."""
    tables: list[Table]
    """Each run against the first, on the same questions; empty where fewer than two were asked."""
    not_asked: list[str]
    """Runs without answers after training."""
    measured: list[tuple[str, str, list[Estimate | None]]]
    """(name, what it is about, its value in each run) of every measure of the audits."""
    curves: list[Curve]


def compare(
    runs: Sequence[Path | str], out: Path | None = None, *, told: Callable[[int, int], None] = lambda done, of: None
) -> Path:
    """Write a page that compares runs, and return its path. The first is what the others are compared with.

    Args:
        runs: two run folders or more, at most `MOST`.
        out: where to write it; `PAGE` in the present folder, if not said.
        told: called with (runs read, of) for a progress bar.

    Raises:
        UserError: as `compared`; or there is something else than a page of ours at `out`, or it cannot be written.
    """
    path = Path(PAGE) if out is None else out
    refuse_others(path)
    return write(compared(runs, told=told), path)


def write(found: Compared, path: Path) -> Path:
    """The page of what `compared` found."""
    differences = [one.result.difference for one in found.runs if one.result]
    differences += [line.against.difference for each in found.tables for line in each.lines if line.against]
    return write_page(path, "compare.html", **found._asdict(), reach=reach(differences), drawn=DRAWN)


def compared(runs: Sequence[Path | str], *, told: Callable[[int, int], None] = lambda done, of: None) -> Compared:
    """What the files of some runs say together.

    Raises:
        UserError: fewer than two runs, or more than `MOST`, or one twice; not a run folder; a file is missing, empty or
            damaged; two runs that were evaluated were not asked the same questions, in the same way.
    """
    if not 2 <= len(runs) <= MOST:
        raise UserError(f"a page compares 2 to {MOST} runs, not {len(runs)}; for many of them see `vergence study`")
    names = named([Path(run) for run in runs])
    metrics: dict[str, list[dict[str, Any]]] = {}
    found, after = [], {}
    for style, (name, run) in enumerate(zip(names, runs, strict=True)):
        folder, config = open_run(run)
        metrics[name] = list(lines_of(folder, "metrics.jsonl"))
        asked = answers(folder)
        rows = table(asked, by_question)
        if asked["after"]:
            after[name] = asked["after"]
        data = str(read_data(folder).get("content", ""))[:16]
        warnings, audit = raised(metrics[name]), audit_of(folder)
        result = rows[0]._replace(world=name) if rows else None
        found.append(One(name, style, config, metrics[name][-1]["step"], data, warnings, audit, result))
        told(style + 1, len(runs))
    return Compared(
        found,
        differing({one.name: one.config for one in found}, {one.name: one.data for one in found}),
        tables(after) if len(after) > 1 else [],
        [name for name in names if name not in after],
        side_by_side([one.audit for one in found]),
        overlaid(metrics),
    )


def named(runs: Sequence[Path]) -> list[str]:
    """The shortest names that tell folders apart: what they all end with is left out, then what they all begin with.

    >>> named([Path("/a/runs/grpo/seed-0"), Path("/a/runs/papo/seed-0")]), named([Path("x/a"), Path("y/b")])
    (['grpo', 'papo'], ['a', 'b'])

    Raises:
        UserError: one is there twice.
    """
    parts = [list(run.resolve().parts) for run in runs]
    twice = [str(run) for at, run in enumerate(runs) if parts[at] in parts[:at]]
    if twice:
        raise UserError(f"{twice[0]} is given twice: name each run once")
    while len({tuple(one[-1:]) for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    for number in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-number:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("the run folders cannot be told apart by their names; copy one to another place")


def differing(configs: Mapping[str, Config], data: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """(field, its value in each run) of every setting that is not the same in all; a method's options one by one.

    >>> differing({"a": Config(seed=1), "b": Config(options={"gamma": "0.1"})}, {"a": "", "b": ""})
    [('seed', ['1', '0']), ('gamma', ['not set', '0.1'])]
    """
    settings = []
    for config in configs.values():
        fields = asdict(config)
        options = fields.pop("options")
        settings.append({name: plain(value) for name, value in fields.items()} | options)
    found = {name: [one.get(name, "not set")[:LONGEST] for one in settings] for one in settings for name in one}
    found["content of the data"] = [value or "not told" for value in data.values()]
    return [(name, values) for name, values in found.items() if len(set(values)) > 1]


def side_by_side(audits: Sequence[Audit | None]) -> list[tuple[str, str, list[Estimate | None]]]:
    """(name, what it is about, its value in each audit) of every measure, and of every kind of error.

    >>> side_by_side([None])
    []
    """
    rows: dict[tuple[str, str], list[Estimate | None]] = {}
    for at, audit in enumerate(audits):
        listed = audit.measures + [one._replace(name=f"wrong by {one.name}") for one in audit.errors] if audit else []
        for one in listed:
            rows.setdefault((one.name, one.about), [None] * len(audits))[at] = one.estimate
    return [(name, about, values) for (name, about), values in rows.items()]


def comparison_as_json(found: Compared) -> dict[str, Any]:
    """What `compared` found, for programs: settings that differ, warnings, and every table's lines."""
    return {
        "runs": [one.name for one in found.runs],
        "differing": {
            name: dict(zip((one.name for one in found.runs), values, strict=True)) for name, values in found.differing
        },
        "warnings": {one.name: [warning._asdict() for warning in one.warnings] for one in found.runs},
        "not_evaluated": found.not_asked,
        "lines": as_json(found.tables),
    }
