"""CPPO's views that remove information: part of the image behind noise, or outside of the crop."""

import numpy as np
from PIL import Image

from vergence.chance import rng


def occlude(image: Image.Image, *key: int | str, boxes: int, smallest: float, largest: float) -> Image.Image:
    """A copy of the image with `boxes` rectangles of uniform noise at random places, wholly inside the image.

    `RandomOcclusion` of CPPO's released code (50 boxes of 5 to 15 %), which covers 0.369 of an image on average,
    standard deviation 0.023. Each side is its own uniform share of the image's, in whole pixels, rounded down: an image
    of a few pixels may stay as it is.

    >>> shown = occlude(Image.new("RGB", (20, 10)), 0, boxes=1, smallest=0.5, largest=0.5)
    >>> shown.size, sum(pixel != (0, 0, 0) for row in np.asarray(shown).tolist() for pixel in map(tuple, row))
    ((20, 10), 50)
    """
    draw = rng("occlude", *key)
    covered = np.zeros((image.height, image.width), bool)
    for _ in range(boxes):
        width, height = (int(draw.uniform(smallest, largest) * side) for side in image.size)
        left, top = draw.integers(image.width - width + 1), draw.integers(image.height - height + 1)
        covered[top : top + height, left : left + width] = True
    hidden = draw.integers(0, 256, (*covered.shape, 3), dtype=np.uint8)
    return Image.fromarray(np.where(covered[..., None], hidden, np.asarray(image)))


def zoom(image: Image.Image, *key: int | str, smallest: float, largest: float) -> Image.Image:
    """A crop at a random place, resized back to the image's size (bilinear).

    `RandomZoomCrop` of CPPO's released code: one share, uniform in [0.6, 0.7], for both sides, so 0.36 to 0.49 of the
    area is left.

    >>> zoom(Image.linear_gradient("L").convert("RGB"), 0, smallest=0.5, largest=0.5).size
    (256, 256)
    """
    draw = rng("zoom", *key)
    share = draw.uniform(smallest, largest)
    width, height = (max(1, int(share * side)) for side in image.size)
    left, top = int(draw.integers(image.width - width + 1)), int(draw.integers(image.height - height + 1))
    crop = image.crop((left, top, left + width, top + height))
    return crop.resize(image.size, Image.Resampling.BILINEAR)
