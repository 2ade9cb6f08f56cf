"""What goes wrong in a run, seen in its own log: each way of failing is a short question to what was logged so far.

A guard compares the run with its own start, by medians over a few steps, so that neither the size of a model nor the
noise of a batch raises it. It looks back only: what is raised for the first lines of a log is raised for the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

from vergence.train.gap import sampler_gap
from vergence.train.past import START_WATCHED, Past

MASKED = ("perception/kl_masked", "perception/k3_masked", "perception/k3_p99_masked", "perception/k3_variance_masked")
RIGHT, CUT, UNPARSED = "rewards/accuracy", "completions/clipped_ratio", "rewards/unparsed"


class Raised(NamedTuple):
    """A warning: the step at which it was raised, the guard's name, and what it says."""

    step: int
    name: str
    said: str

    def told(self) -> str:
        """As a line for a reader.

        >>> Raised(42, "truncation", "responses are cut off").told()
        'warning at step 42, truncation: responses are cut off'
        """
        return f"warning at step {self.step}, {self.name}: {self.said}"


Guard = Callable[[Past], str | None]
"""What was seen, what it usually means and what to do; None where nothing is wrong."""


def kl_hacking(past: Past) -> str | None:
    """The distance to the masked view surges while answers get worse: a perception term that is maximised is fed.

    Raised where the KL, k3 or its 99th percentile is 2.5 times its start, or the variance of k3 is 4 times, and one
    harm is seen: accuracy at 0.8 of its best, cut or unparsed responses 0.1 above their start, or the upper clip at 5
    times its start and above 0.005. PAPO, arXiv:2507.06448 section 5.3, appendices J and M: the variance grew 8.4
    times, the upper clip 14 times (0.0005 to 0.007), which is the early sign. In runs of the seedling that stayed well
    the KL grew at most 2.8 times, without harm; in those that collapsed at gamma = 0.2, 2.3 to 4.4 times, with harm.
    """
    surged = [name for name in (*MASKED, "loss/perception") if past.grown(name, 4.0 if "variance" in name else 2.5)]
    harms = {
        "accuracy falls": past.fallen(RIGHT, 0.8, 2.0),
        "responses are cut off": past.risen(CUT, 0.1),
        "responses hold no answer": past.risen(UNPARSED, 0.1),
        "the upper clip climbs": past.now("clip_ratio/high") >= max(0.005, 5 * (past.start("clip_ratio/high") or 0.0)),
    }
    seen = [harm for harm, is_seen in harms.items() if is_seen]
    if not surged or not seen:
        return None
    return (
        f"{surged[0]} went {past.moved(surged[0])}, and {', '.join(seen)}: the policy feeds the perception term with "
        f"tokens that depend on the image and answer nothing (KL hacking). Lower gamma, add an entropy term (eta) or a "
        f"reference KL (beta), or go back to a checkpoint before it"
    )


def collapse(past: Past) -> str | None:
    """Accuracy is at 0.7 of its best or less, at least 0.1 below it, and further than noise reaches.

    Seedling runs that stayed well never fell below 0.77 of their best. A table made from such a run compares with the
    wrong thing: the DAPO baseline of arXiv:2507.06448 was of this kind.
    """
    if not past.fallen(RIGHT, 0.7, 4.0) or past.now(RIGHT) > past.best(RIGHT) - 0.1:
        return None
    return (
        f"accuracy fell from {past.best(RIGHT):.3f} at its best to {past.now(RIGHT):.3f} since step {past.since(RIGHT)}"
        f": the run has collapsed, and its last checkpoint is not its best. Report both; lower the learning rate or "
        f"the coefficient of the method's own term"
    )


def entropy_explosion(past: Past) -> str | None:
    """Entropy of the responses at 3 times its start: unrelated tokens follow. VPPO appendix E and arXiv:2507.06448
    appendix H, of DAPO without any perception term; in the seedling's runs it never rose by a fifth."""
    if not past.grown("entropy", 3.0):
        return None
    return (
        f"entropy went {past.moved('entropy')}: the policy says nearly anything. "
        f"Lower the upper clip (clip_high) or the learning rate, or add an entropy term (eta)"
    )


def entropy_collapse(past: Past) -> str | None:
    """Entropy at a tenth of its start or less: siblings agree in every word, and nothing is left to be learnt."""
    start = past.start("entropy")
    if start is None or past.now("entropy") > 0.1 * start:
        return None
    return (
        f"entropy went {past.moved('entropy')}: siblings say nearly the same, so that groups teach little. "
        f"Raise the upper clip (clip_high) or the temperature, or lower the learning rate"
    )


def no_signal(past: Past) -> str | None:
    """Four groups of five have siblings of equal reward: their advantage is 0, and they are sampled for nothing."""
    name = "frac_reward_zero_std"
    if past.start(name) is None or past.now(name) < 0.8:
        return None
    return (
        f"{past.now(name):.0%} of the groups have siblings of equal reward since step {past.since(name)}: hardly "
        f"anything is learnt from what is sampled. Take questions that are answered sometimes, more siblings, or a "
        f"method with dynamic sampling (dapo)"
    )


def truncation(past: Past) -> str | None:
    """A tenth of the rollouts more than at the start are cut off at the longest length."""
    if not past.risen(CUT, 0.1):
        return None
    return (
        f"the share of responses that are cut off went {past.moved(CUT)}: they are judged without their end. "
        f"Raise max_tokens, punish length (overlong), or look whether they repeat themselves"
    )


