"""A study from end to end: what is missing is run, then table, figure and sentences are made from the records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from vergence.disk import write_whole
from vergence.studies.arms import Plan
from vergence.studies.compare import Found, as_json, found
from vergence.studies.figure import draw
from vergence.studies.running import Failure, Told, run
from vergence.studies.sentences import sentences
from vergence.studies.table import markdown


class Outcome(NamedTuple):
    """What a study comes to."""

    found: Found
    failures: list[Failure]
    files: list[Path]


def study(
    plan: Plan,
    out: Path,
    *,
    cores: int,
    tell: Callable[[str], None] = lambda _: None,
    told: Told = lambda done, of: None,
    run_missing: bool = True,
) -> Outcome:
    """Train and answer what has no record in `out` yet; write study.json, table.md, figure.svg and figure.png there.

    Args:
        cores: runs at once, each on one thread.
        tell, told: for what is said on the way, and a progress bar.
        run_missing: False makes table and figure of the records that are there.

    Raises:
        UserError: a record is of another run, another study is at work in `out`, or no run came to an end.
        KeyboardInterrupt: stopped; what is finished is kept.
    """
    failures = run(plan, out, cores=cores, tell=tell, told=told) if run_missing else []
    for trouble in failures:
        tell(f"{trouble.name} failed: {trouble.said}; see {trouble.log}")
    what = found(plan, out)
    write_whole(out / "study.json", json.dumps(numbers(what, plan), indent=1) + "\n")
    write_whole(out / "table.md", markdown(what, plan))
    files = [out / "study.json", out / "table.md", *draw(what, out)]
    return Outcome(what, failures, files)


def numbers(what: Found, plan: Plan) -> dict[str, Any]:
    """All of study.json: the plan, every number, and the sentences."""
    arms = {arm.name: asdict(arm.config) for arm in plan.arms}
    asked = {"questions": plan.questions, "samples": plan.samples, "elsewhere": plan.elsewhere}
    planned = {"arms": arms, "seeds": list(plan.seeds), "seconds": plan.seconds, **asked}
    return {"plan": planned, **as_json(what), "sentences": sentences(what)}
