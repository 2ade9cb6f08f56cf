"""What goes wrong in a run, seen in its own log: each way of failing is a short question to what was logged so far.

A guard compares the run with its own start, by medians over a few steps, so that neither the size of a model nor the
noise of a batch raises it; what no start makes right, as responses that can never be read, it sees from the first steps
on. It looks back only: what is raised for the first lines of a log is raised for the whole. What is then done is said
in `train.acting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

from vergence.train import responses, sight
from vergence.train.gap import sampler_gap
from vergence.train.past import CUT, RIGHT, UNPARSED, Past, Seen

MASKED = ("perception/kl_masked", "perception/k3_masked", "perception/k3_p99_masked", "perception/k3_variance_masked")
CLIP = "clip_ratio/high"


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


def kl_hacking(past: Past) -> Seen | None:
    """The distance to the masked view surges while answers get worse: a perception term that is maximised is fed.

    Only where the run has one (PAPO's, CPPO's): elsewhere it is another cause. Raised where the KL, k3 or its 99th
    percentile is 2.5 times its start, or the variance of k3 is 4 times, and one harm is seen: accuracy at 0.8 of its
    best, cut or unparsed responses 0.1 above their start, or the upper clip at 5 times its start and above 0.005.
    arXiv:2507.06448 section 5.3, appendices J and M: the variance grew 8.4 times, the upper clip 14 times (0.0005 to
    0.007), which is the early sign. In runs of the seedling that stayed well the KL grew at most 2.8 times, without
    harm; in those that collapsed at gamma = 0.2, 2.3 to 4.4 times, with harm.
    Two further signs of the same section count as a surge where PAPO's term is maximised: the entropy of the responses
    or that under the mask at twice its start; and the upper clip, which is then no harm of its own.
    """
    papo = past.now("loss/perception") < 0
    if not papo and "loss/contrast" not in past.names():
        return None
    harms = {
        "accuracy falls": past.fallen(RIGHT, 0.8, 2.0),
        "responses are cut off": past.risen(CUT, 0.1),
        "responses hold no answer": past.risen(UNPARSED, 0.1),
        "the upper clip climbs": past.now(CLIP) >= max(0.005, 5 * (past.start(CLIP) or 0.0)),
    }
    surged = [name for name in (*MASKED, "loss/perception") if past.grown(name, 4.0 if "variance" in name else 2.5)]
    if papo:
        surged += [name for name in ("entropy", "perception/entropy_masked") if past.grown(name, 2.0)]
        if not surged and harms["the upper clip climbs"] and past.start(CLIP) is not None:
            surged, harms["the upper clip climbs"] = [CLIP], False
    seen = [harm for harm, is_seen in harms.items() if is_seen]
    if not surged or not seen:
        return None
    return past.seen(
        surged[0],
        f"{surged[0]} went {past.moved(surged[0])}, and {', '.join(seen)}: the policy feeds the perception term with "
        f"tokens that depend on the image and answer nothing (KL hacking). Lower gamma, add an entropy term (eta) or a "
        f"reference KL (beta), or go back to a checkpoint before it",
    )


def collapse(past: Past) -> Seen | None:
    """Accuracy is at 0.7 of its best or less, at least 0.1 below it, and further than noise reaches.

    Seedling runs that stayed well never fell below 0.77 of their best. A table made from such a run compares with the
    wrong thing: the DAPO baseline of arXiv:2507.06448 was of this kind.
    """
    if not past.fallen(RIGHT, 0.7, 4.0) or past.now(RIGHT) > past.best(RIGHT) - 0.1:
        return None
    return past.seen(
        RIGHT,
        f"accuracy fell from {past.best(RIGHT):.3f} at its best to {past.now(RIGHT):.3f} since step {past.since(RIGHT)}"
        f": the run has collapsed, and its last checkpoint is not its best. Report both; lower the learning rate or "
        f"the coefficient of the method's own term",
    )


def gradient(past: Past) -> Seen | None:
    """The gradient's length at 5 times its start, or once at 20 times the median of the 20 steps before.

    In seedling runs that stayed well it grew to 1.8 times; single steps, to 3.
    """
    name = "grad_norm"
    before = past.last(name, 21)
    if past.grown(name, 5.0):
        return past.seen(
            name,
            f"the gradient's length went {past.moved(name)}: the updates are unstable, whatever the clip holds back. "
            f"Lower the learning rate or the coefficient of the method's own term",
        )
    if before and before[-1] > 20 * median(before[:-1]) > 0:
        return past.seen(
            name,
            f"the gradient's length was {before[-1]:.3g} at step {past.step}, usually {median(before[:-1]):.3g}: a "
            f"spike. Look at that step's rollouts; if it comes again, lower the learning rate",
            1,
        )
    return None


def not_finite(past: Past) -> Seen | None:
    """A number of the step is not finite. No step is taken on a loss or gradient that is not (`train.loop.update`)."""
    if not past.broken:
        return None
    return Seen(
        past.step,
        f"{', '.join(past.broken[:3])} {'is' if len(past.broken) == 1 else 'are'} not finite at step {past.step}. "
        f"Weights and optimizer are as they were: no step is taken on a loss or gradient that is not finite. Lower the "
        f"learning rate or the coefficient of the method's own term, or take dtype float32",
    )


GUARDS: Mapping[str, Guard] = MappingProxyType(
    {
        "not finite": not_finite,
        "KL hacking": kl_hacking,
        "collapse": collapse,
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
        "gradient": gradient,
        "caption leak": sight.caption_leak,
        "drowned reward": sight.drowned_reward,
        "looks less": sight.looks_less,
        "view without effect": sight.view_without_effect,
        "disavowal": responses.disavowal,
        "timed out": responses.timed_out,
        "sampler gap": sampler_gap,
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
