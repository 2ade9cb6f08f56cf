"""Attention of siblings that decode together: to their prompt, read once for all, and to what each has said itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


def part(
    query: Float[Tensor, "N K Q D"],
    key: Float[Tensor, "N K M D"],
    value: Float[Tensor, "N K M D"],
    bias: Float[Tensor, "N 1 1 M"] | None = None,
) -> tuple[Float[Tensor, "N K Q D"], Float[Tensor, "N K Q"]]:
    """Attention to some of the keys: the weighted mean of their values, and the log of the weights' sum.

    >>> value = torch.tensor([[[[0.0, 3.0], [3.0, 3.0], [6.0, 3.0]]]])
    >>> mean, log_sum = part(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 3, 2), value)
    >>> mean.tolist(), round(log_sum.exp().item(), 3)
    ([[[[3.0, 3.0]]]], 3.0)
    """
    score_NKQM = query @ key.mT
    if bias is not None:
        score_NKQM += bias
    share_NKQM = score_NKQM.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32))
    # the largest share is exp(largest score - log sum): no second exponential of every score is taken
    log_sum_NKQ = score_NKQM.amax(-1) - share_NKQM.amax(-1).log()
    return share_NKQM.to(value.dtype) @ value, log_sum_NKQ


class Layer(NamedTuple):
    """What the tokens of one layer attend to: K heads of keys and values, P of each prompt, `room` of each row."""

    prompt_key: Float[Tensor, "S K P D"]
    prompt_value: Float[Tensor, "S K P D"]
    own_key: Float[Tensor, "B K room D"]
    own_value: Float[Tensor, "B K room D"]


@dataclass
class Siblings:
    """Rows that decode together, each after the prompt that `prompt_B` says; rows of one prompt are adjacent."""

    layers: list[Layer]
    prompt_B: Int[Tensor, " B"]
    bias_S11P: Float[Tensor, "S 1 1 P"] | None
    written: int = 0
    """How many tokens each row has written into its own keys and values."""

    def __post_init__(self) -> None:
        self.slot_B, self.width = slots(self.prompt_B)

    def keep(self, row_b: Int[Tensor, " b"], room: int) -> Siblings:
        """Some of the rows, each with room for so many own tokens; prompts without rows are left out."""
        prompt_s, prompt_b = self.prompt_B[row_b].unique(return_inverse=True)
        now, grow, more = self.written, torch.nn.functional.pad, (0, 0, 0, room - self.written)
        layers = [
            Layer(*(prompt[prompt_s] for prompt in layer[:2]), *(grow(own[row_b, :, :now], more) for own in layer[2:]))
            for layer in self.layers
        ]
        bias_s11P = None if self.bias_S11P is None else self.bias_S11P[prompt_s]
        return Siblings(layers, prompt_b, bias_s11P, now)


def slots(prompt_B: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], int]:
    """Where each row stands when every prompt has as many places as the one with the most rows; and how many.

    >>> slots(torch.tensor([0, 0, 0, 1, 2, 2]))
    (tensor([0, 1, 2, 3, 6, 7]), 3)
    """
    count_S = torch.bincount(prompt_B)
    width = int(count_S.max())
    rank_B = torch.arange(len(prompt_B), device=prompt_B.device) - (count_S.cumsum(0) - count_S)[prompt_B]
    return prompt_B * width + rank_B, width


def attention(
    module: Any,
    query: Float[Tensor, "B H 1 D"],
    key: Float[Tensor, "B K 1 D"],
    value: Float[Tensor, "B K 1 D"],
    attention_mask: Any,
    *,
    scaling: float,
    siblings: Siblings,
    **_: Any,
) -> tuple[Float[Tensor, "B 1 H D"], None]:
    """Write one token's key and value, and attend to the prompt and to all that was written.

    This is what is registered: a layer calls it with its own arguments and the `siblings` of the call of the model.
    """
    layer, now, G = siblings.layers[module.layer_idx], siblings.written, siblings.width
    (B, H, _, D), (S, K, *_) = query.shape, layer.prompt_key.shape
    R, places, full = H // K, S * G, S * G == B
    layer.own_key[:, :, now], layer.own_value[:, :, now] = key[:, :, 0], value[:, :, 0]
    query_BKRD = (query * scaling).reshape(B, K, R, D)
    own, own_log_sum = part(query_BKRD, layer.own_key[:, :, : now + 1], layer.own_value[:, :, : now + 1])
    # siblings, and the query heads of one head of keys, stand side by side: the prompt's keys are read once for all
    placed = query_BKRD if full else query.new_zeros(places, K, R, D).index_copy(0, siblings.slot_B, query_BKRD)
    side_by_side = placed.view(S, G, K, R, D).transpose(1, 2).reshape(S, K, G * R, D)
    seen, seen_log_sum = part(side_by_side, layer.prompt_key, layer.prompt_value, siblings.bias_S11P)
    seen = seen.view(S, K, G, R, D).transpose(1, 2).reshape(places, K, R, D)
    seen_log_sum = seen_log_sum.view(S, K, G, R).transpose(1, 2).reshape(places, K, R)
    if not full:
        seen, seen_log_sum = seen[siblings.slot_B], seen_log_sum[siblings.slot_B]
    share_BKR1 = torch.sigmoid(seen_log_sum - own_log_sum)[..., None].to(own.dtype)
    return torch.lerp(own, seen, share_BKR1).view(B, 1, H, D), None
