"""A labelled figure, find x: a segment cut in two, a triangle's third angle, a rectangle's area.

The question is "Find x." whatever the figure, so the figure itself has to be seen too.
"""

from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw

from vergence.chance import dice
from vergence.scenes.canvas import draw_label, grain, ink, paper
from vergence.scenes.grid import KNOWN_COLOURS
from vergence.scenes.speech import LINKS, say_fact
from vergence.types import Fact, Gold

NAMES = {
    "segment": ("whole", "part"),
    "triangle": ("left angle", "right angle"),
    "rectangle": ("width", "height"),
}


class Figure(NamedTuple):
    """The content of a scene: which figure, its two labels (lengths, or degrees), and the colour of its lines."""

    figure: str
    labels: tuple[int, int]
    colour: str


def draft(die: Random) -> Figure:
    """A figure with labels that allow a solution."""
    figure = die.choice(tuple(NAMES))
    return Figure(figure, die.choice(_labels(figure)), die.choice(KNOWN_COLOURS))


def pose(figure: Figure) -> tuple[str, Gold]:
    """The question in words, and its answer (degrees for an angle)."""
    return "Find x.", Gold(str(_solve(figure)), "integer")


def facts(figure: Figure) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """(everything visible, what the question needs): the colour of the lines is there to be seen, and not needed."""
    named = zip(NAMES[figure.figure], figure.labels, strict=True)
    needed = (Fact("figure", figure.figure), *(Fact(name, str(label)) for name, label in named))
    return (*needed, Fact("lines", figure.colour)), needed


def change(figure: Figure, die: Random) -> Figure:
    """The same figure with one label changed so that x is another."""
    near = [
        labels
        for labels in _labels(figure.figure)
        if sum(a != b for a, b in zip(labels, figure.labels, strict=True)) == 1
        and _solve(figure._replace(labels=labels)) != _solve(figure)
    ]
    return figure._replace(labels=die.choice(near))


def see(figure: Figure, die: Random) -> str:
    """The figure, then its labels in either order."""
    first, *labels = facts(figure)[1]
    die.shuffle(labels)
    return ". ".join(say_fact(fact, die) for fact in (first, *labels))


def survey(figure: Figure) -> str:
    """The figure, its labels and its colour, in one fixed order."""
    return ". ".join(map(str, facts(figure)[0]))


def tour(figure: Figure, die: Random) -> str:
    """All of it, in any order and wording."""
    return ". ".join(say_fact(fact, die) for fact in die.sample(facts(figure)[0], 4))


def reason(figure: Figure, die: Random) -> str:
    """The calculation, in one of its valid orders."""
    a, b = figure.labels
    link = die.choice(LINKS)
    if figure.figure == "segment":
        return f"{link}x={a}-{b}={_solve(figure)}"
    if die.random() < 0.5:
        a, b = b, a
    if figure.figure == "rectangle":
        return f"{link}x={a}*{b}={_solve(figure)}"
    return f"{link}{a}+{b}={a + b}, x=180-{a + b}={_solve(figure)}"


def paint(figure: Figure, split: str, *parts: int | str) -> Image.Image:
    """The picture: lines two pixels wide, printed labels, an x where the answer belongs."""
    image = paper(*parts)
    pen = ImageDraw.Draw(image)
    die = dice(*parts, "place")
    lines = ink(figure.colour, *parts)
    dx, dy = die.randint(-1, 1), die.randint(-1, 1)
    a, b = map(str, figure.labels)
    if figure.figure == "segment":  # the whole below, its part above on the left, x above on the right
        pen.line([(3 + dx, 24 + dy), (45 + dx, 24 + dy)], fill=lines, width=2)
        for end in (3, 26, 45):
            pen.line([(end + dx, 21 + dy), (end + dx, 28 + dy)], fill=lines, width=2)
        draw_label(image, b, 4 + dx, 5 + dy)
        draw_label(image, "x", 36 + dx, 5 + dy)
        draw_label(image, a, 20 + dx, 36 + dy)
    elif figure.figure == "triangle":
        pen.polygon([(1 + dx, 46 + dy), (46 + dx, 46 + dy), (24 + dx, 2 + dy)], outline=lines, width=2)
        draw_label(image, a, 9 + dx, 36 + dy)
        draw_label(image, b, 28 + dx, 36 + dy)
        draw_label(image, "x", 22 + dx, 12 + dy)
    else:  # the width below, the height on the right, x inside
        pen.rectangle([3 + dx, 4 + dy, 29 + dx, 29 + dy], outline=lines, width=2)
        draw_label(image, a, 12 + dx, 36 + dy)
        draw_label(image, b, 35 + dx, 12 + dy)
        draw_label(image, "x", 14 + dx, 13 + dy)
    return grain(image, *parts)


def cells(figure: Figure) -> tuple[str, ...]:
    """For each cell, row by row, its label where there is one, else the colour and name of the figure."""
    a, b = map(str, figure.labels)
    where = {"segment": {0: b, 7: a}, "triangle": {6: a, 8: b}, "rectangle": {6: a, 5: b}}[figure.figure]
    return tuple(where.get(index, f"{figure.colour} {figure.figure}") for index in range(9))


def _labels(figure: str) -> list[tuple[int, int]]:
    if figure == "segment":
        return [(whole, part) for whole in range(3, 20) for part in range(1, 10) if part < whole]
    if figure == "triangle":
        return [(a, b) for a in range(20, 100, 10) for b in range(20, 100, 10) if a + b < 180]
    return [(a, b) for a in range(2, 10) for b in range(2, 10)]


def _solve(figure: Figure) -> int:
    a, b = figure.labels
    return {"segment": a - b, "triangle": 180 - a - b, "rectangle": a * b}[figure.figure]
