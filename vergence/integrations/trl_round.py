"""One generation of TRL's as a round of ours: rewards become advantages, views are read, and every total is known.

All of it before the first backward pass. What TRL shuffles and cuts afterwards is the number of a row alone: nothing of
a view can be cut with it by mistake, and the cut changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vergence import chance
from vergence.objectives.objective import reads_of_method
from vergence.rewards.overlong import overlong
from vergence.scoring.naive import Prompts, Scorer, reads_when
from vergence.train.backend import Backend
from vergence.train.step import read_in
from vergence.types import B, Batch, Method, Read, Scene, Stats, UserError

SAMPLED = (Read("image", "logp", when="frozen"), Read("image", "entropy", when="frozen"))
"""What is read of the image besides, under the weights that sampled: TRL's `generate` does not say it."""
Measure = Callable[[Batch, Prompts, Sequence[Read]], Stats]
"""(batch, prompts, reads) -> the statistics, without gradient."""


@dataclass(frozen=True, slots=True)
class Held:
    """A round, while its optimizer steps are taken."""

    batch: Batch
    frozen: Stats
    prompts: Prompts
    totals: tuple[Mapping[str, Tensor], ...] = ()
    """The denominators of each optimizer step, over all processes."""


class Accelerated:
    """The processes of accelerate: a `train.backend.Backend`."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator

    def sum(self, totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each number added over processes, in one message."""
        if not totals or self.accelerator.num_processes == 1:
            return dict(totals)
        one = torch.stack([total.to(self.accelerator.device) for total in totals.values()])
        return dict(zip(totals, self.accelerator.reduce(one, reduction="sum"), strict=True))

    def gather(self, value_B: B) -> B:
        """A number per rollout, of the rollouts of every process."""
        return self.accelerator.gather(value_B)

    def clip(self, weights: Any, norm: float) -> float:
        """Scale the whole gradient down to `norm`; return its length before."""
        return float(self.accelerator.clip_grad_norm_(weights, norm))


