"""Placeholders: one for each image or none, whatever they are called, in the order that they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vergence.scenes.question import place, read_prompt, refuse_tokens, with_choices
from vergence.scenes.split import asked
from vergence.types import IMAGE, UserError

WORDS = st.text(st.sampled_from("ab .\n"), min_size=1, max_size=5).map(lambda text: f"w{text}w")
PLAIN = st.sampled_from(["<image>", "<|image|>", "<IMAGE>"])


@given(st.lists(WORDS, min_size=2, max_size=6), st.data())
def test_placeholders_become_marks_and_no_other_character_changes(words, data):
    names = data.draw(st.lists(PLAIN, min_size=len(words) - 1, max_size=len(words) - 1))
    text = words[0] + "".join(name + word for name, word in zip(names, words[1:], strict=True))
    placed = place(text, len(names))
    assert placed.question == IMAGE.join(words)
    assert placed.order == tuple(range(len(names)))
    assert (placed.placeholders, placed.form) == (len(names), "plain")
    for images in {0, len(names) - 1, len(names) + 1} - {len(names)}:
        with pytest.raises(UserError, match="placeholder"):
            place(text, images)


@given(st.permutations(range(1, 5)), st.sampled_from(["<image {}>", "<image_{}>", "<image{}>", "<|image_{}|>"]))
def test_numbers_order_the_images_and_a_second_mention_is_words(numbers, name):
    first = [name.format(number) for number in numbers]
    placed = place("See " + ", ".join([*first, *first]), 4)
    assert placed.question == "See " + ", ".join([IMAGE] * 4 + [f"image {at}" for at in (1, 2, 3, 4)])
    assert [at + 1 for at in placed.order] == numbers
    assert (placed.placeholders, placed.form) == (8, "numbered")


@pytest.mark.parametrize("text", ["<image>a b", "<image>\n a b", " <image 1> a b", "a b", f"{IMAGE}a b", "a b<image>"])
def test_images_that_come_first_anyway_need_no_mark(text):
    placed = place(text, 1)
    assert placed.question == (f"a b{IMAGE}" if text.endswith("<image>") else "a b")
    assert asked(placed.question) == "a b"


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        ("<image 1> <image>", 2, "some placeholders are numbered and some are not; number all of them, or none"),
        ("<image 1> <image 3>", 2, "2 placeholders (numbers 1, 3) for 2 images; write one '<image>' for each image"),
        ("<image 0>", 1, "1 placeholder (numbers 0) for 1 image;"),
        (
            "Say <image>.",
            0,
            "1 placeholder for 0 images; give the image, or write 'the image' where the text only speaks",
        ),
        ("<|vision_start|>", 1, "holds '<|vision_start|>', which models read as a sign of their own; take it out"),
        ("<image> <image_soft_token>", 1, "holds '<image_soft_token>'"),
    ],
)
def test_what_does_not_fit_says_what_to_write(text, images, message):
    with pytest.raises(UserError) as error:
        place(text, images)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["<|x|>", "|a|<|b|>c", "<s>", "<b>bold</b>", "x <| y |> z", "images", "<imagery>"])
def test_mathematics_and_markup_are_no_tokens(text):
    refuse_tokens(text)
    assert place(text, 0).question == text


@given(st.text(max_size=40), st.integers(0, 3))
def test_no_text_raises_anything_else(text, images):
    try:
        assert place(text, images).question.count(IMAGE) in (0, images)
        assert isinstance(read_prompt("prompt", text)[0], str)
    except UserError:  # messages in JSON may be none
        return


def test_choices_are_seen_in_a_question_only_if_their_texts_are():
    listed = "Which?\nA. 1 \\frac{a}{b}\nB) 2"
    assert with_choices(listed, ["1 \\frac{a}{b}", "2"]) == listed
    assert with_choices("From A. to B.", ["1", "2"]) == "From A. to B.\nA. 1\nB. 2"
