"""What TRL's trainer is handed: scenes as a data set in its columns, and a processor for a policy's own reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from PIL.Image import Image
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin

from vergence.models.folder import PROCESSORS, save_processor_names
from vergence.models.policy import Policy
from vergence.models.reader import Reader, content
from vergence.rollout.render import Ask, put
from vergence.types import Scene, UserError, Wording


def dataset_of(scenes: Iterable[Scene], *, wording: Wording = "short", ask: Ask = "answer") -> Any:
    """The scenes as a `datasets.Dataset` with TRL's columns: `prompt` (a conversation), `images` and `solution`.

    Beside them stand `question`, without the wording, `kind` and `choices` of the answer, `caption` and `key`. Images
    are PIL, and stay what they are, pixel for pixel. Whatever else the scenes have is left out.

    Args:
        scenes: each with at least one image, all of them or none.
        wording: how the question is put to the model.
        ask: whether it is to answer, or to write a caption.

    Raises:
        UserError: there are no scenes.

    >>> from vergence.scenes.embedded import draw_many
    >>> row = dataset_of(draw_many(("digits",), "train", 1, start=0, seed=0))[0]
    >>> row["prompt"][0]["role"], [part["type"] for part in row["prompt"][0]["content"]], row["images"][0].mode
    ('user', ['image', 'text'], 'RGB')
    """
    from datasets import Dataset

    if not (rows := [_row(scene, wording, ask) for scene in scenes]):
        raise UserError("there are no scenes to make a data set of: give at least one")
    return Dataset.from_list(rows)


def _row(scene: Scene, wording: Wording, ask: Ask) -> dict[str, Any]:
    parts = content(put(scene.question, ask=ask, wording=wording), len(scene.images))
    return {
        "prompt": [{"role": "user", "content": parts}],
        "images": list(scene.images),
        "question": scene.question,
        "solution": scene.gold.text,
        "kind": scene.gold.kind,
        "choices": list(scene.gold.choices),
        "caption": scene.caption,
        "key": scene.key,
    }


def processor_of(policy: Policy) -> ProcessorMixin:
    """A processor that reads as the policy's reader does, for a trainer that wants one; torchvision is not needed.

    It takes text and images, no videos. What it saves is what `Policy.save` writes beside the weights.

    Raises:
        UserError: the policy is no Qwen-VL: such a one comes with a processor of its own, to be given instead.

    >>> from vergence.models.policy import load
    >>> processor_of(load("seedling"))(text=["What is it?"])["input_ids"][0][:1] != []
    True
    """
    kind = policy.model.config.model_type
    if kind not in PROCESSORS:
        raise UserError(f"a {kind!r} model reads with its own processor: give AutoProcessor.from_pretrained(...)")
    return ImagesAndText(policy.reader, kind)


class ImagesAndText(ProcessorMixin):
    """The processor of the Qwen-VL family, put together of a `Reader`: images and text, no videos.

    Args:
        reader: tokenizer, image processor, and the token that stands for an image.
        kind: the model type, for the files that `save_pretrained` writes.
    """

    def __init__(self, reader: Reader, kind: str) -> None:
        self.reader, self.kind = reader, kind
        self.tokenizer, self.image_processor = reader.tokenizer, reader.image_processor
        self.image_token, self.image_token_id = reader.image_token, reader.image_id
        self.chat_template = reader.tokenizer.chat_template

    @classmethod
    def get_attributes(cls) -> list[str]:
        """What it is made of."""
        return ["image_processor", "tokenizer"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind})"

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        tools: Any = None,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        padding: bool = False,
        **kwargs: Any,
    ) -> Any:
        """One conversation or several in the template's words: as text, as token ids, or as everything a model takes.

        Images are those of the parts `{"type": "image", "image": ...}`.
        """
        several = not isinstance(conversation[0], dict)
        many = list(conversation) if several else [conversation]
        how = {"chat_template": chat_template, "tools": tools, "tokenize": False, **kwargs}
        texts = [self.tokenizer.apply_chat_template(one, **how) for one in many]
        if not tokenize:
            return texts if several else texts[0]
        made = self(images=[images_in(one) for one in many], text=texts, padding=padding, return_tensors=return_tensors)
        return made if return_dict else made["input_ids"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        padding: bool = False,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchFeature:
        """Token ids, attention masks, and of images their patches, grids and which tokens stand for them.

        Args:
            images: of each text a list of images, or None.
            padding: whether shorter rows are padded, on the left.

        Raises:
            UserError: the images are not as many as their places in the text.
        """
        texts = [text] if isinstance(text, str) else list(text or ())
        shown = [[image.convert("RGB") for image in some or ()] for some in images or [()] * len(texts)]
        seen = (
            self.image_processor(images=[one for some in shown for one in some], return_tensors="pt")
            if any(shown)
            else {}
        )
        tokens = iter((seen["image_grid_thw"].prod(-1) // self.image_processor.merge_size**2).tolist() if seen else ())
        spread = [self._spread(one, [next(tokens) for _ in some]) for one, some in zip(texts, shown, strict=True)]
        ids = [self.tokenizer(one, add_special_tokens=False)["input_ids"] for one in spread]
        mask = [[1] * len(row) for row in ids]
        if padding:
            longest = max(map(len, ids))
            pad = self.tokenizer.pad_token_id
            mask = [[0] * (longest - len(row)) + ones for row, ones in zip(ids, mask, strict=True)]
            ids = [[pad] * (longest - len(row)) + row for row in ids]
        made = {"input_ids": ids, "attention_mask": mask}
        made["mm_token_type_ids"] = [[int(token == self.image_token_id) for token in row] for row in ids]
        if return_tensors:
            made = {name: torch.tensor(rows) for name, rows in made.items()}
        return BatchFeature({**made, **{name: seen[name] for name in ("pixel_values", "image_grid_thw") if seen}})

    def _spread(self, text: str, tokens: Sequence[int]) -> str:
        """The text with as many image tokens in each image's place as the image has."""
        before, *after = text.split(self.image_token)
        if len(after) != len(tokens):
            raise UserError(f"the text has {len(after)} place(s) for images, and {len(tokens)} image(s) are given")
        return before + "".join(self.image_token * n + rest for n, rest in zip(tokens, after, strict=True))

    def batch_decode(self, token_ids: Int[Tensor, "B T"] | Sequence[Sequence[int]], **kwargs: Any) -> list[str]:
        """Each row in words."""
        return self.tokenizer.batch_decode(token_ids, **kwargs)

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """A row in words."""
        return self.tokenizer.decode(token_ids, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """What it gives."""
        return ["input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw"]

    def save_pretrained(self, save_directory: Any, **_: Any) -> list[str]:
        """Write what a policy's checkpoint has beside its weights."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.reader.save(folder)
        save_processor_names(folder, self.image_processor, self.kind)
        return sorted(str(file) for file in folder.iterdir())


def images_in(messages: Iterable[dict[str, Any]]) -> list[Image]:
    """The images of a conversation, in order.

    >>> images_in([{"role": "user", "content": "How many?"}])
    []
    """
    parts = [part for message in messages for part in message["content"] if isinstance(part, dict)]
    return [part["image"] for part in parts if part["type"] == "image"]
