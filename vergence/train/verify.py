"""Is the scorer right for this model? Its statistics and gradient beside those of plain forward passes."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isnan

import torch
from torch import Tensor

from vergence.objectives.objective import reads_of_method
from vergence.scoring.naive import Prompts, Scorer
from vergence.train.checkpoint import Pending
from vergence.train.parts import Parts
from vergence.train.step import accumulate, measure
from vergence.types import UserError

tiny = torch.finfo(torch.float64).tiny
PROBED = 32
"""Rollouts, at least one group, on which the two are compared."""
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.15}
"""Of the whole gradient, by the weights' precision: rounding is below it, a wrong prompt is of the order of 1."""


def verify(parts: Parts, pending: Pending, prompts: Prompts) -> str:
    """What was compared, in a line: the largest difference of a statistic, nats, and of a gradient, relative.

    The weights' gradients are cleared. A parameter's difference is in units of its own gradient, or of a hundredth of
    the whole where it has hardly any.

    Raises:
        UserError: they differ by more than rounding.
    """
    assert parts.definition is not None
    groups = max(1, PROBED // parts.config.siblings)
    rows = slice(0, groups * parts.config.siblings)
    reads = [read._replace(when="live") for read in reads_of_method(parts.method)]
    stats, gradients = [], []
    for scorer in (parts.definition, parts.scorer):
        batch = pending.batch.rows(rows)
        stats.append(measure(batch, scorer, prompts, reads, budget=parts.config.token_budget))
        gradients.append(_gradient(parts, pending, prompts, scorer, rows))
    nats = max(float((stats[0].value[key] - other).abs().max()) for key, other in stats[1].value.items())
    want, got = gradients
    length = _length(want.values()) or tiny
    error = _length(got[name] - grad for name, grad in want.items()) / length
    apart = {name: float((got[name] - grad).norm() / max(grad.norm(), 0.01 * length)) for name, grad in want.items()}
    worst = max(apart, key=lambda name: inf if isnan(apart[name]) else apart[name])
    told = f"{nats:.0e} nats at most in a statistic, {error:.0e} in the gradient, {apart[worst]:.0e} at most in {worst}"
    most = TOLERANCE.get(parts.policy.model.dtype, TOLERANCE[torch.bfloat16])
    if not (nats <= 10 * most and error <= most and apart[worst] <= 10 * most):
        raise UserError(
            f"the scorer {parts.config.scorer!r} differs from plain forward passes on this model by {told}; rounding "
            f"explains {most:g}. Take --scorer naive, and report the model ({type(parts.policy.model).__name__})"
        )
    return f"scorer verified on {len(batch.key_B)} rollouts: differs from plain forward passes by {told}"


def _length(parts: Iterable[Tensor]) -> float:
    return sum(float(part.double().square().sum()) for part in parts) ** 0.5


def _gradient(parts: Parts, pending: Pending, prompts: Prompts, scorer: Scorer, rows: slice) -> dict[str, Tensor]:
    model = parts.policy.model
    model.zero_grad(set_to_none=True)
    accumulate(
        parts.method,
        pending.batch.rows(rows),
        pending.frozen.rows(rows),
        scorer,
        prompts,
        backend=parts.backend,
        budget=parts.config.token_budget,
    )
    found = {name: weight.grad.float() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return found
