"""Where the captions of scenes come from, before views are rendered.

A view that shows the caption in place of the image (`Caption`, `Swap(Caption())`) is something to agree with or to
differ from. A caption from the policy being trained would be something that policy could exploit: it is paid for what
its own caption says, so it would learn to write captions that pay. Hence only captions that training cannot change:
those of the data, of the weights that training started from, or of another model behind a server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vergence import chance
from vergence.models.policy import Reader
from vergence.rewards.budget import Budget
from vergence.rewards.reasoner import MOST_CAPTION
from vergence.rewards.server import Server, Turn, user_message
from vergence.rollout.render import put, render, words
from vergence.rollout.sampler import Sampler
from vergence.types import ORIGINAL, Asked, Scene, UserError, Wording

Captioner = Callable[[Sequence[Scene]], list[Scene]]
"""Scenes -> the same scenes, in order, each with a caption that is not empty."""

REMEDY = (
    "Start it and go on with --resume (its address may be another), or start anew with captions from "
    '"scene" or "initial", which need no server'
)

UNDESCRIBED = "no description."
"""The caption of a scene about which a model wrote nothing."""

_SPECIAL = re.compile(r"<\|[^<>]*\|>")


def open_captions(
    source: str,
    *,
    sampler: Sampler | None = None,
    reader: Reader | None = None,
    seed: int = 0,
    temperature: float = 0.0,
    max_tokens: int = 256,
    wording: Wording = "short",
    model: str = "",
    concurrency: int = 16,
    cache: Path | None = None,
    budget: Budget | None = None,
) -> Captioner:
    """The captions that a config names: "scene", "initial", or the url of an OpenAI-compatible server.

    There is no source that asks the policy being trained, on purpose: see this module's docstring.

    Args:
        sampler, reader: for "initial" alone: over a frozen copy of the weights that training started from.
        seed, temperature, max_tokens: of what is written, for "initial" and a server.
        wording: of the request, for "initial". A server gets the long one, "think": it knows no other.
        model, concurrency, cache, budget: for a server: as of `rewards.server.Server`.

    Raises:
        UserError: there is no such source, or "initial" has no sampler.

    >>> open_captions("latest")
    Traceback (most recent call last):
    vergence.types.UserError: there are no captions from 'latest'; take "scene" (the data's own), "initial" (written \
by the policy before training) or the url of a server, such as http://localhost:8000
    """
    if source == "scene":
        return of_scene
    if source == "initial":
        if sampler is None or reader is None:
            raise UserError('captions from "initial" need the initial policy: give its sampler and its reader')
        return by_policy(sampler, reader, seed=seed, temperature=temperature, max_tokens=max_tokens, wording=wording)
    if "://" in source:
        server = Server(source, model, concurrency=concurrency, cache=cache, budget=budget, remedy=REMEDY)
        return by_server(server, seed=seed, temperature=temperature, max_tokens=max_tokens)
    raise UserError(
        f'there are no captions from {source!r}; take "scene" (the data\'s own), "initial" (written by the policy '
        "before training) or the url of a server, such as http://localhost:8000"
    )


def of_scene(scenes: Sequence[Scene]) -> list[Scene]:
    """The scenes as they are: embedded ones and rows with a `caption` have one of their own.

    Raises:
        UserError: one has none; its key is named, which for a file holds the number of the line.
    """
    for scene in scenes:
        if not scene.caption.strip():
            raise UserError(
                f"scene {scene.key!r} has no caption: fill the field 'caption' of that row (the number in its name is "
                'the line of the file), or have captions written: "initial", or the url of a server'
            )
    return [replace(scene, caption=_without_special(scene.caption)) for scene in scenes]


def by_policy(
    sampler: Sampler,
    reader: Reader,
    *,
    seed: int,
    temperature: float = 0.0,
    max_tokens: int = 256,
    wording: Wording = "short",
) -> Captioner:
    """Captions by the policy behind `sampler`, which must stay frozen (see `open_captions`).

    The noise is keyed by (seed, scene): a scene gets the same caption in every round, every batch and every process.

    Args:
        temperature: 0 takes the likeliest tokens.
        max_tokens: of a caption, at most.
        wording: how the caption is asked for: `render.WORDINGS`.
    """

    def caption(scenes: Sequence[Scene]) -> list[Scene]:
        prompts = [render(reader, scene, ORIGINAL, 0, ask="caption", wording=wording) for scene in scenes]
        asked = [Asked(prompt, _key(seed, scene)) for prompt, scene in zip(prompts, scenes, strict=True)]
        drawn = sampler(asked, temperature=temperature, max_tokens=max_tokens) if asked else []
        return _with_captions(scenes, [reader.text(one.tokens) for one in drawn])

    return caption


def by_server(
    server: Server, *, seed: int, temperature: float = 0.0, max_tokens: int = 256, wording: Wording = "think"
) -> Captioner:
    """Captions by a vision-language model behind a server: it is sent the images and the request. Keyed as `by_policy`.

    Calling it raises what `Server.chat` does.
    """

    def caption(scenes: Sequence[Scene]) -> list[Scene]:
        asked = []
        for scene in scenes:
            text = put(words(scene.question), ask="caption", wording=wording)
            asked.append(Turn((user_message(text, scene.images),), _key(seed, scene)))
        return _with_captions(scenes, server.chat(asked, temperature=temperature, max_tokens=max_tokens))

    return caption


def plain(text: str) -> str:
    """A model's caption as it can stand in a prompt: without special tokens, bounded, never empty.

    >>> plain(" two cubes<|im_end|>\\n"), plain("<|im_end|>"), plain("a <|image<|x|>_pad|>b")
    ('two cubes', 'no description.', 'a b')
    """
    return _without_special(text[: 2 * MOST_CAPTION])[:MOST_CAPTION].strip() or UNDESCRIBED


def _without_special(text: str) -> str:
    """Without special tokens, which would end the turn that it stands in."""
    while _SPECIAL.search(text):  # what is left when one is taken out may be another
        text = _SPECIAL.sub("", text)
    return text.strip()


def _with_captions(scenes: Sequence[Scene], captions: Sequence[str]) -> list[Scene]:
    return [replace(scene, caption=plain(text)) for scene, text in zip(scenes, captions, strict=True)]


def _key(seed: int, scene: Scene) -> int:
    return chance.key(seed, "caption", scene.key)
