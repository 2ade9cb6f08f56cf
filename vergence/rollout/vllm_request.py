"""What a vLLM engine is asked, and what is believed of its answers: plain values, the same for every kind of engine.

Siblings of a prompt are one request, so that the prompt is read once and each image is sent once. An engine is given
the prompt with one image token for each image, and the pictures that the policy sees, taken back out of the pixels and
not to be resized; it says how it read the prompt, and a difference is refused. The noise is vLLM's own, seeded by the
key of the first of the siblings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from threading import Event
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from PIL.Image import Image, fromarray

from vergence.models.policy import Policy, Reader
from vergence.rewards.wire import shown
from vergence.types import Asked, Prompt, Sampled, UserError

BIAS = -100.0
"""Added to the logits of tokens that must never be sampled: the most that vLLM's `logit_bias` takes."""
TEMPERATURES = (0.05, 4.0)
"""Between these, `BIAS` makes a token e^25 times less likely or more, and can be taken out of the log-probabilities."""
TOGETHER = 64
"""Siblings in one request, at most."""
PATIENCE = 600.0
"""Seconds within which an engine has to show a sign of life; see `patience`."""
SLOWEST = 5.0
"""Tokens a second of one response, below which an engine is taken to hang."""


class Broken(Exception):
    """The engine died, hangs, or holds other weights than it was given."""


class Request(NamedTuple):
    """One prompt and all its siblings."""

    rows: tuple[int, ...]
    """Their places in what was asked."""
    prompt: Prompt
    seed: int
    """vLLM gives the sibling of number i the seed + i."""


class Said(NamedTuple):
    """One response as an engine says it; nothing is believed yet."""

    tokens: Sequence[int]
    logp: Sequence[float]
    """Of each token, by the engine's `logprobs_mode`."""
    banned_logp: Sequence[Sequence[float]]
    """Of the banned tokens, at each token, in the order of `Reader.banned`; empty where that was not asked."""
    finish: str | None
    versions: Sequence[str]
    """The labels of the weights that sampled it."""


class Answer(NamedTuple):
    """What an engine says to one `Request`."""

    prompt: Sequence[int]
    """The tokens of the prompt as the engine read it."""
    said: Sequence[Said]


class Wanted(NamedTuple):
    """What every request of a call has in common."""

    temperature: float
    max_tokens: int
    version: str
    """Of the weights that shall sample."""
    vocabulary: int
    """Tokens are below this number."""
    processed: bool
    """Whether the engine's log-probabilities are those after temperature and bans (`processed_logprobs`)."""


@runtime_checkable
class Engine(Protocol):
    """A vLLM engine, in this process or elsewhere. `Broken` says that it has to be started again."""

    processed: bool
    """See `Wanted`."""
    ending: Event
    """Set when whoever asks or starts it, in another thread, shall give up soon."""

    def start(self, policy: Policy) -> None:
        """Make it ready, with whatever weights; what is left of an earlier one is put away."""
        ...

    def push(self, policy: Policy, version: str) -> None:
        """Give it the policy's weights, adapters merged, under this label, and reset every cache."""
        ...

    def push_again(self, policy: Policy, version: str) -> None:
        """Give it the weights of the last push once more, after a start; the policy may have moved on since."""
        ...

    def ask(self, requests: Sequence[Request], wanted: Wanted) -> tuple[dict[int, Answer], Exception | None]:
        """What was answered, by the place in `requests`, and why not all were, if not all were."""
        ...

    def rest(self) -> None:
        """Leave the device's memory to others, until the next push."""
        ...

    def stop(self) -> None:
        """Leave nothing running."""
        ...


def refuse_temperature(temperature: float, *, processed: bool) -> None:
    """Raise a UserError if an engine cannot give the log-probabilities of this temperature."""
    low, high = TEMPERATURES
    if not (temperature in (0.0, 1.0) or low <= temperature <= high):
        raise UserError(
            f"vLLM cannot ban image tokens exactly at temperature {temperature:g}; give one from {low:g} to {high:g}"
        )
    if not (processed or temperature in (0.0, 1.0)):
        raise UserError(
            f"this engine gives the log-probabilities of temperature 1 (logprobs_mode raw_logprobs), not of "
            f"{temperature:g}; start it with --logprobs-mode processed_logprobs, or sample at temperature 1"
        )


