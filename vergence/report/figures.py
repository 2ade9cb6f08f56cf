"""The lines of metrics.jsonl -> the curves of a page: which are drawn, and what each says in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vergence.report.drawing import Series, lines

Points = tuple[list[int], list[float]]
"""Steps, and the value at each."""


class Plan(NamedTuple):
    """One small figure: its title, its unit, and which metrics it shows under which label."""

    title: str
    unit: str
    metrics: Mapping[str, str]


PLANS = (
    Plan("Reward", "mean of responses", {"reward": ""}),
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

MOST_OWN = 12
"""Views, and terms, of a method's own that are drawn."""
HUGE = 1e100
"""What is not below it cannot be drawn, and counts as not finite."""
OWN = (
    Plan("Groups without signal", "share of groups", {"frac_reward_zero_std": ""}),
    Plan("Groups kept", "share of scenes drawn", {"sampling/kept": ""}),
    Plan("Captions that leak", "share of captions", {"perception/caption_leak": ""}),
    Plan("Gradient of what looks", "in units of the surrogate's", {"perception/gradient_ratio": ""}),
)
"""Figures of runs that have measured such a thing."""


def plans(records: Sequence[Mapping[str, Any]]) -> list[Plan]:
    """What to draw of these metrics: the same figures for every run, then what this method has of its own.

    The entropy is drawn for each view that it was measured of.

    >>> [plan.title for plan in plans([{"step": 1, "perception/kept/kl": 0.1}])][len(PLANS):]
    ['KL to the view kept']
    >>> plans([{"step": 1, "entropy": 0.3, "perception/entropy_masked": 0.5}])[5].metrics
    {'entropy': 'image', 'perception/entropy_masked': 'masked'}
    """
    measured = dict.fromkeys(metric for record in records for metric in record)
    split = [metric.split("/") for metric in measured]
    of_view = sorted({parts[1] for parts in split if parts[0] == "perception" and parts[2:] == ["kl"]})[:MOST_OWN]
    entropies = {"entropy": "image", "perception/entropy_masked": "masked"}
    entropies |= {f"perception/{view}/entropy": _own(view) for view in of_view}
    entropies = {metric: label for metric, label in entropies.items() if metric in measured}
    by_view = Plan("Entropy", "nats per token, by view", entropies)
    terms = [parts for parts in split if parts[:2] == ["perception", "selected"]][:MOST_OWN]
    selected = {"/".join(parts): parts[2] for parts in terms}
    return [
        *(by_view if one.title == "Entropy" and len(entropies) > 1 else one for one in PLANS),
        *(Plan(_to_view(view), "nats per token", {f"perception/{view}/kl": ""}) for view in of_view),
        *([Plan("Tokens selected", "share of tokens, by term", selected)] if selected else []),
        *(plan for plan in OWN if measured.keys() >= plan.metrics.keys()),
    ]


def _own(view: str) -> str:
    """A method's own view may be called as the one that is watched of all methods."""
    return "own masked" if view == "masked" else view


def _to_view(view: str) -> str:
    return "KL to its own masked view" if view == "masked" else f"KL to the view {view}"


class Line(NamedTuple):
    """What the caption says of one series."""

    label: str
    first: float
    last: float
    style: int
    """Its colour and dash: `drawing.look`."""


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

    >>> drawn, absent = curves([{"step": 1, "entropy": 2.0}, {"step": 2, "entropy": 1.0}], PLANS[5:7])
    >>> drawn[0].lines, absent
    ([Line(label='', first=2.0, last=1.0, style=0)], ['Gradient norm'])
    """
    drawn, absent = [], []
    reach = (records[0]["step"], records[-1]["step"]) if records else (0, 0)
    for plan in plans:
        found = {label: points(records, metric) for metric, label in plan.metrics.items()}
        curve = curve_of(plan, found, reach)
        if curve is None:
            absent.append(plan.title)
        else:
            drawn.append(curve)
    return drawn, absent


def overlaid(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Curve]:
    """The same figures with a line for each run, its name at the end; a figure shows one metric.

    A figure needs a run with two finite values; a run keeps its colour and dash in all of them.

    >>> runs = {"a": [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.3}], "b": [{"step": 1, "reward": 0.1}]}
    >>> [(curve.title, [line.label for line in curve.lines]) for curve in overlaid(runs)]
    [('Reward', ['a'])]
    """
    every = dict[tuple[str, str], str]()
    for records in runs.values():
        for plan in plans(records):
            for metric, label in plan.metrics.items():
                several = label and label != "image"
                every[metric, f"{plan.title}: {label}" if several else plan.title] = plan.unit.split(", by ")[0]
    steps = [record["step"] for records in runs.values() for record in records]
    reach = (min(steps, default=0), max(steps, default=0))
    drawn = []
    for (metric, title), unit in every.items():
        found = {run: points(records, metric) for run, records in runs.items()}
        curve = curve_of(Plan(title, unit, {metric: ""}), found, reach, labelled=True)
        if curve is not None and curve.title not in (one.title for one in drawn):
            drawn.append(curve)
    return drawn


def curve_of(
    plan: Plan, found: Mapping[str, tuple[Points, int]], reach: tuple[int, int], *, labelled: bool = False
) -> Curve | None:
    """A figure of these series, each with how many of its values were not finite; None if none has two that are."""
    series = [
        Series(label, steps, values, smoothed(values), style)
        for style, (label, ((steps, values), _)) in enumerate(found.items())
        if len(steps) >= 2
    ]
    if not series:
        return None
    said = [Line(one.label, float(one.smooth[0]), float(one.smooth[-1]), one.style) for one in series]
    words = "; ".join(f"{line.label} from {short(line.first)} to {short(line.last)}".strip() for line in said)
    svg = lines(series, reach, said=f"{plan.title}, {plan.unit}: {words}.", labelled=labelled)
    return Curve(plan.title, plan.unit, said, sum(lost for _, lost in found.values()), svg)


def points(records: Iterable[Mapping[str, Any]], metric: str) -> tuple[Points, int]:
    """The finite values of a metric, and how many were not finite.

    >>> points([{"step": 1, "kl": 0.5}, {"step": 2}, {"step": 3, "kl": float("nan")}], "kl")
    (([1], [0.5]), 1)
    """
    there = [(record["step"], record[metric]) for record in records if metric in record]
    finite = [(step, value) for step, value in there if isinstance(value, int | float) and abs(value) < HUGE]
    return ([step for step, _ in finite], [float(value) for _, value in finite]), len(there) - len(finite)


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


def short(value: float) -> str:
    """A measurement in two figures or more.

    >>> short(0.6), short(143.21), short(0.0), short(0.00002), short(-0.00002), short(-0.25)
    ('0.60', '143', '0', '<0.001', '>−0.001', '−0.25')
    """
    if value < 0:
        return f"−{short(-value)}" if value <= -0.001 else ">−0.001"
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:.0f}" if value == 0 or abs(value) >= 10 else f"{value:#.2g}"
