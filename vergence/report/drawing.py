"""Numbers -> SVG text that goes straight into a page.

A page's colours are CSS variables, so that one drawing serves light, dark and paper: matplotlib draws in stand-in
colours, which are exchanged for the variables afterwards. No series is told by its colour alone: each has a dash of its
own too, and its label.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vergence.evaluate.interval import ALIKE, Estimate
from vergence.report.legible import legible

MOST = 400
"""Raw points drawn of one series: more cannot be told apart, and would make the page heavy."""
SERIES = tuple(f"var(--series-{number})" for number in range(1, 7))
"""The colours of lines, in order; the pages' style sheet says what they are in light and in dark."""
DASHES = ((), (4, 2), (1, 1.4), (6, 1.6, 1, 1.6), (2.4, 1.2), (8, 2.4))
"""Lengths of line and gap, in line widths, in the same order."""
_SERIES = tuple(f"#0a0a1{number}" for number in range(1, 7))
_FAINT, _RULE, _INK = "#0a0a03", "#0a0a04", "#0a0a05"
COLOURS = {
    **dict(zip(_SERIES, SERIES, strict=True)),
    _FAINT: "var(--faint)",
    _RULE: "var(--rule)",
    _INK: "var(--ink)",
}
"""Stand-in -> what stands in the page."""


