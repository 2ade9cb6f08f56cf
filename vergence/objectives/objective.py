"""Composing objectives, and the only place where a loss is divided."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from vergence.objectives.weighting import Mean
from vergence.types import BT, Batch, Mask, Method, Objective, Read, Scalar, Select, Stats, Term, UserError, View

Value = Callable[[Batch, Stats, Stats], BT]


def term(
    name: str,
    coefficient: float,
    mean: Mean,
    reads: tuple[Read, ...],
    value: Value,
    select: Select | None = None,
    *,
    counts: Literal["selected", "all"] = "selected",
    needs: Callable[[Batch], Bool[Tensor, " B"]] | None = None,
) -> Objective:
    """The objective coefficient * mean(value) over the selected response tokens; the empty one if the coefficient is 0.

    `value` and `select` are shown zeros where the mask is false, since the gradient of what they make of a NaN there is
    0 * NaN.

    Args:
        name: the term's, and its metric's.
        coefficient: > 0 to minimise, < 0 to maximise.
        mean: over what to average.
        reads: the statistics that `value` and `select` use.
        value: (batch, frozen, live) -> one number per token.
        select: (batch, frozen) -> the tokens that the mean is over; None is every response token.
        counts: what the mean divides by: the selected tokens (or the rollouts that have any), or all.
        needs: the rollouts at which `value` can be other than 0 where it counts; None is all.
    """
    if coefficient == 0:
        return {}

    def chosen(batch: Batch, frozen: Stats) -> Mask:
        return batch.mask_BT if select is None else batch.mask_BT & select(_seen(batch), _inside(batch, frozen))

    def total(batch: Batch, frozen: Stats) -> Scalar:
        return mean.total(chosen(batch, frozen) if counts == "selected" else batch.mask_BT)

    def weigh(batch: Batch, frozen: Stats, live: Stats) -> BT:
        return mean.weigh(chosen(batch, frozen))

    def scaled(batch: Batch, frozen: Stats, live: Stats) -> BT:
        return coefficient * value(_seen(batch), _inside(batch, frozen), _inside(batch, live))

    return {name: Term(reads, total, weigh, scaled, None if select is None else chosen, needs)}


def _seen(batch: Batch) -> Batch:
    """The batch with zeros where the mask is false."""
    zeroed = ("sampled_logp_BT", "chance_BT", "advantage_BT")
    return replace(batch, **{name: getattr(batch, name).where(batch.mask_BT, 0.0) for name in zeroed})


def _inside(batch: Batch, stats: Stats) -> Stats:
    return Stats({key: value_BT.where(batch.mask_BT, 0.0) for key, value_BT in stats.value.items()})


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


def reads_of_method(method: Method) -> tuple[Read, ...]:
    """What a method needs: for its terms, and to reshape its advantages."""
    return tuple(dict.fromkeys((*reads_of(method.objective), *(method.reshape.reads if method.reshape else ()))))


NONE: Mapping[str, View] = MappingProxyType({})


def composed(base: Method, *objectives: Objective, views: Mapping[str, View] = NONE, **fields) -> Method:
    """The base with these terms added to its own, and these fields replaced; only views that are read are kept.

    A view that nothing reads is not paid for. What the policy sees when it answers always stays.
    """
    method = base._replace(objective=add(base.objective, *objectives), **fields)
    needed = {name for read in reads_of_method(method) for name in (read.view, read.against)} | {method.sample_view}
    return method._replace(views={name: view for name, view in {**base.views, **views}.items() if name in needed})


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
