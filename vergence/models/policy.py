"""A policy: a Hugging Face image-text model of the Qwen-VL family with its tokenizer and image processor.

torchvision is not needed: the image processor is the PIL one, and the prompt is put together here (chat template, then
one image token per merged patch), which is what the family's own processor does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from safetensors import SafetensorError
from torch import Tensor

from vergence.models.agreement import check
from vergence.models.patches import project_by_product
from vergence.types import Prompt, UserError

SEEDLING = Path(__file__).parent / "seedling_files"
"""The policy that ships with the package."""

PROCESSORS = {
    "qwen2_vl": ("Qwen2VLVideoProcessor", "Qwen2VLProcessor"),
    "qwen2_5_vl": ("Qwen2VLVideoProcessor", "Qwen2_5_VLProcessor"),
    "qwen3_vl": ("Qwen3VLVideoProcessor", "Qwen3VLProcessor"),
}
"""The model types that can be trained, with the classes of their video processor and processor."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns messages and images into prompts, and tokens into text."""

    tokenizer: Any
    image_processor: Any
    image_token: str = "<|image_pad|>"
    video_token: str = "<|video_pad|>"

    @property
    def image_id(self) -> int:
        """The token that stands for one merged image patch."""
        return self.tokenizer.convert_tokens_to_ids(self.image_token)

    @property
    def eos_id(self) -> int:
        """The token that ends a response."""
        return self.tokenizer.eos_token_id

    @property
    def banned(self) -> tuple[int, ...]:
        """Tokens that must never be sampled: a response that holds an image token cannot be scored."""
        return self.image_id, self.tokenizer.convert_tokens_to_ids(self.video_token)

    @property
    def token_side(self) -> int:
        """Side of the square that one image token stands for, pixels of the image `as_seen`."""
        return self.image_processor.patch_size * self.image_processor.merge_size

    def as_seen(self, image: Image) -> Image:
        """The image, RGB, at the size to which the image processor brings it: a whole number of tokens to each side.

        To be given to `prompt` with resize=False: the processor's rule, applied to its own result, can change it again.

        Raises:
            UserError: the rule refuses the image (one side is more than 200 times the other).
        """
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        limits = self.image_processor.size
        try:
            height, width = smart_resize(
                image.height, image.width, self.token_side, limits["shortest_edge"], limits["longest_edge"]
            )
        except ValueError as error:
            raise UserError(
                f"the image processor refuses an image of {image.width}x{image.height} pixels: {error}"
            ) from error
        return image.convert("RGB").resize((width, height), self.image_processor.resample)

    def prompt(self, text: str, images: Sequence[Image], *, resize: bool = True) -> Prompt:
        """One user turn, ready to be answered: first the images, then the text.

        Args:
            resize: False for images that are `as_seen` already.

        Raises:
            UserError: the text itself holds an image token, which would no longer match the images.
        """
        if self.image_token in text or self.video_token in text:
            raise UserError(
                f"the question holds a literal {self.image_token} or {self.video_token}; remove it: {text!r}"
            )
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        if not images:
            return Prompt(tuple(self.tokenizer(chat, add_special_tokens=False)["input_ids"]))
        try:
            rgb, how = [image.convert("RGB") for image in images], {} if resize else {"do_resize": False}
            seen = self.image_processor(images=rgb, return_tensors="pt", **how)
        except ValueError as error:
            sizes = ", ".join(f"{image.width}x{image.height}" for image in images)
            raise UserError(f"the image processor refuses the image(s) of {sizes} pixels: {error}") from error
        grid = seen["image_grid_thw"]
        tokens_per_image = (grid.prod(-1) // self.image_processor.merge_size**2).tolist()
        before, *after = chat.split(self.image_token)
        spread = before + "".join(self.image_token * n + rest for n, rest in zip(tokens_per_image, after, strict=True))
        ids = self.tokenizer(spread, add_special_tokens=False)["input_ids"]
        return Prompt(tuple(ids), seen["pixel_values"], grid)

    def text(self, tokens: Sequence[int]) -> str:
        """A response in words, without the end-of-turn token."""
        return self.tokenizer.decode([token for token in tokens if token != self.eos_id], skip_special_tokens=False)


@dataclass(frozen=True, slots=True)
class Policy:
    """A model and its reader."""

    model: Any
    reader: Reader

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def inputs(
        self,
        prompts: Sequence[Prompt],
        token_BT: Int[Tensor, "B T"] | None = None,
        mask_BT: Bool[Tensor, "B T"] | None = None,
        *,
        pixels: bool = True,
    ) -> dict[str, Tensor]:
        """Arguments of the model's forward: prompts padded on the left, then responses, padded on the right.

        Args:
            pixels: False leaves the images' pixels out, for one who has their features already.

        Raises:
            UserError: a prompt's image tokens and the pixels of its images disagree.
        """
        check(prompts, image_id=self.reader.image_id, merge=self.model.config.vision_config.spatial_merge_size)
        longest = max(len(prompt.tokens) for prompt in prompts)
        pad = self.reader.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(prompt.tokens)) + list(prompt.tokens) for prompt in prompts])
        attended = torch.tensor([[0] * (longest - len(p.tokens)) + [1] * len(p.tokens) for p in prompts])
        ids, attended = ids.to(self.device), attended.to(self.device)
        if token_BT is not None:
            ids = torch.cat([ids, token_BT.to(self.device).where(mask_BT.to(self.device), pad)], 1)
            attended = torch.cat([attended, mask_BT.to(self.device).long()], 1)
        inputs = {
            "input_ids": ids,
            "attention_mask": attended,
            "mm_token_type_ids": (ids == self.reader.image_id).int(),
        }
        if any(prompt.pixels is not None for prompt in prompts):
            seen = [prompt for prompt in prompts if prompt.pixels is not None]
            if pixels:
                inputs["pixel_values"] = torch.cat([prompt.pixels for prompt in seen]).to(self.device, self.model.dtype)
            inputs["image_grid_thw"] = torch.cat([prompt.grid for prompt in seen]).to(self.device)
        return inputs

    def logits(
        self, prompts: Sequence[Prompt], token_BT: Int[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        """The distribution before each response token, as logits; carries gradient to the weights."""
        T = token_BT.shape[1]
        out = self.model(**self.inputs(prompts, token_BT, mask_BT), logits_to_keep=T + 1, use_cache=False)
        return out.logits[:, :-1]

    def save(self, folder: Path) -> None:
        """Write the Hugging Face layout: loadable by `from_pretrained` (and, with the processor files, by vLLM)."""
        with _bars(shown=False):
            self.model.save_pretrained(folder)
        self.reader.tokenizer.save_pretrained(folder)
        self.reader.image_processor.save_pretrained(folder)
        save_processor_names(folder, self.reader.image_processor, self.model.config.model_type)


@contextmanager
def _bars(*, shown: bool) -> Iterator[None]:
    """Leave Hugging Face's progress bars to downloads: a folder is read and written in no time."""
    from transformers.utils import logging

    were_shown = logging.is_progress_bar_enabled()
    if not shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()


def save_processor_names(folder: Path, image_processor: Any, kind: str) -> None:
    """Write video_preprocessor_config.json and processor_config.json, which engines ask for even for images alone.

    Written by hand because the family's video processor and processor classes need torchvision to be built.
    """
    video_class, processor_class = PROCESSORS[kind]
    size = {
        "shortest_edge": image_processor.size["shortest_edge"],
        "longest_edge": image_processor.size["longest_edge"],
    }
    video = {
        "video_processor_type": video_class,
        "patch_size": image_processor.patch_size,
        "merge_size": image_processor.merge_size,
        "temporal_patch_size": image_processor.temporal_patch_size,
        "image_mean": list(image_processor.image_mean),
        "image_std": list(image_processor.image_std),
        "size": size,
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n")
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": processor_class}, indent=2) + "\n")


def load(path: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Policy:
    """The policy in a folder (or of a Hub name), in Hugging Face layout. "seedling" is the one in the package.

    Raises:
        UserError: there is nothing, or it is not a Qwen-VL model, or its files are damaged.
    """
    try:
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, Qwen2VLImageProcessorPil
    except ImportError as error:  # transformers imports a torchvision that it finds, and a wrong build of it fails
        raise UserError(
            f"transformers cannot import the Qwen-VL classes ({str(error).splitlines()[0]}). If torchvision is "
            "installed, it is of another build than torch; Vergence does not need it: pip uninstall torchvision"
        ) from error
    where = SEEDLING if str(path) == "seedling" else Path(path)
    looks_local = where.exists() or str(path).startswith((".", "/", "~")) or str(path).count("/") != 1
    if looks_local and not (where / "config.json").exists():
        raise UserError(
            f"no model at {path}: {where / 'config.json'} is missing; "
            "give a folder in Hugging Face layout, or 'seedling'"
        )
    name = str(where if looks_local else path)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no device {device!r} here ({str(error).splitlines()[0]}); give --device cpu") from error
    try:
        kind = AutoConfig.from_pretrained(name).model_type
        if kind not in PROCESSORS:
            raise UserError(
                f"{path} holds a {kind!r} model; Vergence trains the Qwen-VL family ({', '.join(PROCESSORS)})"
            )
        with _bars(shown=not looks_local):
            model, found = AutoModelForImageTextToText.from_pretrained(
                name, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(name)
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(name)
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
        raise UserError(f"cannot load the model at {path}: {str(error).splitlines()[0]}") from error
    if odd := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
        raise UserError(f"the weights at {path} are not those of its config.json: {len(odd)} do not fit, e.g. {odd[0]}")
    return Policy(project_by_product(model.to(device).eval()), Reader(tokenizer, image_processor))
