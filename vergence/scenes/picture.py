"""Opening a picture file as the policy shall see it: RGB, upright, on white."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vergence.types import UserError


def probe(path: Path) -> tuple[int, int]:
    """(width, height) of a picture, pixels, from its header alone.

    Raises:
        UserError: it is not a picture.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as reason:  # Pillow's readers raise whatever the bytes lead them to
        raise UserError(f"{path.name} is not a picture that Pillow can open ({reason})") from reason


def open_picture(path: Path) -> Image.Image:
    """The picture, RGB: turned as its EXIF orientation says, transparency over white, 16-bit greys scaled to 8.

    Raises:
        UserError: it cannot be decoded.
    """
    try:
        with Image.open(path) as stored:
            return _rgb(ImageOps.exif_transpose(stored))
    except Exception as reason:  # as above
        raise UserError(f"{path.name} cannot be decoded ({reason}); is the file complete?") from reason


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:  # dropping alpha would show whatever colour lies under it, mostly black
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    if image.mode.startswith("I"):  # Pillow would cut every grey above 255 to white
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
