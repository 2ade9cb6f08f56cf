"""A bar chart: three bars of different colours, 1 to 9 units high; read two of them and calculate."""

from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw

from vergence.scenes.canvas import CELL, SIDE, grain, ink, paper
from vergence.scenes.grid import KNOWN_COLOURS
from vergence.scenes.speech import LINKS, say_fact
from vergence.types import Fact, Gold

UNIT = (SIDE - 2) // 9
"""Pixels to a unit of height."""


class Chart(NamedTuple):
    """The content of a scene: (colour, height) of each bar, and ("plus" or "minus", a colour, another)."""

    bars: tuple[tuple[str, int], ...]
    ask: tuple[str, str, str]


def draft(die: Random) -> Chart:
    """Bars of different heights; a difference is asked the way round that is not negative."""
    colours = die.sample(KNOWN_COLOURS, 3)
    heights = dict(zip(colours, die.sample(range(1, 10), 3), strict=True))
    first, second = die.sample(colours, 2)
    kind = die.choice(("plus", "minus"))
    if kind == "minus" and heights[first] < heights[second]:
        first, second = second, first
    return Chart(tuple(heights.items()), (kind, first, second))


def pose(chart: Chart) -> tuple[str, Gold]:
    """The question in words, and its answer."""
    kind, first, second = chart.ask
    return f"What is the {first} bar {kind} the {second} bar?", Gold(str(_result(chart)), "integer")


def facts(chart: Chart) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """(everything visible, what the question needs)."""
    everything = tuple(Fact(f"{colour} bar", str(height)) for colour, height in chart.bars)
    needed = tuple(Fact(f"{colour} bar", str(dict(chart.bars)[colour])) for colour in chart.ask[1:])
    return everything, needed


def change(chart: Chart, die: Random) -> Chart:
    """The same question with one bar that is asked about one to three units off (which is how bars are misread)."""
    while True:
        colour = die.choice(chart.ask[1:])
        heights = dict(chart.bars)
        heights[colour] += die.choice((-3, -2, -1, -1, 1, 1, 2, 3))
        changed = chart._replace(bars=tuple(heights.items()))
        if 1 <= heights[colour] <= 9 and _result(changed) >= 0:
            return changed


def see(chart: Chart, die: Random) -> str:
    """The needed facts, in either order."""
    needed = list(facts(chart)[1])
    die.shuffle(needed)
    return ". ".join(say_fact(fact, die) for fact in needed)


def survey(chart: Chart) -> str:
    """Every bar, from left to right."""
    return ". ".join(map(str, facts(chart)[0]))


def tour(chart: Chart, die: Random) -> str:
    """Every bar, in any order and wording."""
    return ". ".join(say_fact(fact, die) for fact in die.sample(facts(chart)[0], 3))


def reason(chart: Chart, die: Random) -> str:
    """The calculation; a sum in either order."""
    kind, first, second = chart.ask
    a, b = dict(chart.bars)[first], dict(chart.bars)[second]
    if kind == "plus" and die.random() < 0.5:
        a, b = b, a
    return f"{die.choice(LINKS)}{a}{'+' if kind == 'plus' else '-'}{b}={_result(chart)}"


def paint(chart: Chart, split: str, *parts: int | str) -> Image.Image:
    """The picture: the bars stand on the lower edge, one to a column."""
    image = paper(*parts)
    pen = ImageDraw.Draw(image)
    for column, (colour, height) in enumerate(chart.bars):
        left = column * CELL + 3
        pen.rectangle([left, SIDE - 1 - UNIT * height, left + 9, SIDE - 1], fill=ink(colour, *parts, column))
    return grain(image, *parts)


def cells(chart: Chart) -> tuple[str, ...]:
    """For each cell, row by row, the words of the bar in its column."""
    return tuple(f"{colour} {height}" for colour, height in chart.bars) * 3


def _result(chart: Chart) -> int:
    kind, first, second = chart.ask
    heights = dict(chart.bars)
    return heights[first] + heights[second] if kind == "plus" else heights[first] - heights[second]
