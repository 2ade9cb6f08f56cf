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
    "I don't see an image.",
    "I do not see any image in your message",
    "I cannot process images directly",
    "Without seeing the image, I would guess 4",
    "Please upload the image",
    "The image is missing, so I guess 4.",
    "The diagram is missing from the question",
    "I wasn't given a picture",
    "I have no access to the image",
    "I don't have the figure, so 7",
    "the image could not be loaded",
    "I see no picture I see no picture",
    "I was given a blank image",
    "I cannot see the image clearly.",
    "I can't see the image that you uploaded.",
    "No image was provided by the user.",
    "There is no image associated with this question.",
    "The image is completely blank with no content.",
    "The image is not visible due to an error.",
    "无法查看图片，所以我猜是4",
    "我没有看到图片",
    "题目没有提供图片",
    "由于图未给出，只能猜测",
    "请提供图片",
    "图片无法显示。",
    "我看不到任何图像",
    "没有图片",
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
    "The chart is missing a label for March",
    "The graph is not shown to scale",
    "The diagram is missing the angle at B",
    "the image is all white except for one dot",
    "the picture is empty but for a dot",
    "There is no picture of a dog",
    "There is no graph with more than three bars",
    "Which is the missing figure in the pattern?",
    "I cannot see the image's label",
    "I can't see any figures above 10",
    "I cannot see it clearly on the left",
    "I can't see anything above the bar",
    "I don't see a figure that is red",
    "Draw it on a blank graph",
    "The image is included with the question",
    "there is no figure larger than the circle",
    "The charts are not given equal weight",
    "Is there a green ball? I don't see it.",
    "I don't see anything, so the count is 0.",
    "Sam did not see it.",
    "If you do not open it, the juice stays.",
    "图中没有显示图例，所以看颜色。",
    "我没有看到图例",
    "没有看到图标",
    "without the images of cats there are 3 left",
    "看不到图中的标签",
    "图片没有显示数字",
    "没有图例",
    "图中没有提供比例",
    "图像空白处有一个圆",
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
