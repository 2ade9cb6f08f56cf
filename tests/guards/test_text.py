"""What a response says of itself: that it repeats itself, that it has no image. In any words, at any length."""

import pytest

from vergence.guards.text import EARLY, MOST_READ, disavows, repeats

DISOWNED = (
    "The image appears to be completely blank.",
    "Since there is no image provided, I assume 4.",
    "No figure was attached, so the answer is a guess.",
    "I am unable to see the image.",
    "The picture isn't visible",
    "The picture isn\u2019t visible",
    "As the diagram is not provided,\n\nwe assume",
    "I cannot actually view the image",
    "I could not open the provided image",
    "The image is solid black",
    "<think>I see no picture. I guess.</think>",
    "\u6211\u770b\u4e0d\u5230\u56fe\u7247",
    "\u56fe\u50cf\u662f\u7a7a\u767d\u7684",
)
OWNED = (
    "The chart shows an empty bin",
    "the figure is black and white",
    "The image is not blank: it shows 3",
    "there are no figures left of it",
    "the black figure",
    "I cannot see a red circle",
    "The left column is empty.",
    "No circle is shown above the square.",
    "",
)


@pytest.mark.parametrize("text", DISOWNED)
def test_who_says_that_there_is_no_image_is_heard(text):
    assert disavows(text)
    assert disavows(f"Let us think step by step. {text} So the answer is 4.")


@pytest.mark.parametrize("text", OWNED)
def test_who_finds_nothing_in_the_image_is_not_meant(text):
    assert not disavows(text)


def test_what_is_said_late_and_what_is_endless_is_not_read():
    assert not disavows("a " * EARLY + "the image is blank")
    assert disavows("a " * (EARLY // 2 - 20) + "the image is blank")
    fresh = " ".join(map(str, range(MOST_READ)))
    assert not repeats(fresh[:MOST_READ] + " 7" * MOST_READ)


@pytest.mark.parametrize(
    "again", ["I see 3. ", "x=1 ", "\u7ea2\u8272\u5706\u5f62\u3002", "7", "\u0e01\u0e02", "ab\n\n"]
)
def test_what_is_said_again_and_again_repeats_in_any_script(again):
    assert repeats(again * 30)
    assert not repeats(again)


def test_more_than_half_of_the_4_grams_must_have_been_said_before():
    """20 words twice: 37 4-grams, of which 17 were said before; three times: 57, of which 37 were."""
    words = " ".join(f"w{number}" for number in range(20)) + " "
    assert not repeats(words * 2)
    assert repeats(words * 3)