def patience(wanted: Wanted) -> float:
    """Seconds within which some request has to end, or the engine is taken to hang."""
    return PATIENCE + wanted.max_tokens / SLOWEST


def requests(asked: Sequence[Asked], *, together: int = TOGETHER) -> list[Request]:
    """One request for each prompt, with all its rows; prompts are the same if one object.

    Args:
        together: rows in one request, at most.

    >>> one, other = Prompt((1, 2)), Prompt((1, 2))
    >>> [(wanted.rows, wanted.seed) for wanted in requests([Asked(one, 7), Asked(other, 2**31 + 5), Asked(one, 9)])]
    [((0, 2), 7), ((1,), 5)]
    """
    rows: dict[int, list[int]] = {}
    for row, one in enumerate(asked):
        rows.setdefault(id(one.prompt), []).append(row)
    cut = [own[start : start + together] for own in rows.values() for start in range(0, len(own), together)]
    return [Request(tuple(own), asked[own[0]].prompt, asked[own[0]].key % 2**31) for own in cut]


def folded(prompt: Prompt, *, image_id: int, merge: int) -> list[int]:
    """The prompt's tokens with one image token for each image, as engines are given it.

    >>> seen = Prompt((1, 6, 6, 6, 6, 6, 2), torch.zeros(20, 3), torch.tensor([[1, 2, 6], [1, 2, 4]]))
    >>> folded(seen, image_id=6, merge=2)
    [1, 6, 6, 2]
    """
    sizes = [] if prompt.grid is None else (prompt.grid.prod(-1) // merge**2).tolist()
    tokens, next_image = list[int](), iter(sizes)
    for token, run in groupby(prompt.tokens):
        length = sum(1 for _ in run)
        if token == image_id:
            while length > 0:
                length, tokens = length - next(next_image), [*tokens, token]
        else:
            tokens += [token] * length
    return tokens


def pictures(prompt: Prompt, image_processor: Any) -> list[Image]:
    """The images of a prompt, as the policy sees them: what the image processor made patches of, pixel for pixel.

    Raises:
        UserError: the patches are not those of an image with 8 bits a channel.
    """
    if prompt.pixels is None or prompt.grid is None:
        return []
    merge, side, frames = image_processor.merge_size, image_processor.patch_size, image_processor.temporal_patch_size
    mean, sd = (torch.tensor(list(each)) for each in (image_processor.image_mean, image_processor.image_std))
    shown, parts = [], prompt.pixels.float().split(prompt.grid.prod(-1).tolist())
    for (time, height, width), patches in zip(prompt.grid.tolist(), parts, strict=True):
        cells = patches.view(time, height // merge, width // merge, merge, merge, 3, frames, side, side)
        frame = cells.permute(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(time * frames, height * side, width * side, 3)
        level = (frame[0] * sd + mean) / image_processor.rescale_factor
        whole = level.round()
        odd = (level - whole).abs().max().item() > 0.01 or whole.min() < 0 or whole.max() > 255
        if odd or time != 1 or not torch.equal(frame[0], frame[-1]):
            raise UserError("vLLM is given pictures of 8 bits a channel, and this prompt's pixels are not of such")
        shown.append(fromarray(whole.to(torch.uint8).numpy()))
    return shown


def settings(request: Request, wanted: Wanted, reader: Reader) -> dict[str, Any]:
    """The arguments of vLLM's `SamplingParams`. The policy's own end of turn ends a response, and nothing else does."""
    # a server says one token's less than it is asked for, the last one's: the sampled one's counts there
    also = [*reader.banned, reader.eos_id] if wanted.processed else []
    return {
        "n": len(request.rows),
        "seed": request.seed,
        "temperature": wanted.temperature,
        "max_tokens": wanted.max_tokens,
        "logit_bias": dict.fromkeys(reader.banned, BIAS),
        "ignore_eos": True,
        "stop_token_ids": [reader.eos_id],
        "detokenize": False,
        "logprobs": len(also),
        **({"logprob_token_ids": also} if also else {}),
    }


def believed(answer: Answer, request: Request, wanted: Wanted, reader: Reader) -> list[Sampled]:
    """The responses, if they are what was asked for.

    Raises:
        Broken: other weights sampled them.
        UserError: the engine reads the prompt otherwise, or says what cannot be.
    """
    own, where = request.prompt.tokens, f"prompt {request.rows[0] + 1}"
    if tuple(answer.prompt) != own:
        image, theirs = reader.image_id, list(answer.prompt)
        raise UserError(
            f"vLLM reads {where} as {len(theirs)} tokens ({theirs.count(image)} of images), and the policy as "
            f"{len(own)} ({own.count(image)}): its processor differs. It must hold the model in training, and be "
            "started as docs/vllm.md says"
        )
    if len(answer.said) != len(request.rows):
        raise UserError(f"vLLM gives {len(answer.said)} responses to {where}, of which {len(request.rows)} were asked")
    return [_sampled(said, wanted, reader, where) for said in answer.said]


def _sampled(said: Said, wanted: Wanted, reader: Reader, where: str) -> Sampled:
    if set(said.versions) != {wanted.version}:
        others = shown(str(sorted(set(said.versions))), 80)
        raise Broken(f"weights {others} sampled {where}, and {wanted.version!r} should have")
    tokens, banned = tuple(said.tokens), set(reader.banned)
    stopped = bool(tokens) and tokens[-1] == reader.eos_id
    known = all(type(token) is int and 0 <= token < wanted.vocabulary for token in tokens)
    wrong = (
        ("it has no tokens, or what are none", not tokens or not known),
        ("it holds a token of images", bool(banned & set(tokens)) if known else False),
        ("it goes on after its end", reader.eos_id in tokens[:-1]),
        (f"its end is {shown(repr(said.finish), 40)}", said.finish != ("stop" if stopped else "length")),
        (f"it has more than {wanted.max_tokens} tokens", len(tokens) > wanted.max_tokens),
        (
            f"it was cut after {len(tokens)} tokens: the engine's max_model_len is too small",
            not stopped and len(tokens) < wanted.max_tokens,
        ),
        ("it has not one log-probability a token", len(said.logp) != len(tokens)),
        ("a log-probability is none", not all(type(one) is float and -9999.0 < one <= 1e-3 for one in said.logp)),
        ("a banned token's is none", not all(one <= 1e-3 for more in said.banned_logp for one in more)),
    )
    if told := next((problem for problem, holds in wrong if holds), ""):
        raise UserError(f"a response of vLLM to {where} cannot be used: {told}")
    logp = tuple(min(one, 0.0) for one in said.logp)
    if wanted.processed:
        rows = zip(logp, said.banned_logp, strict=True)
        logp = tuple(min(unbanned(one, more, wanted.temperature or 1.0), 0.0) for one, more in rows)
    return Sampled(tokens, logp, tuple(-one for one in logp), "stop" if stopped else "length")


def unbanned(logp: float, banned_logp: Sequence[float], temperature: float) -> float:
    """A token's log-probability before `BIAS` was added to the banned tokens' logits, from those after it.

    With q the probabilities after it, the sum over the vocabulary of exp(logit / temperature) was larger by the factor
    1 - sum of q_b + sum of q_b exp(-BIAS / temperature), over the banned tokens b.

    Of two tokens with logits 0, the second banned, the first is certain after it and was drawn with 1/2 before:

    >>> round(math.exp(unbanned(0.0, [BIAS], 1.0)), 6)
    0.5
    """
    kept = math.log1p(-min(sum(map(math.exp, banned_logp)), 0.5))
    terms = [kept, *(one - BIAS / temperature for one in banned_logp)]
    most = max(terms)
    return logp - (most + math.log(sum(math.exp(term - most) for term in terms)))
