"""Controls: a method with one value replaced, to tell whether a gain is perception.

A control is a function from a method to a method, and any entry of the catalogue takes one: `papo+shuffled`. What it
replaces is found by what the method reads: its *perceptual* terms are those that read another view than the image and
the reference, and `reshape` is its other way of using one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from vergence.objectives.grpo import IMAGE, REFERENCE
from vergence.objectives.objective import composed, reads_of_method, term_of
from vergence.objectives.terms import k3
from vergence.objectives.weighting import PER_TOKEN
from vergence.types import (
    BT,
    Batch,
    Blank,
    Caption,
    Mask,
    Method,
    Objective,
    Original,
    Reshape,
    Reword,
    Stats,
    Swap,
    Term,
    UserError,
    View,
    ViewSpec,
)


class Control(NamedTuple):
    """One value of a method, replaced."""

    about: str
    apply: Callable[[Method, float], Method]
    """(method, strength) -> the control."""
    strength: float | None = None
    """What the option `strength` is if it is not given; None if there is no such option."""


def perceptual(method: Method) -> Objective:
    """The terms that read a view other than the image and the reference: what a method adds in order to see.

    >>> from vergence.objectives.grpo import grpo
    >>> perceptual(grpo())
    {}
    """

    def elsewhere(view: str | None) -> bool:
        return view not in (None, "image", method.sample_view) and method.views[view].policy == "now"

    def is_perceptual(term: Term) -> bool:
        return any(elsewhere(view) for read in term.reads for view in (read.view, read.against))

    return {name: term for name, term in method.objective.items() if is_perceptual(term)}


def entropy_only(method: Method, strength: float) -> Method:
    """Without what looks at another view; entropy terms of the image stay, at the same coefficient."""
    _require(method, "no term and no weight that looks at another view, so nothing would change")
    rest = {name: term for name, term in method.objective.items() if name not in perceptual(method)}
    return composed(method._replace(objective=rest, reshape=None))


def random_tokens(method: Method, strength: float) -> Method:
    """As many tokens of each response as the method selects, but drawn at random."""
    return _selecting(method, lambda select: lambda batch, frozen: _mixed(select(batch, frozen), batch))


def shuffled(method: Method, strength: float) -> Method:
    """The statistic permuted within each response: the same histogram on the wrong tokens.

    Where tokens are selected it is the scores that are permuted. Elsewhere each token gets the push of another one: the
    value's derivative in what was read there (for PAPO's k3, gamma (q/p - 1)), carried by the token's own statistic.
    """
    _require(method, "no statistic of another view that could be permuted")

    def permuted(term: Term) -> Term:
        by_score = term.select is not None and any(read.when == "frozen" for read in term.reads)
        return (_scores if by_score else _push)(term)

    terms = {name: permuted(term) for name, term in perceptual(method).items()}
    return method._replace(objective={**method.objective, **terms}, reshape=_of_shuffled(method.reshape))


def swapped(method: Method, strength: float) -> Method:
    """Another scene's image (or caption) in the place of the view: content exchanged, nothing spoilt."""
    return _shown_instead(method, lambda show: Swap(Caption() if isinstance(show, Caption) else Original()), 1.0)


def reworded(method: Method, strength: float) -> Method:
    """The image as it is and words of the question left out: a divergence that is not perceptual, times `strength`."""
    return _shown_instead(method, lambda show: Reword(), strength)


def blind(method: Method, strength: float) -> Method:
    """A blank image while sampling and training; nothing else is looked at. What is learnt needs no eyes."""
    seen = entropy_only(method, strength) if perceptual(method) or method.reshape else method
    views = {name: view._replace(show=Blank()) for name, view in seen.views.items()}
    return seen._replace(views=views)


def reversed_sign(method: Method, strength: float) -> Method:
    """Every perceptual term with the other sign."""
    if not perceptual(method):
        raise UserError("it has no perceptual term whose sign could be reversed")
    return _scaled(method, -1.0)


def extra_kl(method: Method, strength: float) -> Method:
    """With another reference KL on top, k3, token mean, of coefficient `strength`."""
    return composed(
        method,
        term_of(k3, IMAGE, REFERENCE, name="extra_kl", coefficient=strength, mean=PER_TOKEN),
        views={"reference": View(Original(), policy="reference")},
    )


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        "entropy-only": Control("nothing but its entropy terms: is it stabilisation?", entropy_only),
        "random": Control("as many tokens, at random: is it which tokens?", random_tokens),
        "shuffled": Control("the statistic permuted within the response: is it where it is?", shuffled),
        "swapped": Control("another scene's image instead of a spoilt one: is it content?", swapped),
        "reworded": Control("a view that keeps the image and disturbs the text: is it perception?", reworded, 1.0),
        "blind": Control("a blank image in sampling and training: are eyes needed?", blind),
        "reversed": Control("the perceptual terms with the other sign: is it the direction?", reversed_sign),
        "extra-kl": Control("another reference KL on top: is it staying near the start?", extra_kl, 0.04),
    }
)
"""By the name that follows the `+`."""


def controlled(method: Method, name: str, strength: float | None) -> Method:
    """The control of a method. Its `about` says so.

    Raises:
        UserError: the method has nothing that this control replaces.
    """
    control = CONTROLS[name]
    if strength is not None and (control.strength is None or (name == "reworded" and not perceptual(method))):
        raise UserError("there is no coefficient for an option `strength` to scale")
    changed = control.apply(method, (control.strength or 1.0) if strength is None else strength)
    if name in ("random", "shuffled") and _same(method, changed):
        raise UserError("nothing would change: all tokens count, or have the same push, or a response's mean is all")
    about = method.about
    said = (f"control `{name}`: {control.about}", *about.deviations)
    return changed._replace(about=about._replace(variant=f"{about.variant}+{name}", deviations=said))


