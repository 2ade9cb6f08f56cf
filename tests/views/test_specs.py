"""Laws of every image view: what the key decides, what is kept, and what strength 0 is. Each fails on a wrong view."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vergence.chance import rng
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
from vergence.views import choose, keep, show

Show = Callable[..., Image.Image]

JITTERED = Jitter((0.2, 1.3), (0.2, 1.8), (0.2, 1.8))
DRAWN = (
    Erase(0.5, 4),
    Occlude(),
    Zoom(),
    JITTERED,
    Perspective(0.5, 1.0),
    Rotate(),
    Noise(),
    OneOf((Occlude(), Zoom())),
)
"""Views with chance in them."""
SPECS = (*DRAWN, Original(), Salient("anything"), Blur(), Blank())
UNTOUCHED = (
    Original(),
    Erase(0.0),
    Salient("anything", 0.0),
    Occlude(boxes=0),
    Occlude(smallest=0.0, largest=0.0),
    Zoom(1.0, 1.0),
    Jitter((1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
    Perspective(distortion=0.0, chance=1.0),
    Perspective(chance=0.0),
    Rotate(0.0),
    Blur(0.0),
    Noise(0.0),
    OneOf((Rotate(0.0), Noise(0.0))),
)
"""Every view at strength 0. `Blank` has no strength."""
SIZES = ((1, 1), (3, 200), (200, 3), (45, 30), (2, 2))


def picture(size: tuple[int, int] = (45, 30)) -> Image.Image:
    """Noise without a black pixel."""
    return Image.fromarray(rng("picture", *size).integers(1, 256, (size[1], size[0], 3), dtype=np.uint8))


def ramp(image: Image.Image) -> np.ndarray:
    """A saliency: 2 x 3 patches, each more salient than the one before."""
    return np.arange(6.0).reshape(2, 3)


def shown(spec: ImageSpec, image: Image.Image, *key: int | str) -> Image.Image:
    return show(spec, image, *key, saliency=ramp)


# ---------------------------------------------------------------------------------------------- laws


def law_the_same_key_gives_the_same_pixels(shown: Show) -> None:
    for spec in SPECS:
        np.random.seed(0)
        once = shown(spec, picture(), 1, "a").tobytes()
        np.random.seed(1)
        assert shown(spec, picture(), 1, "a").tobytes() == once, spec


def law_another_key_gives_other_pixels(shown: Show) -> None:
    for spec in DRAWN:
        assert len({shown(spec, picture(), *key).tobytes() for key in ((1, "a"), (2, "a"), (1, "b"))}) == 3, spec


def law_size_and_mode_are_kept(shown: Show) -> None:
    for spec in SPECS:
        for size in SIZES:
            for key in range(3):
                image = shown(spec, picture(size), key)
                assert (image.size, image.mode) == (size, "RGB"), spec


def law_strength_0_is_the_identity(shown: Show) -> None:
    for spec in UNTOUCHED:
        for size in SIZES:
            assert shown(spec, picture(size), 5).tobytes() == picture(size).tobytes(), spec


def law_the_image_is_not_changed_in_place(shown: Show) -> None:
    for spec in SPECS:
        image = picture()
        shown(spec, image, 0)
        assert image.tobytes() == picture().tobytes(), spec


def _global(spec, image, *key):
    return shown(spec, image, *key, int(np.random.randint(1000)))


def _keyless(spec, image, *key):
    return shown(spec, image)


def _expands(spec, image, *key):
    return image.rotate(10.0, expand=True) if isinstance(spec, Rotate) else shown(spec, image, *key)


def _at_least_one_box(spec, image, *key):
    return shown(Occlude(boxes=1, smallest=0.5, largest=0.9), image, *key) if spec == Occlude(boxes=0) else image


def _in_place(spec, image, *key):
    image.paste(shown(spec, image, *key))
    return image


LAWS = {
    law_the_same_key_gives_the_same_pixels: _global,
    law_another_key_gives_other_pixels: _keyless,
    law_size_and_mode_are_kept: _expands,
    law_strength_0_is_the_identity: _at_least_one_box,
    law_the_image_is_not_changed_in_place: _in_place,
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    law(shown)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_fails_on_a_wrong_view(law):
    with pytest.raises(AssertionError):
        law(LAWS[law])


@given(
    spec=st.sampled_from((*SPECS, *UNTOUCHED)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    key=st.integers(0, 2**62),
)
def test_any_size_and_key(spec, size, key):
    image = shown(spec, picture(size), key)
    assert (image.size, image.mode) == (size, "RGB")
    assert spec not in UNTOUCHED or image.tobytes() == picture(size).tobytes()


# ---------------------------------------------------------------------------------------------- occlusion, zoom


def covers_as_printed(spec: Occlude) -> None:
    """O14: 50 boxes of 5 to 15 % cover 0.369 of an image, standard deviation 0.023, 5 to 95 %: 0.331 to 0.407."""
    flat = Image.new("RGB", (200, 200))
    share = [(np.asarray(show(spec, flat, key)) != 0).any(-1).mean() for key in range(300)]
    assert np.mean(share) == pytest.approx(0.369, abs=0.01)
    assert np.std(share) == pytest.approx(0.023, abs=0.004)
    assert np.quantile(share, [0.05, 0.95]) == pytest.approx([0.331, 0.407], abs=0.01)


def test_printed_occlusion():
    covers_as_printed(Occlude())


@pytest.mark.parametrize("wrong", [Occlude(boxes=40), Occlude(largest=0.2), Occlude(smallest=0.1)])
def test_printed_occlusion_fails_on_a_wrong_view(wrong):
    with pytest.raises(AssertionError):
        covers_as_printed(wrong)


def test_what_is_not_occluded_is_untouched_and_what_is_is_uniform_noise():
    image = Image.new("RGB", (200, 200), (7, 7, 7))
    pixels = np.asarray(show(Occlude(boxes=1, smallest=0.5, largest=0.5), image, 3))
    row, column = np.nonzero((pixels != 7).any(-1))
    hidden = pixels[row.min() : row.max() + 1, column.min() : column.max() + 1]
    assert hidden.shape == (100, 100, 3)
    assert (pixels != 7).any(-1).sum() <= 100 * 100
    assert hidden.mean() == pytest.approx(127.5, abs=2)
    assert (hidden.min(), hidden.max()) == (0, 255)
    assert hidden.std() == pytest.approx(256 / 12**0.5, abs=1)


def test_boxes_reach_every_edge():
    flat = Image.new("RGB", (40, 20))
    shown = [np.asarray(show(Occlude(boxes=1, smallest=0.8, largest=0.8), flat, key)) for key in range(300)]
    assert np.max(shown, 0).min() > 0


def test_zoom_shows_a_share_of_each_side():
    """Column number as red, row number as green: the extremes say what was cropped."""
    red, green = np.meshgrid(np.arange(200), np.arange(200))
    image = Image.fromarray(np.stack([red, green, red * 0], -1).astype(np.uint8))
    spans, first = [], []
    for key in range(300):
        pixels = np.asarray(show(Zoom(), image, key)).astype(int)
        span = [int(np.ptp(pixels[..., channel]) + 1) for channel in (0, 1)]
        assert span[0] == span[1]
        spans.append(span[0] / 200)
        first.append(pixels[..., 0].min() / (200 - span[0]))
    assert 0.595 <= min(spans) < 0.61
    assert 0.69 < max(spans) < 0.7
    assert np.square(spans).mean() == pytest.approx(0.4234, abs=0.005)
    assert (min(first), max(first)) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))
    assert np.mean(first) == pytest.approx(0.5, abs=0.05)


# ---------------------------------------------------------------------------------------------- views that keep


def test_jitter_changes_one_thing_at_a_time():
    image = Image.new("RGB", (2, 1))
    image.putdata([(200, 100, 0), (100, 100, 100)])
    off = (1.0, 1.0)
    darker = show(Jitter((0.5, 0.5), off, off), image, 0)
    assert darker.getpixel((0, 0)) == (100, 50, 0)
    flat = show(Jitter(off, (0.0, 0.0), off), image, 0)  # the mean of the greys: 118.5 and 100
    assert flat.getcolors() == [(2, (109, 109, 109))]
    grey = show(Jitter(off, off, (0.0, 0.0)), image, 0)  # ITU-R 601: (299 * 200 + 587 * 100) / 1000 = 118.5
    assert len(set(grey.getpixel((0, 0)))) == 1
    assert grey.getpixel((0, 0))[0] in (118, 119)
    assert grey.getpixel((1, 0)) == (100, 100, 100)


def test_jitter_draws_its_factors_uniformly_and_its_order():
    image = Image.new("RGB", (1, 1), (100, 100, 100))
    off = (1.0, 1.0)
    drawn = [show(Jitter((0.2, 1.3), off, off), image, key).getpixel((0, 0))[0] for key in range(500)]
    assert 20 <= min(drawn) < 25
    assert 125 < max(drawn) <= 130
    assert np.mean(drawn) == pytest.approx(75, abs=3)
    # brightness is cut off at 255, so an order shows: twice as bright, then grey, or grey, then twice as bright
    bright = Jitter((2.0, 2.0), off, (0.0, 0.0))
    image = Image.new("RGB", (1, 1), (250, 10, 10))
    orders = Counter(show(bright, image, key).getpixel((0, 0)) for key in range(200))
    assert len(orders) == 2
    assert min(orders.values()) > 60


def test_perspective_is_a_projection_that_moves_corners_inwards():
    white = Image.new("RGB", (100, 60), "white")
    touched = 0
    for key in range(400):
        pixels = np.asarray(show(Perspective(), white, key))[..., 0]
        touched += (pixels != 255).any()
        # at most 0.2 * 50 columns and 0.2 * 30 rows move in; a pixel more for the interpolation
        assert (pixels[7:-7, 11:-11] == 255).all()
    assert touched / 400 == pytest.approx(0.5, abs=0.08)


def test_the_projection_takes_moved_corners_to_the_corners():
    corners = np.array([(0, 0), (99, 0), (99, 59), (0, 59)])
    moved = np.array([(5, 3), (95, 1), (90, 55), (2, 58)])
    a, b, c, d, e, f, g, h = keep._projection(moved, corners)
    for (x, y), corner in zip(moved, corners, strict=True):
        below = g * x + h * y + 1
        assert ((a * x + b * y + c) / below, (d * x + e * y + f) / below) == pytest.approx(tuple(corner), abs=1e-9)


def test_corners_that_meet_are_survived():
    for key in range(50):
        assert show(Perspective(1.0, 1.0), picture((4, 2)), key).size == (4, 2)


def test_rotation_turns_by_both_signs_and_leaves_the_corners_black():
    image = Image.new("RGB", (101, 101), "white")
    image.paste((255, 0, 0), (0, 50, 101, 51))  # a red line through the middle
    heights = []
    for key in range(200):
        pixels = np.asarray(show(Rotate(), image, key))
        assert set(np.unique(pixels)) <= {0, 255}  # the nearest pixel: nothing is mixed
        heights.append(50 - np.nonzero((pixels[:, 90] == (255, 0, 0)).all(-1))[0].mean())
    angle = np.degrees(np.arctan(np.array(heights) / 40))
    assert -10.8 < angle.min() < -9
    assert 9 < angle.max() < 10.8
    assert angle.mean() == pytest.approx(0, abs=1.5)
    assert (np.asarray(image.rotate(0)) == np.asarray(image)).all()


def test_blur_spreads_by_its_sigma():
    image = Image.new("RGB", (61, 1))
    image.paste("white", (31, 0, 61, 1))
    step = np.asarray(show(Blur(4.0), image, 0))[0, :, 0].astype(float)
    density = np.diff(step) / 255
    place = np.arange(60)
    mean = (density * place).sum()
    assert (density * (place - mean) ** 2).sum() ** 0.5 == pytest.approx(4.0, abs=0.3)


def test_noise_has_its_standard_deviation_and_is_clipped():
    grey = np.asarray(show(Noise(0.05), Image.new("RGB", (200, 200), (128, 128, 128)), 0)).astype(float)
    assert grey.mean() == pytest.approx(128, abs=0.2)
    assert grey.std() == pytest.approx(0.05 * 255, abs=0.2)
    assert abs(np.corrcoef(grey.reshape(-1, 3).T)[0, 1]) < 0.02
    white = np.asarray(show(Noise(0.05), Image.new("RGB", (200, 200), "white"), 0))
    assert (white == 255).mean() == pytest.approx(0.5, abs=0.03)  # cut off, not wrapped round to black
    assert white.min() > 150


# ---------------------------------------------------------------------------------------------- choices, saliency


def test_one_of_draws_each_as_often_and_shows_what_it_drew():
    spec = OneOf((Occlude(), Zoom(), OneOf((Noise(), Blank()))))
    drawn = Counter(choose(spec, key) for key in range(1200))
    assert drawn.keys() == {Occlude(), Zoom(), Noise(), Blank()}
    assert drawn[Occlude()] == pytest.approx(400, abs=65)
    assert drawn[Blank()] == pytest.approx(200, abs=55)
    for key in range(20):
        assert show(spec, picture(), key).tobytes() == show(choose(spec, key), picture(), key).tobytes()


def test_two_choices_are_drawn_independently_under_one_key():
    kept, removed = OneOf((Rotate(), JITTERED)), OneOf((Occlude(), Zoom()))
    both = Counter((choose(kept, key), choose(removed, key)) for key in range(800))
    assert len(both) == 4
    assert min(both.values()) > 140


def salience_is_respected(erased: Callable[[np.ndarray, float], np.ndarray]) -> None:
    """2 x 3 patches of 5 x 5 pixels; `erased` says which pixels of 10 x 15 are black."""
    grid = np.array([[3.0, 9.0, 3.0], [1.0, 3.0, 3.0]])
    whole = np.ones((5, 5), int)
    for fraction, patches in {
        0.0: [[0, 0, 0], [0, 0, 0]],
        0.16: [[0, 0, 0], [0, 0, 0]],
        0.17: [[0, 1, 0], [0, 0, 0]],
        0.5: [[1, 1, 1], [0, 0, 0]],  # of equals the first in reading order
        0.99: [[1, 1, 1], [0, 1, 1]],
        1.0: [[1, 1, 1], [1, 1, 1]],
    }.items():
        assert (erased(grid, fraction) == np.kron(patches, whole)).all(), fraction


def _erased(grid: np.ndarray, fraction: float) -> np.ndarray:
    image = picture((15, 10))
    pixels = np.asarray(show(Salient("", fraction), image, 0, saliency=lambda image: grid))
    gone = (pixels == 0).all(-1)
    assert (pixels[~gone] == np.asarray(image)[~gone]).all()
    return gone


def test_the_most_salient_patches_are_black():
    salience_is_respected(_erased)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda grid, fraction: _erased(-grid, fraction),
        lambda grid, fraction: _erased(grid[::-1, ::-1], fraction)[::-1, ::-1],  # of equals the last
        lambda grid, fraction: _erased(grid, min(1.0, fraction + 1 / 6)),  # rounded up
    ],
)
def test_salience_fails_on_a_wrong_view(wrong):
    with pytest.raises(AssertionError):
        salience_is_respected(wrong)


def test_the_number_of_salient_patches_is_exact():
    """0.29 * 100 is 28.999999999999996 in floating point, and 29 patches."""
    grid = np.arange(100.0).reshape(10, 10)
    gone = np.asarray(show(Salient("", 0.29), picture((10, 10)), 0, saliency=lambda image: grid)) == 0
    assert gone.all(-1).sum() == 29


def test_a_grid_that_does_not_divide_the_image_covers_it():
    gone = np.asarray(show(Salient("", 1 / 6), picture((7, 5)), 0, saliency=ramp)) == 0
    assert gone.all(-1).astype(int).tolist() == [[0] * 7] * 3 + [[0] * 5 + [1] * 2] * 2


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (Salient("a/b"), "give saliency=load_saliency('a/b')"),
        (OneOf((Salient("a/b"),)), "give saliency=load_saliency('a/b')"),
        (Erase(aligned=True), "show it with rollout.render"),
    ],
)
def test_what_cannot_be_shown_says_why(spec, named):
    with pytest.raises(UserError) as error:
        show(spec, picture(), 0)
    assert named in str(error.value)
