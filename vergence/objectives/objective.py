"""Composing objectives, and the only place where a loss is divided."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from vergence.objectives.weighting import Mean
from vergence.types import BT, Batch, Objective, Read, Scalar, Stats, Term, UserError, View

Value = Callable[[Batch, Stats, Stats], BT]


def term(name: str, coefficient: float, mean: Mean, reads: tuple[Read, ...], value: Value) -> Objective:
    """The objective coefficient * mean(value) over all response tokens; the empty one if the coefficient is 0.

    `value` is shown zeros where the mask is false, since the gradient of what it makes of a NaN there is 0 * NaN.

    Args:
        name: the term's, and its metric's.
        coefficient: > 0 to minimise, < 0 to maximise.
        mean: over what to average.
        reads: the statistics that `value` uses.
        value: (batch, frozen, live) -> one number per token.
    """
    if coefficient == 0:
        return {}

    def total(batch: Batch, frozen: Stats) -> Scalar:
        return mean.total(batch.mask_BT)

    def weigh(batch: Batch, frozen: Stats, live: Stats) -> BT:
        return mean.weigh(batch.mask_BT)

    def scaled(batch: Batch, frozen: Stats, live: Stats) -> BT:
        def inside(stats: Stats) -> Stats:
            return Stats({key: value_BT.where(batch.mask_BT, 0.0) for key, value_BT in stats.value.items()})

        batch = replace(batch, sampled_logp_BT=batch.sampled_logp_BT.where(batch.mask_BT, 0.0))
        return coefficient * value(batch, inside(frozen), inside(live))

    return {name: Term(reads, total, weigh, scaled)}


def term_of(function: Callable[..., BT], *reads: Read, name: str, coefficient: float, mean: Mean) -> Objective:
    """The objective coefficient * mean(function(*reads)): a `term` that is a function of what it reads, and no more.

    >>> from vergence.objectives.weighting import PER_TOKEN
    >>> image = Read("image", "logp", when="grad")
    >>> list(term_of(torch.neg, image, name="entropy", coefficient=0.05, mean=PER_TOKEN))
    ['entropy']
    >>> term_of(torch.neg, image, name="entropy", coefficient=0.0, mean=PER_TOKEN)
    {}
    """

    def value(batch: Batch, frozen: Stats, live: Stats) -> BT:
        return function(*((frozen if read.when == "frozen" else live).read(read) for read in reads))

    return term(name, coefficient, mean, reads, value)


def add(*objectives: Objective) -> Objective:
    """The sum of objectives: all their terms, in order.

    Raises:
        UserError: two of them have a term of the same name.

    >>> from vergence.objectives.weighting import PER_TOKEN
    >>> image, masked = Read("image", "logp", when="grad"), Read("masked", "logp", when="frozen")
    >>> entropy = term_of(torch.neg, image, name="entropy", coefficient=0.1, mean=PER_TOKEN)
    >>> contrast = term_of(torch.sub, image, masked, name="contrast", coefficient=0.1, mean=PER_TOKEN)
    >>> list(add(entropy, {}, contrast))
    ['entropy', 'contrast']
    """
    terms: dict[str, Term] = {}
    for objective in objectives:
        if twice := sorted(terms.keys() & objective.keys()):
            raise UserError(f"terms {twice} are in more than one of the objectives to be added; rename them in one")
        terms |= objective
    return terms


def reads_of(objective: Objective) -> tuple[Read, ...]:
    """What the terms need, each once, in the order of first use.

    >>> from vergence.objectives.weighting import PER_TOKEN
    >>> image, masked = Read("image", "logp", when="grad"), Read("masked", "logp", when="frozen")
    >>> entropy = term_of(torch.neg, image, name="entropy", coefficient=0.1, mean=PER_TOKEN)
    >>> contrast = term_of(torch.sub, image, masked, name="contrast", coefficient=0.1, mean=PER_TOKEN)
    >>> [read.view for read in reads_of(add(entropy, contrast))]
    ['image', 'masked']
    """
    return tuple(dict.fromkeys(read for term in objective.values() for read in term.reads))


def views_read(objective: Objective, views: Mapping[str, View]) -> dict[str, View]:
    """Those of `views` that a term reads: a view that nothing reads is not paid for."""
    needed = {name for read in reads_of(objective) for name in (read.view, read.against)}
    return {name: view for name, view in views.items() if name in needed}


def reduce(values: Mapping[str, BT], weights: Mapping[str, BT], totals: Mapping[str, Scalar]) -> Scalar:
    """The loss: the sum over terms of sum(w * value) / total.

    Summed over micro-batches and ranks it is the mean over the whole step, because each total already is the whole
    step's. A token of weight 0 takes no part, whatever its value, NaN included; a term of total 0 is 0. With the values
    of one term it is that term's share, for the metrics.

    Args:
        values: what to minimise at each token, of these rows; carries the gradient.
        weights: how much each token counts, of these rows; constant. Their dtype is the dtype of the sum.
        totals: the denominators, summed over every micro-batch and rank of the step; constant.

    >>> values = {"a": torch.tensor([[1.0, 2.0, torch.nan]]), "b": torch.tensor([[5.0, 5.0, 5.0]])}
    >>> weights = {"a": torch.tensor([[1.0, 1.0, 0.0]]), "b": torch.zeros(1, 3)}
    >>> reduce(values, weights, {"a": torch.tensor(4.0), "b": torch.tensor(0.0)})          # (1 + 2) / 4 + 0
    tensor(0.7500)
    """
    return torch.stack([_share(value_BT, weights[name], totals[name]) for name, value_BT in values.items()]).sum()


def _share(value_BT: BT, w_BT: BT, total: Scalar) -> Scalar:
    summed = (w_BT * value_BT.to(w_BT.dtype).where(w_BT != 0, 0.0)).sum()
    return torch.where(total > 0, summed / total.where(total > 0, 1.0), 0.0)
