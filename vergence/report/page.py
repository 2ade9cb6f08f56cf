"""report.html: one page about a run, made from the files of its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from vergence import objectives
from vergence.guards.catalogue import Raised, raised
from vergence.report.audited import Audit, audit_of
from vergence.report.drawing import MOST as DRAWN
from vergence.report.drawn import scenes_of
from vergence.report.figures import Curve, curves, plans
from vergence.report.headline import Headline, headline
from vergence.report.ran import Done, facts, interventions, lines_of, open_run, settings
from vergence.report.sampled import sampled
from vergence.report.shown import Record, Shown, choose, ends, show
from vergence.report.template import reach, refuse_others, write_page
from vergence.report.viewer import POLICY, viewed, viewer
from vergence.scenes.source import Source
from vergence.train.config import Config
from vergence.train.data import read_data
from vergence.train.traces import shows_of
from vergence.types import UserError

SHOWN = 6
"""Rollouts of each end of the run, where it has no traces."""
TRACES = "traces.jsonl"


class Round(NamedTuple):
    """Some rollouts of one step, for a run without traces."""

    step: int
    number: int
    """How many rollouts the step had."""
    rollouts: list[Shown]


class Found(NamedTuple):
    """What the files of a run say."""

    name: str
    config: Config
    facts: list[tuple[str, str]]
    """(what, in words): the method, the data, the versions."""
    taken: int
    """Steps."""
    warnings: list[Raised]
    interventions: list[Done]
    """What was done about warnings."""
    headline: Headline
    audit: Audit | None
    curves: list[Curve]
    absent: list[str]
    """Titles of the figures for which nothing was measured."""


def report(run: Path | str, *, out: Path | None = None, source: Source | None = None, pictures: str = "") -> Path:
    """Write `report.html` into a run folder, from its files, and return its path.

    The page needs no network and no other file. A run without evaluation, without an audit, without traces, or with a
    single step, gets a page that says so. Only a page with traces has a script, which the page's own policy names by
    its hash: nothing else can run.

    Args:
        out: another place for the page.
        source: the run's scenes, where they have been opened already.
        pictures: a folder besides the data's own that its pictures may be read from.

    Raises:
        UserError: not a run folder, a file of it is missing, empty or damaged, something else than a page of ours is
            in its place, or the page cannot be written.
    """
    run, config = open_run(run)
    path = run / "report.html" if out is None else out
    refuse_others(path)
    about = found(run, config)
    source = source or scenes_of(config, read_data(run), pictures)
    block, policy = _viewer(run, config, source)
    return write_page(
        path,
        "page.html",
        **about._asdict(),
        settings=settings(config),
        reach=_reach(about),
        drawn=DRAWN,
        rounds=[] if block else _rounds(run, source),
        viewer=block,
        policy=policy,
    )


def found(run: Path, config: Config) -> Found:
    """What the files of a run say: everything on its page but rollouts.

    Raises:
        UserError: metrics.jsonl is missing, empty or damaged, or another file is damaged.
    """
    metrics = list(lines_of(run, "metrics.jsonl"))
    drawn, absent = curves(metrics, plans(metrics))
    return Found(
        name=run.resolve().name,
        config=config,
        facts=facts(run, config),
        taken=metrics[-1]["step"],
        warnings=raised(metrics),
        interventions=interventions(run),
        headline=headline(run),
        audit=audit_of(run),
        curves=drawn,
        absent=absent,
    )


def _viewer(run: Path, config: Config, source: Source) -> tuple[Markup, str]:
    """The rollout viewer, and what the page must allow for it; empty where the run has no traces."""
    if not (run / TRACES).is_file():
        return Markup(""), ""
    shows = shows_of(objectives.method(config.method, **config.options))
    try:
        traces, number = sampled(run / TRACES)
        block = viewer(viewed(traces, source.scene, shows), of=number)
        return (block, POLICY) if block else (block, "")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        said = str(error)[:200]
        raise UserError(
            f"{run / TRACES} holds something else than traces ({type(error).__name__}: {said}); take it away, and the "
            f"page is made without the viewer"
        ) from error


def _rounds(run: Path, source: Source) -> list[Round]:
    first, last = ends(lines_of(run, "rollouts.jsonl"))
    return [_round(records, source) for records in (first, last) if records]


def _round(records: list[Record], source: Source) -> Round:
    return Round(records[0]["step"], len(records), [show(record, source) for record in choose(records, SHOWN)])


def _reach(about: Found) -> float:
    rows = (*about.headline.accuracy, *about.headline.errors, *about.headline.kinds)
    return reach([row.difference for row in rows])
