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
        opened_in = {}
        for view in dict.fromkeys(name for read in reads for name in (read.view, read.against) if name):
            policy, scene_B = self.policies[self.views[view].policy], batch.scene_B[self.views[view].through(batch)]
            grad = any(read.when == "grad" and view in (read.view, read.against) for read in reads)
            learns = grad and policy.learns and torch.is_grad_enabled()
            opened_in[view] = OpenPrompts(policy, prompts[view], scene_B.tolist(), learns, self.keep, self.budget)

        def score(rows: slice | Tensor) -> Stats:
            for held in opened_in.values():
                held.settle()
            here = batch.rows(rows)
            states = {view: self._look(held, self.views[view], here) for view, held in opened_in.items()}
            return statistics(reads, states, here, temperature=self.temperature)

        yield score
        for held in opened_in.values():
            held.settle()

    def _look(self, held: OpenPrompts, view: View, batch: Batch) -> State:
        through_B = view.through(batch)
        some = batch if through_B.all() else batch.rows(through_B)
        T = int(some.mask_BT.any(0).nonzero().max()) + 1 if some.mask_BT.any() else 0
        with torch.set_grad_enabled(held.learns):
            if T:
                hidden_nTD = held.respond(some.scene_B.tolist(), some.token_BT[:, :T], some.mask_BT[:, :T])
            else:
                held.tick_off(some.scene_B.tolist())
                hidden_nTD = held.policy.weight_VD.new_zeros(len(some.key_B), 0, held.policy.weight_VD.shape[1])
        return State(through_B, hidden_nTD, held.policy.weight_VD, held.learns)


@dataclass(slots=True, eq=False)
class ReadTogether:
    """Prompts that were read together."""

    prompts: list[Prompt]
    kept: Stored
    """What responses attend to."""
    graph: Stored | None
    """What it is a copy of, with the graph that leads to it; None if there is no gradient, or it is made again."""


class OpenPrompts:
    """The prompts of one view that are open at a time."""

    def __init__(
        self, policy: Reader, prompts: Sequence[Prompt], scenes: Sequence[int], learns: bool, keep: Keep, budget: int
    ) -> None:
        self.policy, self.prompts, self.learns, self.keep, self.budget = policy, prompts, learns, keep, budget
        self.waiting = Counter(id(prompts[scene]) for scene in scenes)
        """How many responses are still to come to each prompt, which is known by its identity."""
        self.parts: list[ReadTogether] = []

    def respond(self, scenes: Sequence[int], token_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The hidden states of responses to these scenes' prompts, which are read if they are not open."""
        asked = {id(self.prompts[scene]): self.prompts[scene] for scene in scenes}
        opened = {id(prompt) for part in self.parts for prompt in part.prompts}
        for some in chunks([prompt for key, prompt in asked.items() if key not in opened], self.budget):
            self.parts.append(self._read(some))
        used = [part for part in self.parts if any(id(prompt) in asked for prompt in part.prompts)]
        place = {id(prompt): row for row, prompt in enumerate(prompt for part in used for prompt in part.prompts)}
        row_B = torch.tensor([place[id(self.prompts[scene])] for scene in scenes], device=token_BT.device)
        self.tick_off(scenes)
        return self.policy.respond(join([part.kept for part in used]), row_B, token_BT, mask_BT)

    def tick_off(self, scenes: Sequence[int]) -> None:
        """A response to each of these is not waited for any longer."""
        self.waiting -= Counter(id(self.prompts[scene]) for scene in scenes)

    def _read(self, prompts: list[Prompt]) -> ReadTogether:
        if not self.learns or self.keep == "graph":
            return ReadTogether(prompts, self.policy.read(prompts), None)
        with torch.set_grad_enabled(self.keep == "leaf"):
            stored = self.policy.read(prompts)
        leaves = stored.map(lambda x: x.detach().requires_grad_())
        return ReadTogether(prompts, leaves, stored if self.keep == "leaf" else None)

    def settle(self) -> None:
        """Close what no further response needs; the gradient that has come to it goes on to the weights.

        To be called after the backward pass of all responses so far.
        """
        done = [part for part in self.parts if self._is_done(part)]
        self.parts = [part for part in self.parts if part not in done]
        for part in done if self.learns and self.keep != "graph" else ():
            if any(leaf.grad is not None for leaf in (*part.kept.keys, *part.kept.values)):
                with torch.enable_grad():
                    graph = part.graph or self.policy.read(part.prompts)
                pass_on(graph, part.kept)

    def _is_done(self, part: ReadTogether) -> bool:
        if self.learns and self.keep == "graph":
            return True  # its graph is gone with the backward pass
        return not any(self.waiting[id(prompt)] for prompt in part.prompts)


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
