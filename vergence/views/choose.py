"""One view out of several, drawn anew for every image."""

from vergence.chance import dice
from vergence.types import ImageSpec, OneOf


def choose(spec: ImageSpec, *key: int | str) -> ImageSpec:
    """The view that the key draws, each with the same probability, if there is a choice; else the view itself.

    CPPO's released data set draws one transform per image. The names of the choices are part of the draw, so that the
    view that keeps information and the one that removes it are drawn independently under one key.

    >>> from vergence.types import Blank, Original
    >>> choose(Blank(3), 0), choose(OneOf((OneOf((Original(),)),)), 0)
    (Blank(level=3), Original())
    """
    while isinstance(spec, OneOf):
        spec = dice("one of", *(type(choice).__name__ for choice in spec.choices), *key).choice(spec.choices)
    return spec
