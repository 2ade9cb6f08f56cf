"""A reconstruction of CapPO, caption-regularised policy optimisation (arXiv:2509.21854). Every formula here is ours.

Of the paper only the abstract was readable to us, and there is no code. It names two mechanisms: a loss that "minimizes
the divergence between responses conditioned on raw images and those conditioned on captions", and advantages scaled by
a divergence, "to strengthen perceptually consistent trajectories". What follows is one way to build them:

    L = base with A' + coefficient mean(D(image, caption)),    A'_i = w(K_i) A_i,    K_i = mean_t D_then(image, caption)
"""

from collections.abc import Callable
from typing import Literal

from vergence.objectives.agreement import Negatives, Weight, siblings_mean, signed, weights
from vergence.objectives.grpo import IMAGE
from vergence.objectives.objective import composed, term_of
from vergence.objectives.terms import CAPPED, itself
from vergence.objectives.weighting import MEANS, MeanName, share_of_row
from vergence.types import BT, About, B, Batch, Caption, Method, Read, Reshape, Stats, UserError, View

Estimator = Literal["k1", "k2", "k3", "full"]

CAPPO = About(
    title="Caption-regularised policy optimisation",
    paper="2509.21854",
    variant="reconstruction",
    coefficient="coefficient",
    deviations=("only the abstract was readable and no code exists: nothing here is the paper's formula, all is ours",),
    reconstructed=(
        "the loss: 0.05 times the mean over sampled tokens of KL(image || caption) by k3, held to 10 nats",
        "where its gradient flows: into the image branch; the caption branch is a constant, read once per round",
        "the weight of an advantage: exp(-K / 0.5), K a response's mean divergence under the weights that sampled",
        "no re-centring: weighted advantages of siblings do not add up to 0, and what they add up to is logged",
        "the caption: the scene's own, in the place of the image",
        "the base, its settings and every default",
    ),
)


def cappo(
    base: Method,
    *,
    coefficient: float = 0.05,
    weight: Weight = "exp",
    negatives: Negatives = "same",
    spread: float = 0.5,
    recentre: Literal["no", "yes"] = "no",
    estimator: Estimator = "k3",
    gradient: Literal["image", "both"] = "image",
    mean: MeanName = "sequence",
) -> Method:
    """Our reconstruction of CapPO: near to what a caption would have one say, the more so where it already is.

    L = base with A' + coefficient mean(D(image, caption)),    A'_i = w_i A_i,    K_i = max(0, mean_t D_then)

    The abstract of arXiv:2509.21854 says that there is such a loss and such a weight, and not which.

    Args:
        base: what is minimised besides. Its own reshaping of advantages, if it has one, is replaced by this one.
        coefficient: of the divergence from the caption's view, which is minimised; 0 drops it.
        weight: w: "exp" is exp(-K / spread), "inverse" 1 / (1 + K), "softmax" and "sigmoid" compare siblings
            (`weights`); "none" leaves the advantages alone.
        negatives: of a rollout with A < 0: the "same" weight; 1, its advantage "untouched"; or the weight "mirrored",
            2 - w within [0, 2], so that what agrees less with its caption is blamed more.
        spread: the K by which exp and softmax fall to 1/e, nats.
        recentre: "yes" subtracts the mean of the siblings from the weighted advantages, which w spoils.
        estimator: D: from the sampled token (k3 held to 10 nats), or the "full" sum over the vocabulary.
        gradient: whether D differentiates the "image" branch alone, the caption's being a constant, or "both".
        mean: over what D is averaged; that of the base.

    Raises:
        UserError: `spread` is not above 0, or the estimator is "full" and gradient "image": the divergence that the
            scorer takes over the vocabulary differentiates both sides.

    >>> from vergence.objectives.grpo import grpo
    >>> list(cappo(grpo()).objective), cappo(grpo()).views["caption"].show
    (['surrogate', 'reference_kl', 'consistency'], Caption())
    >>> cappo(grpo(), coefficient=0.0, weight="none").views.keys()
    dict_keys(['image', 'reference'])
    """
    if spread <= 0:
        raise UserError(f"spread must be above 0 nats, got {spread}")
    if coefficient and estimator == "full" and gradient == "image":
        raise UserError('estimator "full" needs gradient="both": over the vocabulary both sides are differentiated')
    if estimator == "full":
        divergence, reads = itself, (Read("image", "kl", "caption", when="grad"),)
    else:
        when = "grad" if gradient == "both" else "frozen"
        divergence, reads = CAPPED[estimator], (IMAGE, Read("caption", "logp", when=when))
    return composed(
        base,
        term_of(divergence, *reads, name="consistency", coefficient=coefficient, mean=MEANS[mean]),
        views={"caption": View(Caption())},
        reshape=base.reshape if weight == "none" else _reshape(weight, negatives, spread, recentre, estimator),
        about=CAPPO,
    )


def _reshape(weight: Weight, negatives: Negatives, spread: float, recentre: str, estimator: Estimator) -> Reshape:
    full = estimator == "full"
    then = Read("image", "kl", "caption", when="frozen") if full else Read("caption", "logp", when="frozen")

    def advantage(batch: Batch, frozen: Stats, everywhere: Callable[[B], B]) -> BT:
        # Siblings are rows of one batch, so nothing has to be known from elsewhere.
        read_BT = frozen.read(then)
        divergence_BT = read_BT if full else CAPPED[estimator](batch.sampled_logp_BT, read_BT)
        K_B = (share_of_row(batch.mask_BT) * divergence_BT.where(batch.mask_BT, 0.0)).sum(-1).to(read_BT.dtype)
        w_B = weights(K_B.clamp(min=0), batch.scene_B, weight, spread)
        A_B = signed(w_B, batch.advantage_B, negatives) * batch.advantage_B
        if recentre == "yes":
            A_B = A_B - siblings_mean(A_B, batch.scene_B)
        return A_B[:, None].expand(batch.mask_BT.shape).clone()

    return Reshape((then,), advantage)
