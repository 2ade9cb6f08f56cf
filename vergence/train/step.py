"""One optimizer step's gradient: totals, then micro-batches, each term divided once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from vergence.objectives.objective import reads_of, reads_of_method, reduce
from vergence.scoring.naive import Prompts, Scorer, reads_when
from vergence.train.backend import Backend
from vergence.types import Batch, Method, Read, Stats


def freeze(method: Method, batch: Batch, scorer: Scorer, prompts: Prompts, *, micro_batch: int) -> Stats:
    """What the method needs to know under the weights that sampled; no gradient."""
    reads = reads_when(reads_of_method(method), "frozen")
    return measure(batch, scorer, prompts, reads, micro_batch=micro_batch)


def reshaped(method: Method, batch: Batch, frozen: Stats, backend: Backend) -> Batch:
    """The batch with the advantages that the surrogate is to see."""
    if method.reshape is None:
        return batch
    return replace(batch, advantage_BT=method.reshape.advantage(batch, frozen, backend.gather))


@torch.no_grad()
def measure(batch: Batch, scorer: Scorer, prompts: Prompts, reads: Sequence[Read], *, micro_batch: int) -> Stats:
    """These reads of the whole batch; no gradient."""
    if not reads:
        return Stats({})
    with scorer.open(batch, prompts, reads) as scores:
        parts = [scores(rows).value for rows in cuts(len(batch.key_B), micro_batch)]
    return Stats({key: torch.cat([part[key] for part in parts]) for key in parts[0]})


def accumulate(
    method: Method,
    batch: Batch,
    frozen: Stats,
    scorer: Scorer,
    prompts: Prompts,
    *,
    backend: Backend,
    micro_batch: int,
) -> dict[str, float]:
    """Add the gradient of one optimizer step to the weights.

    Args:
        batch: the rollouts of this optimizer step, on this process.
        micro_batch: rollouts in one forward pass; memory only, the gradient does not depend on it.

    Returns:
        The loss, each term's share of it, and the method's metrics, over the whole step and all processes.
    """
    terms = {**method.objective, **method.metrics}
    totals = backend.sum({name: term.total(batch, frozen) for name, term in terms.items()})
    seen = dict.fromkeys(terms, torch.zeros((), dtype=torch.float64))
    with scorer.open(batch, prompts, reads_when(reads_of(terms), "live", "grad")) as scores:
        for rows in cuts(len(batch.key_B), micro_batch):
            here, past, live = batch.rows(rows), frozen.rows(rows), scores(rows)
            now = live.detach()
            weights = {name: term.weigh(here, past, now) for name, term in terms.items()}
            values = {name: term.value(here, past, live) for name, term in method.objective.items()}
            loss = reduce(values, weights, totals)
            if loss.requires_grad:
                loss.backward()
            values |= {name: term.value(here, past, now) for name, term in method.metrics.items()}
            for name, value_BT in values.items():
                seen[name] = seen[name] + reduce({name: value_BT.detach()}, weights, totals).cpu()
    shares = {name: float(share) for name, share in backend.sum(seen).items()}
    losses = {f"loss/{name}": shares[name] for name in method.objective}
    return {"loss": sum(losses.values()), **losses, **{name: shares[name] for name in method.metrics}}


def cuts(number: int, at_once: int) -> Iterator[slice]:
    """Slices of at most `at_once` that cover `number`.

    >>> list(cuts(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return (slice(start, min(start + at_once, number)) for start in range(0, number, at_once))
