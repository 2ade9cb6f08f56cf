"""DAPO (arXiv:2503.14476) and Dr. GRPO (arXiv:2503.20783): GRPO with other clips, means, credit and sampling."""

from vergence.objectives.credit import centred, mixed
from vergence.objectives.grpo import ABOUT, EntropyName, KlName, clipped_surrogate, grpo, regularised
from vergence.objectives.weighting import MeanName, per_budget
from vergence.types import About, Method, RewardSpec, UserError

DAPO = About(
    title="Decoupled clip and dynamic sampling policy optimisation",
    paper="2503.14476",
    variant="paper",
    deviations=(
        *ABOUT.deviations[:2],
        "scenes are drawn until the batch is full, at most 20 times; then training stops and says why",
        "overlong filtering (leaving cut-off responses out of the loss) is not built: the soft penalty is",
    ),
)

DR_GRPO = About(
    title="GRPO done right",
    paper="2503.20783",
    variant="paper",
    deviations=(
        "log-ratios are held to +-20",
        "the constant that rollouts are divided by is the option `budget`, to be set to the longest response",
        ABOUT.deviations[2],
    ),
)


def dapo(
    *,
    mean: MeanName = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual: float = 0.0,
    overlong: float = 0.2,
    beta: float = 0.0,
    kl: KlName = "k3",
    kl_cap: float = 0.0,
    entropy: float = 0.0,
    entropy_of: EntropyName = "sampled",
    eps: float = 1e-6,
) -> Method:
    """GRPO with a wider upper clip, a mean over tokens, no reference KL, groups that differ, and an overlong penalty.

    L = 1 / sum_i T_i * sum_i sum_t max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))

    arXiv:2503.14476 eq. 8 (as a loss), with dynamic sampling (`credit.mixed`) and its soft overlong punishment, eq. 13.

    Args:
        overlong: the last share of the longest response on which a penalty grows from 0 to 1; 0 is off. The paper: 0.2.
        mean, clip_low, clip_high, dual, beta, kl, kl_cap, entropy, entropy_of, eps: as of `grpo`.

    Raises:
        UserError: an option is out of its range.

    >>> list(dapo().objective), dapo().reward.overlong
    (['surrogate'], 0.2)
    """
    if not 0 <= overlong <= 1:
        raise UserError(f"overlong is a share of the longest response, in [0, 1]; got {overlong}")
    base = grpo(
        mean=mean, clip_low=clip_low, clip_high=clip_high, dual=dual, beta=beta, kl=kl, kl_cap=kl_cap,
        entropy=entropy, entropy_of=entropy_of, eps=eps,
    )  # fmt: skip
    return base._replace(about=DAPO, keep=mixed, reward=RewardSpec(overlong=overlong))


def drgrpo(
    *,
    budget: int = 64,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual: float = 0.0,
    beta: float = 0.0,
    kl: KlName = "k3",
    kl_cap: float = 0.0,
    entropy: float = 0.0,
    entropy_of: EntropyName = "sampled",
) -> Method:
    """GRPO without its two divisors: neither the group's standard deviation nor a rollout's own length.

    L = 1 / (B budget) * sum_i sum_t max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)),   A_i = R_i - mean_G(R)

    arXiv:2503.20783 section 3.2 and its released code (`masked_sum` over a constant).

    Args:
        budget: the constant, tokens: the longest response that the run allows.
        clip_low, clip_high, dual, beta, kl, kl_cap, entropy, entropy_of: as of `grpo`.

    Raises:
        UserError: an option is out of its range.

    >>> list(drgrpo(beta=0.1).objective)
    ['surrogate', 'reference_kl']
    """
    if budget < 1:
        raise UserError(f"budget must be at least 1 token, got {budget}")
    mean = per_budget(budget)
    base = clipped_surrogate(DR_GRPO, centred, mean, clip_low, clip_high, dual)
    return regularised(base, mean, beta, kl, kl_cap, entropy, entropy_of)
