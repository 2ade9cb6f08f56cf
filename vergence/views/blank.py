"""The view without any information: how much is answered without looking at all?"""

from PIL import Image


def blank(image: Image.Image, *, level: int) -> Image.Image:
    """An image of the same size in one grey.

    >>> blank(Image.new("RGB", (3, 2)), level=128).getcolors()
    [(6, (128, 128, 128))]
    """
    return Image.new("RGB", image.size, (level, level, level))
