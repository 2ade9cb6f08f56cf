"""A reasoner in this process: any Hugging Face causal model, answering with noise from keys; and which ones there are.

What a reasoner is asked is put into words in one place, `rewards.reasoner.question`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from vergence.models import reasoner as models
from vergence.rewards.budget import Budget
from vergence.rewards.reasoner import Question, Reasoner, question
from vergence.rollout.generate import KeyedNoise
from vergence.types import UserError

__all__ = ["InProcess", "load_reasoner", "question"]


class InProcess:
    """A `Reasoner` on a causal language model: chat template, one user turn, and an answer.

    An answer is a function of the question's text, its key and the weights (up to the rounding of sums, as in
    `rollout.generate`), not of what else is asked. Special tokens in a question are taken out: a caption cannot end the
    user's turn and begin the answer.
    """

    def __init__(self, model: Any, tokenizer: Any, *, at_once: int = 256) -> None:
        self.model, self.tokenizer, self.at_once = model, tokenizer, at_once

    @torch.no_grad()
    def __call__(self, asked: Sequence[Question], *, temperature: float, max_tokens: int) -> list[str]:
        """One answer to each, in order; temperature 0 takes the likeliest token.

        Raises:
            UserError: max_tokens is below 1, or the temperature below 0.
        """
        if max_tokens < 1 or temperature < 0:
            raise UserError(f"max_tokens must be at least 1 and temperature 0, got {max_tokens} and {temperature}")
        prompts = [self._prompt(one.text, max_tokens) for one in asked]
        order = sorted(range(len(asked)), key=lambda row: len(prompts[row]))  # little padding
        answers = [""] * len(asked)
        for start in range(0, len(order), self.at_once):
            rows = order[start : start + self.at_once]
            keys = [asked[row].key for row in rows]
            drawn = self._some([prompts[row] for row in rows], keys, temperature, max_tokens)
            for row, text in zip(rows, drawn, strict=True):
                answers[row] = text
        return answers

    def _prompt(self, text: str, max_tokens: int) -> list[int]:
        """The tokens of one user turn. Of a text that does not fit, the end is kept: the question stands there."""
        for special in self.tokenizer.all_special_tokens:
            text = text.replace(special, " ")
        longest = self.model.config.get_text_config().max_position_embeddings
        room = longest - max_tokens - 64  # for the chat's own tokens
        if room < 128:
            raise UserError(
                f"this reasoner reads and writes {longest} tokens in all, and answers of {max_tokens} leave it too few "
                f"to read a caption and a question; let it answer in at most {max(1, longest - 192)}, or take another"
            )
        words = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(words) > room:
            warnings.warn(
                f"the reasoner is asked in {len(words)} tokens and has room for {room}: the beginning is left out. "
                "Have shorter captions written (--max-tokens), or take a reasoner with a longer context",
                stacklevel=2,
            )
            text = self.tokenizer.decode(words[-room:])
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
        return self.tokenizer(chat, add_special_tokens=False)["input_ids"]

    def _some(self, prompts: list[list[int]], keys: list[int], temperature: float, max_tokens: int) -> list[str]:
        model, pad, longest = self.model, self.tokenizer.pad_token_id, max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(one)) + one for one in prompts], device=model.device)
        attended = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=model.device)
        noise = KeyedNoise(torch.tensor(keys, device=model.device), temperature, [])
        # a model's own defaults (top-p, a repetition penalty) would change the distribution: see rollout.generate
        own, ends = model.generation_config, _ends(model, self.tokenizer)
        model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=pad)
        try:
            out = model.generate(
                input_ids=ids,
                attention_mask=attended,
                max_new_tokens=max_tokens,
                logits_processor=LogitsProcessorList([noise]),
            )
        finally:
            model.generation_config = own
        return [self._text(row, ends) for row in out[:, longest:].tolist()]

    def _text(self, tokens: list[int], ends: list[int]) -> str:
        stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        return self.tokenizer.decode(tokens[:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: a chat model often has more than its tokenizer knows."""
    own = model.generation_config.eos_token_id
    known = [own] if isinstance(own, int) else list(own or ())
    return sorted({*known, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else ())})


def load_reasoner(
    name: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    model: str = "",
    cache: Path | None = None,
    budget: Budget | None = None,
    remedy: str = "Start it and run the same again, or take --reasoner strong, which needs no server",
) -> Reasoner:
    """The reasoner of this name.

    Args:
        name: "weak" or "strong", which are in the package; a folder in Hugging Face layout; or the address of an
            OpenAI-compatible server, http:// or https://.
        model: the name of the server's model.
        cache: where a server's answers are kept.
        budget: what a server may use; it counts what it does.
        remedy: what to do when a server is down, for the message.

    Raises:
        UserError: there is no such reasoner, or it cannot be loaded.
    """
    if name.startswith(("http://", "https://")):
        from vergence.rewards.server import Server

        return Server(name, model, cache=cache, budget=budget, remedy=remedy)
    folder = models.EMBEDDED.get(name, Path(name))
    if not (name and (folder / "config.json").is_file()):
        raise UserError(
            f"no reasoner {name!r}: give {' or '.join(map(repr, models.EMBEDDED))} (in the package), a folder in "
            "Hugging Face layout with a text-only causal language model, or the http:// or https:// address of an "
            "OpenAI-compatible server"
        )
    return InProcess(*models.load(folder, dtype=dtype, device=device))
