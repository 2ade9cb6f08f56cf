"""Removing what a vision encoder looks at (PAPO's semantic masking)."""

from collections.abc import Callable
from math import floor

import numpy as np
from jaxtyping import Float
from PIL import Image

Saliency = Callable[[Image.Image], Float[np.ndarray, "rows columns"]]
"""How much attention each patch of an image receives: a grid of patches that covers the image. The larger the more."""


def erase_salient(image: Image.Image, saliency: Saliency, *, fraction: float) -> Image.Image:
    """A copy of the image with the floor(fraction x patches) most salient patches black.

    PAPO, arXiv:2507.06448, App. G.2. Nothing is drawn: the same image gives the same pixels. Of equally salient patches
    the first in reading order goes first. The grid is stretched over the image, whatever its proportions.

    >>> shown = erase_salient(Image.new("RGB", (4, 2), "white"), lambda image: np.array([[1.0, 3.0]]), fraction=0.5)
    >>> np.asarray(shown)[:, :, 0].tolist()
    [[255, 255, 0, 0], [255, 255, 0, 0]]
    """
    salience = saliency(image)
    rows, columns = salience.shape
    number = floor(fraction * salience.size + 1e-9)  # 0.29 * 100 is 28.999999999999996
    black = np.zeros(salience.size, bool)
    black[np.argsort(-salience, axis=None, kind="stable")[:number]] = True
    row = np.arange(image.height) * rows // image.height
    column = np.arange(image.width) * columns // image.width
    return Image.fromarray(np.where(black.reshape(rows, columns)[row][:, column, None], np.uint8(0), np.asarray(image)))
