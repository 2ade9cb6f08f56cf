"""What a run has logged so far, number by number, and how to compare its present with its start.

Kept is what comparing needs and no more, so that a run may be as long as it likes and log what it likes: of each number
that a guard asks for its first values, its last ones, the best it was, and how far its last thousand values jumped.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Collection, Mapping
from math import isfinite
from statistics import median
from typing import Any, NamedTuple

START, NOW = 10, 5
"""Values whose median is a number's start, and its present."""
START_WATCHED = 2
"""Values whose median is the start of what is measured on watched rounds alone; its present is the last value."""
LAST, JUMPS = 21, 1000
"""Values that are kept of a number, and jumps between neighbours, of which its noise is the median."""
RIGHT, CUT, UNPARSED = "rewards/accuracy", "completions/clipped_ratio", "rewards/unparsed"
LOSS, GRADIENT, ZERO = "loss", "grad_norm", "frac_reward_zero_std"
TAUGHT, SPARSE = "grad_norm of steps with signal", 0.95
"""`GRADIENT` again, where less than this share of the round's groups had siblings of equal reward: the others teach
nothing, and the length of a gradient that is next to nothing is nothing to compare with."""
FOLLOWED = frozenset(
    {
        *(RIGHT, CUT, UNPARSED, GRADIENT, ZERO, "rewards/timed_out", "entropy", "sampling/draws", "clip_ratio/high"),
        *("completions/mean_length", "completions/repetition", "completions/disavowal"),
        *("loss/perception", "loss/contrast", "sampler/gap_mean", "sampler/gap_of_most"),
        *(f"perception/{name}_masked" for name in ("kl", "k3", "k3_p99", "k3_variance", "entropy")),
        *("perception/caption_leak", "perception/gradient_ratio"),
    }
)
"""The numbers that guards ask for, beside the KL to each view (perception/VIEW/kl) and its entropy."""
MOST = 100
"""Numbers beyond which no further view is followed, whatever is logged."""


class Seen(NamedTuple):
    """What a guard saw: the step of the first value that it is about, and what it says of it."""

    since: int
    said: str


class _Number:
    """One number of the log."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.values: list[float] = []
        self.steps: list[int] = []
        self.count, self.here = 0, 0.0
        self.best: float | None = None
        self._start: float | None = None
        self._jumps: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, step: int, value: float) -> None:
        if self.values:
            self._jump(abs(value - self.values[-1]))
        if len(self.first) < START:
            self.first.append(value)
        if len(self.values) == LAST:
            del self.values[0], self.steps[0]
        self.values.append(value)
        self.steps.append(step)
        self.count += 1
        self.here = median(self.values[-NOW:])
        if self.count >= NOW:
            self.best = self.here if self.best is None else max(self.best, self.here)

    def start(self, number: int) -> float:
        if self._start is None:  # asked for when the first ones are there: they do not change
            self._start = median(self.first[:number])
        return self._start

    def _jump(self, jump: float) -> None:
        if len(self._jumps) == JUMPS:
            del self._sorted[bisect_left(self._sorted, self._jumps.popleft())]
        self._jumps.append(jump)
        insort(self._sorted, jump)

    def jump(self) -> float:
        return self._sorted[len(self._sorted) // 2] if self._sorted else 0.0


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
        self._numbers: dict[str, _Number] = {}

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line; what is not a number is left out."""
        self.step, self.broken = int(line["step"]), []
        for name, value in line.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not _is_finite(value):
                self.broken.append(name)
            elif self._follows(name):
                self._add(name, value)
        length, alike = self._numbers.get(GRADIENT), self.last(ZERO, 1)
        if length and length.steps[-1] == self.step and not (alike and alike[0] >= SPARSE):
            self._add(TAUGHT, length.values[-1])

    def _follows(self, name: str) -> bool:
        is_of_view = name.startswith("perception/") and name.endswith(("/kl", "/entropy"))
        return name in FOLLOWED or name in self._numbers or (is_of_view and len(self._numbers) < MOST)

    def _add(self, name: str, value: int | float) -> None:
        self._numbers.setdefault(name, _Number()).add(self.step, float(value))

    def names(self) -> Collection[str]:
        """The followed numbers that were logged, in the order of their first values."""
        return self._numbers.keys()

    def last(self, name: str, number: int) -> list[float]:
        """The last so many values, `LAST` at most; none where there are not as many."""
        found = self._numbers.get(name)
        return found.values[-number:] if found and found.count >= number else []

    def start(self, name: str) -> float | None:
        """The median of the first values; None while the present still overlaps them."""
        found, (first, after) = self._numbers.get(name), (START_WATCHED, 1) if is_watched(name) else (START, NOW)
        return found.start(first) if found and found.count >= first + after else None

    def now(self, name: str) -> float:
        """The median of the last values; 0 where nothing was logged."""
        found = self._numbers.get(name)
        return (found.values[-1] if is_watched(name) else found.here) if found else 0.0

    def since(self, name: str, number: int = 0) -> int:
        """The step of the first of the last so many values; of 0, of the first value that `now` is about."""
        return self._numbers[name].steps[-(number or (1 if is_watched(name) else NOW)) :][0]

    def best(self, name: str) -> float:
        """The highest that the median over `NOW` values ever was; 0 where there were not as many."""
        found = self._numbers.get(name)
        return 0.0 if found is None or found.best is None else found.best

    def noise(self, name: str) -> float:
        """The standard deviation of one value, estimated from the median of the last `JUMPS` jumps between neighbours
        (of a normal distribution, 0.954 standard deviations), which neither a trend nor a fall disturbs."""
        found = self._numbers.get(name)
        return found.jump() / 0.954 if found else 0.0

    def seen(self, name: str, said: str, number: int = 0) -> Seen:
        """What is said of a number, and since when; `number` as of `since`."""
        return Seen(self.since(name, number), said)

    def stays(self, name: str, number: int, at_least: float) -> bool:
        """Whether each of the last so many values is at least this much, from the run's first ones on.

        >>> past = Past()
        >>> for step in (1, 2, 3):
        ...     past.add({"step": step, "rewards/unparsed": 1.0})
        >>> past.stays("rewards/unparsed", 3, 0.98), past.stays("rewards/unparsed", 4, 0.98)
        (True, False)
        """
        recent = self.last(name, number)
        return bool(recent) and min(recent) >= at_least

    def high(self, name: str, what: str) -> tuple[str, int] | None:
        """What there is to say of a share that is a tenth above its start; or was half or more, three rounds in a row,
        from the first ones on. With it, of how many values, as of `since`."""
        if self.risen(name, 0.1):
            return f"the share of {what} went {self.moved(name)}", 0
        if self.stays(name, 3, 0.5):
            return f"the share of {what} is {self.last(name, 1)[0]:.0%}, high since step {self.since(name, 3)}", 3
        return None

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

    def moved(self, name: str, number: int = 0) -> str:
        """From what, to what, since when (`number` as of `since`). Only where there is a start."""
        return f"from {self.start(name):.3g} to {self.now(name):.3g} since step {self.since(name, number)}"


def _is_finite(value: int | float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def is_watched(name: str) -> bool:
    """Whether a number is logged on watched rounds alone (`Config.watch_every`).

    >>> is_watched("perception/kl_masked"), is_watched("perception/caption_leak"), is_watched("entropy")
    (True, False, False)
    """
    return name.startswith("perception/") and name != "perception/caption_leak"
