"""A sampler that reads each prompt once: siblings decode against its keys and values.

Tokens, log-probabilities and entropies are those of `Generate`, up to the rounding of sums taken in another order. A
prompt goes through the model once, with its images; then every token's attention has two parts: the prompt's, read once
for all siblings, and the sibling's own, in buffers that are not copied from step to step. The model's classes are
Hugging Face's own: the two parts are an attention function in the public registry.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AttentionInterface, DynamicCache

from vergence import chance
from vergence.models.policy import Policy
from vergence.models.prefix import core, refusal
from vergence.rollout.generate import Generate
from vergence.rollout.siblings import Layer, Siblings, attention
from vergence.types import Asked, Prompt, Sampled, UserError

ATTENTION = "vergence_siblings"  # the name under which the attention function is registered
ROOM = 128
"""Each row has room for so many tokens of its own at first; it doubles when full."""
WORTH = 8
"""Ended rows are dropped when they are more than one in so many: dropping copies what the others have written."""


def sampler_of(policy: Policy, *, at_once: int = 256) -> Decode | Generate:
    """The sampler that reads each prompt once, where that is exact; else the reference.

    >>> from vergence.models.policy import load
    >>> type(sampler_of(load("seedling"))).__name__
    'Decode'
    """
    kind = Generate if refusal(policy.model, training=False) else Decode
    return kind(policy, at_once=at_once)


def draw(
    logits_BV: Float[Tensor, "B V"], key_B: Int[Tensor, " B"], position: int, temperature: float, banned: Sequence[int]
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
    """A token for each row; its raw log-probability and the raw entropy, both before any token was banned.

    >>> token_B, logp_B, entropy_B = draw(torch.tensor([[0.0, 0.0]]), torch.tensor([7]), 0, 0.0, [0])
    >>> token_B.tolist(), round(logp_B.exp().item(), 3), round(entropy_B.exp().item(), 3)
    ([1], 0.5, 2.0)
    """
    logp_BV = (logits_BV.float() / (temperature or 1.0)).log_softmax(-1)
    # 0 * -inf is not a number: where a probability is zero, any finite number will do
    entropy_B = -torch.linalg.vecdot(logp_BV.exp(), logp_BV.clamp(min=-1e4))
    noisy_BV = logp_BV.double()
    if temperature > 0:
        noisy_BV = noisy_BV.sub_(chance.uniform(key_B, position, logp_BV.shape[-1]).log_().neg_().log_())
    noisy_BV[:, list(banned)] = -torch.inf
    token_B = noisy_BV.argmax(-1)
    return token_B, logp_BV.gather(-1, token_B[:, None])[:, 0], entropy_B


class Known(NamedTuple):
    """Prompts that were read."""

    layers: list[tuple[Float[Tensor, "S K P D"], Float[Tensor, "S K P D"]]]
    bias_S11P: Float[Tensor, "S 1 1 P"] | None
    """Minus infinity on padding; None without any."""
    logits_SV: Float[Tensor, "S V"]
    """Before the first token of a response."""
    position_S: Int[Tensor, " S"]
    """Of the first token of a response, on all three axes."""


class Decode:
    """A `Sampler` on the model being trained, for many siblings of each prompt. Prompts are the same if one object.

    Raises:
        UserError: the model is of a kind for which that would not be exact.
    """

    def __init__(self, policy: Policy, *, at_once: int = 256) -> None:
        if why := refusal(policy.model, training=False):
            raise UserError(f"siblings cannot share a prompt with this model: {why}; take the sampler Generate")
        self.policy, self.at_once = policy, at_once

    @torch.no_grad()
    def __call__(self, asked: Sequence[Asked], *, temperature: float, max_tokens: int) -> list[Sampled]:
        """One response to each; temperature 0 takes the likeliest token (and reports it at temperature 1)."""
        said: list[list[list[float]]] = [[] for _ in asked]
        with _evaluating(self.policy.model):
            for together in batches([id(one.prompt) for one in asked], self.at_once):
                distinct = {id(asked[row].prompt): asked[row].prompt for row in together}
                place, known = {name: at for at, name in enumerate(distinct)}, self._read(list(distinct.values()))
                for start in range(0, len(together), self.at_once):  # once, unless one prompt has more rows than that
                    rows = together[start : start + self.at_once]
                    named = [(place[id(asked[row].prompt)], asked[row].key) for row in rows]
                    prompt_B, key_B = torch.tensor(named, device=self.policy.device).unbind(1)
                    with _attending(self.policy.model):
                        self._write([said[row] for row in rows], known, prompt_B, key_B, temperature, max_tokens)
        return [self._sampled(one) for one in said]

    def _read(self, prompts: Sequence[Prompt]) -> Known:
        """Each prompt once, with its images, by the model's ordinary attention."""
        model, inputs = self.policy.model, self.policy.inputs(prompts)
        padding_SP = inputs["attention_mask"] == 0
        # given and never left to the model, which remembers those of its last call
        position_3SP, _ = core(model).get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
            attention_mask=inputs["attention_mask"],
        )
        cache = DynamicCache(config=model.config.get_text_config())
        out = model(**inputs, position_ids=position_3SP, past_key_values=cache, use_cache=True, logits_to_keep=1)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        bias_SP = layers[0][0].new_zeros(padding_SP.shape).masked_fill(padding_SP, -torch.inf)
        first_S = position_3SP.masked_fill(padding_SP, -1).amax((0, 2)) + 1
        return Known(layers, bias_SP[:, None, None] if padding_SP.any() else None, out.logits[:, -1], first_S)

    def _write(
        self, live: list[Any], known: Known, prompt_B: Tensor, key_B: Tensor, temperature: float, max_tokens: int
    ) -> None:
        """Add [token, log-probability, entropy] to each of `live` until it has ended. Rows that ended are dropped."""
        (_, K, _, D), room = known.layers[0][0].shape, min(ROOM, max_tokens)
        siblings = Siblings(  # which alone holds the buffers: the first are let go when rows are dropped or grow
            [Layer(*both, *(x.new_empty(len(live), K, room, D) for x in both)) for both in known.layers],
            prompt_B,
            known.bias_S11P,
        )
        logits_BV, position_B = known.logits_SV[prompt_B], known.position_S[prompt_B]
        end = self.policy.reader.eos_id  # looked up once: a tokenizer takes its time
        for at in range(max_tokens):
            token_B, *more = draw(logits_BV, key_B, at, temperature, self.policy.reader.banned)
            for said, now in zip(live, torch.stack([token_B.double(), *more], 1).tolist(), strict=True):
                if not said or said[-1][0] != end:
                    said.append(now)
            left = [row for row, said in enumerate(live) if said[-1][0] != end]
            if not left or at + 1 == max_tokens:
                return
            if (full := at == room) or WORTH * (len(live) - len(left)) > len(live):
                room = min(2 * room, max_tokens) if full else room
                live, row_b = [live[row] for row in left], torch.tensor(left, device=key_B.device)
                siblings = siblings.keep(row_b, room)
                token_B, key_B, position_B = token_B[row_b], key_B[row_b], position_B[row_b]
            where_3B1 = (position_B + at)[None, :, None].expand(3, -1, -1)
            out = self.policy.model(token_B[:, None], position_ids=where_3B1, use_cache=False, siblings=siblings)
            logits_BV, siblings.written = out.logits[:, -1], at + 1

    def _sampled(self, said: list[list[float]]) -> Sampled:
        token, logp, entropy = zip(*said, strict=True) if said else ((), (), ())
        ended = bool(said) and said[-1][0] == self.policy.reader.eos_id
        return Sampled(tuple(map(int, token)), logp, entropy, "stop" if ended else "length")


def batches(prompts: Sequence[Hashable], at_once: int) -> Iterator[list[int]]:
    """Rows to take together, those of a prompt adjacent: at most `at_once`, unless one prompt alone has more.

    >>> list(batches(["a", "b", "a", "c", "c", "c"], at_once=3))
    [[0, 2, 1], [3, 4, 5]]
    """
    rows: dict[Hashable, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    together: list[int] = []
    for own in rows.values():
        if together and len(together) + len(own) > at_once:
            yield together
            together = []
        together = together + own
    yield from [together] if together else []


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout and the like; each part's own mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _attending(model: Any) -> Iterator[None]:
    """With the siblings' attention in the language model; the vision tower keeps its own."""
    AttentionInterface.register(ATTENTION, attention)
    config = model.config.get_text_config()
    own, config._attn_implementation = config._attn_implementation, ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = own
