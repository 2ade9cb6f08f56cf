"""CPPO: contrastive perception policy optimisation (arXiv:2601.00501), as released twice and as its text has it.

All want the tokens that need the image to be nearer to a view that keeps what matters than to one that removes it, in
the rollouts that did better than their siblings, and minimise

    L = base + coefficient mean softplus((d_plus - d_minus) / tau)

with d_plus = D(image, kept) and d_minus = D(image, removed).

They differ in the divergence D, in which tokens are meant, and in what the mean divides by. The body of the paper was
not readable to us: `paper` follows the text of the paper's summary, and what that leaves open is ours.
"""

from typing import Literal

from vergence.objectives.contrast import Estimator, Fresh, Gate, Select, Variant, contrast
from vergence.objectives.selecting import rises_areal, rises_paper, rises_verl
from vergence.objectives.weighting import PER_SEQUENCE, PER_TOKEN
from vergence.types import About, Blur, Erase, Jitter, Method, Noise, Occlude, OneOf, Perspective, Rotate, Zoom

Family = Literal["release", "areal", "paper"]

VIEWS = {
    "release": (OneOf((Jitter(), Perspective(), Rotate())), OneOf((Occlude(), Zoom()))),
    "areal": (OneOf((Jitter(), Perspective(), Rotate(), Blur(1.0))), OneOf((Occlude(), Zoom()))),
    "paper": (
        OneOf((Jitter(), OneOf((Perspective(), Rotate())), Noise())),
        # A "30 % crop" is read as one that keeps 30 % of the area, as 80 % of the patches is a share of the area.
        OneOf((Erase(0.8, 14), Zoom(0.3**0.5, 0.3**0.5))),
    ),
}
"""What is shown (with everything that matters kept, with some of it removed), by where it comes from."""

TITLE = "Contrastive perception policy optimisation"

_EITHER = (
    "means divide exactly; the code adds 1e-8 to the denominator",
    "tokens are selected once per round, by entropies under the weights that sampled; the code selects in every "
    "training pass (fresh=yes selects before every optimizer step)",
    "the images of a view are drawn anew in every round, from the raw image; the code draws after the model's resize, ",
)

VERL = About(
    title=TITLE,
    paper="2601.00501",
    variant="release-verl",
    coefficient="coefficient",
    deviations=(
        "every mean is over the whole optimizer step and all ranks, that of the contrast over its selected tokens; the "
        "code averages the means of micro-batches",
        *_EITHER[:2],
        _EITHER[2] + "once for a prompt and epoch",
        "the code runs on GRPO; on another base it is ours",
    ),
)

AREAL = About(
    title=TITLE,
    paper="2601.00501",
    variant="release-areal",
    coefficient="coefficient",
    deviations=(
        "the contrast's mean is over the selected tokens of the whole optimizer step; the code takes it over those of "
        "a micro-batch, and weighs it by the micro-batch's share of all tokens",
        *_EITHER[:2],
        _EITHER[2] + "once for the whole training",
        "rewards are not scaled by 10 and shifted by -0.5: but for eps, standardised advantages are the same",
        "advantages are not standardised over the batch once more",
        "the decoupled loss, for rollouts older than one round, is not built",
        "the blur keeps the tails of its kernel; the code cuts it off at 3 x 3 pixels",
    ),
)

PAPER = About(
    title=TITLE,
    paper="2601.00501",
    variant="paper",
    coefficient="coefficient",
    deviations=(
        "tokens are selected once per round, by entropies under the weights that sampled (fresh=yes selects before "
        "every optimizer step)",
        "log-ratios, in the surrogate and in the reference KL, are held to +-20",
        "the standard deviation of a group is the unbiased one, and 1e-6 is added to it",
    ),
    reconstructed=(
        "the body of the paper was not readable: this follows the text of the paper's summary, which has an InfoNCE "
        "loss with similarities by KL, on the tokens of the highest entropy increase, where A > 0",
        "similarity is -KL(image || view) over the vocabulary, so that InfoNCE is the softplus of a difference",
        "tau 0.1 and the coefficient 0.01 are those of the code",
        "the gradient flows through all three branches, as in the code",
        "the mean is over a rollout's selected tokens, and then over all rollouts, those without any counting 0",
        "half of the tokens is half of all the response's tokens, rounded up, by the raw entropy increase; of equals "
        "the one that is read first",
        "views: a 30 % crop keeps 30 % of the area; patches of 14 pixels are black with probability 0.8; the mild "
        "geometry is the code's; noise of 5 % is ours; the kinds of a view are equally likely",
        "the settings of the base are GRPO's own",
    ),
)


