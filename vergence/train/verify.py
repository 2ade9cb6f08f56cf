"""Is the scorer right for this model? Its statistics and gradient beside those of plain forward passes."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

import torch
from torch import Tensor

from vergence.objectives.objective import reads_of_method
from vergence.scoring.naive import Naive, Prompts, Scorer
from vergence.train.checkpoint import Pending
from vergence.train.parts import Parts
from vergence.train.step import accumulate, freeze, measure, reshaped
from vergence.types import Batch, Stats, UserError, with_advantage

VERIFIED = 32
"""Rollouts, at least one group, on which the two are compared."""
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.15}
"""Of the whole gradient, by the weights' precision: rounding is below it, a wrong prompt is of the order of 1."""


def verify(parts: Parts, pending: Pending, prompts: Prompts) -> str:
    """What was compared, in a line: the largest difference of a statistic, nats, and of a gradient, relative.

    Rollouts have advantages of +1 and -1 in turn here, so that there is a gradient whatever they earned. The weights'
    gradients are cleared. A parameter's difference is in units of its own gradient, or of a hundredth of the whole
    where it has hardly any.

    Raises:
        UserError: they differ by more than rounding.
    """
    if parts.definition is None or isinstance(parts.scorer, Naive):
        return "nothing to verify: responses are scored by plain forward passes"
    group, backend = parts.config.siblings, parts.backend
    backend.gather_weights()  # shares are wider than what is computed with
    most = TOLERANCE.get(parts.policy.model.dtype, TOLERANCE[torch.bfloat16])
    rows = pending.batch.rows(slice(0, group * max(1, VERIFIED // group)))
    batch = with_advantage(rows, torch.ones_like(rows.advantage_B).index_fill(0, _odd(len(rows.key_B)), -1.0))
    budget, method = parts.config.token_budget, parts.method
    frozen = freeze(method, batch, parts.definition, prompts, budget=budget, backend=backend)
    batch = reshaped(method, batch, frozen, backend)
    reads = [read._replace(when="live") for read in reads_of_method(method)]
    scorers = (parts.definition, parts.scorer)
    want, got = (measure(batch, scorer, prompts, reads, budget=budget, backend=backend).value for scorer in scorers)
    nats = _largest(float((got[key] - value_BT).abs().max()) for key, value_BT in want.items())
    want, got = (_gradient(parts, batch, frozen, prompts, scorer) for scorer in scorers)
    length = _length(want.values()) or 1.0
    apart = {name: _length([got[name] - grad]) / max(_length([grad]), 0.01 * length) for name, grad in want.items()}
    error = _length(got[name] - grad for name, grad in want.items()) / length
    worst = max(apart, key=lambda name: apart[name] if isfinite(apart[name]) else float("inf"))
    told = f"{nats:.0e} nats at most in a statistic, {error:.0e} in the gradient, {apart[worst]:.0e} at most in {worst}"
    if not (nats <= 10 * most and error <= most and apart[worst] <= 10 * most):
        raise UserError(
            f"the scorer {parts.config.scorer!r} differs from plain forward passes on this model by {told}; rounding "
            f"explains {most:g}. Take --scorer naive, and report the model ({type(parts.policy.model).__name__})"
        )
    return f"scorer verified on {len(batch.key_B)} rollouts: differs from plain forward passes by {told}"


def _odd(number: int) -> Tensor:
    return torch.arange(1, number, 2)


def _largest(differences: Iterable[float]) -> float:
    """Not a number if one is not."""
    return max(differences, key=lambda difference: difference if isfinite(difference) else float("inf"))


def _length(parts: Iterable[Tensor]) -> float:
    return sum(float(part.double().square().sum()) for part in parts) ** 0.5


def _gradient(parts: Parts, batch: Batch, frozen: Stats, prompts: Prompts, scorer: Scorer) -> dict[str, Tensor]:
    """Of every weight that learns; zero if there is none."""
    model = parts.policy.model
    model.zero_grad(set_to_none=True)
    budget = parts.config.token_budget
    accumulate(parts.method, batch, frozen, scorer, prompts, backend=parts.backend, budget=budget)
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    grads = {name: torch.zeros_like(one) if one.grad is None else one.grad for name, one in learning.items()}
    found = {name: parts.backend.whole(grad).clone() for name, grad in grads.items()}
    model.zero_grad(set_to_none=True)
    return found
