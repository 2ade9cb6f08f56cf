"""Showing an image in another way. `show` carries out a `ViewSpec`; the same key gives the same pixels."""

from PIL.Image import Image

from vergence.types import Blank, Erase, Original, ViewSpec
from vergence.views.blank import blank
from vergence.views.erase import erase


def show(spec: ViewSpec, image: Image, *key: int | str) -> Image:
    """The image, which is RGB as those of every source, as the view shows it: same size, RGB.

    >>> from PIL import Image as pil
    >>> show(Blank(level=7), pil.new("RGB", (2, 1), "red"), 0).getpixel((0, 0))
    (7, 7, 7)
    """
    match spec:
        case Original():
            return image
        case Erase(fraction, cell):
            return erase(image, *key, fraction=fraction, cell=cell)
        case Blank(level):
            return blank(image, level=level)
