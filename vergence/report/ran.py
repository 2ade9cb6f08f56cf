"""What was run: the method, the settings, the data, the versions; each from a file of the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from vergence import objectives
from vergence.train.config import Config
from vergence.train.data import read_data, told
from vergence.train.interventions import Intervention
from vergence.train.interventions import interventions as done_in
from vergence.train.recorded import METRICS, ROLLOUT, checked
from vergence.train.run import load_run_config, read_lines
from vergence.types import UserError

LONGEST = 300
"""Characters of one entry that are shown."""
HOLDS = {"metrics.jsonl": METRICS, "rollouts.jsonl": ROLLOUT}
"""What the lines of each file must hold."""
LARGEST = 2**20
"""Characters of a card that are read."""
MOST = 50
"""Interventions that are shown."""


class Setting(NamedTuple):
    """A field of a config."""

    field: str
    value: str
    changed: bool
    """Whether it differs from the default."""


def open_run(run: Path | str) -> tuple[Path, Config]:
    """A run's folder, and its config.

    Raises:
        UserError: there is no such folder, or it holds no run.
    """
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"no run at {run}: there is no such folder; give one that `vergence train` has written")
    return run, load_run_config(run)


def lines_of(run: Path, name: str) -> Iterator[dict[str, Any]]:
    """The records of a file of a run, of which there must be some.

    Raises:
        UserError: there is no such file, or it is empty or damaged.
    """
    if not (run / name).is_file():
        raise UserError(f"{run} holds no {name}: the run folder is not complete; copy the file there, or train anew")
    records = checked(read_lines(run / name), run / name, HOLDS.get(name, {}))
    one = next(records, None)
    if one is None:
        raise UserError(f"{run / name} is empty: no step was finished; go on with --resume, then report again")
    yield one
    yield from records


class Done(NamedTuple):
    """What was done about what a guard had raised."""

    step: int
    guard: str
    did: str
    said: str
    """What the guard saw."""


def interventions(run: Path) -> list[Done]:
    """What guards made of a run, in order, at most `MOST` times.

    Raises:
        UserError: interventions.jsonl is damaged.
    """
    return [Done(one.step, one.guard[:LONGEST], did(one), one.said[: 3 * LONGEST]) for one in done_in(run)[:MOST]]


def did(one: Intervention) -> str:
    """An intervention in words.

    >>> did(Intervention(68, 64, "KL hacking", "it surges", "back", 50, "gamma", 0.2, 0.1))
    'went back to step 50, and on with gamma 0.1 in place of 0.2'
    >>> did(Intervention(9, 9, "not finite", "", "stop"))
    'stopped the run'
    """
    if one.action != "back":
        return "stopped the run"
    before = "" if one.from_value is None else f" in place of {one.from_value:g}"
    return f"went back to step {one.to}, and on with {one.option[:LONGEST]} {one.to_value:g}{before}"


def settings(config: Config) -> list[Setting]:
    """Each field of a config.

    >>> [line[:] for line in settings(Config(seed=7)) if line.field in ("seed", "steps")]
    [('seed', '7', True), ('steps', '100', False)]
    """
    default = asdict(Config())
    return [Setting(name, plain(value), value != default[name]) for name, value in asdict(config).items()]


def plain(value: Any) -> str:
    """A field's value as a page says it.

    >>> plain(("digits", "bars")), plain({"gamma": "0.1"}), plain({}), plain("")
    ('digits, bars', 'gamma 0.1', 'none', 'none')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items()) or "none"
    return (", ".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "none"


def facts(run: Path, config: Config) -> list[tuple[str, str]]:
    """(what, in words) of a run, in a few lines: its method, its data, who judged, and the versions."""
    said = [("Method", _method(config)), ("Data", _data(run, config))]
    rollout = next(read_lines(run / "rollouts.jsonl"), {}) if (run / "rollouts.jsonl").is_file() else {}
    said += [("Judged by", str(rollout["verifier"]))] if "verifier" in rollout else []
    made = versions(run)
    return [(name, text[:LONGEST]) for name, text in said + ([("Versions", ", ".join(made))] if made else [])]


def versions(run: Path) -> list[str]:
    """The versions that the card of the run's last checkpoint names; [] where there is none yet."""
    cards = [path for path in sorted((run / "checkpoints").glob("step-*/README.md")) if path.is_file()]
    if not cards:
        return []
    with cards[-1].open(encoding="utf-8", errors="replace") as file:
        lines = file.read(LARGEST).split("\n")
    if "## Versions" not in lines:
        return []
    after = lines[lines.index("## Versions") + 1 :]
    section = after[: next((at for at, line in enumerate(after) if line.startswith("## ")), len(after))]
    return [line[2:] for line in section if line.startswith("- ")]


def _method(config: Config) -> str:
    about = objectives.method(config.method, **config.options).about
    options = f" With {plain(config.options)}." if config.options else ""
    return f"{about.title} (arXiv:{about.paper}), {about.variant}.{options}"


def _data(run: Path, config: Config) -> str:
    data = read_data(run)
    counted = told(data).removeprefix("data: ").replace("\n", "; ")
    if counted:
        return counted
    worlds = data.get("worlds")
    return f"{config.scenes} scenes, drawn without end" + (f": {', '.join(map(str, worlds))}" if worlds else "")
