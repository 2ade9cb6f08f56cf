"""GRPO: group-relative policy optimisation (DeepSeekMath, arXiv:2402.03300)."""

from functools import partial
from math import inf

from vergence.objectives.credit import standardised
from vergence.objectives.objective import add, term, term_of, views_read
from vergence.objectives.terms import Clipped, clip_fraction, k3, surrogate
from vergence.objectives.weighting import MEANS, PER_TOKEN, MeanName
from vergence.types import BT, About, Batch, Method, Original, Read, Stats, UserError, View

IMAGE = Read("image", "logp", when="grad")
REFERENCE = Read("reference", "logp", when="frozen")

ABOUT = About(
    title="Group-relative policy optimisation",
    paper="2402.03300",
    variant="paper",
    deviations=(
        "the standard deviation of a group is the unbiased one, and eps is added to it",
        "log-ratios, in the surrogate and in the reference KL, are held to +-20",
        "a rollout without a single trained token leaves the mean instead of counting as 0",
    ),
)


def grpo(
    *,
    mean: MeanName = "sequence",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual: float = 0.0,
    beta: float = 0.04,
    kl_cap: float = 0.0,
    eps: float = 1e-6,
) -> Method:
    """The method that minimises mean(surrogate) + beta * mean(KL to the reference).

    L = 1/B sum_i 1/T_i sum_t [ max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)) + beta k3(l, l_ref) ]

    arXiv:2402.03300 eq. 3 and 4 (as a loss), with r = exp(l - l_sampled) and A the standardised reward.

    Args:
        mean: over what to average: "sequence" as above, "token" over all tokens of the step.
        clip_low, clip_high: how far the ratio may move below and above 1.
        dual: bound on the surrogate of a token of negative advantage, in units of |A|; 0 is off.
        beta: coefficient of the reference KL; 0 drops the term and its view.
        kl_cap: bound on the reference KL of a token, nats; 0 is off.
        eps: added to the standard deviation of a group's rewards, in units of reward.

    Raises:
        UserError: an option is out of its range.

    >>> list(grpo().objective), list(grpo(beta=0.0).views)
    (['surrogate', 'reference_kl'], ['image'])
    """
    if not (0 <= clip_low <= 1 and clip_high >= 0):
        raise UserError(f"clip_low must lie in [0, 1] and clip_high be >= 0, got {clip_low} and {clip_high}")
    if not (dual == 0 or dual > 1):
        raise UserError(f"dual must be > 1, or 0 to leave the dual clip out, got {dual}")
    if kl_cap < 0:
        raise UserError(f"kl_cap must be > 0, or 0 to leave it out, got {kl_cap}")

    def policy(batch: Batch, frozen: Stats, live: Stats) -> BT:
        clip = (clip_low, clip_high)
        return surrogate(live.logp("image"), batch.sampled_logp_BT, batch.advantage_B, clip=clip, dual=dual or None)

    def clipped(batch: Batch, frozen: Stats, live: Stats) -> Clipped:
        return clip_fraction(live.logp("image"), batch.sampled_logp_BT, batch.advantage_B, clip=(clip_low, clip_high))

    drift = partial(k3, limit=kl_cap or inf)
    metrics = add(
        term("clip_ratio/low", 1.0, PER_TOKEN, (IMAGE,), lambda *seen: clipped(*seen).low_BT),
        term("clip_ratio/high", 1.0, PER_TOKEN, (IMAGE,), lambda *seen: clipped(*seen).high_BT),
        term_of(drift, IMAGE, REFERENCE, name="kl", coefficient=1.0, mean=PER_TOKEN) if beta else {},
    )
    objective = add(
        term("surrogate", 1.0, MEANS[mean], (IMAGE,), policy),
        term_of(drift, IMAGE, REFERENCE, name="reference_kl", coefficient=beta, mean=MEANS[mean]),
    )
    views = {"image": View(Original()), "reference": View(Original(), policy="reference")}
    return Method(ABOUT, partial(standardised, eps=eps), objective, views_read(objective, views), metrics=metrics)
