"""The contrast between a view that keeps what matters and one that removes it: what the variants of CPPO share."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import logsigmoid

from vergence.objectives.grpo import IMAGE
from vergence.objectives.objective import composed, term
from vergence.objectives.selecting import positive
from vergence.objectives.terms import k1, k3
from vergence.objectives.weighting import Mean
from vergence.types import BT, About, Batch, ImageSpec, Mask, Method, Original, Read, Stats, UserError, View

Estimator = Literal["k1", "k3", "full"]
Select = Literal["published", "all"]
Gate = Literal["positive", "none"]
Fresh = Literal["no", "yes"]

KEPT, REMOVED = Read("kept", "logp", when="grad"), Read("removed", "logp", when="grad")
SEEN, BLIND = Read("anchor", "entropy", when="frozen"), Read("removed", "entropy", when="frozen")
FULL = (Read("image", "kl", "kept", when="grad"), Read("image", "kl", "removed", when="grad"))


class Variant(NamedTuple):
    """In what the variants differ besides their defaults."""

    about: About
    rule: Callable[[BT, BT, Mask, float], Mask]
    """(H, H with something removed, mask, share) -> the tokens that are selected."""
    mean: Mean
    counts: Literal["selected", "all"]
    """What the mean divides by."""


def softplus_margin(to_kept_BT: BT, to_removed_BT: BT, *, tau: float) -> BT:
    """softplus((d_plus - d_minus) / tau): small where the image is nearer to the view that keeps what matters.

    It is the InfoNCE of one positive and one negative, -log(e^(-d_plus/tau) / (e^(-d_plus/tau) + e^(-d_minus/tau))).

    Args:
        to_kept_BT, to_removed_BT: d_plus and d_minus, nats; both carry gradient.
        tau: temperature, nats.

    >>> softplus_margin(torch.tensor([[0.03, 0.2]]), torch.tensor([[0.5, 0.2]]), tau=0.1)          # log 2 at no margin
    tensor([[0.0091, 0.6931]])
    """
    return -logsigmoid((to_removed_BT - to_kept_BT) / tau)


def contrast(
    base: Method,
    variant: Variant,
    coefficient: float,
    tau: float,
    top: float,
    estimator: Estimator,
    select: Select,
    gate: Gate,
    views: tuple[ImageSpec, ImageSpec],
    fresh: Fresh,
) -> Method:
    """The base + coefficient * mean(softplus((d_plus - d_minus) / tau)) over the selected tokens of the gated rollouts.

    Args:
        views: how the image is shown with what matters kept, and with some of it removed.
        base, coefficient, tau, top, estimator, select, gate, fresh: as of `cppo.release_verl`, and so are the errors.
    """
    if tau <= 0:
        raise UserError(f"tau is a temperature, above 0; got {tau}")
    if not 0 < top <= 1:
        raise UserError(f"top is a share of tokens, above 0 and at most 1; got {top}")
    estimate = {"k1": _k1_held, "k3": partial(k3, limit=10.0), "full": None}[estimator]

    def value(batch: Batch, frozen: Stats, live: Stats) -> BT:
        if estimate is None:
            distances = [live.read(read) for read in FULL]
        else:
            distances = [estimate(live.logp("image"), live.read(read)) for read in (KEPT, REMOVED)]
        return softplus_margin(*distances, tau=tau)

    def through(batch: Batch) -> Bool[Tensor, " B"]:
        return torch.ones_like(batch.mask_BT[:, 0]) if gate == "none" else positive(batch.advantage_B)

    def chosen(batch: Batch, frozen: Stats) -> Mask:
        among_BT = batch.mask_BT & through(batch)[:, None]
        return among_BT if select == "all" else variant.rule(frozen.read(SEEN), frozen.read(BLIND), among_BT, top)

    # the anchor is the image again, for the entropies alone: so that they too are read of the gated rollouts only
    anchor, kept, removed = (View(show, gate=None if gate == "none" else positive) for show in (Original(), *views))
    reads = (*(FULL if estimate is None else (IMAGE, KEPT, REMOVED)), *(() if select == "all" else (SEEN, BLIND)))
    return composed(
        base,
        term("contrast", coefficient, variant.mean, reads, value, chosen, counts=variant.counts, needs=through),
        views={"anchor": anchor, "kept": kept, "removed": removed},
        about=variant.about,
        fresh=base.fresh or (coefficient != 0 and fresh == "yes"),
    )


def _k1_held(logp_BT: BT, other_logp_BT: BT) -> BT:
    return k1(logp_BT, other_logp_BT).clamp(-10.0, 10.0)
