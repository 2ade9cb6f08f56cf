"""PAPO: perception-aware policy optimisation on GRPO (arXiv:2507.06448), as released and as printed.

Both want a next-token distribution that changes when most of the image is erased, and minimise

    L = GRPO - gamma KL(image || masked) + eta H(image) + eta H(masked)

They differ in what stands for KL and H, and in where the gradient flows; `papo_full` has the KL and H themselves.
Defaults are those of the published 3B run; the 7B run adds eta = 0.05, and the runs without reference KL have beta = 0,
gamma = 0.01, eta = 0.03.
"""

from vergence.objectives.grpo import IMAGE, grpo
from vergence.objectives.objective import add, term_of, views_read
from vergence.objectives.terms import CAPPED, ESTIMATORS, Estimator, surprise
from vergence.objectives.weighting import MEANS, PER_TOKEN, MeanName
from vergence.types import About, Erase, Method, Objective, Read, View

TITLE = "Perception-aware policy optimisation"

RELEASE = About(
    title=TITLE,
    paper="2507.06448",
    variant="release",
    deviations=(
        "every mean is over the whole optimizer step and all ranks; the code averages the means of micro-batches",
        "means divide exactly; the code adds 1e-8 to the denominator",
        "both entropies share one coefficient, as in the released scripts; the code has two",
        "switches that are off by default are not built: token selection by quantile, a second clip on the perception "
        "term, annealing of gamma, a term on correct rollouts",
        "the switch that reads the masked branch anew, with gradient, is not built: see the variant `paper`",
    ),
)

PAPER = About(
    title=TITLE,
    paper="2507.06448",
    variant="paper",
    deviations=(
        "the KL is by default estimated by r - log r - 1 with r = p_masked/p, as the code does, whose mean is the KL; "
        "the paper prints r = p/p_masked (estimator k3-printed), whose mean is chi^2 - KL",
        "entropies are -log p, and minimised; the paper prints H = log p",
        "log-ratios, in the surrogate and in every k3, are held to +-20",
        "the standard deviation of a group is the unbiased one, and 1e-6 is added to it, as the code does",
        "a rollout without a single trained token leaves the mean instead of counting as 0",
    ),
    reconstructed=(
        "the gradient flows through the masked branch, in the KL and in its entropy: the paper writes today's weights "
        "on both sides and does not say where the gradient stops",
    ),
)


def release(
    *,
    gamma: float = 0.02,
    eta: float = 0.0,
    beta: float = 0.01,
    fraction: float = 0.6,
    cell: int = 14,
    estimator: Estimator = "k3",
    mean: MeanName = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.3,
    dual: float = 3.0,
    eps: float = 1e-6,
) -> Method:
    """What the released code minimises: the masked branch is read once, under the weights that sampled, as a constant.

    L = mean(surrogate) + beta mean(k3(l, l_ref)) - gamma mean(k3(l, l_masked)) + eta <-l> + eta <-l_masked>

    PAPO, branch main, verl/workers/actor/dp_actor.py and verl/trainer/core_algos.py. <.> is the mean over tokens, also
    where `mean` is "sequence". k3 is held to 10 nats, its log-ratio to +-20. The last term is a constant. The expected
    gradient of <-l> is zero on policy (docs/papers.md).

    Args:
        gamma: coefficient of the perception term, which is maximised; 0 drops it.
        eta: coefficient of both entropies, which are minimised; 0 drops them.
        fraction, cell: of the erased view: how likely a cell is black, and its side in pixels of the raw image.
        estimator: what stands for KL(image || masked).
        beta, mean, clip_low, clip_high, dual, eps: as of `grpo`.

    Raises:
        UserError: an option is out of its range.

    >>> list(release(eta=0.05).objective)
    ['surrogate', 'reference_kl', 'perception', 'entropy', 'masked_entropy']
    >>> list(release(gamma=0.0).views)
    ['image', 'reference']
    """
    masked = Read("masked", "logp", when="frozen")
    kl, over = CAPPED[estimator], MEANS[mean]
    base = grpo(mean=mean, clip_low=clip_low, clip_high=clip_high, dual=dual, beta=beta, kl_cap=10.0, eps=eps)
    objective = add(
        base.objective,
        term_of(kl, IMAGE, masked, name="perception", coefficient=-gamma, mean=over),
        term_of(surprise, IMAGE, name="entropy", coefficient=eta, mean=PER_TOKEN),
        term_of(surprise, masked, name="masked_entropy", coefficient=eta, mean=PER_TOKEN),
    )
    return assemble(RELEASE, base, objective, Erase(fraction, cell))


def paper(
    *,
    gamma: float = 0.02,
    eta: float = 0.0,
    beta: float = 0.01,
    fraction: float = 0.6,
    cell: int = 14,
    estimator: Estimator = "k3",
    mean: MeanName = "sequence",
    clip_low: float = 0.2,
    clip_high: float = 0.3,
    eps: float = 1e-6,
) -> Method:
    """What the paper writes: today's weights look at the masked image too, and the gradient flows through both.

    L = 1/B sum_i 1/T_i sum_t [ surrogate + beta k3(l, l_ref) - gamma k3(l, l_masked) + eta (-l) + eta (-l_masked) ]

    arXiv:2507.06448 eq. 2 and 3 (as a loss), without dual clip and without a bound on k3. The paper prints
    r - log r - 1 with r = p/p_masked for the KL: that is the estimator "k3-printed".

    Arguments and errors as of `release`.

    >>> {read.view: read.when for read in paper().objective["perception"].reads}
    {'image': 'grad', 'masked': 'grad'}
    """
    masked = Read("masked", "logp", when="grad")
    kl, over = ESTIMATORS[estimator], MEANS[mean]
    base = grpo(mean=mean, clip_low=clip_low, clip_high=clip_high, beta=beta, eps=eps)
    objective = add(
        base.objective,
        term_of(kl, IMAGE, masked, name="perception", coefficient=-gamma, mean=over),
        term_of(surprise, IMAGE, name="entropy", coefficient=eta, mean=over),
        term_of(surprise, masked, name="masked_entropy", coefficient=eta, mean=over),
    )
    return assemble(PAPER, base, objective, Erase(fraction, cell))


def assemble(about: About, base: Method, objective: Objective, erase: Erase) -> Method:
    """The base with this objective, and with the views that it reads."""
    views = views_read(objective, {**base.views, "masked": View(erase)})
    return base._replace(about=about, objective=objective, views=views)
