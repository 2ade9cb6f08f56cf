"""TRL's own GRPOTrainer on the replay: its loss, its padding, its output layer. Needs `pip install vergence[trl]`.

For GRPO it is TRL as it is. `WithViews` adds the views of a method in the way that TRL's interface suggests: another
forward pass over all rows with other pixels. TRL has no such method itself, so that this subclass is ours.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from benchmarks.naive_views import EXTRA, Extra
from benchmarks.replay import Replay, padded
from vergence.models.policy import Policy

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

LOSS = "grpo"
"""Of TRL's: the mean over sequences of the mean over tokens, which is that of our `grpo`."""


class WithViews(GRPOTrainer):
    """GRPOTrainer and a term on other views, each of them scored once more for every row."""

    extra: Extra = EXTRA["grpo"]

    def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor, None]:
        self.scored = super()._get_per_token_logps_and_entropies(*args, **options)
        return self.scored

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        still = {view: self._look(model, inputs[view], grad) for view, grad in self.extra.views if not grad}
        mask, advantages = inputs["completion_mask"], inputs["advantages"]
        if self.extra.weigh:
            weighed = self.extra.weigh(inputs["sampled"], next(iter(still.values()))[0], mask, advantages)
            inputs = {**inputs, "advantages": weighed}
        loss = super()._compute_loss(model, inputs)
        if not self.extra.views:
            return loss
        logps, entropies, _ = self.scored
        seen = [self._look(model, inputs[view], grad) if grad else still[view] for view, grad in self.extra.views]
        return (
            loss + self.extra.term(logps, entropies, seen, mask, advantages) / self.current_gradient_accumulation_steps
        )

    def _look(self, model: Any, given: dict[str, Any], grad: bool) -> tuple[Tensor, Tensor]:
        ids = torch.cat([given["prompt_ids"], given["completion_ids"]], 1)
        mask = torch.cat([given["prompt_mask"], given["completion_mask"]], 1)
        images = {name: given.get(name) for name in PIXELS}
        with torch.set_grad_enabled(grad):
            return super()._get_per_token_logps_and_entropies(
                model, ids, mask, given["completion_ids"].shape[1], compute_entropy=True, **images
            )[:2]


PIXELS = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")


def trainer(policy: Policy, replay: Replay) -> WithViews:
    """TRL's trainer around a copy of the model. Its defaults, but for what the file's end says."""
    args = GRPOConfig(
        output_dir=tempfile.mkdtemp(prefix="trl-"),
        use_cpu=replay.shape.device == "cpu",
        bf16=False,
        fp16=False,
        beta=0.0,
        loss_type=LOSS,
        gradient_checkpointing=False,
        num_generations=replay.shape.siblings,
        per_device_train_batch_size=replay.shape.siblings,
        gradient_accumulation_steps=replay.shape.groups,
        max_completion_length=replay.batch.mask_BT.shape[1],
        report_to="none",
        disable_tqdm=True,
    )
    built = WithViews(
        model=deepcopy(policy.model),
        reward_funcs=lambda **_: [0.0],
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["w10"] * replay.shape.groups}),
        processing_class=policy.reader.tokenizer,
    )
    built.model.train()
    built.current_gradient_accumulation_steps = replay.shape.groups
    return built


def training_passes(
    built: WithViews, replay: Replay, method: str, *, shuffled: bool = False, seed: int = 0
) -> Callable[[], None]:
    """Every micro-batch's loss and gradient. What TRL does before (splitting, shuffling) is done, and not timed.

    Args:
        shuffled: rows in any order, as TRL has them after its own shuffling, instead of a group to each micro-batch.
    """
    B, G = len(replay.batch.key_B), replay.shape.siblings
    order_B = torch.randperm(B, generator=torch.Generator().manual_seed(seed)) if shuffled else torch.arange(B)
    micro_batches = []
    for rows in order_B.split(G):
        inputs: dict[str, Any] = padded(replay, rows=rows)
        inputs |= {view: padded(replay, view, rows=rows) for view, _ in EXTRA[method].views}
        micro_batches.append(inputs)

    def run() -> None:
        built.extra = EXTRA[method]
        for inputs in micro_batches:
            built._compute_loss(built.model, inputs).backward()
        built._metrics["train"].clear()

    return run


# Not TRL's defaults, so that both sides do the same: no checkpointing of activations, no autocast (the replay's dtype),
# micro-batches of one group, and the loss of GRPO's paper. The reference KL is off on both sides, as it is in TRL.
