"""What is asked, as text: out of messages, with its choices below, and a mark where each image is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from vergence.scenes.columns import Unfit
from vergence.scenes.jsonl import unquoted
from vergence.types import IMAGE, UserError

PLACEHOLDER = "<image>"
"""The commonest placeholder; parts of messages that are images become it."""
LONGEST = 100_000
"""Characters of a text in a row."""

_MARK = re.compile(r"<\|?image[ _]?([0-9]{1,3})?\|?>", re.IGNORECASE)
_TOKEN = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{2,40}\|>|<(?:start_of_image|end_of_image|image_soft_token|IMG_CONTEXT|image_pad)>"
)

Form = Literal["none", "plain", "numbered"]
"""How the text says where its images are."""


class Placed(NamedTuple):
    """A question whose images have their places."""

    question: str
    """With one `IMAGE` for each image, or none if all of them come first."""
    order: tuple[int, ...]
    """Which image of the row, from 0, is the first, second, ... of the question."""
    placeholders: int
    """How many there were."""
    form: Form


def place(text: str, images: int) -> Placed:
    """The text with its placeholders made into `IMAGE`, of which there must be one for each image, or none.

    Placeholders that are numbered order the images; the second mention of a number is words. Where all images come
    first anyway no mark is left.

    >>> place("<image>Find x.", 1).question
    'Find x.'
    >>> place("Is <image 2> in <image 1>? Look at <image 2>.", 2) == (
    ...     f"Is {IMAGE} in {IMAGE}? Look at image 1.", (1, 0), 3, "numbered"
    ... )
    True
    >>> place("<image> and <image>?", 1)
    Traceback (most recent call last):
    vergence.types.UserError: 2 placeholders for 1 image; write one '<image>' for each image, or none at all

    Raises:
        UserError: as many placeholders as images there are not; or the text holds a token of a model's own.
    """
    text = text.replace(IMAGE, "")
    refuse_tokens(text)
    marks = [found[1] for found in _MARK.finditer(text)]
    numbers = [int(number) for number in marks if number]
    if not marks:
        return Placed(text.strip(), tuple(range(images)), 0, "none")
    if numbers and len(numbers) < len(marks):
        raise UserError("some placeholders are numbered and some are not; number all of them, or none")
    order = list(dict.fromkeys(numbers)) or list(range(1, len(marks) + 1))
    if len(order) != images or sorted(order) != list(range(1, images + 1)):
        raise UserError(_mismatch(len(order), images, sorted(order) if numbers else []))
    seen: set[int] = set()

    def mark(found: re.Match[str]) -> str:
        number = int(found[1] or len(seen) + 1)
        if number in seen:
            return f"image {order.index(number) + 1}"
        seen.add(number)
        return IMAGE

    question = _MARK.sub(mark, text).strip()
    if re.match(rf"(?:{IMAGE}\s*){{{images}}}", question):
        question = question.replace(IMAGE, "").strip()
    return Placed(question, tuple(at - 1 for at in order), len(marks), "numbered" if numbers else "plain")


def refuse_tokens(text: str) -> None:
    """Refuse a text in which a tokenizer would see more than text.

    Raises:
        UserError: it holds a special token of some model, e.g. `<|im_start|>`.
    """
    found = _TOKEN.search(_MARK.sub("", text))
    if found:
        raise UserError(f"holds {found[0]!r}, which models read as a sign of their own; take it out of the text")


def _mismatch(placeholders: int, images: int, numbers: Sequence[int]) -> str:
    named = f" (numbers {', '.join(map(str, numbers))})" if numbers else ""
    counted = f"{placeholders} placeholder{'s'[: placeholders != 1]}{named} for {images} image{'s'[: images != 1]}"
    if images:
        return f"{counted}; write one {PLACEHOLDER!r} for each image, or none at all"
    return f"{counted}; give the image, or write 'the image' where the text only speaks of one"


def read_text(column: str, value: Any, kind: str = "text") -> str:
    """A text as a model may be shown it.

    Args:
        column: Where it stands.
        value: What stands there.
        kind: What should: "text".

    Raises:
        Unfit: it is none; or it is too long, or holds what is no text or a model would read as a sign.
    """
    if not isinstance(value, str):
        raise Unfit(column, f"must be {kind} in quotes, got {shown(value)}; write it so")
    if len(value) > LONGEST:
        raise Unfit(column, f"{len(value):,} characters long, more than the {LONGEST:,} that are taken; shorten it")
    if "\0" in value:
        raise Unfit(column, "holds a null character; take it out")
    try:
        value.encode()
    except UnicodeEncodeError as reason:
        raise Unfit(column, f"holds half of a surrogate pair ({value[reason.start]!r}); take it out") from reason
    try:
        refuse_tokens(value)
    except UserError as problem:
        raise Unfit(column, str(problem)) from problem
    return value.replace(IMAGE, "").strip()


def read_prompt(column: str, value: Any, *, answered: bool = True) -> tuple[str, list[Any]]:
    """The text of a prompt, and the images that stand in it.

    A text is itself. Of messages, a list or JSON for one, what the user says is taken; parts that are images become
    placeholders. A system message is left out: how to answer is said by the config's `wording`. So is what the
    assistant says last, if the answer stands in a column of its own (`answered`).

    >>> content = [{"type": "image"}, {"type": "text", "text": "How many?"}]
    >>> read_prompt("prompt", [{"role": "user", "content": content}])
    ('<image>How many?', [])

    Raises:
        Unfit: neither; or the user does not speak exactly once; or only the assistant's words hold an answer.
    """
    messages = unquoted(value)
    if isinstance(value, str) and not (isinstance(messages, list) and messages and isinstance(messages[0], dict)):
        return value, []
    value = messages
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        raise Unfit(column, f"must be text or a list of messages, got {shown(value)}; write the question")
    turns = [(one.get("role", one.get("from")), one.get("content", one.get("value"))) for one in value]
    turns = [(role, content) for role, content in turns if role != "system"]
    if len(turns) == 2 and turns[0][0] in ("user", "human") and turns[1][0] in ("assistant", "gpt"):
        if not answered:
            said = "ends in the assistant's words, which are not taken for the answer"
            raise Unfit(column, f"{said}; write the answer alone in a column 'answer'")
        turns = turns[:1]
    if len(turns) != 1 or turns[0][0] not in ("user", "human"):
        roles = ", ".join(shown(role) for role, _ in turns)
        raise Unfit(column, f"must be one message of the user's, got messages of {roles}; keep the one that asks")
    return _parts(column, turns[0][1])


def _parts(column: str, content: Any) -> tuple[str, list[Any]]:
    if isinstance(content, str):
        return content, []
    texts: list[str] = []
    images: list[Any] = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            texts.append(PLACEHOLDER)
            found = part.get("image") or part.get("image_url") or part.get("url")
            found = found.get("url") if isinstance(found, Mapping) and "url" in found else found
            images += [] if found is None else [found]
        else:
            raise Unfit(column, f"must have parts of type text or image, got {shown(part)}; take the others out")
    return "".join(texts), images


def with_choices(question: str, choices: Sequence[str]) -> str:
    """The question with its choices as lettered lines below, unless it holds them already.

    >>> print(with_choices("Who is taller?", ["Ann", "Bo"]))
    Who is taller?
    A. Ann
    B. Bo
    >>> with_choices("Who is taller? (A) Ann (B) Bo", ["Ann", "Bo"])
    'Who is taller? (A) Ann (B) Bo'
    """
    lettered = list(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", choices, strict=False))
    plain, said = " ".join(question.split()), [(letter, " ".join(text.split())) for letter, text in lettered]
    if all(text in plain for _, text in said) and all(  # what is not there is not looked for behind its letter
        re.search(rf"\b{letter}\s?[.):\]]\s?{re.escape(text)}", plain) for letter, text in said
    ):
        return question
    return "\n".join((question.rstrip(), *(f"{letter}. {text}" for letter, text in lettered)))


def shown(value: Any) -> str:
    """A value as an error shows it: short, and in JSON where that is possible.

    >>> shown(["a" * 100])[:20], shown(b"...")
    ('["aaaaaaaaaaaaaaaaaa', "b'...'")
    """
    try:
        return json.dumps(value)[:80]
    except RecursionError:
        return f"{type(value).__name__}s in each other, too deep to be shown"
    except (TypeError, ValueError):  # bytes, say, or a number of more digits than Python writes
        return _plainly(value)


def _plainly(value: Any) -> str:
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
