"""Random steps to hold the laws against, and one optimizer step as any trainer must take it."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vergence.objectives import METHODS, method
from vergence.objectives.objective import reads_of_method, reduce
from vergence.types import BT, Batch, Method, Stats, with_advantage

Key = tuple[str, str, str | None]

CASES = {
    **{name: method(name) for name in METHODS},
    "grpo kl full": method("grpo", kl="full"),
    "grpo kl k2, sampled entropy": method("grpo", kl="k2", entropy=0.06),
    "grpo full entropy": method("grpo", entropy=0.06, entropy_of="full"),
    "drgrpo everything": method("drgrpo", budget=7, beta=0.04, entropy=0.06, dual=3.0),
    "grpo token mean, dual clip": method("grpo", mean="token", dual=3.0, clip_high=0.28, kl_cap=10.0),
    "papo-grpo@release entropies": method("papo-grpo@release", eta=0.05),
    "papo-grpo@release sequence mean": method("papo-grpo@release", eta=0.03, mean="sequence", beta=0.0),
    "papo-grpo@release k3-printed": method("papo-grpo@release", estimator="k3-printed"),
    "papo-grpo@paper entropies": method("papo-grpo@paper", eta=0.05),
    "papo-grpo@paper k3-printed": method("papo-grpo@paper", eta=0.05, estimator="k3-printed"),
    "papo-grpo@paper k2": method("papo-grpo@paper", estimator="k2"),
    "papo-grpo@paper single entropy": method("papo-grpo@paper", eta=0.05, entropies="single"),
    "papo-grpo@full entropies": method("papo-grpo@full", eta=0.05),
    "papo-dapo@full both full entropies": method("papo-dapo@full", entropy=0.06, entropy_of="full", beta=0.01),
    "vppo-dapo tokens alone": method("vppo-dapo", low=1.0),
    "vppo-dapo rollouts alone": method("vppo-dapo", top=1.0),
    "vppo-dapo strongly": method("vppo-dapo", low=0.0, top=0.2, mean="sequence"),
    "cppo-grpo@release-verl all tokens, no gate": method("cppo-grpo@release-verl", select="all", gate="none"),
    "cppo-grpo@release-verl full": method("cppo-grpo@release-verl", estimator="full", coefficient=0.1, top=0.3),
    "cppo-grpo@release-areal k3, no gate": method("cppo-grpo@release-areal", estimator="k3", gate="none", top=1.0),
    "cppo-grpo@paper all tokens": method("cppo-grpo@paper", select="all", tau=1.0),
    "cppo-grpo@paper k1, no gate": method("cppo-grpo@paper", estimator="k1", gate="none"),
    "cappo-grpo both": method("cappo-grpo", gradient="both", weight="inverse", negatives="mirrored"),
    "cappo-grpo full": method("cappo-grpo", estimator="full", gradient="both", negatives="untouched"),
    "cappo-grpo loss alone": method("cappo-grpo", weight="none", estimator="k2"),
    "cappo-grpo weight alone": method("cappo-grpo", coefficient=0.0, estimator="k1"),
}
"""Every entry of METHODS as it comes, and with each of its terms switched on."""

_PAPO = {"gamma": 0.0, "eta": 0.0}
_VPPO = {"top": 1.0, "low": 1.0}
_OWN = {"coefficient": 0.0}

OFF = {
    "papo-grpo@release": _PAPO,
    "papo-grpo@paper": _PAPO,
    "papo-grpo@full": _PAPO,
    "papo-dapo@release": _PAPO,
    "papo-dapo@paper": _PAPO,
    "papo-dapo@full": _PAPO,
    "vppo-dapo": _VPPO,
    "vppo-grpo": _VPPO,
    "cppo-grpo@release-verl": _OWN,
    "cppo-grpo@release-areal": _OWN,
    "cppo-grpo@paper": _OWN,
    "cppo-dapo@release-verl": _OWN,
    "cappo-grpo": {**_OWN, "weight": "none"},
    "cappo-dapo": {**_OWN, "weight": "none"},
    "racro-grpo": {},
    "racro-dapo": {},
}
"""For every method that has a base, the options with which its loss is the base's; `{}` if it always is."""


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
        chance_BT=uniform(0, 1, B, T),
        correct_B=(uniform(0, 1, B) > 0.5).double(),
        advantage_B=torch.zeros(B, dtype=torch.float64),
        advantage_BT=torch.zeros(B, T, dtype=torch.float64),
    )
    batch = with_advantage(batch, uniform(-2.0, 2.0, B))
    frozen, live, leaves = {}, {}, {}
    for read in reads_of_method(method):
        key = (read.view, read.quantity, read.against)
        value_BT = (logp_BT if read.view == "image" else near(1.5)) if read.quantity == "logp" else uniform(0, 2, B, T)
        value_BT = value_BT.where(mask_BT, 0.0).requires_grad_(read.when == "grad")
        (frozen if read.when == "frozen" else live)[key] = value_BT
        if read.when == "grad":
            leaves[key] = value_BT
    return Case(batch, Stats(frozen), Stats(live), leaves)


