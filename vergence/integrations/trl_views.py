"""TRL's rows as scenes, and what each view shows of them: by `rollout.render`, with its keys and its checks.

A row stays what its data set says: the conversation is the user's, and the tokens of its prompt are those that were
sampled from. A view that changes pixels changes nothing else; one that changes words has the conversation put together
anew, by the same chat template.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL.Image import Image

from vergence import chance
from vergence.integrations.trl_data import images_in
from vergence.models.folder import PROCESSORS
from vergence.models.reader import Reader
from vergence.rollout.render import put, render
from vergence.scoring.naive import Prompts
from vergence.train.ask import view_key
from vergence.types import IMAGE, Gold, Original, Prompt, Scene, UserError, View, ViewSpec
from vergence.views import Saliency

_BEFORE, _AFTER = put("\0").split("\0")
"""What `render` puts around a question in its shortest wording: it is taken off again, for a row has its own words."""
TRIES = 8
"""Further draws of a view's chance, before it is said to show nothing new."""


@dataclass(frozen=True, slots=True)
class Conversation(Reader):
    """What reads one row of TRL's: in its own conversation, from which was sampled."""

    messages: tuple[dict[str, Any], ...] = ()
    sampled: tuple[int, ...] = ()
    """The tokens of the prompt, as they were sampled from."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the chat template."""

    def prompt(self, text: str, images: Sequence[Image], *, resize: bool = True) -> Prompt:
        """The row's prompt with these images; in other words only where `text` is not the row's own.

        Raises:
            UserError: as of `Reader.prompt`; or other words are asked for in a conversation of several user's turns.
        """
        text = text[len(_BEFORE) : len(text) - len(_AFTER)]
        own = text == said(self.messages) and len(images) == len(images_in(self.messages))
        if not own:
            return Reader.prompt(self, text, images, resize=resize)
        if not images:
            return Prompt(self.sampled)
        rgb = [image.convert("RGB") for image in images]
        seen = self.image_processor(images=rgb, return_tensors="pt", **({} if resize else {"do_resize": False}))
        return Prompt(self.sampled, seen["pixel_values"], seen["image_grid_thw"])

    def chat(self, parts: list[dict[str, str]]) -> str:
        """The conversation in the words of the chat template, these parts in the place of the user's."""
        if [message["role"] for message in self.messages].count("user") != 1:
            raise UserError("a view that changes words needs a prompt with one user's turn: which is meant of several?")
        turns = [{**message, "content": parts} if message["role"] == "user" else message for message in self.messages]
        return self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, **{"chat_template": None, **self.template}
        )


def conversation(reader: Reader, messages: Any, ids: Sequence[int], template: Mapping[str, Any]) -> Conversation:
    """What reads a row whose prompt is this conversation, and was sampled from as these tokens.

    Raises:
        UserError: the prompt is text, in which nobody knows whose turn is whose.
    """
    if isinstance(messages, str):
        raise UserError("a row's prompt is text: give a conversation, [{'role': 'user', 'content': ...}]")
    return Conversation(
        reader.tokenizer, reader.image_processor, messages=tuple(messages), sampled=tuple(ids), template=template
    )


