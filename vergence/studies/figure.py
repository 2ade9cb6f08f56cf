"""A study's figure: what each arm reached, and what each difference is, every number with its interval."""

from __future__ import annotations

from io import BytesIO
from math import isfinite
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vergence.disk import write_whole
from vergence.evaluate.interval import Estimate
from vergence.studies.compare import Found
from vergence.studies.sentences import verdict

FULL, PALE, RULE = "#0b4f8a", "#8a8a8a", "#d0d0d0"
"""Colours that differ in lightness too; what is told from zero is also drawn full, what is not, hollow."""
SHOWN = ("base", "control", "variant")
NAMES = {"base": "against its base", "control": "against a control", "variant": "against another setting"}
INCHES = 0.3
"""Height of one line."""


def draw(study: Found, out: Path) -> list[Path]:
    """Write figure.svg and figure.png into the study's folder; equal studies give equal files."""
    compared = [one for family in SHOWN for one in study.compared if one.family == family]
    lines = max(len(study.rows), len(compared) + len({one.family for one in compared}), 3)
    figure = Figure(figsize=(12.5, 1.4 + INCHES * lines), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    _reached(left, study)
    _differences(right, study)
    svg, png = BytesIO(), BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "vergence", "svg.fonttype": "none"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
    paths = {out / "figure.svg": svg, out / "figure.png": png}
    for path, file in paths.items():
        write_whole(path, file.getvalue())
    return list(paths)


def _reached(axes: Axes, study: Found) -> None:
    names = [row.arm for row in study.rows]
    for at, row in enumerate(study.rows):
        axes.plot(row.by_seed, [at] * len(row.by_seed), "o", color=PALE, markersize=3, alpha=0.7, zorder=1)
        _mark(axes, row.accuracy, at, FULL, full=True)
        axes.plot([row.blind.mean], [at], "x", color=PALE, markersize=5, zorder=1)
    axes.set_title("accuracy: mean over seeds [95 %], each seed (grey), image blanked (×)", fontsize=9, loc="left")
    _finish(axes, names)


def _differences(axes: Axes, study: Found) -> None:
    names: list[str] = []
    for family in SHOWN:
        those = [one for one in study.compared if one.family == family]
        names += [NAMES[family]] if those else []
        for one in those:
            told = verdict(one) in ("more", "less")
            at = len(names)
            values = [value.mean for value in one.by_seed.values()]
            axes.plot(values, [at] * len(values), "o", color=PALE, markersize=3, alpha=0.7, zorder=1)
            _mark(axes, one.difference, at, FULL, full=told)
            names.append(f"{one.arm} − {one.against}")
    axes.axvline(0.0, color="black", linewidth=0.8, zorder=0)
    axes.set_title("difference [95 %]: full where told from zero, corrected by Holm", fontsize=9, loc="left")
    _finish(axes, names)
    for label in axes.get_yticklabels():
        if label.get_text() in NAMES.values():
            label.set_fontweight("bold")


def _mark(axes: Axes, one: Estimate, at: int, colour: str, *, full: bool) -> None:
    if isfinite(one.low):
        axes.plot([one.low, one.high], [at, at], color=colour, linewidth=1.6, zorder=2)
    axes.plot([one.mean], [at], "D", color=colour, markersize=6, markerfacecolor=colour if full else "white", zorder=3)


def _finish(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)  # one arm alone has no differences to draw
    axes.tick_params(length=0)
    axes.grid(axis="x", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
