"""Showing a scene in another way. `show` carries out an `ImageSpec`; the same key gives the same pixels."""

from PIL.Image import Image

from vergence.types import (
    Blank,
    Blur,
    Erase,
    ImageSpec,
    Jitter,
    Noise,
    Occlude,
    OneOf,
    Original,
    Perspective,
    Rotate,
    Salient,
    UserError,
    Zoom,
)
from vergence.views.blank import blank
from vergence.views.choose import choose
from vergence.views.erase import erase
from vergence.views.keep import blur, jitter, noise, perspective, rotate
from vergence.views.occlude import occlude, zoom
from vergence.views.reword import reword
from vergence.views.salient import Saliency, erase_salient
from vergence.views.swap import swap_caption, swap_images

__all__ = ["Saliency", "choose", "reword", "show", "swap_caption", "swap_images"]


def show(spec: ImageSpec, image: Image, *key: int | str, saliency: Saliency | None = None) -> Image:
    """The image, which is RGB as those of every source, as the view shows it: same size, RGB.

    Args:
        saliency: what `Salient` ranks patches by; see `models.saliency.load_saliency`.

    Raises:
        UserError: `Salient` without a saliency, or an `Erase` aligned with a model's tokens, which only
            `rollout.render` knows.

    >>> from PIL import Image as pil
    >>> show(Blank(level=7), pil.new("RGB", (2, 1), "red"), 0).getpixel((0, 0))
    (7, 7, 7)
    """
    match spec:
        case Original():
            return image
        case Erase(aligned=True):
            raise UserError("Erase(aligned=True) is about a model's image tokens: show it with rollout.render")
        case Erase(fraction, cell):
            return erase(image, *key, fraction=fraction, cell=cell)
        case Salient(encoder, fraction):
            if saliency is None:
                raise UserError(f"Salient needs what its encoder sees: give saliency=load_saliency({encoder!r})")
            return erase_salient(image, saliency, fraction=fraction)
        case Occlude(boxes, smallest, largest):
            return occlude(image, *key, boxes=boxes, smallest=smallest, largest=largest)
        case Zoom(smallest, largest):
            return zoom(image, *key, smallest=smallest, largest=largest)
        case Jitter(brightness, contrast, saturation):
            return jitter(image, *key, brightness=brightness, contrast=contrast, saturation=saturation)
        case Perspective(distortion, chance):
            return perspective(image, *key, distortion=distortion, chance=chance)
        case Rotate(degrees):
            return rotate(image, *key, degrees=degrees)
        case Blur(sigma):
            return blur(image, sigma=sigma)
        case Noise(sd):
            return noise(image, *key, sd=sd)
        case OneOf():
            return show(choose(spec, *key), image, *key, saliency=saliency)
        case Blank(level):
            return blank(image, level=level)
