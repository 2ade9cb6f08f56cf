"""The group-view scorer: in each view, images and prompt are computed once for all responses of a scene.

For every view it computes, of S prompts with P tokens and B responses with T, both padded,

    tower               each distinct image, once
    language model      S (P - 1)  prompt tokens   +   B T  response tokens (the first is the prompt's last)
    head                the trained tokens, once for each view

where the scorer that defines what is correct computes B images and B (P + T) tokens. Three ways to keep a prompt differ
in memory and in what they cost again:

    "graph"       with its graph, for one micro-batch: one backward pass through response and prompt
    "leaf"        its keys and values as leaves: micro-batches come and go, each prompt is gone back through once, when
                  its last response is done
    "recompute"   keys and values alone; each prompt is read again, for its backward pass, in the end
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vergence.scoring.naive import Packing, Prompts
from vergence.scoring.prompts import Reader, Stored, join
from vergence.scoring.statistics import State, statistics
from vergence.types import Batch, Prompt, Read, Stats, View

Keep = Literal["graph", "leaf", "recompute"]


class Shared:
    """Each prompt is read once for all responses to it: see above. The same numbers as `Naive`, and the same gradient.

    Args:
        policies: "now" (the weights being trained) and, where a view needs it, "reference".
        views: whose weights each view looks with, and on which rollouts it is spent.
        temperature: the temperature of sampling, by which logits are divided.
        keep: what is kept of a prompt between its responses.
        budget: the most prompt tokens that are read at once, padding included.
    """

    def __init__(
        self,
        policies: Mapping[str, Reader],
        views: Mapping[str, View],
        *,
        temperature: float = 1.0,
        keep: Keep = "leaf",
        budget: int = 2**14,
    ) -> None:
        self.policies, self.views, self.temperature = policies, views, temperature
        self.keep, self.budget = keep, budget

    @property
    def packing(self) -> Packing:
        """Which rows of a scene must come together, or near each other."""
        packings: dict[Keep, Packing] = {"graph": "groups", "leaf": "open", "recompute": "responses"}
        return packings[self.keep]

    @contextmanager
    def open(
        self, batch: Batch, prompts: Prompts, reads: Sequence[Read]
    ) -> Iterator[Callable[[slice | Tensor], Stats]]:
        """See `Scorer`. The gradient of prompts is complete when the context is left."""
        desks = {}
        for view in dict.fromkeys(name for read in reads for name in (read.view, read.against) if name):
            gate, policy = self.views[view].gate, self.policies[self.views[view].policy]
            grad = any(read.when == "grad" and view in (read.view, read.against) for read in reads)
            through_B = torch.ones_like(batch.mask_BT[:, 0]) if gate is None else gate(batch.advantage_B)
            learns = grad and torch.is_grad_enabled()
            desks[view] = Desk(policy, prompts[view], batch.scene_B[through_B].tolist(), learns, self.keep, self.budget)

        def score(rows: slice | Tensor) -> Stats:
            for desk in desks.values():
                desk.settle()
            here = batch.rows(rows)
            states = {view: self._look(desk, self.views[view], here) for view, desk in desks.items()}
            return statistics(reads, states, here, temperature=self.temperature)

        yield score
        for desk in desks.values():
            desk.settle()

    def _look(self, desk: Desk, view: View, batch: Batch) -> State:
        through_B = torch.ones_like(batch.mask_BT[:, 0]) if view.gate is None else view.gate(batch.advantage_B)
        some = batch if through_B.all() else batch.rows(through_B)
        T = int(some.mask_BT.any(0).nonzero().max()) + 1 if some.mask_BT.any() else 0
        with torch.set_grad_enabled(desk.learns):
            if T:
                hidden_nTD = desk.respond(some.scene_B.tolist(), some.token_BT[:, :T], some.mask_BT[:, :T])
            else:
                desk.tick_off(some.scene_B.tolist())
                hidden_nTD = desk.policy.weight_VD.new_zeros(len(some.key_B), 0, desk.policy.weight_VD.shape[1])
        return State(through_B, hidden_nTD, desk.policy.weight_VD, desk.learns)


@dataclass(slots=True, eq=False)
class Sheaf:
    """Prompts that were read together."""

    prompts: list[Prompt]
    kept: Stored
    """What responses attend to."""
    graph: Stored | None
    """What it is a copy of, with the graph that leads to it; None if there is no gradient, or it is made again."""


class Desk:
    """The prompts of one view that are open at a time."""

    def __init__(
        self, policy: Reader, prompts: Sequence[Prompt], scenes: Sequence[int], learns: bool, keep: Keep, budget: int
    ) -> None:
        self.policy, self.prompts, self.learns, self.keep, self.budget = policy, prompts, learns, keep, budget
        self.waiting = Counter(id(prompts[scene]) for scene in scenes)
        """How many responses are still to come to each prompt, which is known by its identity."""
        self.sheaves: list[Sheaf] = []

    def respond(self, scenes: Sequence[int], token_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The hidden states of responses to these scenes' prompts, which are read if they are not open."""
        asked = {id(self.prompts[scene]): self.prompts[scene] for scene in scenes}
        opened = {id(prompt) for sheaf in self.sheaves for prompt in sheaf.prompts}
        for some in chunks([prompt for key, prompt in asked.items() if key not in opened], self.budget):
            self.sheaves.append(self._read(some))
        used = [sheaf for sheaf in self.sheaves if any(id(prompt) in asked for prompt in sheaf.prompts)]
        place = {id(prompt): row for row, prompt in enumerate(prompt for sheaf in used for prompt in sheaf.prompts)}
        row_B = torch.tensor([place[id(self.prompts[scene])] for scene in scenes], device=token_BT.device)
        self.tick_off(scenes)
        return self.policy.respond(join([sheaf.kept for sheaf in used]), row_B, token_BT, mask_BT)

    def tick_off(self, scenes: Sequence[int]) -> None:
        """A response to each of these is not waited for any longer."""
        self.waiting -= Counter(id(self.prompts[scene]) for scene in scenes)

    def _read(self, prompts: list[Prompt]) -> Sheaf:
        if not self.learns or self.keep == "graph":
            return Sheaf(prompts, self.policy.read(prompts), None)
        with torch.set_grad_enabled(self.keep == "leaf"):
            stored = self.policy.read(prompts)
        leaves = stored.map(lambda x: x.detach().requires_grad_())
        return Sheaf(prompts, leaves, stored if self.keep == "leaf" else None)

    def settle(self) -> None:
        """Close what no further response needs; the gradient that has come to it goes on to the weights.

        To be called after the backward pass of all responses so far.
        """
        done = [sheaf for sheaf in self.sheaves if self._is_done(sheaf)]
        self.sheaves = [sheaf for sheaf in self.sheaves if sheaf not in done]
        for sheaf in done if self.learns and self.keep != "graph" else ():
            if any(leaf.grad is not None for leaf in (*sheaf.kept.keys, *sheaf.kept.values)):
                with torch.enable_grad():
                    graph = sheaf.graph or self.policy.read(sheaf.prompts)
                pass_on(graph, sheaf.kept)

    def _is_done(self, sheaf: Sheaf) -> bool:
        if self.learns and self.keep == "graph":
            return True  # its graph is gone with the backward pass
        return not any(self.waiting[id(prompt)] for prompt in sheaf.prompts)


def pass_on(graph: Stored, leaves: Stored) -> None:
    """Go back through the prompts with the gradient that has come to the leaves, which are copies of their outcome."""
    pairs = zip((*graph.keys, *graph.values), (*leaves.keys, *leaves.values), strict=True)
    with_gradient = [(made, leaf.grad) for made, leaf in pairs if leaf.grad is not None and made.requires_grad]
    if with_gradient:
        torch.autograd.backward(*map(list, zip(*with_gradient, strict=True)))


def chunks(prompts: Sequence[Prompt], budget: int) -> Iterator[list[Prompt]]:
    """Prompts in order, as many at a time as have at most `budget` tokens when padded to the longest; at least one.

    >>> lengths = [3, 3, 5, 2]
    >>> [[len(prompt.tokens) for prompt in some] for some in chunks([Prompt((1,) * n) for n in lengths], 10)]
    [[3, 3], [5, 2]]
    """
    some: list[Prompt] = []
    for prompt in prompts:
        longest = max(len(one.tokens) for one in (*some, prompt))
        if some and longest * (len(some) + 1) > budget:
            yield some
            some = []
        some = [*some, prompt]
    if some:
        yield some
