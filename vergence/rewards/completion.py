"""What a chat server answers with, read: it is not trusted, and servers differ."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vergence.rewards.secret import without_key
from vergence.rewards.wire import shown
from vergence.types import UserError

CHARACTERS = 3
"""Of one token, where tokens are not counted by the server: somewhat fewer than most text has."""
IMAGE_TOKENS = 1000
"""Of one image, likewise."""
UNFINISHED = frozenset({"abort", "error"})
"""What ends an answer that its server could not end: it went down, or its engine did. Such a one is asked again."""


class Said(NamedTuple):
    """One answer."""

    text: str
    """What a reader is to see; "" where the server sends none."""
    thought: str = ""
    """What the model wrote before, where the server parts the two: its `reasoning` (vLLM) or `reasoning_content`."""
    finish: str = "stop"
    prompt_tokens: int | None = None
    """None where the server does not count."""
    completion_tokens: int | None = None

    @property
    def whole(self) -> str:
        """All that the model wrote, as one that answers in this process gives it.

        >>> Said("\\\\boxed{4}", "2+2=4").whole, Said("", "2+", "length").whole
        ('<think>2+2=4</think>\\\\boxed{4}', '<think>2+')
        """
        if not self.thought:
            return self.text
        cut = self.finish == "length" and not self.text
        return f"<think>{self.thought}" + ("" if cut else f"</think>{self.text}")


def read_completion(found: Any, url: str) -> Said:
    """The first choice of a chat completion.

    Text may be a string, null, or a list of parts, whose texts are joined. A key that is echoed is taken out, and half
    a surrogate pair, which is legal in JSON and cannot be written to a file, becomes a question mark.

    Raises:
        UserError: it is no chat completion.

    >>> read_completion({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}, "url")
    Said(text='', thought='', finish='length', prompt_tokens=None, completion_tokens=None)
    """
    match found:
        case {"choices": [{"message": {"content": content} as message, **choice}, *_]}:
            text = _text(content)
            if text is not None:
                thought = _text(message.get("reasoning_content") or message.get("reasoning")) or ""
                finish = choice.get("finish_reason")
                usage = found.get("usage")
                prompt, completion = (_number(usage, name) for name in ("prompt_tokens", "completion_tokens"))
                return Said(text, thought, shown(finish, 20) if isinstance(finish, str) else "stop", prompt, completion)
    try:
        said = json.dumps(found)
    except RecursionError:
        said = f"{type(found).__name__}s in each other, too deep to be shown"
    raise UserError(
        f"{url} answers with JSON that is no chat completion (choices[0].message.content is missing or no text): "
        f"{shown(said, 80)}"
    )


def unfinished(found: Any) -> str:
    """Why an answer is none yet: "" if it is one, or no chat completion at all.

    >>> unfinished({"choices": [{"message": {"content": "half an"}, "finish_reason": "abort"}]})
    'an answer that ended in "abort"'
    """
    match found:
        case {"choices": [{"finish_reason": str(finish)}, *_]} if finish in UNFINISHED:
            return f'an answer that ended in "{finish}"'
    return ""


def estimate(messages: Sequence[Mapping[str, Any]]) -> int:
    """About how many tokens the messages are, at `CHARACTERS` a token and `IMAGE_TOKENS` an image, rounded up.

    >>> estimate([{"role": "user", "content": "2 + 2 = ?"}])
    11
    """
    tokens = 8 * len(messages)  # what the chat itself takes
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            tokens += tokens_of(part["text"]) if part["type"] == "text" else IMAGE_TOKENS
    return tokens


def tokens_of(text: str) -> int:
    """About how many tokens a text is, rounded up.

    >>> tokens_of("\\boxed{4}")
    3
    """
    return -(-len(text) // CHARACTERS)


def warn_of_cut(new: Sequence[Said], max_tokens: int) -> None:
    """A warning where most answers were cut at so many tokens."""
    cut = sum(said.finish == "length" for said in new)
    if 2 * cut > len(new):
        warnings.warn(
            f"{cut} of {len(new)} answers of the server were cut at {max_tokens} tokens, before they were finished: "
            "let it write longer ones (for a reasoner in training --reasoner-tokens, else --max-tokens)",
            stacklevel=4,
        )


def warn_of_likeliest(found: Mapping[str, Any], model: str, temperature: float) -> None:
    """A warning where the server is `transformers serve`, known by the name it gives its model, and is to draw.

    It writes the likeliest answer at any temperature, unless the checkpoint's own settings say that it draws.
    """
    if temperature > 0 and found.get("model") == f"{model}@main":
        warnings.warn(
            "`transformers serve` draws only if the model's generation_config.json says so, whatever the temperature: "
            'see that it has "do_sample": true and "top_k": 0; otherwise every answer is the likeliest one',
            stacklevel=2,
        )


def _text(content: Any) -> str | None:
    """None if it is no text."""
    match content:
        case None:
            return ""
        case str(text):
            return without_key(text.encode(errors="replace").decode())
        case [*parts] if all(isinstance(part, dict) for part in parts):
            texts = [part["text"] for part in parts if part.get("type") == "text" and isinstance(part.get("text"), str)]
            return _text("".join(texts))
    return None


def _number(usage: Any, name: str) -> int | None:
    """A count that may be believed: an int of 0 or more and of reasonable size."""
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if type(number) is int and 0 <= number < 2**31 else None
