"""Whether prompts fit into the model's context: told of every row before the first step, not of one after hours."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from vergence.models.policy import Policy
from vergence.models.reader import Reader
from vergence.rollout.render import render, render_text
from vergence.scenes.files import Files
from vergence.scenes.rows import Row, read_row
from vergence.scenes.source import Source
from vergence.scenes.spots import Spots
from vergence.scenes.tables import Refused
from vergence.train.config import Config
from vergence.types import ORIGINAL, Kind, Method, Prompt, Scene, UserError


class Long(NamedTuple):
    """A row of the train split whose prompt leaves no room for a longest response."""

    place: tuple[int, int]
    """Which part of the source, and which row of it."""
    refused: Refused
    """What there is to say of it."""
    kind: Kind
    declared: bool
    """As its answer's kind was counted."""


def context_of(policy: Policy) -> int:
    """Tokens that the model can attend to, prompt and response; without end where its config does not say."""
    return getattr(policy.model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def fitting(
    source: Source, policy: Policy, config: Config, method: Method, tell: Callable[[str], None] = lambda _: None
) -> Source:
    """The source without the rows whose prompt and a longest response to it are more than the context.

    A text has no more tokens than bytes, and an image no more than the processor's limit: what is above the context by
    that count alone is read as it will be. Embedded scenes are short; of another family than Qwen-VL the limit is not
    known, and `refuse_long` tells when it comes to it.

    Args:
        tell: told how many were left out, where the config says to go on without.

    Raises:
        UserError: there are such rows and the config does not say so, or no other is left to train on; names the first,
            and how many there are.
    """
    if not isinstance(source, Files) or not isinstance(policy.reader, Reader):
        return source
    long = list(_long(source, policy, config, method))
    if not long:
        return source
    places = {one.place for one in long}
    left = Spots(place for place in source.rows["train"] if place[:2] not in places)
    first = f"{long[0].refused.file}, {long[0].refused.unit} {long[0].refused.row}: {long[0].refused.remedy}"
    if not (config.skip_refused and left):
        count = f" So it is with {len(long)} of {len(left) + len(long)} rows." if len(long) > 1 else ""
        without = " --skip-refused (skip_refused: true) trains without such rows." if left else ""
        raise UserError(first + count + without)
    tell(f"{len(long)} of {len(left) + len(long)} rows to train on are left out, as too long. {first}")
    return replace(
        source,
        rows={**source.rows, "train": left},
        refusals=source.refusals.and_more(one.refused for one in long),
        kinds=dict(Counter(source.kinds) - Counter(one.kind for one in long)),
        declared=source.declared - sum(one.declared for one in long),
    )


def refuse_long(scenes: Sequence[Scene], prompts: Sequence[Prompt], policy: Policy, config: Config) -> None:
    """Raise if one of these prompts and a longest response to it are more than the context.

    Raises:
        UserError: names the first such scene.
    """
    for scene, prompt in zip(scenes, prompts, strict=True):
        if trouble := _trouble(prompt, policy, config):
            raise UserError(f"scene {scene.key!r}: {trouble}")


def _long(files: Files, policy: Policy, config: Config, method: Method) -> Iterator[Long]:
    for place, row in _suspects(files, policy, config, method):
        prompt = render(policy.reader, files.scene(row.key), ORIGINAL, 0, ask=method.ask, wording=config.wording)
        if trouble := _trouble(prompt, policy, config):
            refused = Refused(row.file, row.row, "", "too long", trouble, row.unit)
            yield Long(place, refused, row.gold.kind, row.declared)


def _suspects(files: Files, policy: Policy, config: Config, method: Method) -> Iterator[tuple[tuple[int, int], Row]]:
    """The rows whose prompts may be too long, with their places."""
    reader, room = policy.reader, context_of(policy) - config.max_tokens
    plain = len(render_text(reader, "", ask=method.ask, wording=config.wording).tokens)
    of_image = 2 + reader.image_processor.size["longest_edge"] // reader.token_side**2
    trained = (place[:2] for place in files.rows["train"])  # in the order in which they are read
    due = next(trained, None)
    for number, part in enumerate(files.parts):
        for entry in part.table.rows():
            while due is not None and due < (number, entry.number):
                due = next(trained, None)
            if due == (number, entry.number):
                row = read_row(part, entry, files.reading)
                if isinstance(row, Refused):
                    continue
                if plain + len(row.question.encode()) + of_image * len(row.pictures) > room:
                    yield (number, entry.number), row


def _trouble(prompt: Prompt, policy: Policy, config: Config) -> str:
    """What is wrong if a prompt and a longest response to it are more than the context, and what to do; else ""."""
    size, context = len(prompt.tokens), context_of(policy)
    if size + config.max_tokens <= context:
        return ""
    seen = prompt.tokens.count(policy.reader.image_id) if prompt.pixels is not None or prompt.more else 0
    what = f", {seen} of them of images and {size - seen} of text," if seen else ", all of text,"
    ways = [f"a smaller --max-tokens (at most {context - size})"] if size < context else []
    if size - seen + config.max_tokens <= context:
        ways.append("smaller images (--max-pixels)")
    if size - seen > max(seen, config.max_tokens):
        ways.append("a shorter question")
    remedy = f"Take {', '.join(ways)}, or take the row out" if ways else "Take the row out"
    return (
        f"its prompt has {size} tokens{what} and with a response of up to {config.max_tokens} that is more than the "
        f"{context} that the model can attend to. {remedy}."
    )
