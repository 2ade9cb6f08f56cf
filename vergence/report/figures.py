"""Records -> SVG text that goes straight into the page.

The page's colours are CSS variables, so that one drawing serves light, dark and paper: matplotlib draws in stand-in
colours, which are exchanged for the variables afterwards.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vergence.evaluate.interval import Estimate

Points = tuple[list[int], list[float]]
"""Steps, and the value at each."""

MOST = 400
"""Raw points drawn of one series: more cannot be told apart, and would make the page heavy."""
COLOURS = {
    "#0a0a01": "var(--series-1)",
    "#0a0a02": "var(--series-2)",
    "#0a0a03": "var(--faint)",
    "#0a0a04": "var(--rule)",
}
_FIRST, _SECOND, _FAINT, _RULE = COLOURS


class Plan(NamedTuple):
    """One small figure: its title, its unit, and which metrics it shows under which label."""

    title: str
    unit: str
    metrics: Mapping[str, str]


PLANS = (
    Plan("Accuracy in training", "share of responses", {"rewards/accuracy": ""}),
    Plan("Tune split", "share of answers", {"eval/accuracy": "right", "eval/perception_errors": "misread"}),
    Plan("KL to the masked view", "nats per token", {"perception/kl_masked": ""}),
    Plan("k3 to the masked view", "nats per token, held to 10", {"perception/k3_masked": ""}),
    Plan("Entropy", "nats per token", {"entropy": ""}),
    Plan("Gradient norm", "before clipping", {"grad_norm": ""}),
    Plan("Response length", "tokens", {"completions/mean_length": ""}),
    Plan("Ratio clipped", "share of tokens", {"clip_ratio/high": "above", "clip_ratio/low": "below"}),
    Plan("No answer", "share of responses", {"rewards/unparsed": "unparsed", "completions/clipped_ratio": "cut off"}),
)

OWN = (
    Plan("Groups kept", "share of scenes drawn", {"sampling/kept": ""}),
    Plan("Captions that leak", "share of captions", {"perception/caption_leak": ""}),
    Plan("Gradient of what looks", "in units of the surrogate's", {"perception/gradient_ratio": ""}),
)
"""Figures of methods that have such a thing."""


def plans(records: Sequence[Mapping[str, Any]]) -> list[Plan]:
    """What to draw of these metrics: the same figures for every run, then what this method has of its own.

    >>> [plan.title for plan in plans([{"step": 1, "perception/kept/kl": 0.1}])][len(PLANS):]
    ['KL to the view kept']
    """
    measured = {metric for record in records for metric in record}
    views = sorted(parts[1] for parts in (metric.split("/") for metric in measured) if parts[2:] == ["kl"])
    of_views = [Plan(f"KL to the view {view}", "nats per token", {f"perception/{view}/kl": ""}) for view in views]
    return [*PLANS, *of_views, *(plan for plan in OWN if measured >= plan.metrics.keys())]


class Line(NamedTuple):
    """What the caption says of one series."""

    label: str
    first: float
    last: float


class Curve(NamedTuple):
    """A drawn figure and its caption."""

    title: str
    unit: str
    lines: list[Line]
    not_finite: int
    """Values that were NaN or infinite and are not drawn."""
    svg: str


def curves(records: Sequence[Mapping[str, Any]], plans: Iterable[Plan] = PLANS) -> tuple[list[Curve], list[str]]:
    """The figures that can be drawn from the lines of metrics.jsonl, and the titles of those that cannot.

    A figure needs a metric with two finite values.

    >>> drawn, absent = curves([{"step": 1, "entropy": 2.0}, {"step": 2, "entropy": 1.0}], PLANS[4:6])
    >>> drawn[0].lines, absent
    ([Line(label='', first=2.0, last=1.0)], ['Gradient norm'])
    """
    drawn, absent = [], []
    steps = (records[0]["step"], records[-1]["step"]) if records else (0, 0)
    for plan in plans:
        found = {label: points(records, metric) for metric, label in plan.metrics.items()}
        series = {label: finite for label, (finite, _) in found.items() if len(finite[0]) >= 2}
        if not series:
            absent.append(plan.title)
            continue
        smooth = {label: smoothed(values) for label, (_, values) in series.items()}
        lines = [Line(label, float(values[0]), float(values[-1])) for label, values in smooth.items()]
        lost = sum(lost for _, lost in found.values())
        drawn.append(Curve(plan.title, plan.unit, lines, lost, _draw(series, smooth, steps)))
    return drawn, absent


def points(records: Iterable[Mapping[str, Any]], metric: str) -> tuple[Points, int]:
    """The finite values of a metric, and how many were not finite.

    >>> points([{"step": 1, "kl": 0.5}, {"step": 2}, {"step": 3, "kl": float("nan")}], "kl")
    (([1], [0.5]), 1)
    """
    there = [(record["step"], record[metric]) for record in records if metric in record]
    finite = [(step, value) for step, value in there if math.isfinite(value)]
    return ([step for step, _ in finite], [value for _, value in finite]), len(there) - len(finite)


def smoothed(values: Sequence[float]) -> np.ndarray:
    """The running mean over a tenth of the values around each one; at the ends over those that there are.

    >>> smoothed([0.0, 1.0, 5.0]).tolist()                  # too few to smooth
    [0.0, 1.0, 5.0]
    >>> smoothed([0.0, 2.0] * 10)[[0, 1, 2]].round(2).tolist()
    [1.0, 0.67, 1.33]
    """
    half = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=float))])
    places = np.arange(len(values))
    start, end = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[end] - sums[start]) / (end - start)


def interval(estimate: Estimate, reach: float, *, width: int = 140, height: int = 16) -> str:
    """A difference and its interval as a mark on a line from -reach to +reach, with zero in the middle.

    >>> interval(Estimate(0.1, -0.1, 0.2, 8), 0.2).count("class='doubtful'")          # it holds zero
    1
    """

    def x(value: float) -> str:
        return f"{4 + (width - 8) * (value / reach + 1) / 2:.1f}"

    middle = height / 2
    kind = "doubtful" if estimate.low <= 0 <= estimate.high else "clear"
    return (
        f"<svg class='interval' width='{width}' height='{height}' viewBox='0 0 {width} {height}' aria-hidden='true'>"
        f"<line class='zero' x1='{width / 2}' x2='{width / 2}' y1='0' y2='{height}'/><g class='{kind}'>"
        f"<line x1='{x(estimate.low)}' x2='{x(estimate.high)}' y1='{middle}' y2='{middle}'/>"
        f"<circle cx='{x(estimate.mean)}' cy='{middle}' r='3.5'/></g></svg>"
    )


def _draw(series: Mapping[str, Points], smooth: Mapping[str, np.ndarray], reach: tuple[int, int]) -> str:
    """`reach`: the first and last step of the run, which all figures share."""
    figure = Figure(figsize=(3.6, 1.9), layout="constrained")
    axes: Axes = figure.subplots()
    for (label, (steps, values)), colour in zip(series.items(), (_FIRST, _SECOND), strict=False):
        some = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST)).astype(int))
        steps_drawn = np.asarray(steps)[some]
        axes.plot(
            steps_drawn, np.asarray(values)[some], "o", color=colour, alpha=0.3, markersize=2.2, markeredgewidth=0
        )
        axes.plot(steps_drawn, smooth[label][some], color=colour, linewidth=1.5, solid_capstyle="round")
    low, high = min(min(values) for _, values in series.values()), max(max(values) for _, values in series.values())
    # every axis starts at zero, so that small changes look small
    axes.set_ylim(min(0.0, low) * 1.08, max(high, 0.0) * 1.08 or 1.0)
    edge = 0.02 * (reach[1] - reach[0])
    axes.set_xlim(reach[0] - edge, reach[1] + edge)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.tick_params(colors=_FAINT, labelsize=8, length=0, pad=4)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element: no prolog, no metadata, no addresses, the page's colours."""
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
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    for stand_in, colour in COLOURS.items():
        text = text.replace(stand_in, colour)
    return re.sub(r"\n\s*", "\n", text).strip()