def said(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user says in a conversation, with a mark where an image stands.

    >>> said([{"role": "system", "content": "Look."}, {"role": "user", "content": [{"type": "text", "text": "Why?"}]}])
    'Why?'
    """
    contents = [message["content"] for message in messages if message["role"] == "user"]
    parts = [part for one in contents for part in ([{"type": "text", "text": one}] if isinstance(one, str) else one)]
    return "".join(IMAGE if part["type"] == "image" else part["text"] for part in parts)


def reader_of(processor: Any, kind: str) -> Reader:
    """What reads for the model: the processor's tokenizer and image processor.

    Raises:
        UserError: the model is none of the Qwen-VL family, or the processor has no such parts.
    """
    if kind not in PROCESSORS:
        raise UserError(
            f"the views of a {kind!r} model are not made inside TRL, which is tried with the Qwen-VL family: take one "
            f"of these ({', '.join(PROCESSORS)}), or train with `vergence train`, which reads others too"
        )
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise UserError(
            f"a {type(processor).__name__} reads no images: give the model's processor as processing_class "
            "(AutoProcessor.from_pretrained(...); or vergence.integrations.trl_data.processor_of(policy))"
        )
    return Reader(processor.tokenizer, processor.image_processor)


def scene_of(row: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Scene:
    """A row as a scene: its pictures, what the user says, and its columns `caption`, `solution` and `key`, if it has
    them; without a key it is named by what it asks and shows.

    Args:
        messages: the row's conversation, images in their places.

    Raises:
        UserError: an image is no PIL image.
    """
    images, question = tuple(images_in(messages)), said(messages)
    for image in images:
        if not isinstance(image, Image):
            raise UserError(
                f"an image of a row is a {type(image).__name__}: views are made of PIL images; give the column the "
                "type datasets.Image(), or open it"
            )
    rgb = tuple(image.convert("RGB") for image in images)
    digest = [hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest() + str(image.size) for image in rgb]
    return Scene(
        key=str(row["key"]) if row.get("key") else f"row/{chance.key(question, *digest):016x}",
        world="trl",
        images=rgb,
        question=question,
        gold=Gold(str(row.get("solution", row.get("answer", ""))), "word"),
        caption=row.get("caption") or "",
    )


def prompts_of(
    readers: Sequence[Conversation],
    scenes: Sequence[Scene],
    views: Mapping[str, View],
    *,
    seed: int,
    round_: int,
    saliency: Saliency | None = None,
    alike: bool = False,
) -> Prompts:
    """view -> the prompt of each scene. A view's chance is drawn once per scene and round; siblings share it.

    Args:
        alike: whether a view may show every one of these scenes as it is: few may be black altogether.

    Raises:
        UserError: a view cannot be shown; it changes the size of an image as the model sees it; or it shows every scene
            as it is although there are images, so that nothing can be learnt from it.
    """
    of_show: dict[ViewSpec, list[Prompt]] = {}

    def shown(show: ViewSpec, round_: int) -> list[Prompt]:
        keys = [view_key(seed, show, round_, scene.key) for scene in scenes]
        return [
            render(reader, scene, show, key, others=scenes, saliency=saliency)
            for reader, scene, key in zip(readers, scenes, keys, strict=True)
        ]

    for view in views.values():
        if view.show not in of_show:
            of_show[view.show] = shown(view.show, round_)
    prompts = {name: of_show[view.show] for name, view in views.items()}
    seen = of_show.setdefault(Original(), shown(Original(), round_))
    for name, view in views.items():
        refuse_resized(name, view.show, prompts[name], seen)
        removes = not alike and name not in ("image", "kept") and view.show != Original() and view.policy == "now"
        removes &= any(scene.images for scene in scenes)  # of mixed data, a process may meet rows of text alone
        draws = (same(shown(view.show, -draw), seen) for draw in range(1, TRIES + 1))
        if removes and same(prompts[name], seen) and all(draws):
            raise UserError(
                f"the view {name!r} ({view.show}) shows all {len(scenes)} rows exactly as they are, so every "
                f"divergence from it is exactly 0 and teaches nothing; give it something to change"
            )
    return prompts


def refuse_resized(name: str, show: ViewSpec, prompts: Sequence[Prompt], seen: Sequence[Prompt]) -> None:
    """Refuse a view whose images have other sizes than the policy's: their tokens would not match the prompt's.

    Raises:
        UserError: as said.
    """
    for prompt, own in zip(prompts, seen, strict=True):
        if prompt.tokens == own.tokens and prompt.grid is not None and not prompt.grid.equal(own.grid):
            raise UserError(
                f"the view {name!r} ({show}) brings an image from {own.grid.tolist()} patches to {prompt.grid.tolist()}"
                ": a view keeps the size of an image"
            )


def refuse_unlike(made: Mapping[str, Any], prompts: Sequence[Prompt], siblings: int) -> None:
    """Refuse images that are not, pixel by pixel, what TRL's processor made of them to sample from.

    Args:
        made: what TRL made of a generation: `pixel_values`, `image_grid_thw` and, row by row, `num_images`.
        prompts: of each question, as it is scored.
        siblings: rows to a question; they are adjacent.

    Raises:
        UserError: as said.
    """
    if made.get("pixel_values") is None:
        return
    parts = iter(made["pixel_values"].split(made["image_grid_thw"].prod(-1).tolist()))
    rows = [[next(parts) for _ in range(number)] for number in made["num_images"]]
    for at, prompt in enumerate(prompts):
        theirs = torch.cat([*rows[at * siblings], made["pixel_values"][:0]])
        own = theirs if prompt.pixels is None else prompt.pixels.to(theirs.device, theirs.dtype)
        if own.shape != theirs.shape or not torch.allclose(own, theirs, atol=0.1):
            raise UserError(
                f"question {at + 1} of this generation was sampled from other pixels than it would be scored with: the "
                "processor treats its images in a way of its own, as where one is transparent. Give images in RGB "
                "(image.convert('RGB')), or the processor trl_data.processor_of(policy)"
            )


def same(prompts: Sequence[Prompt], seen: Sequence[Prompt]) -> bool:
    """Whether these prompts are those, token for token and pixel for pixel.

    >>> same([Prompt((1, 2))], [Prompt((1, 2))]), same([Prompt((1, 2))], [Prompt((1, 3))])
    (True, False)
    """
    return all(
        one.tokens == own.tokens
        and (one.pixels is None) == (own.pixels is None)
        and (one.pixels is None or one.pixels.equal(own.pixels))
        for one, own in zip(prompts, seen, strict=True)
    )
