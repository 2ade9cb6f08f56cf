"""What a run has logged so far, number by number, and how to compare its present with its start."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from math import isfinite
from statistics import median
from typing import Any

START, NOW = 10, 5
"""Values whose median is a number's start, and its present."""
START_WATCHED = 2
"""Values whose median is the start of what is measured on watched rounds alone; its present is the last value."""


class Past:
    """The lines of metrics.jsonl up to a step.

    >>> past = Past()
    >>> for step in range(1, 21):
    ...     past.add({"step": step, "entropy": 0.3 if step <= 15 else 1.2})
    >>> past.start("entropy"), past.now("entropy"), past.since("entropy"), past.grown("entropy", 3.0)
    (0.3, 1.2, 16, True)
    """

    def __init__(self) -> None:
        self.step = 0
        self.broken: list[str] = []
        """The numbers of the last line that are not finite."""
        self._steps: dict[str, list[int]] = {}
        self._values: dict[str, list[float]] = {}
        self._best: dict[str, float] = {}
        self._jumps: dict[str, list[float]] = {}

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line; what is not a number is left out."""
        self.step, self.broken = int(line["step"]), []
        for name, value in line.items():
            if name == "step" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not isfinite(value):
                self.broken.append(name)
                continue
            values = self._values.setdefault(name, [])
            if values:
                insort(self._jumps.setdefault(name, []), abs(value - values[-1]))
            values.append(float(value))
            self._steps.setdefault(name, []).append(self.step)
            if len(values) >= NOW:
                here = median(values[-NOW:])
                self._best[name] = max(self._best.get(name, here), here)

    def last(self, name: str, number: int) -> list[float]:
        """The last so many values; none where there are not as many."""
        values = self._values.get(name, [])
        return values[-number:] if len(values) >= number else []

    def start(self, name: str) -> float | None:
        """The median of the first values; None while the present still overlaps them."""
        values = self._values.get(name, [])
        first, after = (START_WATCHED, 1) if is_watched(name) else (START, NOW)
        return median(values[:first]) if len(values) >= first + after else None

    def now(self, name: str) -> float:
        """The median of the last values; 0 where nothing was logged."""
        values = self._values.get(name, [])
        return median(values[-1 if is_watched(name) else -NOW :]) if values else 0.0

    def since(self, name: str) -> int:
        """The step of the first value that `now` is about."""
        return self._steps[name][-1 if is_watched(name) else -NOW :][0]

    def best(self, name: str) -> float:
        """The highest that the median over `NOW` values ever was; 0 where there were not as many."""
        return self._best.get(name, 0.0)

    def noise(self, name: str) -> float:
        """The standard deviation of one value, estimated from the median jump between neighbours (of a normal
        distribution, 0.954 standard deviations), which neither a trend nor a fall disturbs."""
        jumps = self._jumps.get(name)
        return jumps[len(jumps) // 2] / 0.954 if jumps else 0.0

    def grown(self, name: str, times: float) -> bool:
        """Whether it is at least so many times what it was at the start, whatever its sign."""
        start = self.start(name)
        return start is not None and 0 < abs(start) * times <= abs(self.now(name))

    def risen(self, name: str, by: float) -> bool:
        """Whether it is at least this much, and two standard deviations of its noise, above its start."""
        start = self.start(name)
        return start is not None and self.now(name) >= start + max(by, 2 * self.noise(name))

    def fallen(self, name: str, to: float, noises: float) -> bool:
        """Whether it is at most this share of the best that it was, and so many standard deviations of its noise below.

        Four are as far apart as the highest and the lowest of some hundred medians of nothing but noise.
        """
        best = self.best(name)
        return self.start(name) is not None and self.now(name) <= min(to * best, best - noises * self.noise(name))

    def moved(self, name: str) -> str:
        """From what, to what, since when. Only where there is a start."""
        return f"from {self.start(name):.3g} to {self.now(name):.3g} since step {self.since(name)}"


def is_watched(name: str) -> bool:
    """Whether a number is logged on watched rounds alone (`Config.watch_every`).

    >>> is_watched("perception/kl_masked"), is_watched("perception/caption_leak"), is_watched("entropy")
    (True, False, False)
    """
    return name.startswith("perception/") and name != "perception/caption_leak"
