"""One optimizer step's gradient: totals, then micro-batches, each term divided once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from vergence.objectives.objective import reads_of, reads_of_method, reduce
from vergence.scoring.naive import Prompts, Scorer, reads_when
from vergence.train.backend import ONE, Backend, Group, together
from vergence.train.division import by_itself, put_together, shares
from vergence.train.packing import micro_batches
from vergence.types import Batch, Method, Read, Stats, Term


def freeze(
    method: Method, batch: Batch, scorer: Scorer, prompts: Prompts, *, budget: int, backend: Group = ONE
) -> Stats:
    """What the method needs to know under the weights that sampled; no gradient."""
    reads = reads_when(reads_of_method(method), "frozen")
    return measure(batch, scorer, prompts, reads, budget=budget, backend=backend)


def reshaped(method: Method, batch: Batch, frozen: Stats, backend: Backend | Group) -> Batch:
    """The batch with the advantages that the surrogate is to see."""
    if method.reshape is None:
        return batch
    return replace(batch, advantage_BT=method.reshape.advantage(batch, frozen, backend.gather))


@torch.no_grad()
def measure(
    batch: Batch, scorer: Scorer, prompts: Prompts, reads: Sequence[Read], *, budget: int, backend: Group = ONE
) -> Stats:
    """These reads of the whole batch, each process seeing to its share of it; no gradient."""
    if not reads:
        return Stats({})
    backend.gather_weights()
    if backend.size == 1:
        return _read(batch, scorer, prompts, reads, budget)
    rows = shares(batch, backend.size)

    def own() -> Stats:
        here, shown = by_itself(batch.rows(rows[backend.rank]), read_in(prompts, reads))
        return _read(here, scorer, shown, reads, budget).to(torch.device("cpu"))

    parts = together(backend, own)
    return put_together(parts, rows).to(batch.mask_BT.device)


def _read(batch: Batch, scorer: Scorer, prompts: Prompts, reads: Sequence[Read], budget: int) -> Stats:
    pieces = micro_batches(batch, read_in(prompts, reads), packing=scorer.packing, budget=budget)
    if not pieces:
        return Stats({})
    with scorer.open(batch, prompts, reads) as scores:
        parts = [scores(rows).value for rows in pieces]
    back_B = torch.cat(pieces).argsort()
    return Stats({key: torch.cat([part[key] for part in parts])[back_B] for key in parts[0]})


def accumulate(
    method: Method,
    batch: Batch,
    frozen: Stats,
    scorer: Scorer,
    prompts: Prompts,
    *,
    backend: Group,
    budget: int,
) -> dict[str, float]:
    """Add the gradient of one optimizer step to the weights.

    Rollouts that no term needs are not scored; the totals count them all the same. Each process scores its share of the
    others, and the gradient is added over processes once, in the end.

    Args:
        batch: the rollouts of this optimizer step, those of all processes.
        budget: the most tokens in one forward pass; memory only, the gradient does not depend on it.

    Returns:
        The loss, each term's share of it, and the method's metrics, over the whole step and all processes.
    """
    terms = {**method.objective, **method.metrics}
    totals = {name: term.total(batch, frozen) for name, term in terms.items()}
    needed_B = needed(terms.values(), batch)
    batch, frozen = batch.rows(needed_B), frozen.rows(needed_B)
    if backend.size > 1:
        own_b = shares(batch, backend.size)[backend.rank]
        batch, frozen = batch.rows(own_b), frozen.rows(own_b)
    backend.gather_weights()
    seen = together(
        backend, lambda: _scored(method, batch, frozen, scorer, prompts, totals, backend=backend, budget=budget)
    )
    backend.reduce_gradient()
    shared = {name: float(sum(own[name] for own in seen)) for name in terms}
    losses = {f"loss/{name}": shared[name] for name in method.objective}
    return {"loss": sum(losses.values()), **losses, **{name: shared[name] for name in method.metrics}}


def _scored(
    method: Method,
    batch: Batch,
    frozen: Stats,
    scorer: Scorer,
    prompts: Prompts,
    totals: Mapping[str, Tensor],
    *,
    backend: Group,
    budget: int,
) -> dict[str, float]:
    """Every term over its total, added over these rollouts; their gradient comes to the weights."""
    terms = {**method.objective, **method.metrics}
    seen = dict.fromkeys(terms, torch.zeros((), dtype=torch.float64))
    reads = reads_when(reads_of(terms), "live", "grad")
    if backend.size > 1:
        batch, prompts = by_itself(batch, read_in(prompts, reads))
    pieces = micro_batches(batch, read_in(prompts, reads), packing=scorer.packing, budget=budget)
    with scorer.open(batch, prompts, reads) as scores:
        for rows in pieces:
            here, past, live = batch.rows(rows), frozen.rows(rows), scores(rows)
            now = live.detach()
            weights = {name: term.weigh(here, past, now) for name, term in terms.items()}
            values = {name: term.value(here, past, live) for name, term in method.objective.items()}
            loss = reduce(values, weights, totals)
            if loss.requires_grad:
                loss.backward()
                backend.keep_gradient()
            values |= {name: term.value(here, past, now) for name, term in method.metrics.items()}
            for name, value_BT in values.items():
                seen[name] = seen[name] + reduce({name: value_BT.detach()}, weights, totals).cpu()
    return {name: float(one) for name, one in seen.items()}


def needed(terms: Iterable[Term], batch: Batch) -> Bool[Tensor, " B"]:
    """The rollouts that at least one of the terms is about."""
    every_B = torch.ones_like(batch.mask_BT[:, 0])
    about = [every_B if term.needs is None else term.needs(batch) for term in terms]
    return torch.stack(about).any(0) if about else ~every_B


def read_in(prompts: Prompts, reads: Sequence[Read]) -> Prompts:
    """The prompts of the views that are read."""
    views = {name for read in reads for name in (read.view, read.against)}
    return {view: of_scene for view, of_scene in prompts.items() if view in views}
