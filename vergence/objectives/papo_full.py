"""PAPO with what its samples stand for: the divergence and the entropies over the whole vocabulary. Ours."""

from vergence.objectives.grpo import grpo
from vergence.objectives.objective import add, term_of
from vergence.objectives.papo import RELEASE, assemble
from vergence.objectives.terms import itself
from vergence.objectives.weighting import MEANS, PER_TOKEN, MeanName
from vergence.types import About, Erase, Method, Read

FULL = About(
    title=RELEASE.title,
    paper=RELEASE.paper,
    variant="full",
    deviations=(
        "the KL and both entropies are over the whole vocabulary; paper and code use the sampled token",
        "the KL has no bound; the code holds it to 10 nats",
        "the masked branch is read under today's weights, with gradient; the code reads it once, as a constant",
        *RELEASE.deviations[:4],
    ),
    reconstructed=("the combination: neither the paper nor the code has it",),
)


def full(
    *,
    gamma: float = 0.02,
    eta: float = 0.0,
    beta: float = 0.01,
    fraction: float = 0.6,
    cell: int = 14,
    mean: MeanName = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.3,
    dual: float = 3.0,
    eps: float = 1e-6,
) -> Method:
    """PAPO with the divergence and the entropies over the whole vocabulary, the gradient flowing through both branches.

    L = mean(surrogate) + beta mean(k3(l, l_ref)) - gamma mean(KL(image || masked)) + eta <H(image)> + eta <H(masked)>

    With the base settings of `papo.release`. The gradient is that of KL(image || masked) and of the entropies; from
    sampled tokens it is in the mean that of KL(masked || image), and none for the entropies.

    Arguments and errors as of `papo.release`.

    >>> [(read.view, read.against) for read in full().objective["perception"].reads]
    [('image', 'masked')]
    """
    kl = Read("image", "kl", against="masked", when="grad")
    image, masked = Read("image", "entropy", when="grad"), Read("masked", "entropy", when="grad")
    base = grpo(mean=mean, clip_low=clip_low, clip_high=clip_high, dual=dual, beta=beta, kl_cap=10.0, eps=eps)
    objective = add(
        base.objective,
        term_of(itself, kl, name="perception", coefficient=-gamma, mean=MEANS[mean]),
        term_of(itself, image, name="entropy", coefficient=eta, mean=PER_TOKEN),
        term_of(itself, masked, name="masked_entropy", coefficient=eta, mean=PER_TOKEN),
    )
    return assemble(FULL, base, objective, Erase(fraction, cell))