def credited(
    method: Method,
    reward_NF: Float[Tensor, "N F"],
    weight_F: Float[Tensor, " F"],
    length_N: Float[Tensor, " N"],
    *,
    siblings: int,
    longest: int,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The method's advantages and the rewards they are made of, of the rollouts of all processes.

    reward = sum_f weight_f reward_f + the method's overlong penalty; a function that has nothing to say (NaN) counts 0.

    Args:
        reward_NF: by reward function; NaN where it has nothing to say.
        weight_F: of the functions.
        length_N: tokens of each completion.
        siblings: completions to a question; they are adjacent.
        longest: that a completion may be, tokens.

    A rollout of which no function has anything to say has no reward: its siblings get credit among themselves, and it
    gets none.

    >>> from vergence.objectives.grpo import grpo
    >>> reward_NF, ones = torch.tensor([[1.0], [0.0], [torch.nan], [1.0]]), torch.ones(1)
    >>> advantage_N, _ = credited(grpo(eps=0.0), reward_NF, ones, torch.ones(4), siblings=4, longest=8)
    >>> [round(one, 2) for one in advantage_N.tolist()]
    [0.58, -1.15, 0.0, 0.58]
    """
    known_N = ~reward_NF.isnan().all(-1)
    reward_N = (reward_NF * weight_F.to(reward_NF.device)).nansum(-1)
    if method.reward.overlong:
        buffer = max(1, round(method.reward.overlong * longest))
        taken = [overlong(int(length), longest, buffer) for length in length_N.tolist()]
        reward_N = reward_N + torch.tensor(taken, dtype=reward_N.dtype, device=reward_N.device)
    advantage_N = torch.zeros_like(reward_N)
    for rows in torch.arange(len(reward_N), device=reward_N.device).split(siblings):
        if len(rows := rows[known_N[rows]]):
            advantage_N[rows] = method.credit(reward_N[rows][None])[0]
    return advantage_N, reward_N.where(known_N, torch.nan)


def kept_rows(method: Method, correct_N: Float[Tensor, " N"], siblings: int) -> Bool[Tensor, " N"]:
    """The rollouts of the groups that the method keeps: TRL draws no others in their place, so the step is smaller.

    >>> from vergence.objectives.dapo import dapo
    >>> kept_rows(dapo(), torch.tensor([1.0, 1.0, 0.0, 1.0]), 2).tolist()
    [False, False, True, True]
    """
    if method.keep is None:
        return torch.ones_like(correct_N, dtype=torch.bool)
    return method.keep(correct_N.view(-1, siblings)).repeat_interleave(siblings)


def batch_of(
    scenes: Sequence[Scene],
    token_BT: Int[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    advantage_B: Float[Tensor, " B"],
    correct_B: Float[Tensor, " B"],
    *,
    seed: int,
    round_: int,
) -> Batch:
    """This process's rollouts as a batch: siblings adjacent, as many to each scene.

    What the weights that sampled say of the tokens is still 0: it is read next.
    """
    siblings, keys, seen = len(token_BT) // len(scenes), [], Counter[str]()
    for scene in scenes:  # a small data set may come round to a row again within a round
        again = (seen[scene.key],) if seen[scene.key] else ()
        keys += [chance.key(seed, "rollout", round_, scene.key, sibling, *again) for sibling in range(siblings)]
        seen[scene.key] += 1
    key_B = torch.tensor(keys, device=token_BT.device)
    scene_B = torch.arange(len(token_BT), device=token_BT.device) // siblings
    return Batch(
        key_B=key_B,
        scene_B=scene_B,
        token_BT=token_BT,
        mask_BT=mask_BT,
        sampled_logp_BT=torch.zeros(token_BT.shape, device=token_BT.device),
        chance_BT=chance.uniform(key_B, -1, token_BT.shape[1]).float(),
        correct_B=correct_B,
        advantage_B=advantage_B,
        advantage_BT=advantage_B[:, None].expand(token_BT.shape).clone(),
    )


def taken(
    method: Method,
    batch: Batch,
    prompts: Prompts,
    measure: Measure,
    backend: Backend,
    *,
    ratio_BT: Float[Tensor, "B _"] | None = None,
) -> Held:
    """The round with what it needs to know under the weights that sampled; its steps are still to be planned.

    Args:
        ratio_BT: TRL's importance ratio of its sampler, of each token or, (B, 1), each response. It multiplies the
            advantages, which is what TRL does: the surrogate is homogeneous in them.
    """
    reads = list(dict.fromkeys((*SAMPLED, *reads_when(reads_of_method(method), "frozen"))))
    frozen = measure(batch, prompts, reads)
    batch = replace(batch, sampled_logp_BT=frozen.read(SAMPLED[0]))
    if method.reshape is not None:
        batch = replace(batch, advantage_BT=method.reshape.advantage(batch, frozen, backend.gather))
    if ratio_BT is not None:
        batch = replace(batch, advantage_BT=batch.advantage_BT * ratio_BT.to(batch.advantage_BT.dtype))
    return Held(batch, frozen, prompts)


def planned(method: Method, held: Held, steps: Sequence[Int[Tensor, " b"]], backend: Backend) -> Held:
    """The round with the denominators of each of its optimizer steps, which are these rows of it on this process."""
    of_step = [totals_of(method, held.batch.rows(rows), held.frozen.rows(rows), backend) for rows in steps]
    return replace(held, totals=tuple(of_step))


def totals_of(method: Method, batch: Batch, frozen: Stats, backend: Backend) -> dict[str, Tensor]:
    """The denominators of one optimizer step, over all processes: its rows of the batch on this one."""
    terms = {**method.objective, **method.metrics}
    return backend.sum({name: term.total(batch, frozen) for name, term in terms.items()})


def refreshed(
    method: Method, held: Held, step: int, rows: Int[Tensor, " b"], measure: Measure, backend: Backend
) -> Held:
    """The round, its frozen statistics read anew at these rows before optimizer step `step`: `Method.fresh`.

    What the weights that sampled said stays.
    """
    reads = reads_when(reads_of_method(method), "frozen")
    here = held.batch.rows(rows)
    new = measure(here, read_in(held.prompts, reads), reads)
    value = {key: held.frozen.value[key].index_put((rows,), value_bT) for key, value_bT in new.value.items()}
    frozen = Stats({**held.frozen.value, **value})
    totals = list(held.totals)
    totals[step] = totals_of(method, here, frozen.rows(rows), backend)
    return replace(held, frozen=frozen, totals=tuple(totals))


def measured(scorer: Scorer, batch: Batch, prompts: Prompts, reads: Sequence[Read], *, rows: int) -> Stats:
    """These reads of the whole batch, so many rows at a time; no gradient.

    Every process does the same number of times the same.
    """
    if not reads:
        return Stats({})
    with torch.no_grad(), scorer.open(batch, prompts, reads) as scores:
        pieces = torch.arange(len(batch.key_B), device=batch.key_B.device).split(max(1, rows))
        parts = [scores(piece).value for piece in pieces]
    return Stats({key: torch.cat([part[key] for part in parts]) for key in parts[0]})


def refuse_mixed_groups(inputs: Sequence[Mapping[str, Any]], siblings: int) -> None:
    """Refuse rows of which those that should be siblings ask different things.

    Raises:
        UserError: as said.
    """
    for first in range(0, len(inputs), siblings):
        group = inputs[first : first + siblings]
        if len(group) < siblings or any(row["prompt"] != group[0]["prompt"] for row in group):
            raise UserError(
                f"rows {first} to {first + len(group) - 1} of a generation should be {siblings} answers to one "
                "question and are not: leave TRL's own sampler of rows in its place"
            )
