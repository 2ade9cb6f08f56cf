"""What the vision tower says about images: once for each distinct one, and once for ever where the tower is frozen."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from vergence.types import Prompt

KEPT = 2**28
"""Bytes of features of a frozen tower that are kept: 64,000 image tokens at 2048 numbers of bfloat16."""


class Features(NamedTuple):
    """Of some images, image after image: one row for each image token."""

    embedded: Float[Tensor, "N D"]
    deepstack: tuple[Float[Tensor, "N D"], ...]
    """For the first layers of the language model (Qwen3-VL); empty elsewhere."""


class Image(NamedTuple):
    """One image of a prompt."""

    digest: bytes
    """Of its pixels and its grid: what it is known by."""
    pixels: Float[Tensor, "patches numbers"]
    grid: Int[Tensor, " 3"]


class Images:
    """The features of prompts' images under one model, which is not asked twice about the same image."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self._digests = WeakIdKeyDictionary()  # of the images of a prompt, by its pixels: each is digested once
        self._kept: OrderedDict[bytes, Features] = OrderedDict()
        self._seen_with: list[tuple[int, int, bool]] = []

    @property
    def frozen(self) -> bool:
        """Whether the tower's features can be kept: none of its weights learns."""
        return not any(weight.requires_grad for weight in self.core.visual.parameters())

    def features(self, prompts: Sequence[Prompt]) -> Features:
        """Of all images of the prompts, in order; carries gradient to the tower if it learns."""
        if (weights := self._weights()) != self._seen_with:
            self._seen_with = weights
            self._kept.clear()
        shown = [image for prompt in prompts if prompt.pixels is not None for image in self._images(prompt)]
        known = {image.digest: self._kept[image.digest] for image in shown if image.digest in self._kept}
        if new := list({image.digest: image for image in shown if image.digest not in known}.values()):
            known |= zip((image.digest for image in new), self._look(new), strict=True)
        if self.frozen:
            self._keep(known)
        chosen = [known[image.digest] for image in shown]
        deepstack = zip(*(one.deepstack for one in chosen), strict=True)
        return Features(torch.cat([one.embedded for one in chosen]), tuple(map(torch.cat, deepstack)))

    def _weights(self) -> list[tuple[int, int, bool]]:
        """What changes when the tower's weights are written to, or begin to learn."""
        return [(weight.data_ptr(), weight._version, weight.requires_grad) for weight in self.core.visual.parameters()]

    def _images(self, prompt: Prompt) -> list[Image]:
        parts = prompt.pixels.split(prompt.grid.prod(-1).tolist())
        if prompt.pixels not in self._digests:
            self._digests[prompt.pixels] = [*map(_digest, parts, prompt.grid)]
        return [Image(*one) for one in zip(self._digests[prompt.pixels], parts, prompt.grid, strict=True)]

    def _look(self, images: Sequence[Image]) -> list[Features]:
        weight = next(self.core.visual.parameters())
        pixels = torch.cat([image.pixels for image in images]).to(weight.device, weight.dtype)
        grid = torch.stack([image.grid for image in images]).to(weight.device)
        seen = self.core.get_image_features(pixels, grid, return_dict=True)
        sizes = (grid.prod(-1) // self.core.visual.spatial_merge_size**2).tolist()
        # some versions give the features of a layer image by image, some in one piece
        layers = getattr(seen, "deepstack_features", None) or ()
        layers = [layer.split(sizes) if isinstance(layer, Tensor) else layer for layer in layers]
        return [
            Features(embedded, tuple(layer[at] for layer in layers)) for at, embedded in enumerate(seen.pooler_output)
        ]

    def _keep(self, known: Mapping[bytes, Features]) -> None:
        """Keep these, which carry no gradient, and forget those that were not asked for longest, but for these."""
        for digest, features in known.items():
            if digest not in self._kept:  # a copy: what the tower gave is a part of what it gave for all
                self._kept[digest] = Features(features[0].clone(), tuple(layer.clone() for layer in features[1]))
            self._kept.move_to_end(digest)
        held = sum(map(_size, self._kept.values()))
        while held > KEPT and len(self._kept) > len(known):
            held -= _size(self._kept.popitem(last=False)[1])


def _digest(pixels: Tensor, grid: Tensor) -> bytes:
    seen = hashlib.blake2b(repr((grid.tolist(), pixels.dtype)).encode(), digest_size=16)
    seen.update(pixels.cpu().contiguous().view(torch.uint8).numpy())
    return seen.digest()


def _size(features: Features) -> int:
    return sum(x.numel() * x.element_size() for x in (features.embedded, *features.deepstack))