class Series(NamedTuple):
    """One line of a figure."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    """Finite, one at each step."""
    smooth: np.ndarray
    """Their running mean, which is the line."""
    style: int
    """Which colour and dash: see `look`."""


def look(style: int) -> tuple[int, tuple[int | float, ...]]:
    """(number of the colour, dash) of a style. The first six differ in both, the next six pair them anew.

    >>> look(0), look(1), look(7)
    ((0, ()), (1, (4, 2)), (1, (1, 1.4)))
    """
    return style % len(SERIES), DASHES[(style + style // len(SERIES)) % len(DASHES)]


def lines(series: Sequence[Series], reach: tuple[int, int], *, said: str, labelled: bool = False) -> str:
    """Some series over steps, as an <svg> element.

    Args:
        reach: the first and last step of the axis, which all figures of a page share.
        said: the figure in words, for those who do not see it.
        labelled: names stand at the ends of the lines, and single steps are not drawn; else they are, as points.
    """
    figure = Figure(figsize=(4.6, 2.5) if labelled else (3.6, 1.9), layout="constrained")
    axes: Axes = figure.subplots()
    for one in series:
        colour, dash = look(one.style)
        some = np.unique(np.linspace(0, len(one.steps) - 1, min(len(one.steps), MOST)).astype(int))
        steps = np.asarray(one.steps)[some]
        if not labelled:
            raw = np.asarray(one.values)[some]
            axes.plot(steps, raw, "o", color=_SERIES[colour], alpha=0.3, markersize=2.2, markeredgewidth=0)
        drawn = {"dashes": dash, "dash_capstyle": "butt"} if dash else {"solid_capstyle": "round"}
        axes.plot(steps, one.smooth[some], color=_SERIES[colour], linewidth=1.5, **drawn)
    of_line = [(one.smooth if labelled else np.asarray(one.values)) for one in series]
    low, high = min(values.min() for values in of_line), max(values.max() for values in of_line)
    # every axis starts at zero, so that small changes look small
    axes.set_ylim(min(0.0, float(low)) * 1.08, max(float(high), 0.0) * 1.08 or 1.0)
    edge = 0.02 * (reach[1] - reach[0]) or 0.5
    axes.set_xlim(reach[0] - edge, reach[1] + edge)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if labelled:
        _name_lines(axes, series)
    _plain(axes)
    return svg(figure, said=said)


def marks(estimates: Mapping[str, Estimate], *, said: str) -> str:
    """Shares, or differences of them, in a row, each a point with its interval, as an <svg> element.

    The axis is in percent and goes from 0, where a line is, to 100; below 0 only where an interval does.
    """
    figure = Figure(figsize=(3.6, 1.9), layout="constrained")
    axes: Axes = figure.subplots()
    axes.axhline(0, color=_FAINT, linewidth=0.9)
    for place, one in enumerate(estimates.values()):
        axes.plot(
            [place, place], [100 * one.low, 100 * one.high], color=_SERIES[0], linewidth=1.5, solid_capstyle="round"
        )
        axes.plot([place], [100 * one.mean], "o", color=_SERIES[0], markersize=4.5, markeredgewidth=0)
    axes.set_ylim(min(0.0, *(108 * one.low for one in estimates.values())), 104)
    axes.set_xlim(-0.6, len(estimates) - 0.4)
    axes.set_xticks(range(len(estimates)), [legible(label[:12]) for label in estimates], parse_math=False)
    _plain(axes)
    return svg(figure, said=said)


def interval(estimate: Estimate, reach: float, *, width: int = 140, height: int = 16) -> str:
    """A difference and its interval as a mark on a line from -reach to +reach, with zero in the middle.

    >>> interval(Estimate(0.1, -0.1, 0.2, 8), 0.2).count("class='doubtful'")          # it holds zero
    1
    >>> interval(Estimate(0.1, 1e-17, 0.2, 8), 0.2).count("class='doubtful'")  # it ends at zero, but for rounding
    1
    """

    def x(value: float) -> str:
        return f"{4 + (width - 8) * (min(1.0, max(-1.0, value / reach)) + 1) / 2:.1f}"

    middle, origin = height / 2, width / 2
    kind = "doubtful" if estimate.low <= ALIKE and estimate.high >= -ALIKE else "clear"
    return (
        f"<svg class='interval' width='{width}' height='{height}' viewBox='0 0 {width} {height}' aria-hidden='true'>"
        f"<line class='zero' x1='{origin:g}' x2='{origin:g}' y1='0' y2='{height}'/><g class='{kind}'>"
        f"<line x1='{x(estimate.low)}' x2='{x(estimate.high)}' y1='{middle}' y2='{middle}'/>"
        f"<circle cx='{x(estimate.mean)}' cy='{middle}' r='3.5'/></g></svg>"
    )


def swatch(style: int) -> str:
    """A short piece of a line in a style, to stand before its name.

    >>> "stroke-dasharray='8 4'" in swatch(1)
    True
    """
    colour, dash = look(style)
    gaps = f" stroke-dasharray='{' '.join(f'{2 * length:g}' for length in dash)}'" if dash else ""
    return (
        f"<svg class='swatch' width='26' height='8' viewBox='0 0 26 8' aria-hidden='true'>"
        f"<line x1='1' x2='25' y1='4' y2='4' stroke='{SERIES[colour]}' stroke-width='2'{gaps}/></svg>"
    )


def spread(heights: Sequence[float], least: float) -> list[float]:
    """The heights moved apart, in their order, until neighbours are `least` apart: no further than they must.

    >>> spread([0.0, 0.1, 5.0], 1.0)
    [-0.45, 0.55, 5.0]
    """
    order = sorted(range(len(heights)), key=lambda at: heights[at])
    groups: list[list[int]] = []
    for at in order:  # a group is moved as one, around the mean of where its members would stand
        groups.append([at])
        while len(groups) > 1 and _foot(groups[-1], heights, least) < _foot(groups[-2], heights, least) + least * len(
            groups[-2]
        ):
            last = groups.pop()
            groups[-1] += last
    moved = dict[int, float]()
    for group in groups:
        foot = _foot(group, heights, least)
        moved |= {at: round(foot + least * place, 6) for place, at in enumerate(group)}
    return [moved[at] for at in range(len(heights))]


def _foot(group: Sequence[int], heights: Sequence[float], least: float) -> float:
    return sum(heights[at] - least * place for place, at in enumerate(group)) / len(group)


def _name_lines(axes: Axes, series: Sequence[Series]) -> None:
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    ends = [float(one.smooth[-1]) for one in series]
    for one, end, height in zip(series, ends, spread(ends, 0.075 * (high - low)), strict=True):
        colour, _ = look(one.style)
        from_, to = one.steps[-1], right + 0.03 * (right - left)
        axes.plot([from_, to], [end, height], color=_SERIES[colour], linewidth=0.6, alpha=0.8, clip_on=False)
        # a name is somebody's text: a dollar sign in it is no formula
        axes.text(
            to + 0.01 * (right - left), height, legible(one.label), color=_INK, size=8, va="center", parse_math=False
        ).set_clip_on(False)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _plain(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.tick_params(colors=_FAINT, labelsize=8, length=0, pad=4)


def svg(figure: Figure, *, said: str) -> str:
    """A figure as an <svg> element: no prolog, no metadata, no addresses, the page's colours; `said` is read aloud."""
    file = io.StringIO()
    # a fixed salt gives equal ids to equal drawings; letters stay text, in the page's font
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vergence"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # its style sheet would hold for the whole page, which has one of its own
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    head = f'role="img" aria-label="{escape(legible(said))}"'
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', lambda found: f'<svg viewBox="{found[1]}" {head}>', text, count=1
    )
    for stand_in, colour in COLOURS.items():
        text = text.replace(stand_in, colour)
    return re.sub(r"\n\s*", "\n", text).strip()
