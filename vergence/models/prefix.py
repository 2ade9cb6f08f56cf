"""Logits of responses to prompts that several of them share: each prompt, and its images, once.

The prompt goes through the model once and leaves its keys and values; every response attends to those of its prompt.
Attention is causal, so this is the same sum in another order, and so is its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vergence.models.policy import Policy
from vergence.types import Prompt, UserError


def refusal(model: Any) -> str | None:
    """Why this model's prompts cannot be shared exactly; None if they can.

    >>> from vergence.models.policy import load
    >>> refusal(load("seedling").model) is None
    True
    """
    text = model.config.get_text_config()
    if odd := sorted(set(getattr(text, "layer_types", None) or ()) - {"full_attention"}):
        return f"it has {', '.join(odd)} layers, whose state is not keys and values of the whole prompt"
    if getattr(text, "attention_dropout", 0.0):
        return "it drops attention at random, which would be drawn once for a prompt instead of once for a response"
    if any(getattr(part, "gradient_checkpointing", False) for part in model.modules()):
        return "gradient checkpointing leaves out the keys and values of the prompt"
    return None


class SharedPrefix:
    """A policy's `logits`, each distinct prompt of a call being read once, with its images.

    Raises:
        UserError: the model is of a kind for which that would not be exact.
    """

    def __init__(self, policy: Policy) -> None:
        if why := refusal(policy.model):
            raise UserError(f"prompts cannot be shared with this model: {why}; take --scorer naive")
        self.policy = policy

    def __call__(
        self, prompts: Sequence[Prompt], token_BT: Int[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        """See `Policy.logits`, which this equals. Prompts are the same if they are one object."""
        from transformers import DynamicCache

        model = self.policy.model
        distinct = list({id(prompt): prompt for prompt in prompts}.values())
        place = {id(prompt): row for row, prompt in enumerate(distinct)}
        row_B = torch.tensor([place[id(prompt)] for prompt in prompts], device=self.policy.device)
        inputs = self.policy.inputs(distinct)
        position, _ = model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
            attention_mask=inputs["attention_mask"],
        )
        cache = DynamicCache(config=model.config.get_text_config())
        # the prompt's last token is read with the responses: then all their logits come out of one pass
        before = {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
        images = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
        model.model(**before, **images, position_ids=position[..., :-1], past_key_values=cache, use_cache=True)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[row_B], layer.values[row_B]
        return self._after(inputs, position, row_B, cache, token_BT.to(row_B.device), mask_BT.to(row_B.device))

    def _after(
        self,
        inputs: dict[str, Tensor],
        position: Int[Tensor, "3 S P"],
        row_B: Int[Tensor, " B"],
        cache: Any,
        token_BT: Int[Tensor, "B T"],
        mask_BT: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T V"]:
        """The responses against the keys and values of their prompts. A response's positions follow its prompt's."""
        pad, T = self.policy.reader.tokenizer.pad_token_id, token_BT.shape[1]
        ids = torch.cat([inputs["input_ids"][row_B, -1:], token_BT.where(mask_BT, pad)[:, :-1]], 1)
        attended = torch.cat([inputs["attention_mask"][row_B], mask_BT[:, :-1].long()], 1)
        last_S = position.masked_fill(inputs["attention_mask"] == 0, -1).amax((0, 2))
        position = (last_S[row_B, None] + torch.arange(T, device=row_B.device)).expand(3, -1, -1)
        first = inputs["input_ids"].shape[1] - 1
        return self.policy.model(
            input_ids=ids,
            attention_mask=attended,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            cache_position=torch.arange(first, first + T, device=row_B.device),
        ).logits
