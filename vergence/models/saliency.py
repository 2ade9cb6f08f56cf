"""What a vision encoder looks at: the attention that each patch of an image receives."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError

from vergence.types import UserError
from vergence.views import Saliency

ADVICE = "give a Vision Transformer with its image processor in Hugging Face layout, such as facebook/dinov2-base"


def layers(depth: int) -> slice:
    """The layers whose attention counts, of an encoder with `depth` of them.

    PAPO, App. G.2, names layers 6 to 9 of DINOv2, which are taken to be counted from 1. Of an encoder with fewer than
    9, those in its third quarter.

    >>> [list(range(1, depth + 1))[layers(depth)] for depth in (12, 8, 4, 2, 1)]
    [[6, 7, 8, 9], [5, 6], [3], [2], [1]]
    """
    return slice(5, 9) if depth >= 9 else slice(depth // 2, -(-3 * depth // 4))


def received(
    attention: Float[np.ndarray, "layers heads tokens tokens"], rows: int, columns: int
) -> Float[np.ndarray, "rows columns"]:
    """The attention that each patch receives from all patches: mean over layers and heads of the column sums.

    PAPO, arXiv:2507.06448, App. G.2. The tokens before the patches (CLS, registers) neither give nor receive.

    >>> received(np.array([[[[0.0, 1.0, 0.0], [0.0, 0.75, 0.25], [0.5, 0.25, 0.25]]]]), rows=1, columns=2).tolist()
    [[1.0, 0.5]]
    """
    first = attention.shape[-1] - rows * columns
    return attention[..., first:, first:].mean((0, 1)).sum(0).reshape(rows, columns)


def load_saliency(path: str | Path, device: str = "cpu") -> Saliency:
    """A function from an image to the attention that its patches receive in this encoder, for `views.Salient`.

    The encoder sees the whole image: where its processor would cut out the middle, it is resized to the size of that
    cut instead, so that the grid of patches covers the image. Needs no torchvision.

    Args:
        path: a folder or Hub name of a vision encoder that returns attentions (ViT, DINOv2 with or without registers).

    Raises:
        UserError: there is nothing, or it is not such an encoder, or its files are damaged.
    """
    if not Path(path).exists() and (str(path).startswith((".", "/", "~")) or str(path).count("/") != 1):
        raise UserError(f"no vision encoder at {path}; {ADVICE}")
    try:
        from transformers import AutoImageProcessor, AutoModel

        processor = AutoImageProcessor.from_pretrained(path, backend="pil")
        how = {"attn_implementation": "eager", "dtype": torch.float32, "use_safetensors": True}
        model = AutoModel.from_pretrained(path, trust_remote_code=False, **how).to(device).eval()
    except (ImportError, OSError, RuntimeError, KeyError, ValueError, AssertionError, SafetensorError) as error:
        raise UserError(
            f"cannot load a vision encoder from {path} ({str(error).strip().splitlines()[0]}); {ADVICE}"
        ) from error

    def saliency(image: Image.Image) -> Float[np.ndarray, "rows columns"]:
        return _look(model, processor, image)

    try:
        saliency(Image.new("RGB", (64, 64)))  # better now than in the first step
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(
            f"the model at {path}, a {model.config.model_type!r}, gives no attention between patches of an image "
            f"({str(error).strip().splitlines()[0]}); {ADVICE}"
        ) from error
    return saliency


@torch.no_grad()
def _look(model: Any, processor: Any, image: Image.Image) -> Float[np.ndarray, "rows columns"]:
    whole = {}
    if getattr(processor, "do_center_crop", False):
        size = processor.crop_size
        whole = {"do_center_crop": False, "size": {"height": size["height"], "width": size["width"]}}
    pixels = processor(images=[image.convert("RGB")], return_tensors="pt", **whole)["pixel_values"]
    patch = np.broadcast_to(model.config.patch_size, 2).tolist()
    rows, columns = (side // each for side, each in zip(pixels.shape[-2:], patch, strict=True))
    attentions = model(pixel_values=pixels.to(model.device), output_attentions=True).attentions
    if not attentions:
        raise ValueError("it returns no attentions")
    chosen = torch.cat(attentions[layers(len(attentions))])
    if chosen.ndim != 4 or chosen.shape[-1] < rows * columns:
        raise ValueError(f"its attention is not over the {rows} x {columns} patches: {list(chosen.shape)}")
    return received(chosen.cpu().numpy(), rows, columns)
