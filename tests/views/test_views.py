"""Laws of the views, and the figures that are printed for PAPO's mask. Each law fails once on a wrong view."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vergence.chance import rng
from vergence.types import Blank, Erase, Original, UserError
from vergence.views import show
from vergence.views.erase import erase, erase_cells

Eraser = Callable[..., Image.Image]

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def picture(size: tuple[int, int] = (45, 30)) -> Image.Image:
    """Noise without a black pixel."""
    return Image.fromarray(rng("picture", *size).integers(1, 256, (size[1], size[0], 3), dtype=np.uint8))


def black(image: Image.Image) -> np.ndarray:
    """Where all channels are zero, (rows, columns)."""
    return (np.asarray(image) == 0).all(-1)


# ---------------------------------------------------------------------------------------------- laws


def law_the_key_decides(erase: Eraser) -> None:
    image = picture((64, 64))
    masks = [erase(image, *key, fraction=0.5, cell=8).tobytes() for key in ((1, "a"), (1, "a"), (2, "a"), (1, "b"))]
    assert masks[0] == masks[1]
    assert len(set(masks)) == 3


def law_size_and_mode_are_kept(erase: Eraser) -> None:
    for size in ((1, 1), (5, 40), (45, 30)):
        shown = erase(picture(size), 0, fraction=0.5, cell=14)
        assert (shown.size, shown.mode) == (size, "RGB")


def law_the_ends_are_exact(erase: Eraser) -> None:
    image = picture()
    for key in range(20):
        assert erase(image, key, fraction=0.0, cell=7).tobytes() == image.tobytes()
        assert black(erase(image, key, fraction=1.0, cell=7)).all()


def law_whole_cells_or_nothing(erase: Eraser) -> None:
    image = picture()
    for key in range(20):
        shown = erase(image, key, fraction=0.5, cell=7)
        gone = black(shown)
        assert (np.asarray(shown)[~gone] == np.asarray(image)[~gone]).all()
        for top in range(0, 30, 7):
            for left in range(0, 45, 7):
                assert len(np.unique(gone[top : top + 7, left : left + 7])) == 1


def law_cells_are_independent(erase: Eraser) -> None:
    """On 448 x 448: 1,024 cells, so 614.4 black ones on average, standard deviation 15.68."""
    image = picture((448, 448))
    counts = [black(erase(image, key, fraction=0.6, cell=14))[::14, ::14].sum() for key in range(100)]
    assert abs(np.mean(counts) - 614.4) < 4 * 15.68 / 100**0.5
    assert 0.7 < np.std(counts) / 15.68 < 1.3


def law_the_image_is_not_changed_in_place(erase: Eraser) -> None:
    image = picture()
    before = image.tobytes()
    erase(image, 0, fraction=1.0, cell=7)
    assert image.tobytes() == before


def _keyless(image, *key, fraction, cell):
    return erase(image, fraction=fraction, cell=cell)


def _grows(image, *key, fraction, cell):
    whole = tuple(-(-side // cell) * cell for side in image.size)
    return erase(image.resize(whole), *key, fraction=fraction, cell=cell)


def _at_most_fraction(image, *key, fraction, cell):
    rows, columns = -(-image.height // cell), -(-image.width // cell)
    return erase_cells(image, rng("erase", *key).random((rows, columns)) <= max(fraction, 0.1), cell)


def _by_pixel(image, *key, fraction, cell):
    return erase(image, *key, fraction=fraction, cell=1)


def _exact_count(image, *key, fraction, cell):
    rows, columns = -(-image.height // cell), -(-image.width // cell)
    order = rng("erase", *key).permutation(rows * columns).reshape(rows, columns)
    return erase_cells(image, order < fraction * rows * columns, cell)


def _in_place(image, *key, fraction, cell):
    image.paste(erase(image, *key, fraction=fraction, cell=cell))
    return image


LAWS = {
    law_the_key_decides: _keyless,
    law_size_and_mode_are_kept: _grows,
    law_the_ends_are_exact: _at_most_fraction,
    law_whole_cells_or_nothing: _by_pixel,
    law_cells_are_independent: _exact_count,
    law_the_image_is_not_changed_in_place: _in_place,
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    law(erase)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_fails_on_a_wrong_view(law):
    with pytest.raises(AssertionError):
        law(LAWS[law])


# ---------------------------------------------------------------------------------------------- oracles and properties


def test_printed_mask():
    """O13: 30 rows x 45 columns and cells of 14 make 3 x 4 cells, the last of them 2 rows high and 3 columns wide."""
    cells = np.array([[1, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], bool)
    shown = np.asarray(erase_cells(Image.new("RGB", (45, 30), (200, 200, 200)), cells, 14))
    assert (shown == 0).mean() == pytest.approx(0.491851851852, abs=1e-12)
    assert shown[28:, 42:].max() == 0
    assert shown[28:, 28:42].min() == 200


def test_cells_are_clipped_at_the_edges():
    cells = np.zeros((3, 4), bool)
    cells[2, 3] = True
    gone = black(erase_cells(picture(), cells, 14))
    assert gone.sum() == 2 * 3
    assert gone[28:, 42:].all()


@given(size=SIZES, cell=st.integers(1, 50), fraction=st.floats(0, 1), key=st.integers(0, 2**62))
def test_erased_is_black_and_the_rest_untouched(size, cell, fraction, key):
    image = picture(size)
    shown = show(Erase(fraction, cell), image, key)
    gone = black(shown)
    assert (shown.size, shown.mode) == (image.size, image.mode)
    assert (np.asarray(shown)[~gone] == np.asarray(image)[~gone]).all()
    assert shown.tobytes() == show(Erase(fraction, cell), image, key).tobytes()


def test_other_modes_are_shown_as_rgb():
    assert show(Erase(0.0, 4), Image.new("L", (3, 3), 9), 0).getpixel((0, 0)) == (9, 9, 9)


def test_original_is_the_image():
    image = picture()
    assert show(Original(), image, 0) is image


@given(size=SIZES, level=st.integers(0, 255))
def test_blank_has_one_grey(size, level):
    shown = show(Blank(level), picture(size), 0)
    assert (shown.size, shown.mode) == (size, "RGB")
    assert shown.getcolors() == [(size[0] * size[1], (level, level, level))]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (lambda: Erase(fraction=1.1), "Erase.fraction must lie in [0, 1], got 1.1"),
        (lambda: Erase(fraction=-0.1), "Erase.fraction"),
        (lambda: Erase(fraction=float("nan")), "Erase.fraction"),
        (lambda: Erase(cell=0), "Erase.cell must be at least 1 pixel, got 0"),
        (lambda: Blank(level=256), "Blank.level must lie in [0, 255], got 256"),
        (lambda: Blank(level=-1), "Blank.level"),
    ],
)
def test_bad_values_are_refused(spec, named):
    with pytest.raises(UserError) as error:
        spec()
    assert named in str(error.value)
