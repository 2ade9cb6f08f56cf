"""What goes wrong in a run, seen in its own log: each way of failing is a short question to what was logged so far.

A guard compares the run with its own start, by medians over a few steps, so that neither the size of a model nor the
noise of a batch raises it; what no start makes right, as responses that can never be read, it sees from the first steps
on. It looks back only: what is raised for the first lines of a log is raised for the whole. What is then done is said
in `train.interventions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from vergence.guards import responses, sight, updates
from vergence.guards.past import Past, Seen


class Raised(NamedTuple):
    """A warning: the step at which it was raised, the guard's name, and what it says."""

    step: int
    name: str
    said: str
    since: int = 0
    """The step of the first value that it is about."""

    def told(self) -> str:
        """As a line for a reader.

        >>> Raised(42, "truncation", "responses are cut off").told()
        'warning at step 42, truncation: responses are cut off'
        """
        return f"warning at step {self.step}, {self.name}: {self.said}"


Guard = Callable[[Past], Seen | None]
"""What was seen, what it usually means and what to do; None where nothing is wrong."""


GUARDS: Mapping[str, Guard] = MappingProxyType(
    {
        "not finite": updates.not_finite,
        "metric not finite": updates.metric_not_finite,
        "KL hacking": sight.kl_hacking,
        "collapse": updates.collapse,
        "entropy explosion": responses.entropy_explosion,
        "entropy collapse": responses.entropy_collapse,
        "view entropy explosion": sight.view_entropy_explosion,
        "view entropy collapse": sight.view_entropy_collapse,
        "no signal": responses.no_signal,
        "truncation": responses.truncation,
        "unparsed": responses.unparsed,
        "all unparsed": responses.all_unparsed,
        "length": responses.length,
        "repetition": responses.repetition,
        "gradient": updates.gradient,
        "caption leak": sight.caption_leak,
        "drowned reward": sight.drowned_reward,
        "looks less": sight.looks_less,
        "view without effect": sight.view_without_effect,
        "disavowal": responses.disavowal,
        "timed out": responses.timed_out,
        "sampler gap": updates.sampler_gap,
    }
)
"""Name -> guard."""


class Watchman:
    """Goes through a log line by line and keeps what was raised, each guard once.

    >>> watchman = Watchman({"step": step, "grad_norm": 0.1} for step in range(1, 30))
    >>> [(one.step, one.name) for one in watchman({"step": 30, "grad_norm": float("nan")})]
    [(30, 'not finite')]
    >>> watchman({"step": 31, "grad_norm": float("nan")})
    []
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self.past = Past()
        self.raised: list[Raised] = []
        for line in lines:
            self(line)

    def __call__(self, line: Mapping[str, Any]) -> list[Raised]:
        """Take a line of metrics.jsonl; what is raised by it and was not before."""
        self.past.add(line)
        before = {one.name for one in self.raised}
        seen = {name: guard(self.past) for name, guard in GUARDS.items() if name not in before}
        new = [Raised(self.past.step, name, one.said, one.since) for name, one in seen.items() if one]
        self.raised += new
        return new


def raised(lines: Sequence[Mapping[str, Any]]) -> list[Raised]:
    """The warnings of a log, in the order in which they were raised; each guard at most once.

    Args:
        lines: of metrics.jsonl, in the order of their steps.

    >>> raised([{"step": step, "completions/clipped_ratio": 0.0 if step < 40 else 0.3} for step in range(1, 60)])[0][:2]
    (42, 'truncation')
    """
    return Watchman(lines).raised
