"""The audit of a run as its page shows it: evaluation/audit.json, read with care."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vergence.evaluate.interval import Estimate
from vergence.report.drawing import marks
from vergence.report.template import percent, reach
from vergence.train.card import shown
from vergence.types import UserError

FILE = "evaluation/audit.json"
LARGEST = 2**22
"""Bytes of the file that are read at most: it holds means, not answers."""
MOST = 60
"""Entries of a list that are shown."""
AGAIN = "make it again with `vergence audit`, or take the file away"
LONGEST = 400
"""Characters of a text that are shown."""


class Measure(NamedTuple):
    """One number of the audit."""

    name: str
    about: str
    estimate: Estimate


class Audit(NamedTuple):
    """What the audit found."""

    verdict: str
    how: str
    """Under which conditions: the model, the wording, answers to each question."""
    measures: list[Measure]
    errors: list[Measure]
    """Share of all answers that are wrong by each kind."""
    reduction: list[Measure]
    """How many fewer perception errors it makes than another model; empty where none was named."""
    against: str
    """That model."""
    probes: list[Measure]
    """By position in the model's own reasoning: what it says of true and false claims there."""
    figure: str
    """The probes as an <svg> element; empty where there are none."""
    left_out: list[tuple[str, str]]
    """(what, why) of whatever could not be measured."""
    reach: float
    """The scale of its marks."""


def audit_of(run: Path) -> Audit | None:
    """The audit that lies in a run folder; None where nobody made one.

    Raises:
        UserError: the file is damaged: the entry is named.
    """
    path = run / FILE
    if not path.is_file():
        return None
    found = _read(path)
    measures, errors, probes = (_measures(path, name, found.get(name)) for name in ("measures", "errors", "probes"))
    reduced = found.get("reduction") or {}
    named = reduced.items() if isinstance(reduced, dict) else ()
    reduction = _measures(path, "reduction", [one | {"name": name} for name, one in named if isinstance(one, dict)])
    left_out = found.get("left_out")
    reasons = [one for one in left_out if isinstance(one, dict)] if isinstance(left_out, list) else []
    every = [*measures, *errors, *reduction, *probes]
    return Audit(
        verdict=_text(found.get("verdict")),
        how=_how(found),
        measures=measures,
        errors=[_of_wrong(path, one, entry) for one, entry in zip(errors, found.get("errors") or [], strict=False)],
        reduction=reduction,
        against=_text(shown(str(found.get("against") or "another model"))),
        probes=probes,
        figure=_figure(probes),
        left_out=[(_text(one.get("what")), _text(one.get("why"))) for one in reasons[:MOST]],
        reach=reach([one.estimate for one in every]),
    )


def _how(found: Mapping[str, Any]) -> str:
    """What was asked, as far as the file tells."""
    told = {
        "model": shown(str(found.get("model", ""))),
        "questions": f"{_text(found.get('questions'))} questions",
        "split": f"{_text(found.get('split'))} split",
        "samples": f"{_text(found.get('samples'))} answers to each",
        "wording": f"wording {_text(found.get('wording'))}",
    }
    return ", ".join(_text(words) for name, words in told.items() if found.get(name) is not None)


def _of_wrong(path: Path, one: Measure, entry: Mapping[str, Any]) -> Measure:
    """The kind of error with its share of the wrong answers beside that of all, where the file tells it."""
    if not entry.get("of_wrong"):
        return one
    share = _measure(path, f"errors, {one.name}, of_wrong", entry["of_wrong"]).estimate
    said = f"{percent(share.mean)} % of the wrong answers, {percent(share.low)} to {percent(share.high)}"
    return one._replace(about=said)


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST:,} bytes, which no audit is: {AGAIN}")
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): {AGAIN}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object: {AGAIN}")
    return found


def _measures(path: Path, name: str, entries: Any) -> list[Measure]:
    if not isinstance(entries or [], list):
        raise UserError(f"{path}: {name!r} is no list; {AGAIN}")
    return [_measure(path, f"{name}, entry {number}", one) for number, one in enumerate((entries or [])[:MOST], 1)]


def _measure(path: Path, where: str, one: Any) -> Measure:
    if not isinstance(one, dict):
        raise UserError(f"{path}: {where} is no JSON object; {AGAIN}")
    numbers = [one.get(field) for field in ("mean", "low", "high", "n")]
    for field, value in zip(("mean", "low", "high", "n"), numbers, strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{path}: {where} has no number for {field!r}; {AGAIN}")
    mean, low, high, n = (float(value) for value in numbers)
    position = one.get("position")
    label = f"{100 * position:.0f} %" if isinstance(position, float) and 0 <= position <= 1 else position
    return Measure(
        _text(one.get("name", label)).replace("_", " "), _text(one.get("about", "")), Estimate(mean, low, high, int(n))
    )


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _figure(probes: list[Measure]) -> str:
    if len(probes) < 2:
        return ""
    words = "; ".join(f"at {one.name} {100 * one.estimate.mean:.1f} %" for one in probes)
    return marks({one.name: one.estimate for one in probes}, said=f"Probes by position: {words}.")
