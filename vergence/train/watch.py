"""What is measured of every method alike: how far each view moves what the policy says, and where the gradient goes."""

from __future__ import annotations

import numpy as np
import torch

from vergence.objectives.controls import perceptual
from vergence.objectives.objective import reads_of
from vergence.objectives.terms import CAPPED
from vergence.objectives.weighting import PER_TOKEN
from vergence.scoring.naive import Prompts
from vergence.train.config import Config
from vergence.train.parts import WATCHED, Parts
from vergence.train.step import accumulate, measure
from vergence.types import BT, Batch, Blank, Mask, Method, Metrics, Original, Read, Select, Stats, View

PROBED = 64
"""Rollouts on which the two gradients are taken that are compared."""


def watching(config: Config, round_: int) -> dict[str, View]:
    """The views that are shown in this round besides the method's own.

    >>> [list(watching(Config(watch_every=2), round_)) for round_ in range(3)]
    [['watched'], [], ['watched']]
    """
    return {"watched": WATCHED} if config.watch_every > 0 and round_ % config.watch_every == 0 else {}


def watched_views(method: Method) -> dict[str, View]:
    """The method's own views that are worth a comparison with the image: neither the image again nor a blank one."""
    looked = method.views.items()
    return {name: view for name, view in looked if view.policy == "now" and view.show not in (Original(), Blank())}


def looked(parts: Parts, batch: Batch, prompts: Prompts) -> Stats:
    """What the image and every watched view say about each token, under the weights that sampled."""
    reads = [Read("image", "logp"), Read("image", "entropy")]
    for name in ("watched", *watched_views(parts.method)):
        reads += [Read("image", "kl", name), Read(name, "logp"), Read(name, "entropy")]
    return measure(batch, parts.scorer, prompts, reads, budget=parts.config.token_budget, backend=parts.backend)


def watched(parts: Parts, batch: Batch, frozen: Stats, stats: Stats) -> Metrics:
    """How much the responses depend on each view, by what `looked` measured; see `_of_view`. Nats.

    `perception/kl_masked`, `k3_masked` and so on are against the same 60 % masked view for every method.
    """
    metrics: Metrics = {}
    if parts.method.views["image"].show == Original():  # a blind policy's distance to a masked image says nothing
        seen = _of_view("watched", stats, batch.mask_BT)
        metrics = {f"perception/{what}_masked": value for what, value in seen.items()}
    for name, view in watched_views(parts.method).items():
        mask_BT = batch.mask_BT
        if view.gate is not None:
            through_B = view.gate(batch.advantage_B)
            metrics["perception/gate_pass"] = through_B.double().mean().item()
            mask_BT = mask_BT & through_B[:, None]
        metrics |= {f"perception/{name}/{what}": value for what, value in _of_view(name, stats, mask_BT).items()}
    return metrics | _of_selections(parts.method, batch, frozen, stats.entropy("image"))


def _of_view(name: str, stats: Stats, mask_BT: Mask) -> dict[str, float]:
    """The KL from the image to a view over the vocabulary, its k3 at the sampled tokens (mean, median, 99th percentile,
    variance, share at the bound of 10), the signed log-ratio l - l_view, and the view's entropy: over masked tokens."""
    if not mask_BT.any():
        return {}
    k3 = CAPPED["k3"](stats.logp("image"), stats.logp(name))[mask_BT].double()
    of_tokens = {
        "kl": stats.kl("image", name),
        "signed": stats.logp("image") - stats.logp(name),
        "entropy": stats.entropy(name),
    }
    return {what: value_BT[mask_BT].double().mean().item() for what, value_BT in of_tokens.items()} | {
        "k3": k3.mean().item(),
        "k3_p50": float(np.quantile(k3.cpu().numpy(), 0.5)),  # torch's own takes 2^24 values at most
        "k3_p99": float(np.quantile(k3.cpu().numpy(), 0.99)),
        "k3_variance": k3.var(correction=0).item(),
        "k3_at_bound": (k3 >= 10.0).double().mean().item(),
    }


def _of_selections(method: Method, batch: Batch, frozen: Stats, entropy_BT: BT) -> Metrics:
    """For whatever selects tokens: which share of all, and their overlap (intersection over union) with as many tokens
    of highest entropy in the same responses."""
    metrics: Metrics = {}
    for name, select in chosen_by(method).items():
        selected_BT = select(batch, frozen) & batch.mask_BT
        uncertain_BT = _highest(entropy_BT.where(batch.mask_BT, -1.0), selected_BT.sum(-1))
        either = (selected_BT | uncertain_BT).sum().item()
        metrics[f"perception/selected/{name}"] = (selected_BT.sum() / batch.mask_BT.sum()).item()
        metrics[f"perception/selected_uncertain/{name}"] = (selected_BT & uncertain_BT).sum().item() / max(1, either)
    return metrics


def chosen_by(method: Method) -> dict[str, Select]:
    """What of a method selects tokens, by the name of the term; "surrogate" is what reshapes its advantages.

    >>> from vergence.objectives import method
    >>> list(chosen_by(method("cppo"))), list(chosen_by(method("vppo"))), list(chosen_by(method("papo")))
    (['contrast'], ['surrogate'], [])
    """
    chosen = {name: term.select for name, term in method.objective.items() if term.select is not None}
    if method.reshape is not None and method.reshape.select is not None:
        chosen["surrogate"] = method.reshape.select
    return chosen


def _highest(score_BT: BT, number_B: torch.Tensor) -> Mask:
    """The `number_B` highest of each row."""
    rank_BT = score_BT.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return rank_BT < number_B[:, None]


def gradient_ratio(parts: Parts, batch: Batch, frozen: Stats, prompts: Prompts) -> Metrics:
    """The length of the gradient of the terms that read other views, in units of the surrogate's; on `PROBED` rollouts.

    The weights' gradients are cleared.
    """
    own = perceptual(parts.method)
    if not any(read.when == "grad" for read in reads_of(own)):
        return {}
    some = slice(0, PROBED)
    lengths = []
    for objective in (own, {"surrogate": parts.method.objective["surrogate"]}):
        alone = parts.method._replace(objective=objective, metrics={})
        parts.optimizer.zero_grad(set_to_none=True)
        accumulate(
            alone,
            batch.rows(some),
            frozen.rows(some),
            parts.scorer,
            prompts,
            backend=parts.backend,
            budget=parts.config.token_budget,
        )
        lengths.append(parts.backend.clip(parts.policy.model.parameters(), float("inf")))
    parts.optimizer.zero_grad(set_to_none=True)
    return {"perception/gradient_ratio": lengths[0] / lengths[1]} if lengths[1] > 0 else {}


def drift(method: Method, batch: Batch) -> Metrics:
    """How far reshaped advantages are from a zero mean over siblings: the mean over rollouts of their token mean."""
    if method.reshape is None:
        return {}
    each_B = (batch.advantage_BT * batch.mask_BT).sum(-1) / PER_TOKEN.weigh(batch.mask_BT).sum(-1).clamp(min=1)
    return {
        "advantage/drift": each_B.double().mean().item(),
        "advantage/kept": (each_B.abs().sum() / batch.advantage_B.abs().sum().clamp(min=1e-12)).item(),
    }
