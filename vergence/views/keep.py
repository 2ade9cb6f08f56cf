"""Views that change pixels and keep what they show. The first three as in CPPO's released code, where they are
torchvision's; nothing here needs torchvision."""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from vergence.chance import rng

Range = tuple[float, float]


def jitter(image: Image.Image, *key: int | str, brightness: Range, contrast: Range, saturation: Range) -> Image.Image:
    """A copy with brightness, contrast and saturation times uniform factors, applied in an order drawn at random.

    torchvision's `ColorJitter`, which uses the same three enhancers of Pillow; without a change of hue.

    >>> grey = Image.new("RGB", (1, 1), (100, 100, 100))
    >>> jitter(grey, 0, brightness=(0.5, 0.5), contrast=(1.0, 1.0), saturation=(1.0, 1.0)).getpixel((0, 0))
    (50, 50, 50)
    """
    draw = rng("jitter", *key)
    changes = [
        (ImageEnhance.Brightness, draw.uniform(*brightness)),
        (ImageEnhance.Contrast, draw.uniform(*contrast)),
        (ImageEnhance.Color, draw.uniform(*saturation)),
    ]
    for at in draw.permutation(len(changes)):
        enhancer, factor = changes[at]
        image = enhancer(image).enhance(factor)
    return image


def perspective(image: Image.Image, *key: int | str, distortion: float, chance: float) -> Image.Image:
    """The image as seen from the side with probability `chance`, else as it is; what was outside is black (bilinear).

    torchvision's `RandomPerspective`: each corner moves inwards by a whole number of pixels, uniform up to `distortion`
    of half of each side. An image of fewer pixels than that needs stays as it is.

    >>> perspective(Image.new("RGB", (8, 8)), 0, distortion=0.5, chance=1.0).size
    (8, 8)
    """
    draw = rng("perspective", *key)
    right, bottom = image.width - 1, image.height - 1
    most = [int(distortion * (side // 2)) for side in image.size]
    inwards = draw.integers(0, most, size=(4, 2), endpoint=True)
    if draw.random() >= chance or not inwards.any():
        return image
    corners = np.array([(0, 0), (right, 0), (right, bottom), (0, bottom)])
    moved = corners + inwards * [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    return image.transform(
        image.size, Image.Transform.PERSPECTIVE, _projection(moved, corners), Image.Resampling.BILINEAR
    )


def _projection(moved: np.ndarray, corners: np.ndarray) -> list[float]:
    """a .. h with u = (a x + b y + c) / (g x + h y + 1), v = (d x + e y + f) / (g x + h y + 1): from moved to corners.

    Least squares, as in torchvision: two corners that fell together leave no exact solution.
    """
    rows = []
    for (x, y), (u, v) in zip(moved, corners, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    return np.linalg.lstsq(np.array(rows, float), corners.reshape(8).astype(float))[0].tolist()


def rotate(image: Image.Image, *key: int | str, degrees: float) -> Image.Image:
    """A copy turned about its centre by an angle uniform in [-degrees, degrees], in the same frame; corners black.

    torchvision's `RandomRotation`, with its default of the nearest pixel.

    >>> rotate(Image.new("RGB", (3, 2), "red"), 0, degrees=0.0).getcolors()
    [(6, (255, 0, 0))]
    """
    return image.rotate(rng("rotate", *key).uniform(-degrees, degrees), Image.Resampling.NEAREST)


def blur(image: Image.Image, *, sigma: float) -> Image.Image:
    """A copy blurred with standard deviation `sigma`, pixels.

    The AReaL variant of CPPO's code cuts the kernel (sigma 1) off at 3 x 3 pixels; here its tails are kept, in Pillow's
    approximation by three boxes.

    >>> line = Image.new("RGB", (5, 5)); line.putpixel((2, 2), (255, 255, 255))
    >>> 0 < blur(line, sigma=1.0).getpixel((2, 2))[0] < 255
    True
    """
    return image.filter(ImageFilter.GaussianBlur(sigma))


def noise(image: Image.Image, *key: int | str, sd: float) -> Image.Image:
    """A copy with Gaussian noise on every channel of every pixel, rounded and clipped to [0, 255].

    Args:
        sd: standard deviation, as a share of the range from black to white.

    >>> noise(Image.new("RGB", (2, 1), (9, 8, 7)), 0, sd=0.0).getcolors()
    [(2, (9, 8, 7))]
    """
    pixels = np.asarray(image, np.float32)
    noisy = pixels + 255 * sd * rng("noise", *key).standard_normal(pixels.shape, np.float32)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
