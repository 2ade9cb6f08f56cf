"""Views that remove information."""

import numpy as np
from jaxtyping import Bool
from PIL import Image

from vergence.chance import rng


def erase(image: Image.Image, *key: int | str, fraction: float, cell: int) -> Image.Image:
    """A copy of the image with each `cell` x `cell` square (pixels) black with probability `fraction`.

    PAPO, arXiv:2507.06448, App. G.1, and `random_patch_blackening` of its released code: a grid over the raw image, one
    independent draw per square, row by row. So the number of black squares is binomial, and squares need not line up
    with the model's patches once the image is resized. The release draws from a global generator; here the key decides.

    >>> black = erase(Image.new("RGB", (6, 4), "white"), 0, fraction=1.0, cell=4)
    >>> black.size, black.getextrema()
    ((6, 4), ((0, 0), (0, 0), (0, 0)))
    """
    rows, columns = -(-image.height // cell), -(-image.width // cell)
    return erase_cells(image, rng("erase", *key).random((rows, columns)) < fraction, cell)


def erase_cells(image: Image.Image, black_HW: Bool[np.ndarray, "rows columns"], cell: int) -> Image.Image:
    """A copy of the image with the squares of `black_HW` black; at the right and lower edge squares are cut off."""
    black = black_HW.repeat(cell, 0).repeat(cell, 1)[: image.height, : image.width]
    pixels = np.asarray(image.convert("RGB"))
    return Image.fromarray(np.where(black[..., None], np.uint8(0), pixels))
