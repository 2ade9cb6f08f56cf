"""EMULATIONS: our own statement of what others run, in plain transformers calls, where they cannot be run themselves.

`release` is the released code of PAPO and of CPPO (forks of verl that need Ray, vLLM and flash-attn), as read in it:
the vision tower runs for every row; the output layer runs at every position, the prompt's included; log-probabilities
under the weights that sampled are computed in a pass of their own; PAPO's masked view is another pass without gradient;
CPPO scores both views with gradient for every row, and leaves out those of A <= 0 afterwards.

`trl` is TRL 1.16's GRPOTrainer, for where it is not installed: all responses are padded to the longest of the step,
logits are made chunk by chunk and again on the way back, on CUDA for response positions alone and elsewhere for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.naive_views import EXTRA, Extra, Scored
from benchmarks.replay import Replay, padded
from vergence.models.policy import Policy

Kind = Literal["trl", "release"]
CHUNK = 4096
"""Positions whose logits exist at a time, in `trl`."""


def training_passes(
    policy: Policy, replay: Replay, method: str, kind: Kind, *, rows: int | None = None
) -> Callable[[], None]:
    """Every micro-batch's loss and gradient, by one of the emulations.

    Args:
        rows: rollouts in a micro-batch; None is one group.
    """
    extra = EXTRA[method]
    number = len(replay.batch.key_B)
    parts = torch.arange(number).split(rows or replay.shape.siblings)
    views = {name for name, _ in extra.views} | {"image"}
    micro_batches = [{view: padded(replay, view, rows=part) for view in views} for part in parts]
    shares = [len(part) / number for part in parts]
    if kind == "release":
        micro_batches = [{view: _cut(given) for view, given in one.items()} for one in micro_batches]
    score = _chunked if kind == "trl" else _whole
    return lambda: _passes(policy.model, extra, micro_batches, shares, score, separate=kind == "release")


def _cut(given: dict[str, Any]) -> dict[str, Any]:
    """Responses padded to the longest of the micro-batch instead: the forks pack them."""
    longest = int(given["completion_mask"].sum(-1).max())
    extra = given["completion_mask"].shape[1] - longest
    short = {name: given[name][:, :longest] for name in ("completion_ids", "completion_mask", "sampled")}
    types = given["mm_token_type_ids"]
    return {**given, **short, "mm_token_type_ids": types[:, : types.shape[1] - extra]}


def _passes(
    model: Any,
    extra: Extra,
    micro_batches: list[dict[str, dict[str, Any]]],
    shares: list[float],
    score: Callable[[Any, dict[str, Any]], Scored],
    *,
    separate: bool,
) -> None:
    constant: list[dict[str, Scored]] = []
    for views in micro_batches:
        still = [view for view, grad in extra.views if not grad]
        with torch.no_grad():
            constant.append({view: score(model, views[view]) for view in (["image"] if separate else []) + still})
    for views, known, share in zip(micro_batches, constant, shares, strict=True):
        image = views["image"]
        logp_BT, entropy_BT = score(model, image)
        seen = [score(model, views[view]) if grad else known[view] for view, grad in extra.views]
        old_BT = known["image"][0] if separate else logp_BT.detach()
        mask_BT, advantage_B = image["completion_mask"], image["advantages"]
        if extra.weigh:
            advantage_B = extra.weigh(image["sampled"], seen[0][0], mask_BT, advantage_B)
        loss = _surrogate(logp_BT, old_BT, advantage_B, mask_BT)
        loss = loss + extra.term(logp_BT, entropy_BT, seen, mask_BT, advantage_B)
        (share * loss).backward()


def _surrogate(
    logp_BT: Float[Tensor, "B T"], old_BT: Float[Tensor, "B T"], advantage_B: Float[Tensor, " B"], mask_BT: Tensor
) -> Float[Tensor, ""]:
    ratio_BT = (logp_BT - old_BT).exp()
    advantage_B1 = advantage_B[:, None]
    value_BT = torch.maximum(-advantage_B1 * ratio_BT, -advantage_B1 * ratio_BT.clamp(0.8, 1.2))
    return ((value_BT * mask_BT).sum(-1) / mask_BT.sum(-1).clamp(min=1)).mean()


def _hidden(model: Any, given: dict[str, Any]) -> tuple[Float[Tensor, "B L D"], Int[Tensor, "B L"]]:
    """(the last hidden states, the token that follows each)."""
    ids = torch.cat([given["prompt_ids"], given["completion_ids"]], 1)
    images = {name: given[name] for name in ("pixel_values", "image_grid_thw") if name in given}
    out = model.model(
        input_ids=ids,
        attention_mask=torch.cat([given["prompt_mask"], given["completion_mask"]], 1),
        mm_token_type_ids=given["mm_token_type_ids"],
        use_cache=False,
        **images,
    )
    return out.last_hidden_state[:, :-1], ids[:, 1:]


def _whole(model: Any, given: dict[str, Any]) -> Scored:
    """Logits of all positions at once, then those of the response."""
    hidden_BLD, next_BL = _hidden(model, given)
    T = given["completion_ids"].shape[1]
    logp_BTV = model.lm_head(hidden_BLD)[:, -T:].float().log_softmax(-1)
    with torch.no_grad():
        entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(-1)
    return logp_BTV.gather(-1, next_BL[:, -T:, None])[..., 0], entropy_BT


def _chunked(model: Any, given: dict[str, Any]) -> Scored:
    """Logits of some positions at a time, made again for the gradient."""
    hidden_BLD, next_BL = _hidden(model, given)
    T = given["completion_ids"].shape[1]
    if hidden_BLD.is_cuda:
        hidden_BLD, next_BL = hidden_BLD[:, -T:], next_BL[:, -T:]
    shape = next_BL.shape
    pieces = zip(hidden_BLD.flatten(0, 1).split(CHUNK), next_BL.flatten().split(CHUNK), strict=True)
    found = [checkpoint(_piece, model.lm_head, hidden, following, use_reentrant=False) for hidden, following in pieces]
    logp_BL, entropy_BL = (torch.cat(one).view(shape) for one in zip(*found, strict=True))
    return logp_BL[:, -T:], entropy_BL[:, -T:].detach()


def _piece(head: Any, hidden: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    logp = head(hidden).float().log_softmax(-1)
    with torch.no_grad():
        entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(-1, following[:, None])[:, 0], entropy