def release_verl(
    base: Method,
    *,
    coefficient: float = 0.01,
    tau: float = 0.1,
    top: float = 0.5,
    estimator: Estimator = "k3",
    select: Select = "published",
    gate: Gate = "positive",
    views: Family = "release",
    fresh: Fresh = "no",
) -> Method:
    """What the released code for verl minimises: sampled k3 to both views, over the selected tokens of the whole step.

    L = base + coefficient sum_S softplus((k3(l, l_kept) - k3(l, l_removed)) / tau) / |S|

    S are the tokens of rollouts with A > 0 that `selecting.rises_verl` picks. CPPO, released code,
    recipe/cppo/cppo_dp_actor.py. k3 is held to 10 nats, its log-ratio to +-20. The image and both views carry gradient;
    the selection is a constant.

    Args:
        base: what is minimised besides.
        coefficient: of the contrast, which is minimised; 0 drops it, its views and the selection.
        tau: temperature of the contrast, nats.
        top: the share of the tokens that is selected, in (0, 1]; what it is a share of, the variant says.
        estimator: what stands for the divergences: "k3" or "k1" of the sampled token, both held to 10 nats, or the
            "full" sum over the vocabulary, KL(image || view).
        select: "published" is the variant's rule, "all" takes every token of the gated rollouts (an ablation).
        gate: "positive" spends the term, and every pass that it needs, on rollouts with A > 0 alone; "none" on all.
        views: whose ways to keep and to remove: the "release" for verl, "areal" (which also blurs), or the "paper".
        fresh: "yes" selects before every optimizer step, for more forward passes.

    Raises:
        UserError: an option is out of its range.

    >>> from vergence.objectives.grpo import grpo
    >>> cppo = release_verl(grpo())
    >>> list(cppo.objective), list(cppo.views)
    (['surrogate', 'reference_kl', 'contrast'], ['image', 'reference', 'anchor', 'kept', 'removed'])
    >>> [(read.view, read.quantity, read.when) for read in cppo.objective["contrast"].reads[1:]]
    [('kept', 'logp', 'grad'), ('removed', 'logp', 'grad'), ('anchor', 'entropy', 'frozen'), \
('removed', 'entropy', 'frozen')]
    """
    variant = Variant(VERL, rises_verl, PER_TOKEN, "selected")
    return contrast(base, variant, coefficient, tau, top, estimator, select, gate, VIEWS[views], fresh)


def release_areal(
    base: Method,
    *,
    coefficient: float = 0.01,
    tau: float = 0.1,
    top: float = 0.5,
    estimator: Estimator = "k1",
    select: Select = "published",
    gate: Gate = "positive",
    views: Family = "areal",
    fresh: Fresh = "no",
) -> Method:
    """What the released code for AReaL minimises: by k1, so that the image's own log-probability cancels.

    L = base + coefficient sum_S softplus((l_removed - l_kept) / tau) / |S|

    S are the tokens of rollouts with A > 0 that `selecting.rises_areal` picks. CPPO, released code,
    AReaL/cppo/engine.py. Each k1 is held to +-10 nats; where neither is at its bound, the image has no gradient.

    Arguments and errors as of `release_verl`.

    >>> from vergence.objectives.grpo import grpo
    >>> len(release_areal(grpo()).views["kept"].show.choices)          # one more than for verl
    4
    """
    variant = Variant(AREAL, rises_areal, PER_TOKEN, "selected")
    return contrast(base, variant, coefficient, tau, top, estimator, select, gate, VIEWS[views], fresh)


def paper(
    base: Method,
    *,
    coefficient: float = 0.01,
    tau: float = 0.1,
    top: float = 0.5,
    estimator: Estimator = "full",
    select: Select = "published",
    gate: Gate = "positive",
    views: Family = "paper",
    fresh: Fresh = "no",
) -> Method:
    """Our reading of the text of the paper's summary: divergences over the vocabulary, a mean over all rollouts.

    L = base + coefficient 1/B sum_i [A_i > 0] mean_(t in S_i) softplus((KL(p || p_kept) - KL(p || p_removed)) / tau)

    S_i are the tokens of rollout i that `selecting.rises_paper` picks. Reconstructed: see `PAPER.reconstructed`.

    Arguments and errors as of `release_verl`.

    >>> from vergence.objectives.grpo import grpo
    >>> [(read.view, read.against) for read in paper(grpo()).objective["contrast"].reads[:2]]
    [('image', 'kept'), ('image', 'removed')]
    """
    variant = Variant(PAPER, rises_paper, PER_SEQUENCE, "all")
    return contrast(base, variant, coefficient, tau, top, estimator, select, gate, VIEWS[views], fresh)
