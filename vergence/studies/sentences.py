"""One sentence for each method, by rule: what it gains over its base, and what its controls leave of that."""

from __future__ import annotations

from math import isfinite
from typing import Literal

from vergence.evaluate.interval import Estimate
from vergence.studies.compare import Compared, Found

LEVEL = 0.05
"""A difference is told from zero if its interval leaves zero out and its p, corrected for its family, is below this."""
Verdict = Literal["more", "less", "uncorrected", "not told", "one seed"]
WORDS: dict[Verdict, str] = {
    "more": "more, told from zero",
    "less": "less, told from zero",
    "uncorrected": "not told from zero once corrected for the number of comparisons",
    "not told": "not told from zero",
    "one seed": "one seed, so no verdict",
}


def verdict(one: Compared) -> Verdict:
    """What a comparison comes to.

    >>> verdict(Compared("base", "papo", "grpo", Estimate(0.1, 0.05, 0.15, 5), {}, 0.01, 0.04, 4, None, 0.06))
    'more'
    """
    if one.p is None or one.holm is None:
        return "one seed"
    if one.difference.low <= 0 <= one.difference.high:
        return "not told"
    if one.holm >= LEVEL:
        return "uncorrected"
    return "more" if one.difference.mean > 0 else "less"


def sentences(study: Found) -> dict[str, str]:
    """Arm -> its sentence, for every arm that is not itself a control."""
    return {row.arm: sentence(study, row.arm) for row in study.rows if "+" not in row.arm and (gain_of(study, row.arm))}


def gain_of(study: Found, arm: str) -> Compared | None:
    """A method's comparison with its base; of one that has none here, with the model that it started from."""
    return next(iter([*study.of("base", arm), *study.of("start", arm)]), None)


def sentence(study: Found, arm: str) -> str:
    """What a method gains, and what its controls leave of it."""
    gain = gain_of(study, arm)
    assert gain is not None
    over = "the model it starts from" if gain.family == "start" else gain.against
    besides = f" (which differs besides: {'; '.join(gain.differs)})" if gain.differs else ""
    n = gain.difference.n
    told = f"{arm}: {signed(gain.difference)} over {over}{besides}, {n} seed{'s' * (n != 1)}{chance(gain)}: "
    told += WORDS[verdict(gain)]
    if gain.detectable is not None and verdict(gain) in ("not told", "uncorrected"):
        told += f" ({gain.detectable:.3f} would be, four times in five)"
    controls = study.of("control", arm)
    if not controls:
        return f"{told}; none of its controls was run."
    if verdict(gain) != "more":
        told += "" if verdict(gain) == "one seed" else "; there is no gain told from zero that a control could leave"
        each = [f"against its control {one.against} it is {against(one)}" for one in controls]
    else:
        each = [left(gain, one) for one in controls]
    return "; ".join([told, *each]) + "."


def left(gain: Compared, one: Compared) -> str:
    """What one control leaves of a gain that is told from zero: (control - base) / (method - base)."""
    share = f"its control {one.against} leaves {1 - one.difference.mean / gain.difference.mean:.0%} of that"
    if verdict(one) == "more":
        return f"{share}: without what it replaces {signed(one.difference)}{chance(one)} is lost"
    return f"{share}, and the method against it is {against(one)}"


def against(one: Compared) -> str:
    """A difference and what it comes to."""
    return f"{signed(one.difference)}{chance(one)}, {WORDS[verdict(one)]}"


def signed(one: Estimate) -> str:
    """A difference with its interval; one seed has none.

    >>> signed(Estimate(0.0123, -0.03, 0.05, 5)), signed(Estimate(0.1, float("-inf"), float("inf"), 1))
    ('+0.012 [-0.030, +0.050]', '+0.100')
    """
    return f"{one.mean:+.3f}" + (f" [{one.low:+.3f}, {one.high:+.3f}]" if isfinite(one.low) else "")


def chance(one: Compared) -> str:
    """The p of a comparison, and how it was corrected.

    >>> chance(Compared("base", "papo", "grpo", Estimate(0.1, 0.05, 0.15, 5), {}, 0.011, 0.044, 4, None, 0.06))
    ', p = 0.011 (Holm over 4: 0.044)'
    """
    if one.p is None:
        return ""
    corrected = f" (Holm over {one.of}: {_p(one.holm)})" if one.of > 1 and one.holm is not None else ""
    return f", p = {_p(one.p)}{corrected}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "under 0.001"
