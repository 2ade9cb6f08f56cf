"""PAPO with what its samples stand for: the divergence and the entropies over the whole vocabulary. Ours."""

from vergence.objectives.objective import composed, term_of
from vergence.objectives.papo import RELEASE, Entropies, Grid, erased
from vergence.objectives.terms import itself
from vergence.objectives.weighting import MEANS, PER_TOKEN, MeanName
from vergence.types import About, Method, Read

FULL = About(
    title=RELEASE.title,
    paper=RELEASE.paper,
    variant="full",
    coefficient="gamma",
    deviations=(
        "the KL and both entropies are over the whole vocabulary; paper and code use the sampled token",
        "the KL has no bound; the code holds it to 10 nats",
        "the masked branch is read under today's weights, with gradient; the code reads it once, as a constant",
        *RELEASE.deviations[:4],
    ),
    reconstructed=("the combination: neither the paper nor the code has it",),
)


def full(
    base: Method,
    *,
    gamma: float = 0.02,
    eta: float = 0.0,
    entropies: Entropies = "double",
    fraction: float = 0.6,
    cell: int = 14,
    grid: Grid = "raw",
    saliency: str = "",
    mean: MeanName = "token",
) -> Method:
    """PAPO with the divergence and the entropies over the whole vocabulary, the gradient flowing through both branches.

    L = base - gamma mean(KL(image || masked)) + eta <H(image)> + eta <H(masked)>

    The gradient is that of KL(image || masked) and of the entropies; from sampled tokens it is in the mean that of
    KL(masked || image), and none for the entropies.

    Arguments and errors as of `papo.release`.

    >>> from vergence.objectives.grpo import grpo
    >>> [(read.view, read.against) for read in full(grpo()).objective["perception"].reads]
    [('image', 'masked')]
    """
    kl = Read("image", "kl", against="masked", when="grad")
    image, masked = Read("image", "entropy", when="grad"), Read("masked", "entropy", when="grad")
    second = eta if entropies == "double" else 0.0
    return composed(
        base,
        term_of(itself, kl, name="perception", coefficient=-gamma, mean=MEANS[mean]),
        term_of(itself, image, name="entropy", coefficient=eta, mean=PER_TOKEN),
        term_of(itself, masked, name="masked_entropy", coefficient=second, mean=PER_TOKEN),
        views={"masked": erased(fraction, cell, grid, saliency)},
        about=FULL,
    )
