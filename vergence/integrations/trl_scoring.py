"""What the views say, computed inside one forward pass of the wrapped model.

DistributedDataParallel counts on one forward before a backward, and looks there for the parameters that take part. So
the model's forward learns to carry out a function, `vergence=`, and everything that a micro-batch needs of the policy,
every view of it, happens in there.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vergence.models.policy import Policy
from vergence.models.prefix import Prefix, core, refusal
from vergence.models.reader import Reader
from vergence.scoring.naive import Packing, Prompts, Scorer
from vergence.scoring.prompts import Stored
from vergence.scoring.shared import Shared
from vergence.scoring.statistics import State, statistics
from vergence.types import Batch, Prompt, Read, Stats, UserError, View

Aside = Callable[[], AbstractContextManager[Any]]
"""Puts a model's adapters aside, or others in their place, while the context is open."""


@dataclass(frozen=True, slots=True)
class Looking:
    """Whose weights look: a policy, whether it learns, and what is put aside while it looks."""

    policy: Policy
    learns: bool
    aside: Aside = nullcontext


def bare(model: Any) -> Any:
    """The Hugging Face model under its adapters, or the model itself.

    Args:
        model: what is trained, without the wrapper of accelerate.
    """
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def looking_of(model: Any, frozen: Any, reader: Reader, views: Mapping[str, View]) -> dict[str, Looking]:
    """Who looks: the policy in training, "now", and where a view needs it the "reference", which training started from.

    Args:
        model: what is trained, without the wrapper of accelerate.
        frozen: a model that is the reference. None: the reference is this one without its adapters or, where an adapter
            was trained before, with the copy of it that TRL keeps as "ref".
        reader: what reads for both.
    """
    looking = {"now": Looking(Policy(bare(model), reader), learns=True)}
    if any(view.policy == "reference" for view in views.values()):
        if frozen is not None:
            looking["reference"] = Looking(Policy(bare(frozen), reader), learns=False)
        else:
            from trl.trainer.utils import use_adapter

            aside = functools.partial(use_adapter, model, "ref" if "ref" in model.peft_config else None)
            looking["reference"] = Looking(Policy(bare(model), reader), learns=False, aside=aside)
    return looking


def teach(model: Any) -> None:
    """Let the model's forward take `vergence=`, a function of no arguments, and return what that returns.

    >>> from vergence.models.policy import load
    >>> model = load("seedling").model
    >>> teach(model)
    >>> model(vergence=lambda: 7)
    7
    """
    own = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, vergence: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        return own(*args, **kwargs) if vergence is None else vergence()

    model.forward = types.MethodType(forward, model)


def scorer_of(looking: Mapping[str, Looking], views: Mapping[str, View], *, temperature: float, share: bool) -> Scorer:
    """The scorer: with each prompt read once for its siblings in a micro-batch, or with each row read whole.

    Args:
        looking: "now" (the weights being trained) and, where a view needs it, "reference".
        temperature: that of sampling.
        share: whether prompts may be shared, where the model allows it: the same numbers, for less.

    Raises:
        UserError: the output layer is no plain matrix.
    """
    for one in looking.values():
        head = one.policy.model.get_output_embeddings()
        if not isinstance(head, torch.nn.Linear) or head.bias is not None:
            raise UserError(
                f"the output layer is a {type(head).__name__}, with a bias or an adapter: take it out of it"
            )
    if share and all(refusal(one.policy.model) is None for one in looking.values()):
        read = {name: Apart(Prefix(one.policy), one) for name, one in looking.items()}
        return Shared(read, views, temperature=temperature, keep="graph")
    return Whole(looking, views, temperature=temperature)


class Apart:
    """A `scoring.prompts.Reader` that says of itself whether it learns, and puts aside what is to be put aside."""

    def __init__(self, prefix: Prefix, looking: Looking) -> None:
        self.prefix, self.looking = prefix, looking

    @property
    def weight_VD(self) -> Float[Tensor, "V D"]:
        """The output layer's weight."""
        return self.prefix.weight_VD

    @property
    def learns(self) -> bool:
        """Whether any of its weights does."""
        return self.looking.learns

    def read(self, prompts: Sequence[Prompt]) -> Stored:
        """See `models.prefix.Prefix`; carries gradient to the weights if they learn."""
        with self.looking.aside(), torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            return self.prefix.read(prompts)

    def respond(
        self, stored: Stored, row_B: Int[Tensor, " B"], token_BT: Int[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """See `models.prefix.Prefix`; carries gradient to the weights if they learn."""
        with self.looking.aside(), torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            return self.prefix.respond(stored, row_B, token_BT, mask_BT)


class Whole:
    """Every row is read whole, prompt and response, in every view; the fused head reads the hidden states.

    The same numbers as `scoring.naive.Naive`, and no logits of the whole vocabulary. It works with gradient
    checkpointing, which `Shared` does not.
    """

    packing: Packing = "whole"

    def __init__(self, looking: Mapping[str, Looking], views: Mapping[str, View], *, temperature: float = 1.0) -> None:
        self.looking, self.views, self.temperature = looking, views, temperature

    def open(
        self, batch: Batch, prompts: Prompts, reads: Sequence[Read]
    ) -> AbstractContextManager[Callable[[slice | Tensor], Stats]]:
        """See `scoring.naive.Scorer`. Nothing is shared between rows here, so there is nothing to finish."""
        return nullcontext(lambda rows: self.score(batch.rows(rows), prompts, reads))

    def score(self, batch: Batch, prompts: Prompts, reads: Sequence[Read]) -> Stats:
        """Every read of these rollouts; zero where the mask is false or a gate did not let the rollout through."""
        names = dict.fromkeys(name for read in reads for name in (read.view, read.against) if name)
        grads = {name for read in reads if read.when == "grad" for name in (read.view, read.against) if name}
        states = {name: self._look(batch, prompts[name], self.views[name], name in grads) for name in names}
        return statistics(reads, states, batch, temperature=self.temperature)

    def _look(self, batch: Batch, prompts: Sequence[Prompt], view: View, grad: bool) -> State:
        one, through_B = self.looking[view.policy], view.through(batch)
        learns = grad and one.learns and torch.is_grad_enabled()
        weight_VD = one.policy.model.get_output_embeddings().weight
        some = batch if through_B.all() else batch.rows(through_B)
        T = int(some.mask_BT.any(0).nonzero().max()) + 1 if some.mask_BT.any() else 0
        if not T:
            return State(through_B, weight_VD.new_zeros(len(some.key_B), 0, weight_VD.shape[1]), weight_VD, learns)
        rows = [prompts[scene] for scene in some.scene_B.tolist()]
        with one.aside(), torch.set_grad_enabled(learns):
            inputs = one.policy.inputs(rows, some.token_BT[:, :T], some.mask_BT[:, :T])
            hidden_BND = core(one.policy.model)(**inputs, use_cache=False).last_hidden_state
        return State(through_B, hidden_BND[:, -T - 1 : -1], weight_VD, learns)
