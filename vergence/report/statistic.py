"""What a statistic of a token is called, what it means, and the scale on which its colours lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vergence.report.legible import bounded

_OF_VIEW = {
    "kl": (
        "KL",
        "to",
        "nats",
        "How far the prediction of this token moves from the image to this view: the KL, over the whole vocabulary.",
    ),
    "k3": (
        "k3",
        "to",
        "nats",
        "The estimate of that KL from the token alone that was sampled, held to 10 nats.",
    ),
    "log ratio": (
        "log-ratio",
        "to",
        "nats",
        "Log-probability of this token with the image, less that under this view: above zero, the image speaks for it.",
    ),
    "entropy gain": (
        "entropy gain",
        "under",
        "nats",
        "Entropy under this view less that with the image: how much more unsure the model is without what was taken.",
    ),
    "weight": ("weight", "in", "", "How much this token counts in this term of the loss."),
}
_ALONE = {
    "entropy": ("nats", "Entropy of the next-token distribution, with the image: how unsure the model is."),
    "advantage": ("", "What the surrogate sees at this token, after the method has reshaped it."),
}
LOWEST, HIGHEST = 0.02, 0.98
"""The quantiles at which a scale ends; what lies beyond has the end's colour."""


class Statistic(NamedTuple):
    """A statistic of tokens, and its scale over all rollouts of a page."""

    name: str
    label: str
    unit: str
    about: str
    """What it says, in a sentence; empty where only its maker knows."""
    low: float
    high: float
    signed: bool
    """Whether it has both signs: its scale then reaches as far below zero as above."""
    view: str
    """The view (or the term) that it is about; empty if it is about none."""
    what: str
    """What it is called beside the others of its view."""


def statistic(name: str, values: Sequence[float]) -> Statistic:
    """A statistic as the page names it, its scale from the 2nd to the 98th percentile of these values.

    >>> statistic("kl masked", [0.0, 1.0, 2.0, 100.0])[1:3]
    ('KL to masked', 'nats')
    >>> one = statistic("log ratio masked", [-1.0, 0.5] * 50)
    >>> one.low, one.high, one.signed
    (-1.0, 1.0, True)
    """
    what, link, view, unit, about = _words(name)
    low, high = (float(end) for end in np.quantile(values, (LOWEST, HIGHEST))) if len(values) else (0.0, 0.0)
    if low == high and len(values):
        low, high = float(min(values)), float(max(values))
    signed = low < -1e-3 * max(abs(low), abs(high))
    if signed:
        high = max(abs(low), abs(high))
        low = -high
    elif low < 1e-3 * high:  # as good as zero, and easier to read
        low = min(low, 0.0)
    view = bounded(view, 60)
    label = f"{what} {link} {view}" if view else what
    return Statistic(bounded(name, 60), label, unit, about, _short(low), _short(high), signed, view, what)


def _words(name: str) -> tuple[str, str, str, str, str]:
    """(what it is, the word between it and its view, the view, its unit, what it says)"""
    for start, (what, link, unit, about) in _OF_VIEW.items():
        if name.startswith(f"{start} "):
            return what, link, name[len(start) + 1 :], unit, about
    unit, about = _ALONE.get(name, ("", ""))
    return bounded(name, 60), "", "", unit, about


def _short(value: float) -> float:
    return float(f"{value:.3g}")
