"""AdamW that keeps narrow weights in float32 as well: updates below a weight's last digit add up and do not vanish.

A bfloat16 number has 8 digits of two, so 1 + 0.001 is 1: at a learning rate of 1e-6 hardly a weight would ever move.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

AT_ONCE = 2**28
"""Numbers whose gradient stands in float32 at a time: a GiB."""


def adamw(
    weights: Iterable[Tensor], *, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW of these weights: torch's own where none is narrower than float32, else `Masters`."""
    weights, settings = list(weights), {"lr": lr, "betas": betas, "weight_decay": weight_decay}
    made = Masters if any(map(is_narrow, weights)) else torch.optim.AdamW
    return made(weights, **settings)


def is_narrow(weight: Tensor) -> bool:
    """Whether it has fewer digits than float32.

    >>> is_narrow(torch.zeros(1, dtype=torch.bfloat16)), is_narrow(torch.zeros(1, dtype=torch.float64))
    (True, False)
    """
    return torch.finfo(weight.dtype).eps > torch.finfo(torch.float32).eps


def masters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The float32 copies that it keeps of narrow weights."""
    return [optimizer.masters[number] for number in optimizer._copied] if isinstance(optimizer, Masters) else []


class Masters(torch.optim.AdamW):
    """AdamW of float32 copies of narrow weights, which are set to the copies, rounded, after every step.

    Gradients are the weights' own, and are taken away as they are used; a weight of float32 is its own copy. The copies
    are part of the state.

    >>> weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    >>> optimizer = Masters([weight], lr=0.001, weight_decay=0.0)
    >>> for _ in range(4):
    ...     weight.grad = torch.ones_like(weight)
    ...     optimizer.step()
    >>> weight.item(), round(optimizer.masters[0].item(), 6)        # 1 - 0.001 alone would have been rounded to 1
    (0.99609375, 0.996)
    """

    def __init__(self, weights: Iterable[Tensor], **settings: Any) -> None:
        self.weights = list(weights)
        self.masters = [weight.detach().float() if is_narrow(weight) else weight for weight in self.weights]
        super().__init__(self.masters, **settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of every weight that has a gradient."""
        waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        for weight, master in zip(self.weights, self.masters, strict=True):
            if weight.grad is not None:
                waiting.append((weight, master, weight.grad))
                weight.grad = None
        while waiting:
            taken, numbers = [], 0
            while waiting and (not taken or numbers + waiting[-1][1].numel() <= AT_ONCE):
                weight, master, gradient = waiting.pop()
                master.grad, numbers = gradient.to(master.dtype), numbers + master.numel()
                taken.append((weight, master))
            super().step()
            for weight, master in taken:
                master.grad = None
                if weight is not master:
                    weight.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take the weights' gradients away."""
        for weight in self.weights:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """AdamW's, with each copy beside its moments."""
        found = super().state_dict()
        kept = {number: {**found["state"].get(number, {}), "master": self.masters[number]} for number in self._copied}
        return {**found, "state": {**found["state"], **kept}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        moments = {}
        for number, entry in state_dict["state"].items():
            moments[number] = {name: value for name, value in entry.items() if name != "master"}
            if "master" in entry:
                self.masters[number].copy_(entry["master"])
        super().load_state_dict({**state_dict, "state": moments})

    @property
    def _copied(self) -> list[int]:
        pairs = zip(self.weights, self.masters, strict=True)
        return [number for number, (weight, master) in enumerate(pairs) if weight is not master]
