"""Random steps to hold the laws against, and one optimizer step as any trainer must take it."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vergence.objectives import method
from vergence.objectives.objective import reads_of, reduce
from vergence.types import BT, Batch, Method, Stats

Key = tuple[str, str, str | None]

CASES = {
    "grpo": method("grpo"),
    "grpo token mean, dual clip": method("grpo", mean="token", dual=3.0, clip_high=0.28, kl_cap=10.0),
    "papo-grpo@release": method("papo-grpo@release"),
    "papo-grpo@release entropies": method("papo-grpo@release", eta=0.05),
    "papo-grpo@release sequence mean": method("papo-grpo@release", eta=0.03, mean="sequence", beta=0.0),
    "papo-grpo@release k3-printed": method("papo-grpo@release", estimator="k3-printed"),
    "papo-grpo@paper": method("papo-grpo@paper"),
    "papo-grpo@paper entropies": method("papo-grpo@paper", eta=0.05),
    "papo-grpo@paper k3-printed": method("papo-grpo@paper", eta=0.05, estimator="k3-printed"),
    "papo-grpo@paper k2": method("papo-grpo@paper", estimator="k2"),
    "papo-grpo@full": method("papo-grpo@full"),
    "papo-grpo@full entropies": method("papo-grpo@full", eta=0.05),
}
"""Every entry of METHODS as it comes, and with each of its terms switched on."""


class Case(NamedTuple):
    """A step's rollouts, and exactly the statistics that the method declares."""

    batch: Batch
    frozen: Stats
    live: Stats
    leaves: dict[Key, BT]
    """Those of `live` that were read with gradient."""


class Outcome(NamedTuple):
    loss: float
    grads: dict[Key, BT]


def make(method: Method, seed: int, *, S: int = 3, G: int = 2, T: int = 7, wild: bool = False) -> Case:
    """Ragged masks with holes and one empty row; `wild` ones reach every clip and clamp."""
    generator = torch.Generator().manual_seed(seed)
    B = S * G

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    length_B = torch.randint(1, T + 1, (B,), generator=generator)
    mask_BT = (torch.arange(T) < length_B[:, None]) & (uniform(0, 1, B, T) > 0.15)
    mask_BT[seed % B] = False
    logp_BT = uniform(-3.0, -0.1, B, T)

    def near(spread: float) -> Tensor:
        moved_BT = logp_BT + uniform(-spread, spread, B, T)
        if wild:
            moved_BT = torch.where(uniform(0, 1, B, T) < 0.15, logp_BT + uniform(-26.0, 26.0, B, T), moved_BT)
        return moved_BT.where(mask_BT, 0.0)

    batch = Batch(
        key_B=torch.arange(B),
        scene_B=torch.arange(S).repeat_interleave(G),
        token_BT=torch.zeros(B, T, dtype=torch.long),
        mask_BT=mask_BT,
        sampled_logp_BT=near(0.5),
        correct_B=(uniform(0, 1, B) > 0.5).double(),
        advantage_B=uniform(-2.0, 2.0, B),
    )
    frozen, live, leaves = {}, {}, {}
    for read in reads_of(method.objective):
        key = (read.view, read.quantity, read.against)
        value_BT = (logp_BT if read.view == "image" else near(1.5)) if read.quantity == "logp" else uniform(0, 2, B, T)
        value_BT = value_BT.where(mask_BT, 0.0).requires_grad_(read.when == "grad")
        (frozen if read.when == "frozen" else live)[key] = value_BT
        if read.when == "grad":
            leaves[key] = value_BT
    return Case(batch, Stats(frozen), Stats(live), leaves)


def of_the_whole_step(shares: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """For each part, the totals it divides by: those of all parts added up."""
    return [{name: sum(share[name] for share in shares) for name in shares[0]}] * len(shares)


def step(
    method: Method,
    case: Case,
    parts: list[slice | Tensor] | None = None,
    *,
    combine: Callable = of_the_whole_step,
    reduce: Callable = reduce,
) -> Outcome:
    """Loss and gradients of one optimizer step whose rows are scored in these parts: micro-batches, or ranks.

    A faulty trainer has another `combine` or `reduce`.
    """
    parts = [slice(None)] if parts is None else parts
    rows = [(case.batch.rows(part), case.frozen.rows(part), case.live.rows(part)) for part in parts]
    terms = method.objective
    totals = combine([{name: term.total(batch, frozen) for name, term in terms.items()} for batch, frozen, _ in rows])
    loss, grads = 0.0, {key: torch.zeros_like(leaf) for key, leaf in case.leaves.items()}
    for (batch, frozen, live), total in zip(rows, totals, strict=True):
        values = {name: term.value(batch, frozen, live) for name, term in terms.items()}
        weights = {name: term.weigh(batch, frozen, live.detach()) for name, term in terms.items()}
        share = reduce(values, weights, total)
        loss += share.item()
        if share.requires_grad:
            found = torch.autograd.grad(share, list(case.leaves.values()), allow_unused=True)
            for key, grad in zip(case.leaves, found, strict=True):
                grads[key] += 0.0 if grad is None else grad
    return Outcome(loss, grads)


def only(method: Method, *names: str) -> Method:
    """The method with these terms alone, where it has them."""
    return method._replace(objective={name: term for name, term in method.objective.items() if name in names})


def mapped(case: Case, change: Callable[[BT], BT], **fields: Tensor) -> Case:
    """The case with every (B, T) statistic changed, `sampled_logp_BT` too, and these fields of the batch."""

    def through(stats: Stats) -> Stats:
        return Stats(
            {
                key: change(value_BT.detach()).requires_grad_(value_BT.requires_grad)
                for key, value_BT in stats.value.items()
            }
        )

    batch = replace(case.batch, **{"sampled_logp_BT": change(case.batch.sampled_logp_BT), **fields})
    live = through(case.live)
    return Case(batch, through(case.frozen), live, {key: live.value[key] for key in case.leaves})


def assert_same(first: Outcome, second: Outcome, change: Callable[[BT], BT] = lambda grad_BT: grad_BT) -> None:
    """Equal to 1e-12, the first one's gradients being changed before."""
    torch.testing.assert_close(torch.tensor(first.loss), torch.tensor(second.loss), rtol=1e-12, atol=1e-12)
    assert first.grads.keys() == second.grads.keys()
    for key, grad_BT in first.grads.items():
        torch.testing.assert_close(change(grad_BT), second.grads[key], rtol=1e-12, atol=1e-12)