def unparsed(past: Past) -> str | None:
    """A tenth of the rollouts more than at the start hold no answer that can be read."""
    if not past.risen(UNPARSED, 0.1):
        return None
    return (
        f"the share of responses without a readable answer went {past.moved(UNPARSED)}: they are rewarded as if wrong. "
        f"Read some in rollouts.jsonl; check the wording of the prompt and the reward for form"
    )


def length(past: Past) -> str | None:
    """Responses twice as long as at the start, and accuracy no higher: length that buys nothing."""
    name = "completions/mean_length"
    if not past.grown(name, 2.0) or past.now(RIGHT) > (past.start(RIGHT) or 0.0):
        return None
    return (
        f"the mean length of responses went {past.moved(name)} tokens, and accuracy is no higher than at the start: "
        f"the policy pads. Average over tokens (mean=token), punish length (overlong), or look whether it repeats"
    )


def gradient(past: Past) -> str | None:
    """The gradient's length at 5 times its start, or once at 20 times the median of the 20 steps before.

    In seedling runs that stayed well it grew to 1.8 times; single steps, to 3.
    """
    name = "grad_norm"
    before = past.last(name, 21)
    if past.grown(name, 5.0):
        return (
            f"the gradient's length went {past.moved(name)}: the updates are unstable, whatever the clip holds back. "
            f"Lower the learning rate or the coefficient of the method's own term"
        )
    if before and before[-1] > 20 * median(before[:-1]) > 0:
        return (
            f"the gradient's length was {before[-1]:.3g} at step {past.step}, usually {median(before[:-1]):.3g}: a "
            f"spike. Look at that step's rollouts; if it comes again, lower the learning rate"
        )
    return None


def not_finite(past: Past) -> str | None:
    """A number of the step is not finite."""
    if not past.broken:
        return None
    return (
        f"{', '.join(past.broken[:3])} {'is' if len(past.broken) == 1 else 'are'} not finite at step {past.step}: the "
        f"weights are likely lost. Go back to the last checkpoint with a lower learning rate, or with dtype float32"
    )


def caption_leak(past: Past) -> str | None:
    """A tenth of the captions more than at the start give the answer away. Visionary-R1, arXiv:2505.14677."""
    name = "perception/caption_leak"
    if not past.risen(name, 0.1):
        return None
    return (
        f"the share of captions that give the answer away went {past.moved(name)}: the reasoner need not read what the "
        f"image shows. Raise the penalty (leak)"
    )


def drowned_reward(past: Past) -> str | None:
    """The gradient of the terms that read other views is 3 times the surrogate's, on two watched rounds in a row.

    On the seedling, CPPO at its released coefficient has 0.01 to 3.4, and never twice in a row more than 1.2; at ten
    times that, 8.6.
    """
    name = "perception/gradient_ratio"
    if min(past.last(name, 2), default=0.0) < 3.0:
        return None
    return (
        f"the perception terms' gradient is {past.now(name):.3g} times as long as the reward's at step {past.step}, "
        f"and was above 3 before: the answers hardly count. Lower the coefficient of the method's own term"
    )


def looks_less(past: Past) -> str | None:
    """The KL to the masked view is at 0.4 of its start on two watched rounds in a row, whatever becomes of accuracy.

    Where it rises, the gain does not come from the image (blind reasoning, SeePhys Pro; image disavowal looks alike);
    where it falls, the run unlearns to look. The lowest of a seedling run that stayed well is 0.72; of CapPO with
    swapped captions, which unlearns, 0.08 to 0.19.
    """
    name = "perception/kl_masked"
    start, recent = past.start(name), past.last(name, START_WATCHED + 2)[-2:]
    if start is None or not recent or max(recent) > 0.4 * start:
        return None
    less = f"the KL to the masked view went {past.moved(name)}: responses depend less on the image"
    if past.risen(RIGHT, 0.05):
        return (
            f"{less}, while accuracy went {past.moved(RIGHT)}. Compare with a blank image (vergence eval --show blank) "
            f"before you believe the gain"
        )
    return (
        f"{less}, and answers are no better for it: the run unlearns to look. See whether what the method shows in the "
        f"image's place is true to it; lower the coefficient of the method's own term"
    )


def timed_out(past: Past) -> str | None:
    """A twentieth of the verdicts were not reached in time."""
    name = "rewards/timed_out"
    if past.start(name) is None or past.now(name) < 0.05:
        return None
    return (
        f"{past.now(name):.0%} of the responses were not judged in time since step {past.since(name)}: right ones may "
        f"count as wrong. Look at them in rollouts.jsonl, where the status is 'timed out'; "
        f"leave other programs fewer cores"
    )


GUARDS: Mapping[str, Guard] = MappingProxyType(
    {
        "not finite": not_finite,
        "KL hacking": kl_hacking,
        "collapse": collapse,
        "entropy explosion": entropy_explosion,
        "entropy collapse": entropy_collapse,
        "no signal": no_signal,
        "truncation": truncation,
        "unparsed": unparsed,
        "length": length,
        "gradient": gradient,
        "caption leak": caption_leak,
        "drowned reward": drowned_reward,
        "looks less": looks_less,
        "timed out": timed_out,
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
        said = {name: guard(self.past) for name, guard in GUARDS.items() if name not in before}
        new = [Raised(self.past.step, name, told) for name, told in said.items() if told]
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
