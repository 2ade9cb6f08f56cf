"""GRPO: group-relative policy optimisation (DeepSeekMath, arXiv:2402.03300), the base of everything here."""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Literal

from jaxtyping import Bool
from torch import Tensor

from vergence.objectives.credit import standardised
from vergence.objectives.objective import add, composed, term, term_of
from vergence.objectives.terms import ESTIMATORS, Clipped, clip_fraction, itself, k3, surprise, surrogate
from vergence.objectives.weighting import MEANS, PER_TOKEN, Mean, MeanName
from vergence.types import BT, SG, About, Batch, Method, Original, Read, Stats, UserError, View

IMAGE = Read("image", "logp", when="grad")
REFERENCE = Read("reference", "logp", when="frozen")

KlName = Literal["k1", "k2", "k3", "full"]
EntropyName = Literal["sampled", "full"]

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
    kl: KlName = "k3",
    kl_cap: float = 0.0,
    entropy: float = 0.0,
    entropy_of: EntropyName = "sampled",
    eps: float = 1e-6,
) -> Method:
    """The method that minimises mean(surrogate) + beta * mean(KL to the reference) + entropy * mean(H).

    L = 1/B sum_i 1/T_i sum_t [ max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)) + beta k3(l, l_ref) ]

    arXiv:2402.03300 eq. 3 and 4 (as a loss), with r = exp(l - l_sampled) and A the standardised reward.

    Args:
        mean: over what to average: "sequence" as above, "token" over all tokens of the step.
        clip_low, clip_high: how far the ratio may move below and above 1.
        dual: bound on the surrogate of a token of negative advantage, in units of |A|; 0 is off.
        beta: coefficient of the reference KL; 0 drops the term and its view.
        kl: what stands for that KL: an estimator from the sampled token, or the "full" sum over the vocabulary.
        kl_cap: bound on a k3 reference KL of a token, nats; 0 is off.
        entropy: coefficient of the entropy, token mean: above 0 lowers it; 0 drops the term.
        entropy_of: the "sampled" token's -log p, which has no mean gradient on policy, or the "full" distribution's.
        eps: added to the standard deviation of a group's rewards, in units of reward.

    Raises:
        UserError: an option is out of its range.

    >>> list(grpo().objective), list(grpo(beta=0.0).views)
    (['surrogate', 'reference_kl'], ['image'])
    """
    base = clipped_surrogate(ABOUT, partial(standardised, eps=eps), MEANS[mean], clip_low, clip_high, dual)
    return regularised(base, MEANS[mean], beta, kl, kl_cap, entropy, entropy_of)


def clipped_surrogate(
    about: About, credit: Callable[[SG], SG], mean: Mean, clip_low: float, clip_high: float, dual: float
) -> Method:
    """The method of the clipped surrogate alone; how much of it is clipped is logged.

    Raises:
        UserError: a bound is out of its range.
    """
    if not (0 <= clip_low <= 1 and clip_high >= 0):
        raise UserError(f"clip_low must lie in [0, 1] and clip_high be >= 0, got {clip_low} and {clip_high}")
    if not (dual == 0 or dual > 1):
        raise UserError(f"dual must be > 1, or 0 to leave the dual clip out, got {dual}")
    clip = (clip_low, clip_high)

    def policy(batch: Batch, frozen: Stats, live: Stats) -> BT:
        return surrogate(live.logp("image"), batch.sampled_logp_BT, batch.advantage_BT, clip=clip, dual=dual or None)

    def clipped(batch: Batch, frozen: Stats, live: Stats) -> Clipped:
        return clip_fraction(live.logp("image"), batch.sampled_logp_BT, batch.advantage_BT, clip=clip)

    metrics = add(
        term("clip_ratio/low", 1.0, PER_TOKEN, (IMAGE,), lambda *seen: clipped(*seen).low_BT, needs=advantaged),
        term("clip_ratio/high", 1.0, PER_TOKEN, (IMAGE,), lambda *seen: clipped(*seen).high_BT, needs=advantaged),
    )
    own, views = term("surrogate", 1.0, mean, (IMAGE,), policy, needs=advantaged), {"image": View(Original())}
    return Method(about, credit, own, views, metrics=metrics)


def advantaged(batch: Batch) -> Bool[Tensor, " B"]:
    """The rollouts with an advantage: at the others the surrogate is 0 whatever the policy says."""
    return ((batch.advantage_BT != 0) & batch.mask_BT).any(-1)


def regularised(
    base: Method, mean: Mean, beta: float, kl: KlName, kl_cap: float, entropy: float, entropy_of: EntropyName
) -> Method:
    """The base with what keeps a policy near its reference and its entropy in bounds, where a coefficient is not 0.

    Raises:
        UserError: kl_cap is negative.
    """
    if kl_cap < 0:
        raise UserError(f"kl_cap must be > 0, or 0 to leave it out, got {kl_cap}")
    if kl == "full":
        drift: Callable[..., BT] = itself
        reads: tuple[Read, ...] = (Read("image", "kl", "reference", when="grad"),)
    else:
        drift, reads = partial(k3, limit=kl_cap or inf) if kl == "k3" else ESTIMATORS[kl], (IMAGE, REFERENCE)
    disorder = itself if entropy_of == "full" else surprise
    looked = Read("image", "entropy", when="grad") if entropy_of == "full" else IMAGE
    return composed(
        base,
        term_of(drift, *reads, name="reference_kl", coefficient=beta, mean=mean),
        term_of(disorder, looked, name="policy_entropy", coefficient=entropy, mean=PER_TOKEN),
        views={"reference": View(Original(), policy="reference")},
        metrics=add(base.metrics, term_of(drift, *reads, name="kl", coefficient=1.0, mean=PER_TOKEN) if beta else {}),
    )
