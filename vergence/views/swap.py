"""What another scene shows in the place of what this one shows: a control, content exchanged and nothing spoilt."""

from collections.abc import Sequence

from PIL.Image import Image

from vergence.chance import dice
from vergence.types import Scene, UserError


def swap_images(scene: Scene, others: Sequence[Scene], *key: int | str) -> tuple[Image, ...]:
    """The images of another scene, at the sizes of this one's; none if this one has none.

    Among `others` with another key, other images and as many of them, one of the same sizes if there is one. The order
    of `others` does not matter.

    Raises:
        UserError: there is no such scene.
    """
    sizes = [image.size for image in scene.images]
    if not sizes:
        return ()
    able = [other for other in _shuffled(scene, others, *key) if len(other.images) == len(sizes)]
    able.sort(key=lambda other: [image.size for image in other.images] != sizes)  # stable: the same sizes first
    for other in able:
        if other.images != scene.images:  # one picture may serve several questions
            return tuple(image.resize(size) for image, size in zip(other.images, sizes, strict=True))
    raise UserError(_nobody(scene, others, f"{len(sizes)} image(s) that are not its own"))


def swap_caption(scene: Scene, others: Sequence[Scene], *key: int | str) -> str:
    """The caption of another scene: among `others` with another key, one that has a caption and not the same.

    Raises:
        UserError: there is no such scene.

    >>> from vergence.types import Gold
    >>> a, b = (Scene(key=k, world="w", images=(), question="?", gold=Gold("1", "integer"), caption=k) for k in "ab")
    >>> swap_caption(a, [a, b], 0)
    'b'
    """
    for other in _shuffled(scene, others, *key):
        if other.caption not in ("", scene.caption):
            return other.caption
    raise UserError(_nobody(scene, others, "a caption that is not its own"))


def _shuffled(scene: Scene, others: Sequence[Scene], *key: int | str) -> list[Scene]:
    able = sorted((other for other in others if other.key != scene.key), key=lambda other: other.key)
    return dice("swap", *key).sample(able, len(able))


def _nobody(scene: Scene, others: Sequence[Scene], what: str) -> str:
    return (
        f"scene {scene.key!r} has nobody to swap with: none of the {len(others)} scenes beside it has {what}; "
        "give more scenes per step, or another view"
    )
