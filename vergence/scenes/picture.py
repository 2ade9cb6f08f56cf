"""Opening a picture as the policy shall see it: RGB, upright, on white; and nothing that would hurt to open.

A picture is a file, the bytes of one, or an image of Pillow's. Pillow's settings are left as they are, and nothing here
is shared between threads.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from vergence.scenes.tokens import NARROWEST
from vergence.types import UserError

Stored = Path | bytes | Image.Image
"""A picture file, its bytes, or an image that is open."""

MOST_PIXELS = 1024**3 // 12
"""A larger picture is not decoded: 89.5 million pixels, where Pillow begins to suspect a decompression bomb."""
MOST_TOGETHER = 1024**3 // 3
"""Pictures of one question with more pixels in all are not decoded: 358 million, a GiB in RGB."""
MOST_BYTES = 2**26
"""A larger file is not read: 64 MiB."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is opened, by Pillow's names. Not among them are those whose readers start other programs (EPS)."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientations, and what puts each upright."""


class Head(NamedTuple):
    """What is known of a picture without decoding it."""

    width: int
    """Pixels, as shown: once it is upright."""
    height: int
    format: str
    """Pillow's name of the format; empty for an image that was open."""
    mode: str
    """Pillow's name of how its pixels are stored."""
    bytes: int
    digest: str
    """SHA-256 of the file's bytes; of size and pixels for an image that was open."""


def examine(stored: Stored) -> Head:
    """The head of a picture. Its bytes are read for the digest, its pixels are not decoded.

    Raises:
        UserError: it is no picture, has too many bytes or pixels, or is too narrow for any model.
    """
    source = stored if isinstance(stored, Image.Image) else _data(stored)
    with _opened(source, _name(stored)) as image:
        width, height = image.size[::-1] if _orientation(image) > 4 else image.size
        data = f"{image.mode} {image.size} ".encode() + image.tobytes() if source is image else source
        return Head(width, height, image.format or "", image.mode, len(data), sha256(data).hexdigest())


def open_picture(stored: Stored) -> Image.Image:
    """The picture in RGB, its first frame if it moves: turned as its EXIF orientation says, transparency over white,
    deep greys scaled to 8 bits.

    Raises:
        UserError: see `examine`; or it cannot be decoded, as when its end is missing.
    """
    with _opened(stored if isinstance(stored, Image.Image) else _data(stored), _name(stored)) as image:
        try:
            image.load()
            turn = UPRIGHT.get(_orientation(image))
            upright = image if turn is None else image.transpose(turn)
            return _rgb(upright)
        except Exception as reason:  # Pillow's readers raise whatever the bytes lead them to
            raise UserError(f"{_name(stored)} cannot be decoded ({_said(reason)}); is the file complete?") from reason


def _data(stored: Path | bytes) -> bytes:
    try:
        found, size = _read(stored) if isinstance(stored, Path) else (stored, len(stored))
    except OSError as reason:
        raise UserError(f"{_name(stored)} cannot be read ({reason.strerror}); is it there, and yours?") from reason
    if size > MOST_BYTES:
        raise UserError(f"{_name(stored)} has {size:,} bytes, more than the {MOST_BYTES:,} that are read; shrink it")
    return found


def _read(path: Path) -> tuple[bytes, int]:
    """A file's bytes, and how many it has; no more than are bounded are read."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, and a device never ends
        raise UserError(f"{path.name} is a device, a pipe or a folder; name a picture file")
    if about.st_size > MOST_BYTES:
        return b"", about.st_size
    with path.open("rb") as file:  # which may grow, or be one of the system's that do not say their size
        found = file.read(MOST_BYTES + 1)
    return found, len(found)


@contextmanager
def _opened(stored: bytes | Image.Image, name: str) -> Iterator[Image.Image]:
    try:
        image = stored if isinstance(stored, Image.Image) else Image.open(BytesIO(stored), formats=_formats())
    except Image.DecompressionBombError as reason:
        found = re.search(r"[0-9]+", str(reason))  # Pillow's own bound is twice ours
        size = f"{int(found[0]):,} pixels" if found else "it says so"
        raise UserError(f"{name} is too large to be decoded ({size}, {MOST_PIXELS:,} go); shrink it") from reason
    except Exception as reason:  # as above
        said = "it has the head of none" if isinstance(reason, UnidentifiedImageError) else _said(reason)
        raise UserError(f"{name} is not a picture that Pillow can open ({said}); save it as PNG or JPEG") from reason
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UserError(f"{name} is too large to be decoded ({width * height:,} pixels, {MOST_PIXELS:,} go); shrink it")
    if max(width, height) > NARROWEST * min(width, height):
        raise UserError(
            f"{name} is too narrow ({width}x{height}; Qwen-VL takes up to {NARROWEST} to 1); crop it, or pad it"
        )
    yield image


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 if there is none; a damaged one must not cost the picture."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1  # Pillow turns the former by itself, and would decode the latter to look for it
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(image)
    if image.has_transparency_data:  # dropping alpha would show whatever colour lies under it, mostly black
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Whole numbers are shades of 16 bits, others lie in [0, 1] or else [0, 255]; Pillow would cut them at 255."""
    shade = np.nan_to_num(np.asarray(image).astype(np.float32))
    if image.mode != "F":
        shade = shade.clip(0, 65535) // 256
    elif shade.max() <= 1:
        shade = shade * 255
    return Image.fromarray(shade.clip(0, 255).astype(np.uint8)).convert("RGB")


def _name(stored: Stored) -> str:
    return stored.name if isinstance(stored, Path) else "the picture"


def _said(reason: Exception) -> str:
    return " ".join(str(reason).split()).replace(";", ",")[:200]
