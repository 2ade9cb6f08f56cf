"""PAPO: perception-aware policy optimisation (arXiv:2507.06448), as released and as printed, on any base.

Both want a next-token distribution that changes when most of the image is erased, and minimise

    L = base - gamma KL(image || masked) + eta H(image) + eta H(masked)

They differ in what stands for KL and H, and in where the gradient flows; `papo_full` has the KL and H themselves.
"""

from types import MappingProxyType
from typing import Literal

from vergence.objectives.grpo import IMAGE
from vergence.objectives.objective import composed, term_of
from vergence.objectives.terms import CAPPED, ESTIMATORS, Estimator, surprise
from vergence.objectives.weighting import MEANS, PER_TOKEN, MeanName
from vergence.types import About, Erase, Method, Read, Salient, View

Entropies = Literal["double", "single"]
Grid = Literal["raw", "aligned"]

TITLE = "Perception-aware policy optimisation"

RELEASE = About(
    title=TITLE,
    paper="2507.06448",
    variant="release",
    coefficient="gamma",
    deviations=(
        "every mean is over the whole optimizer step and all ranks; the code averages the means of micro-batches",
        "means divide exactly; the code adds 1e-8 to the denominator",
        "both entropies share one coefficient, as in the released scripts; the code has two",
        "switches that are off by default are not built: token selection by quantile, a second clip on the perception "
        "term, annealing of gamma, a term on correct rollouts",
        "the switch that reads the masked branch anew, with gradient, is not built: see the variant `paper`",
        "on DAPO, scenes drawn of which no group is mixed add nothing to the batch; the code keeps them all",
    ),
)

PAPER = About(
    title=TITLE,
    paper="2507.06448",
    variant="paper",
    coefficient="gamma",
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


PUBLISHED = MappingProxyType(
    {
        "grpo-3b": {"gamma": 0.02},
        "grpo-7b": {"gamma": 0.02, "eta": 0.05},
        "grpo-qwen3-vl-2b": {"gamma": 0.01},
        "grpo-3b-no-kl": {"gamma": 0.01, "eta": 0.03, "beta": 0.0},
        "grpo-7b-no-kl": {"gamma": 0.01, "eta": 0.03, "beta": 0.0},
        "dapo-3b": {"gamma": 0.01, "eta": 0.03},
        "dapo-7b": {"gamma": 0.01, "eta": 0.03},
    }
)
"""The coefficients of the published runs, by base and size: arXiv:2507.06448 Table 6 and the released scripts."""


def release(
    base: Method,
    *,
    gamma: float = 0.02,
    eta: float = 0.0,
    entropies: Entropies = "double",
    fraction: float = 0.6,
    cell: int = 14,
    grid: Grid = "raw",
    saliency: str = "",
    estimator: Estimator = "k3",
    mean: MeanName = "token",
) -> Method:
    """What the released code minimises: the masked branch is read once, under the weights that sampled, as a constant.

    L = base - gamma mean(k3(l, l_masked)) + eta <-l> + eta <-l_masked>

    PAPO, branch main, verl/workers/actor/dp_actor.py and verl/trainer/core_algos.py. <.> is the mean over tokens, also
    where `mean` is "sequence". k3 is held to 10 nats, its log-ratio to +-20. The last term is a constant. The expected
    gradient of <-l> is zero on policy (docs/papers.md).

    Args:
        base: what is minimised besides.
        gamma: coefficient of the perception term, which is maximised; 0 drops it.
        eta: coefficient of both entropies, which are minimised; 0 drops them.
        entropies: "double" is both, "single" that of the image alone.
        fraction, cell: of the erased view: how likely a cell is black, and its side in pixels of the raw image.
        grid: "raw" is cells on the raw image; "aligned" is one cell for each image token of the model.
        saliency: a folder with a vision encoder: the most salient `fraction` of its patches is erased instead.
        estimator: what stands for KL(image || masked).
        mean: over what the perception term is averaged; that of the base.

    Raises:
        UserError: an option is out of its range.

    >>> from vergence.objectives.grpo import grpo
    >>> list(release(grpo(), eta=0.05).objective)
    ['surrogate', 'reference_kl', 'perception', 'entropy', 'masked_entropy']
    >>> list(release(grpo(), gamma=0.0).views)
    ['image', 'reference']
    """
    masked = Read("masked", "logp", when="frozen")
    return composed(
        base,
        term_of(CAPPED[estimator], IMAGE, masked, name="perception", coefficient=-gamma, mean=MEANS[mean]),
        term_of(surprise, IMAGE, name="entropy", coefficient=eta, mean=PER_TOKEN),
        term_of(surprise, masked, name="masked_entropy", coefficient=_second(eta, entropies), mean=PER_TOKEN),
        views={"masked": erased(fraction, cell, grid, saliency)},
        about=RELEASE,
    )


def paper(
    base: Method,
    *,
    gamma: float = 0.02,
    eta: float = 0.0,
    entropies: Entropies = "double",
    fraction: float = 0.6,
    cell: int = 14,
    grid: Grid = "raw",
    saliency: str = "",
    estimator: Estimator = "k3",
    mean: MeanName = "sequence",
) -> Method:
    """What the paper writes: today's weights look at the masked image too, and the gradient flows through both.

    L = base - gamma mean(k3(l, l_masked)) + eta mean(-l) + eta mean(-l_masked)

    arXiv:2507.06448 eq. 2 and 3 (as a loss), without a bound on k3; the mean is that of the base: over sequences on
    GRPO, over tokens on DAPO. The paper prints r - log r - 1 with r = p/p_masked for the KL: estimator "k3-printed".

    Arguments and errors as of `release`.

    >>> from vergence.objectives.grpo import grpo
    >>> {read.view: read.when for read in paper(grpo()).objective["perception"].reads}
    {'image': 'grad', 'masked': 'grad'}
    """
    masked, over = Read("masked", "logp", when="grad"), MEANS[mean]
    return composed(
        base,
        term_of(ESTIMATORS[estimator], IMAGE, masked, name="perception", coefficient=-gamma, mean=over),
        term_of(surprise, IMAGE, name="entropy", coefficient=eta, mean=over),
        term_of(surprise, masked, name="masked_entropy", coefficient=_second(eta, entropies), mean=over),
        views={"masked": erased(fraction, cell, grid, saliency)},
        about=PAPER,
    )


def erased(fraction: float, cell: int, grid: Grid, saliency: str) -> View:
    """The view that PAPO masks: cells at random, or the most salient patches.

    >>> erased(0.6, 14, "raw", "").show
    Erase(fraction=0.6, cell=14, aligned=False)
    """
    return View(Salient(saliency, fraction) if saliency else Erase(fraction, cell, aligned=grid == "aligned"))


def _second(eta: float, entropies: Entropies) -> float:
    return eta if entropies == "double" else 0.0