def _same(method: Method, other: Method) -> bool:
    """Whether two methods that read the same do the same, on a small step of random numbers."""
    B, T, generator = 4, 6, torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    batch = Batch(
        key_B=torch.arange(B),
        scene_B=torch.arange(B) // 2,
        token_BT=torch.zeros(B, T, dtype=torch.long),
        mask_BT=torch.ones(B, T, dtype=torch.bool),
        sampled_logp_BT=-uniform(B, T),
        chance_BT=uniform(B, T),
        correct_B=uniform(B),
        advantage_B=uniform(B) + 0.5,
        advantage_BT=torch.ones(B, T, dtype=torch.float64),
    )
    reads = reads_of_method(method)
    stats = Stats({read[:3]: -uniform(B, T) if read.quantity == "logp" else uniform(B, T) for read in reads})
    live = Stats({key: value_BT.clone().requires_grad_() for key, value_BT in stats.value.items()})

    def outcome(one: Method) -> list[Tensor]:
        reshaped = one.reshape.advantage(batch, stats, lambda value_B: value_B) if one.reshape else batch.advantage_BT
        terms = perceptual(one).values()
        losses = [(term.weigh(batch, stats, stats) * term.value(batch, stats, live)).sum() for term in terms]
        leaves = list(live.value.values())
        found = torch.autograd.grad(sum(losses), leaves, allow_unused=True) if losses else []
        return [reshaped, *(torch.zeros(B, T).double() if grad is None else grad for grad in found)]

    return all(map(torch.equal, outcome(method), outcome(other)))


def _require(method: Method, what: str) -> None:
    if not perceptual(method) and method.reshape is None:
        raise UserError(f"it has {what}")


def _scaled(method: Method, factor: float) -> Method:
    def times(term: Term) -> Term:
        return term._replace(value=lambda batch, frozen, live: factor * term.value(batch, frozen, live))

    return method._replace(
        objective={**method.objective, **{name: times(term) for name, term in perceptual(method).items()}}
    )


def _shown_instead(method: Method, other: Callable[[ViewSpec], ViewSpec], factor: float) -> Method:
    """What removes information shows something else; a view that keeps it (`kept`) stays."""
    _require(method, "no other view that could show something else")
    views = {
        name: view._replace(show=other(view.show)) if name != "kept" and _removes(view) else view
        for name, view in method.views.items()
    }
    return _scaled(method, factor)._replace(views=views)


def _removes(view: View) -> bool:
    return view.policy == "now" and view.show != Original()


def _mixed(value_BT: BT | Mask, batch: Batch) -> BT | Mask:
    """The values of each response's tokens, in an order drawn by `chance_BT`."""
    natural_BT = (~batch.mask_BT).long().argsort(dim=-1, stable=True)
    drawn_BT = batch.chance_BT.where(batch.mask_BT, 2.0).argsort(dim=-1, stable=True)
    return value_BT.scatter(-1, natural_BT, value_BT.gather(-1, drawn_BT))


def _mixed_stats(stats: Stats, batch: Batch) -> Stats:
    return Stats({key: _mixed(value_BT, batch) for key, value_BT in stats.value.items()})


def _scores(term: Term) -> Term:
    """A selecting term whose scores, and with them what is selected, are permuted."""
    return term._replace(
        total=lambda batch, frozen: term.total(batch, _mixed_stats(frozen, batch)),
        weigh=lambda batch, frozen, live: term.weigh(batch, _mixed_stats(frozen, batch), live),
        select=lambda batch, frozen: term.select(batch, _mixed_stats(frozen, batch)),
    )


def _push(term: Term) -> Term:
    """A term in which each token's derivative is taken at another token's statistics."""

    def value(batch: Batch, frozen: Stats, live: Stats) -> BT:
        there = _mixed_stats(live.detach(), batch)
        here = {key: there.value[key] + (own_BT - own_BT.detach()) for key, own_BT in live.value.items()}
        return term.value(batch, _mixed_stats(frozen, batch), Stats(here))

    return term._replace(value=value)


def _of_shuffled(reshape: Reshape | None) -> Reshape | None:
    if reshape is None:
        return None

    def seen(batch: Batch, frozen: Stats) -> tuple[Batch, Stats]:
        return replace(batch, sampled_logp_BT=_mixed(batch.sampled_logp_BT, batch)), _mixed_stats(frozen, batch)

    select = reshape.select
    return Reshape(
        reshape.reads,
        lambda batch, frozen, everywhere: reshape.advantage(*seen(batch, frozen), everywhere),
        select and (lambda batch, frozen: select(*seen(batch, frozen))),
    )


def _selecting(method: Method, other: Callable) -> Method:
    """With every selection replaced; a selected token's weight goes to the token that is selected in its place."""
    terms = {}
    for name, term in perceptual(method).items():
        if term.select is not None:
            weigh = lambda batch, frozen, live, term=term: _mixed(term.weigh(batch, frozen, live), batch)  # noqa: E731
            terms[name] = term._replace(weigh=weigh, select=other(term.select))
    reshape = method.reshape
    if reshape is not None and reshape.select is not None:
        own = reshape
        reshape = Reshape(
            own.reads,
            lambda batch, frozen, everywhere: _mixed(own.advantage(batch, frozen, everywhere), batch),
            other(own.select),
        )
    elif not terms:
        raise UserError("it selects no tokens: all of them count")
    return method._replace(objective={**method.objective, **terms}, reshape=reshape)
