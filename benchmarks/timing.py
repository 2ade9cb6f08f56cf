"""Several callables timed against each other in one run: in turn, there and back (A B C, C B A), so that a machine that
warms up or slows down does it to all of them alike. Medians, interquartile ranges, and ratios taken turn by turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import torch

Contestants = Mapping[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Spread:
    """Some numbers: their median, and where their middle half lies."""

    median: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        """Interquartile range in units of the median."""
        return (self.high - self.low) / self.median

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def spread(numbers: Sequence[float]) -> Spread:
    """The numbers' median and quartiles.

    >>> str(spread([1.0, 2.0, 3.0, 4.0, 5.0]))
    '3.000 [2.000, 4.000]'
    """
    if len(numbers) == 1:
        return Spread(numbers[0], numbers[0], numbers[0])
    low, _, high = quantiles(numbers, n=4, method="inclusive")
    return Spread(median(numbers), low, high)


def ratio(times: Sequence[float], others: Sequence[float]) -> Spread:
    """Of two contestants' times, turn by turn."""
    return spread([one / other for one, other in zip(times, others, strict=True)])


def measure(
    contestants: Contestants, *, repeats: int, warm_ups: int, before: Callable[[], object], device: torch.device
) -> dict[str, list[float]]:
    """Seconds that each took, by turn.

    Args:
        before: called before each, and not timed.
    """
    names = list(contestants)
    for _ in range(warm_ups):
        for name in names:
            before()
            contestants[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            before()
            gc.collect()
            times[name].append(once(contestants[name], device))
    return times


def once(run: Callable[[], object], device: torch.device) -> float:
    """Seconds, by CUDA's own clock on a GPU."""
    gc.disable()
    try:
        if device.type != "cuda":
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1000
    finally:
        gc.enable()


def peak_bytes(run: Callable[[], object], before: Callable[[], object], device: torch.device) -> int:
    """The most memory that was taken at a time beyond what was taken before, gradients of the weights included.

    On a GPU what the allocator counts; on a CPU the sum of the allocations and releases that the profiler notes.
    """
    before()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - start
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def unsteady(times: Mapping[str, Sequence[float]], limit: float) -> list[str]:
    """A line for each contestant whose interquartile range is more than `limit` of its median."""
    found = {name: spread(numbers) for name, numbers in times.items()}
    return [
        f"{name}: interquartile range {one.relative:.0%} of the median {one.median:.3f} s, more than {limit:.0%}"
        for name, one in found.items()
        if one.relative > limit
    ]
