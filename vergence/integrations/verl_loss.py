"""verl's batch as ours, verl's loss with our terms added, and verl's advantages reshaped.

What a method has besides the surrogate is added to verl's `ppo_loss`, divided by `reduce` as everywhere here. Nothing
of verl is imported before the loss is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import torch
from torch import Tensor

from vergence.integrations.verl_methods import IMAGE, field_of, own_terms
from vergence.objectives.objective import reduce
from vergence.types import BT, Batch, Method, Scalar, Stats, Term, UserError

TOTALS = "vergence_totals"
"""The field of verl's mini-batch with what our terms are divided by, summed over all ranks."""


def batch_of(data: Any) -> Batch:
    """verl's batch as ours. What verl does not know is NaN, so that whatever used it would show.

    Args:
        data: a TensorDict with `responses`, `response_mask`, `old_log_probs` and `advantages`, nested or padded.
    """
    mask_BT = padded(data["response_mask"]).bool()
    unknown_BT = torch.full(mask_BT.shape, nan, dtype=torch.float64, device=mask_BT.device)
    rows = torch.arange(len(mask_BT), device=mask_BT.device)
    return Batch(
        key_B=rows,
        scene_B=rows,
        token_BT=padded(data["responses"]),
        mask_BT=mask_BT,
        sampled_logp_BT=padded(data["old_log_probs"]),
        chance_BT=unknown_BT,
        correct_B=unknown_BT[:, 0],
        advantage_B=unknown_BT[:, 0],
        advantage_BT=padded(data["advantages"]),
    )


def padded(value: Tensor) -> Tensor:
    """A nested tensor with zeros on the right; another as it is."""
    return value.to_padded_tensor(0) if value.is_nested else value


def frozen_of(made: Method, data: Any) -> Stats:
    """What is stored of the views, for our terms and for reshaping.

    Raises:
        UserError: a view has not been read.
    """
    ours = dict.fromkeys(read for term in own_terms(made).values() for read in term.reads)
    reads = [*ours, *(made.reshape.reads if made.reshape else ())]
    names = {read[:3]: field_of(read.view) for read in reads if read.when == "frozen"}
    for name in names.values():
        if name not in data:
            raise UserError(f"verl's batch has no {name}: the trainer must be ours, trainer.v1.trainer_mode=vergence")
    return Stats({key: padded(data[name]) for key, name in names.items()})


def totals(made: Method, data: Any) -> dict[str, Scalar]:
    """What our terms are divided by, of this rank's rollouts of an optimizer step; to be summed over ranks."""
    batch, frozen = batch_of(data), frozen_of(made, data)
    return {name: term.total(batch, frozen) for name, term in own_terms(made).items()}


@dataclass(frozen=True)
class Loss:
    """verl's loss function with our terms: what `set_loss_fn` is given."""

    config: Any
    """verl's configuration of the actor."""
    method: Method

    def __call__(self, model_output: Mapping[str, Tensor], data: Any, dp_group: Any = None) -> tuple[Scalar, dict]:
        """The loss of a micro-batch, and its metrics: verl's `ppo_loss` + dp_size sum_terms sum(w value) / total.

        The gradients that FSDP averages over dp_size ranks are those of the whole step, however it is cut. Each of our
        terms is logged as `loss/<its name>`.

        Args:
            model_output: with `log_probs`, which carry the gradient.
            data: the micro-batch, with the totals that `verl_plugin.LookingActor` puts into it.

        Raises:
            UserError: the totals or a view are not in the batch.
        """
        from verl.utils.metric import AggregationType, Metric
        from verl.workers.utils.losses import ppo_loss
        from verl.workers.utils.padding import no_padding_2_padding

        loss, metrics = ppo_loss(self.config, model_output, data, dp_group)
        terms = own_terms(self.method)
        if not terms:
            return loss, metrics
        if TOTALS not in data:
            raise UserError(f"verl's batch has no {TOTALS}: the trainer must be ours, trainer.v1.trainer_mode=vergence")
        batch, frozen = batch_of(data), frozen_of(self.method, data)
        live = Stats({IMAGE[:3]: no_padding_2_padding(model_output["log_probs"], data)})
        for name, share in shares(terms, batch, frozen, live, data[TOTALS]).items():
            scaled = (share * data["dp_size"]).to(loss.dtype)
            loss = loss + scaled
            metrics[f"loss/{name}"] = Metric(value=scaled.detach(), aggregation=AggregationType.SUM)
        return loss, metrics


def shares(
    terms: Mapping[str, Term], batch: Batch, frozen: Stats, live: Stats, total: Mapping[str, float]
) -> dict[str, Scalar]:
    """Each term's share of the loss in these rows: sum(weigh * value) / total."""
    now, found = live.detach(), {}
    for name, term in terms.items():
        value_BT, w_BT = term.value(batch, frozen, live), term.weigh(batch, frozen, now)
        found[name] = reduce({name: value_BT}, {name: w_BT}, {name: w_BT.new_tensor(total[name])})
    return found


def reshaped(made: Method, data: Any) -> BT:
    """The advantages of a whole round as the method reshapes them; as they are if it does not.

    Raises:
        UserError: an advantage differs within a response, so that it is nobody's `advantage_B`.
    """
    batch, frozen = batch_of(data), frozen_of(made, data)
    if made.reshape is None:
        return batch.advantage_BT
    first_B1 = batch.mask_BT.int().argmax(-1, keepdim=True)
    advantage_B1 = batch.advantage_BT.gather(-1, first_B1).where(batch.mask_BT.any(-1, keepdim=True), 0.0)
    if ((batch.advantage_BT != advantage_B1) & batch.mask_BT).any():
        raise UserError("an advantage differs within a response: set algorithm.adv_estimator=grpo")
    batch = replace(batch, advantage_B=advantage_B1[:, 0])
    return made.reshape.advantage(batch, frozen, lambda value_B: value_B)
