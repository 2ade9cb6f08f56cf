"""A policy: a Hugging Face image-text model with what reads for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vergence.models.folder import (
    BROKEN,
    PROCESSORS,
    SEEDLING,
    bars,
    locate,
    refuse_kernels,
    save_processor_names,
    share,
    why,
)
from vergence.models.lora import merged
from vergence.models.patches import project_by_product
from vergence.models.reader import Reader, limited
from vergence.types import Prompt, UserError

__all__ = ["SEEDLING", "Policy", "Reader", "load"]


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
        longest = max(len(prompt.tokens) for prompt in prompts)
        pad = self.reader.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(prompt.tokens)) + list(prompt.tokens) for prompt in prompts])
        attended = torch.tensor([[0] * (longest - len(p.tokens)) + [1] * len(p.tokens) for p in prompts])
        ids, attended = ids.to(self.device), attended.to(self.device)
        if token_BT is not None:
            ids = torch.cat([ids, token_BT.to(self.device).where(mask_BT.to(self.device), pad)], 1)
            attended = torch.cat([attended, mask_BT.to(self.device).long()], 1)
        merge = getattr(getattr(self.model.config, "vision_config", None), "spatial_merge_size", 1)
        shown = self.reader.shown(prompts, ids, merge=merge, pixels=pixels)
        shown = {
            name: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in shown.items()
        }
        return {"input_ids": ids, "attention_mask": attended, **shown}

    def logits(
        self, prompts: Sequence[Prompt], token_BT: Int[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        """The distribution before each response token, as logits; carries gradient to the weights."""
        together = self.reader.alike(prompts)
        if len(together) == 1:
            return self._logits(prompts, token_BT, mask_BT)
        parts = [self._logits([prompts[row] for row in rows], token_BT[rows], mask_BT[rows]) for rows in together]
        order = torch.tensor([row for rows in together for row in rows], device=self.device)
        return torch.cat(parts)[order.argsort()]

    def _logits(self, prompts: Sequence[Prompt], token_BT: Tensor, mask_BT: Tensor) -> Tensor:
        T = token_BT.shape[1]
        out = self.model(**self.inputs(prompts, token_BT, mask_BT), logits_to_keep=T + 1, use_cache=False)
        return out.logits[:, :-1]

    def save(self, folder: Path) -> None:
        """Write the Hugging Face layout: loadable by `from_pretrained` (and, with the processor files, by vLLM).

        Adapters are added into the weights, on the CPU: there may be no room for a second copy on the device.
        """
        with bars(shown=False):
            merged(self.model, device="cpu").save_pretrained(folder)
        share(folder)
        self.reader.save(folder)
        if self.model.config.model_type in PROCESSORS:
            save_processor_names(folder, self.reader.image_processor, self.model.config.model_type)


def load(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    min_pixels: int = 0,
    max_pixels: int = 0,
    trust_remote_code: bool = False,
    quantize: bool = False,
) -> Policy:
    """The policy in a folder (or of a Hub name), in Hugging Face layout. "seedling" is the one in the package.

    Args:
        min_pixels: smaller images are enlarged to so many; 0 leaves it to the model's image processor.
        max_pixels: larger images are shrunk to so many; 0 as above.
        trust_remote_code: whether Python code that lies beside the weights may be run.
        quantize: whether to keep the language model's weights in 4 bits (`models.quantized`).

    Raises:
        UserError: there is nothing, or it is no model that reads images and text, or its files are damaged or pickled.
    """
    try:
        from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2VLImageProcessorPil  # noqa: F401
    except ImportError as error:  # transformers imports a torchvision that it finds, and a wrong build of it fails
        raise UserError(
            f"transformers cannot import the Qwen-VL classes ({str(error).splitlines()[0]}). If torchvision is "
            "installed, it is of another build than torch; Vergence does not need it: pip uninstall torchvision"
        ) from error
    name, is_here = locate(path)
    how = _how(dtype, device, quantize)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        if not trust_remote_code:
            refuse_kernels(config, path)
        if config.model_type in PROCESSORS:
            how["attn_implementation"] = "sdpa"
        elif type(config) not in AutoModelForImageTextToText._model_mapping and not trust_remote_code:
            raise UserError(
                f"{path} holds a {config.model_type!r} model, which does not read images and text to answer in text; "
                "take a Qwen-VL model, or another that transformers has as AutoModelForImageTextToText"
            )
        with bars(shown=not is_here):
            reader = _reader(name, config, min_pixels, max_pixels, trust_remote_code)
            model, found = AutoModelForImageTextToText.from_pretrained(
                name, trust_remote_code=trust_remote_code, use_safetensors=True, output_loading_info=True, **how
            )
    except UserError:
        raise
    except BROKEN as error:
        raise UserError(f"cannot load the model at {path}: {why(error, path)}") from error
    if odd := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
        raise UserError(f"the weights at {path} are not those of its config.json: {len(odd)} do not fit, e.g. {odd[0]}")
    return Policy(project_by_product(model if quantize else model.to(device)).eval(), reader)


def _how(dtype: torch.dtype, device: str, quantize: bool) -> dict[str, Any]:
    """In what form the weights are loaded; the device is tried."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no device {device!r} here ({str(error).splitlines()[0]}); give --device cpu") from error
    if not quantize:
        return {"dtype": dtype}
    from vergence.models.quantized import four_bits

    return {"dtype": dtype, "quantization_config": four_bits(device), "device_map": {"": device}}


def _reader(name: str, config: Any, min_pixels: int, max_pixels: int, trusted: bool) -> Reader:
    """What reads for a model of this config."""
    from transformers import AutoProcessor, AutoTokenizer, Qwen2VLImageProcessorPil

    if config.model_type not in PROCESSORS:
        if min_pixels or max_pixels:
            raise UserError(
                f"--min-pixels and --max-pixels are limits of Qwen-VL's image processor, and this is a "
                f"{config.model_type!r} model: leave them out; its own processor says how large it sees images"
            )
        from vergence.models.others import read_with

        return read_with(AutoProcessor.from_pretrained(name, trust_remote_code=trusted, backend="pil"), config)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trusted)
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer at {name} has no chat template: take a model that was taught to answer (-Instruct, "
            "-Thinking), or put its chat_template.jinja beside its weights"
        )
    return Reader(tokenizer, limited(Qwen2VLImageProcessorPil.from_pretrained(name), min_pixels, max_pixels))
