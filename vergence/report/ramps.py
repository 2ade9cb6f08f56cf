"""Colours for numbers: two named ramps, each for light and for dark pages.

A ramp is a straight line in OKLab, cut into equal parts: equal differences of a number are then equal differences to
the eye, by that space's measure. `petrol` is of one hue and goes by lightness alone; `rust to petrol` has two arms,
orange and blue, which people who confuse red and green can tell apart. Each colour comes with one for the letters upon
it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Theme = Literal["light", "dark"]

STEPS = 17
"""Colours of a ramp; the middle one of `rust to petrol` is zero."""
_ENDS: dict[Theme, tuple[str, str, str]] = {
    "light": ("#9a3a0c", "#ffffff", "#004e6b"),
    "dark": ("#ffb183", "#1f201e", "#a5def2"),
}
"""(the far end below zero, nothing, the far end above it)"""
_LETTERS: dict[Theme, tuple[str, ...]] = {
    "light": ("#1f1e1b", "#ffffff", "#000000"),
    "dark": ("#e9e6de", "#000000", "#ffffff"),
}
LEGIBLE = 4.5
"""The least contrast of letters, WCAG 2.2, 1.4.3."""

# Ottosson (2020), "A perceptual color space for image processing": linear sRGB -> cone responses -> OKLab
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


class Colour(NamedTuple):
    """A colour, and one for letters upon it that has a contrast of at least 4.5."""

    ground: str
    letters: str


def petrol(theme: Theme) -> list[Colour]:
    """The ramp for numbers of one sign, from nothing to much.

    >>> petrol("light")[0], len(petrol("dark"))
    (Colour(ground='#ffffff', letters='#1f1e1b'), 17)
    """
    _, nothing, much = _ENDS[theme]
    return [_with_letters(one, theme) for one in _line(nothing, much, STEPS)]


def rust_to_petrol(theme: Theme) -> list[Colour]:
    """The ramp for numbers of both signs; zero is in the middle.

    >>> rust_to_petrol("light")[8].ground
    '#ffffff'
    """
    below, nothing, above = _ENDS[theme]
    half = STEPS // 2 + 1
    both = [*_line(nothing, below, half)[:0:-1], *_line(nothing, above, half)]
    return [_with_letters(one, theme) for one in both]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21: (lighter + 0.05) / (darker + 0.05) of their luminances, WCAG 2.2.

    >>> round(contrast("#000000", "#ffffff"), 6), contrast("#123456", "#123456")
    (21.0, 1.0)
    """
    light = sorted(float(_linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def oklab(colour: str) -> np.ndarray:
    """(lightness, green to red, blue to yellow) of a colour, in OKLab.

    >>> bool(abs(oklab("#ffffff") - [1.0, 0.0, 0.0]).max() < 1e-6)
    True
    """
    return _TO_LAB @ np.cbrt(_TO_CONES @ _linear(colour))


def style() -> str:
    """The rules of a style sheet: `.s0` to `.s16` for `petrol`, `.d0` to `.d16` for `rust to petrol`."""
    rules = []
    for letter, ramp in (("s", petrol), ("d", rust_to_petrol)):
        for step, (light, dark) in enumerate(zip(ramp("light"), ramp("dark"), strict=True)):
            rules.append(
                f".{letter}{step}{{background:light-dark({light.ground},{dark.ground});"
                f"color:light-dark({light.letters},{dark.letters})}}"
            )
    return "\n".join(rules)


def _line(start: str, end: str, number: int) -> list[str]:
    return [_of_oklab(lab) for lab in np.linspace(oklab(start), oklab(end), number)]


def _with_letters(ground: str, theme: Theme) -> Colour:
    return Colour(ground, next(one for one in _LETTERS[theme] if contrast(one, ground) >= LEGIBLE))


def _linear(colour: str) -> np.ndarray:
    """Linear sRGB from '#rrggbb'."""
    value = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _of_oklab(lab: np.ndarray) -> str:
    linear = np.linalg.inv(_TO_CONES) @ (np.linalg.inv(_TO_LAB) @ lab) ** 3
    value = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0) ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * float(one)):02x}" for one in value.clip(0.0, 1.0))
