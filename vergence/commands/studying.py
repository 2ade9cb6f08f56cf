"""The command that compares methods over seeds."""

from __future__ import annotations

import os
import sys
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vergence.commands.given import printable, settings
from vergence.report.table import print_json, print_table
from vergence.types import UserError

if TYPE_CHECKING:
    from vergence.studies.arms import Plan
    from vergence.studies.study import Outcome


def study(
    out: Path = Path("runs/study"),
    plan: Literal["", "tiny", "full"] = "",
    tiny: bool = False,
    recipe: str = "demo",
    methods: tuple[str, ...] = (),
    controls: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    set: tuple[str, ...] = (),
    sweep: tuple[str, ...] = (),
    steps: int | None = None,
    seconds: float = 0.0,
    questions: int | None = None,
    cores: int | None = None,
    reprint: bool = False,
    json: bool = False,
) -> None:
    """Compare methods over training seeds: runs side by side, then one table and one figure with intervals.

    Example: vergence study --methods grpo papo --controls shuffled --seeds 0 1 2 --out runs/papo-study

    Stopped, or run again, it goes on where it was: a finished run is never trained again. Every run's record stays in
    OUT/records, and what is printed is made from these alone.

    Args:
        out: The study's folder: runs, records, logs, study.json, table.md, figure.svg and figure.png.
        plan: Arms, seeds and steps that are named already, in place of --methods and what goes with it.
        tiny: The plan "tiny": three methods and a control, two seeds, few steps; minutes on two cores.
        recipe: Where every run's fields start from.
        methods: Entries of `vergence methods`.
        controls: Controls of every method that takes them, e.g. shuffled; the others are said.
        seeds: Of the runs; one run of every arm for each. By default 0 1 2 3 4, or as the plan says.
        set: A method's option, or a field of the config, for every arm that has it, as NAME=VALUE.
        sweep: One arm for each value of an option or a field, as NAME=A,B,C; several make all combinations.
        steps: Optimizer steps of every run; by default the recipe's.
        seconds: Let every run train so long instead. It is measured as it happens: leave the cores to the study alone.
        questions: Held-out questions; by default 240, or as the plan says.
        cores: Runs at once, each on one thread; by default as many as there are cores.
        reprint: Run nothing: make table and figure of the records that are there.
        json: Print study.json in one line, and nothing else on standard output.
    """
    from vergence.studies.study import study as run
    from vergence.train.display import counting

    crossing = {"recipe": recipe, "methods": methods, "controls": controls, "set": set, "sweep": sweep}
    named = {plan, "tiny" if tiny else ""} - {""}
    chosen = _planned(named, crossing, steps) if named else _crossed(**crossing, steps=steps, seconds=seconds)
    given = {"seeds": seeds or None, "seconds": seconds or None, "questions": questions}
    chosen = replace(chosen, **{name: value for name, value in given.items() if value is not None})
    _tell(f"{len(chosen.arms)} arms x {len(chosen.seeds)} seeds: {', '.join(chosen.names)}")
    with counting("seconds of training" if chosen.seconds else "steps") as told:
        outcome = run(chosen, out, cores=_cores(cores), tell=_tell, told=told, run_missing=not reprint)
    _print(outcome, chosen, json=json)
    if outcome.failures:
        names = ", ".join(one.name for one in outcome.failures)
        raise UserError(
            f"{len(outcome.failures)} run(s) failed: {names}. What they said is in {out / 'logs'}; the same command "
            "once more goes on with them"
        )


def _tell(line: str) -> None:
    """A line for people, who may read results from standard output."""
    print(printable(line), file=sys.stderr)


def _print(outcome: Outcome, plan: Plan, *, json: bool) -> None:
    """The tables, how they came about, and the sentences; or all numbers in a line."""
    from vergence.studies.sentences import sentences
    from vergence.studies.study import numbers
    from vergence.studies.table import how, tables

    if json:
        print_json(numbers(outcome.found, plan))
        return
    for table in tables(outcome.found, plan):
        print_table(*table)
    told = [how(outcome.found, plan), *sentences(outcome.found).values()]
    told += [f"not there yet: {', '.join(outcome.found.missing)}"] if outcome.found.missing else []
    print("\n\n".join([*told, f"written: {', '.join(map(str, outcome.files))}"]))


def _planned(named: Set[str], crossing: dict, steps: int | None) -> Plan:
    """A plan by its name, which nothing that names arms goes with."""
    from vergence.studies.plans import PLANS

    name, *another = sorted(named)
    if another:
        raise UserError(f"--tiny is a plan, and --plan {name} another: give one of them")
    usual = {"recipe": "demo", "methods": (), "controls": (), "set": (), "sweep": ()}
    other = [f"--{option}" for option, value in crossing.items() if value != usual[option]]
    other += ["--steps"] if steps is not None else []
    if other:
        raise UserError(f"the plan {name!r} says what its arms are: leave out {', '.join(other)}, or the plan")
    return PLANS[name]()


def _crossed(
    *,
    recipe: str,
    methods: tuple[str, ...],
    controls: tuple[str, ...],
    set: tuple[str, ...],
    sweep: tuple[str, ...],
    steps: int | None,
    seconds: float,
) -> Plan:
    """Methods x controls x swept values."""
    from vergence.studies.arms import ENDLESS, Plan, cross, parsed

    if not methods:
        raise UserError("say what to compare: --methods grpo papo, or --tiny, or --plan full")
    if steps is not None and seconds:
        raise UserError("give --steps or --seconds, not both: runs have the one or the other alike")
    given = settings(set, "--set", "gamma=0.1")
    length = {"steps": str(ENDLESS if seconds else steps)} if seconds or steps is not None else {}
    arms, told = cross(recipe, methods=methods, controls=controls, settings={**given, **length}, sweeps=parsed(sweep))
    for line in told:
        _tell(line)
    return Plan(arms=arms, seeds=(0, 1, 2, 3, 4), seconds=seconds)


def _cores(given: int | None) -> int:
    """As many as were given, else the cores that this process may use."""
    if given is not None:
        return given
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
