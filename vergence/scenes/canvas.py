"""Drawing: small pictures of 48 x 48 pixels, three rows and three columns of cells, with keyed jitter and noise.

Each element draws its jitter from its own key, so changing one fact of a scene changes only that fact's pixels.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from vergence.chance import dice, key, rng

CELL = 16
"""Side of a cell, pixels."""
SIDE = 3 * CELL
"""Side of a picture, pixels."""

COLOURS = {
    "red": (215, 45, 45),
    "green": (45, 165, 65),
    "blue": (55, 85, 215),
    "yellow": (228, 200, 45),
    "purple": (150, 65, 180),
    "orange": (240, 130, 30),
}
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
NOVEL_COLOUR, NOVEL_SHAPE = "orange", "diamond"
"""Left out of the warm start and of training by default, to be met in out-of-domain evaluation."""

_GLYPHS = {  # 5 x 7, one row of five bits per hex pair: printed labels, unlike the handwriting of `digits`
    "0": "0e11131519110e", "1": "040c040404040e", "2": "0e11010608101f", "3": "0e11010601110e", "4": "02060a121f0202",
    "5": "1f101e0101110e", "6": "0608101e11110e", "7": "1f010204080808", "8": "0e11110e11110e", "9": "0e11110f01020c",
    "x": "000011" + "0a040a11",
}  # fmt: skip


def paper(*parts: int | str) -> Image.Image:
    """An empty light background whose shade depends on the key."""
    shade = dice(*parts, "paper").randint(225, 255)
    return Image.new("RGB", (SIDE, SIDE), (shade, shade, shade))


def ink(colour: str, *parts: int | str) -> tuple[int, int, int]:
    """A colour's value, varied by the key."""
    die = dice(*parts, "ink")
    return tuple(max(0, min(255, channel + die.randint(-20, 20))) for channel in COLOURS[colour])


def draw_shape(image: Image.Image, row: int, column: int, words: str, *parts: int | str) -> None:
    """Draw e.g. "red circle" into a cell, at a keyed place and size."""
    colour, shape = words.split()
    die = dice(*parts, "shape")
    left, top, size = column * CELL + die.randint(1, 3), row * CELL + die.randint(1, 3), die.randint(10, 12)
    right, bottom, third = left + size, top + size, size // 3
    pen, fill = ImageDraw.Draw(image), ink(colour, *parts)
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    if shape == "circle":
        pen.ellipse([left, top, right, bottom], fill=fill)
    elif shape == "square":
        pen.rectangle([left, top, right, bottom], fill=fill)
    elif shape == "triangle":
        pen.polygon([(left, bottom), (right, bottom), (middle_x, top)], fill=fill)
    elif shape == "diamond":
        pen.polygon([(middle_x, top), (right, middle_y), (middle_x, bottom), (left, middle_y)], fill=fill)
    else:
        pen.rectangle([left + third, top, right - third, bottom], fill=fill)
        pen.rectangle([left, top + third, right, bottom - third], fill=fill)


def draw_digit(image: Image.Image, row: int, column: int, digit: int, split: str, *parts: int | str) -> None:
    """Draw a handwritten digit of this split into a cell: scikit-learn's digits (UCI, E. Alpaydin and C. Kaynak)."""
    die = dice(*parts, "digit")
    strokes = die.choice(handwriting(split)[digit])
    glyph = Image.fromarray(strokes).resize((CELL - 1, CELL - 1), Image.Resampling.BILINEAR)
    dark = die.randint(0, 70)
    place = (column * CELL + die.randint(0, 1), row * CELL + die.randint(0, 1))
    image.paste((dark, dark, dark), place, mask=glyph)


def draw_label(image: Image.Image, text: str, left: int, top: int) -> None:
    """Print a label in a 5 x 7 font, six pixels a character."""
    pixels = image.load()
    for position, character in enumerate(text):
        rows = bytes.fromhex(_GLYPHS[character])
        for y, bits in enumerate(rows):
            for x in range(5):
                if bits >> (4 - x) & 1:
                    pixels[left + 6 * position + x, top + y] = (20, 20, 20)


def grain(image: Image.Image, *parts: int | str) -> Image.Image:
    """The picture with keyed pixel noise (standard deviation 4 of 255), the same for the same key."""
    noise = rng(*parts, "grain").normal(0.0, 4.0, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))


@cache
def handwriting(split: str) -> dict[int, list[np.ndarray]]:
    """Scikit-learn's 1,797 handwritten digits that belong to a split: 70 % train, 15 % tune, 15 % report, by image.

    Returns:
        digit -> images of 8 x 8, 0 .. 255, white on black. No image is in two splits.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen: dict[int, list[np.ndarray]] = {digit: [] for digit in range(10)}
    for pixels, digit in zip(data.images, data.target, strict=True):
        strokes = np.clip(pixels * 16, 0, 255).astype(np.uint8)
        share = key("handwriting", strokes.tobytes().hex()) % 100
        if split == ("train" if share < 70 else "tune" if share < 85 else "report"):
            chosen[int(digit)].append(strokes)
    return chosen