Rows = slice | Tensor


def reshaped(method: Method, case: Case, ranks: list[Rows]) -> Case:
    """The case with the advantages that the surrogate sees, each rank reshaping its own rows of the round.

    Ranks do not wait for each other here. Instead all are run again, each time with one more answer of `everywhere`.
    """
    if method.reshape is None:
        return case
    answers: list[Tensor] = []
    while True:
        asked, found_BT = [], torch.zeros_like(case.batch.advantage_BT)
        for rank in ranks:
            calls: list[Tensor] = []

            def everywhere(value_B: Tensor, calls: list[Tensor] = calls) -> Tensor:
                calls.append(value_B)
                return answers[len(calls) - 1] if len(calls) <= len(answers) else value_B

            one_BT = method.reshape.advantage(case.batch.rows(rank), case.frozen.rows(rank), everywhere)
            assert one_BT.dtype == found_BT.dtype
            found_BT[rank] = one_BT
            asked.append(calls)
        assert len({len(calls) for calls in asked}) == 1, "the ranks do not agree on what to ask each other"
        if len(asked[0]) <= len(answers):
            return case._replace(batch=replace(case.batch, advantage_BT=found_BT))
        answers.append(torch.cat([calls[len(answers)] for calls in asked]))


def of_the_whole_step(shares: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """For each part, the totals it divides by: those of all parts added up."""
    return [{name: sum(share[name] for share in shares) for name in shares[0]}] * len(shares)


def step(
    method: Method,
    case: Case,
    parts: list[Rows] | None = None,
    *,
    ranks: list[Rows] | None = None,
    combine: Callable = of_the_whole_step,
    reduce: Callable = reduce,
    reshaped: Callable = reshaped,
) -> Outcome:
    """Loss and gradients of one optimizer step that is the whole round, its rows scored in these parts: micro-batches.

    With `ranks`, the rows are spread over processes, each of which is one part. A faulty trainer has another `combine`,
    `reduce` or `reshaped`.
    """
    parts = ranks or parts or [slice(None)]
    case = reshaped(method, case, ranks or [slice(None)])
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
    """The case with every (B, T) number changed, those of the batch too, and these fields of the batch."""

    def through(stats: Stats) -> Stats:
        return Stats(
            {
                key: change(value_BT.detach()).requires_grad_(value_BT.requires_grad)
                for key, value_BT in stats.value.items()
            }
        )

    numbers = ("sampled_logp_BT", "chance_BT", "advantage_BT")
    changed = {name: change(getattr(case.batch, name)) for name in numbers}
    batch = replace(case.batch, **{**changed, **fields})
    live = through(case.live)
    return Case(batch, through(case.frozen), live, {key: live.value[key] for key in case.leaves})


def assert_same(first: Outcome, second: Outcome, change: Callable[[BT], BT] = lambda grad_BT: grad_BT) -> None:
    """Equal to 1e-12, the first one's gradients being changed before."""
    torch.testing.assert_close(torch.tensor(first.loss), torch.tensor(second.loss), rtol=1e-12, atol=1e-12)
    assert first.grads.keys() == second.grads.keys()
    for key, grad_BT in first.grads.items():
        torch.testing.assert_close(change(grad_BT), second.grads[key], rtol=1e-12, atol=1e-12)
