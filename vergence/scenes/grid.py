"""The worlds on a grid of three by three cells: `digits` (handwriting), `shapes` (coloured), `mosaic` (both, mixed),
and `novel` (shapes again, asked about the colour and the shape that training leaves out).

What a cell holds is a word or two: "7", "red circle", "empty". What is asked is a tuple: ("sum", "row", 2),
("cell", 1, 2), ("count", "red", "row", 0), ("compare", "circle", "square", "column", 1). Rows and columns count from 0.
"""

from random import Random
from typing import NamedTuple

from PIL import Image

from vergence.scenes.canvas import COLOURS, NOVEL_COLOUR, NOVEL_SHAPE, SHAPES, draw_digit, draw_shape, grain, paper
from vergence.scenes.speech import COLUMNS, LINKS, ROWS, add_up, cell_name, line_as_read, say_fact, say_line
from vergence.types import Fact, Gold

DIGITS = tuple("0123456789")
KNOWN_COLOURS = tuple(colour for colour in COLOURS if colour != NOVEL_COLOUR)
KNOWN_SHAPES = tuple(shape for shape in SHAPES if shape != NOVEL_SHAPE)


class Grid(NamedTuple):
    """The content of a scene: what each cell holds, row by row, and what is asked."""

    cells: tuple[str, ...]
    ask: tuple

    def at(self, row: int, column: int) -> str:
        """What a cell holds."""
        return self.cells[3 * row + column]

    def places(self) -> list[tuple[int, int]]:
        """The cells that the question needs, in reading order."""
        kind, *rest = self.ask
        if kind == "cell":
            return [(rest[0], rest[1])]
        axis, number = rest[-2:]
        return [(number, i) if axis == "row" else (i, number) for i in range(3)]


def draft_digits(die: Random) -> Grid:
    """Nine handwritten digits: read one, or add up a row or column."""
    cells = tuple(die.choice(DIGITS) for _ in range(9))
    return Grid(
        cells, _ask_cell(die) if die.random() < 0.35 else ("sum", die.choice(("row", "column")), die.randrange(3))
    )


def draft_shapes(die: Random, *, novel: bool = False) -> Grid:
    """Coloured shapes: locate one, count a colour in a line, compare two kinds in a line.

    Counts and comparisons are drawn first and the line is filled to fit, so that no answer is much the likeliest.
    With `novel`, the cells that are asked about hold the colour and the shape that training leaves out.
    """
    cells = [_thing(die) if die.random() < 0.8 else "empty" for _ in range(9)]
    kind = die.choice(("locate", "locate", "count", "compare"))
    axis, number = die.choice(("row", "column")), die.randrange(3)
    if kind == "locate":
        ask = _ask_cell(die)
        line = [_novel_thing(die) if novel else _thing(die) if die.random() < 0.9 else "empty"]
    elif kind == "count":
        colour = NOVEL_COLOUR if novel else die.choice(KNOWN_COLOURS)
        hits = die.randint(0, 3)
        others = [other for other in KNOWN_COLOURS if other != colour]
        line = [_thing(die, colours=(colour,)) for _ in range(hits)]
        line += [_thing(die, colours=others) if die.random() < 0.75 else "empty" for _ in range(3 - hits)]
        ask = ("count", colour, axis, number)
    else:
        first, second = die.sample(KNOWN_SHAPES, 2)
        first = NOVEL_SHAPE if novel else first
        rest = [shape for shape in KNOWN_SHAPES if shape not in (first, second)]
        more, fewer = die.choice(((1, 0), (2, 0), (2, 1)))  # never so many that no single change turns the answer
        a, b = die.choice(((more, fewer), (fewer, more), die.choice(((0, 0), (1, 1)))))
        line = [_thing(die, shapes=(first,)) for _ in range(a)] + [_thing(die, shapes=(second,)) for _ in range(b)]
        line += [_thing(die, shapes=rest) if die.random() < 0.75 else "empty" for _ in range(3 - a - b)]
        ask = ("compare", first, second, axis, number)
    die.shuffle(line)
    grid = Grid(tuple(cells), ask)
    for place, value in zip(grid.places(), line, strict=True):
        grid = _put(grid, place, value)
    return grid


def draft_mosaic(die: Random) -> Grid:
    """Digits and shapes on one grid, asked for one cell: two known skills in a picture that training leaves out."""
    cells = [die.choice(DIGITS) if die.random() < 0.5 else _thing(die) for _ in range(9)]
    return Grid(tuple(cells), _ask_cell(die))


def pose(grid: Grid) -> tuple[str, Gold]:
    """The question in words, and its answer."""
    kind, *rest = grid.ask
    values = [grid.at(*place) for place in grid.places()]
    if kind == "cell":
        gold = Gold(values[0], "integer" if values[0].isdigit() else "word")
        return f"What is at the {cell_name(*rest)}?", gold
    if kind == "sum":
        return f"What is the sum of the {line_name(*rest)}?", Gold(str(sum(map(int, values))), "integer")
    if kind == "count":
        colour, axis, number = rest
        return f"How many shapes in the {line_name(axis, number)} are {colour}?", Gold(
            str(_hits(values, colour)), "integer"
        )
    first, second, axis, number = rest
    a, b = _hits(values, first), _hits(values, second)
    gold = Gold(first if a > b else second if b > a else "same", "word")
    return f"Which is more often in the {line_name(axis, number)}, {first} or {second}?", gold


def facts(grid: Grid) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """(everything visible, what the question needs)."""
    everything = tuple(Fact(cell_name(r, c), grid.at(r, c)) for r in range(3) for c in range(3))
    return everything, tuple(Fact(cell_name(r, c), grid.at(r, c)) for r, c in grid.places())


def change(grid: Grid, die: Random) -> Grid:
    """The same question with one needed cell changed so that the answer is another."""
    gold = pose(grid)[1]
    colours = (*KNOWN_COLOURS, *(word for word in grid.ask if word in COLOURS))
    shapes = (*KNOWN_SHAPES, *(word for word in grid.ask if word in SHAPES))
    while True:
        place = die.choice(grid.places())
        old = grid.at(*place)
        if old.isdigit():
            new = die.choice(DIGITS)
        else:  # a misreading is often half right: the colour or the shape stays
            colour, shape = old.split() if old != "empty" else _thing(die).split()
            new = die.choice((f"{die.choice(colours)} {shape}", f"{colour} {die.choice(shapes)}", "empty"))
        changed = _put(grid, place, new)
        if new != old and pose(changed)[1] != gold:
            return changed


def see(grid: Grid, die: Random) -> str:
    """The needed facts, said in one of many ways."""
    places = grid.places()
    if len(places) == 1:
        return say_fact(facts(grid)[1][0], die)
    return say_line(line_name(*grid.ask[-2:]), [grid.at(*place) for place in places], die)


def survey(grid: Grid) -> str:
    """Everything, in one fixed order and wording."""
    return ". ".join(line_as_read(line_name("row", i), ":", _line(grid, "row", i)) for i in range(3))


def tour(grid: Grid, die: Random) -> str:
    """Much of it, in any order and wording: the three rows, the three columns, or five cells."""
    axis = die.choice(("row", "column", "cell"))
    if axis == "cell":
        return ". ".join(say_fact(fact, die) for fact in die.sample(facts(grid)[0], 5))
    return ". ".join(say_line(line_name(axis, i), _line(grid, axis, i), die) for i in die.sample(range(3), 3))


def line_name(axis: str, number: int) -> str:
    """What a row or column is called.

    >>> line_name("row", 0), line_name("column", 1)
    ('top row', 'center column')
    """
    return f"{(ROWS if axis == 'row' else COLUMNS)[number]} {axis}"


def reason(grid: Grid, die: Random) -> str:
    """The way from the needed facts to the answer, in one of its valid orders. Empty where seeing is all."""
    kind, *rest = grid.ask
    values = [grid.at(*place) for place in grid.places()]
    if kind == "cell":
        return ""
    if kind == "sum":
        numbers = [int(value) for value in values]
        die.shuffle(numbers)
        return die.choice(LINKS) + add_up(numbers)
    if kind == "count":
        return f"{die.choice(LINKS)}{rest[0]}={_hits(values, rest[0])}"
    counts = [f"{shape}={_hits(values, shape)}" for shape in rest[:2]]
    die.shuffle(counts)
    return die.choice(LINKS) + ", ".join(counts)


def paint(grid: Grid, split: str, *parts: int | str) -> Image.Image:
    """The picture."""
    image = paper(*parts)
    for index, value in enumerate(grid.cells):
        row, column = divmod(index, 3)
        if value.isdigit():
            draw_digit(image, row, column, int(value), split, *parts, row, column)
        elif value != "empty":
            draw_shape(image, row, column, value, *parts, row, column)
    return grain(image, *parts)


def cells(grid: Grid) -> tuple[str, ...]:
    """For each cell, row by row, the words that name what is in it: what the vision tower is first taught."""
    return grid.cells


def _line(grid: Grid, axis: str, number: int) -> list[str]:
    return [grid.at(number, i) if axis == "row" else grid.at(i, number) for i in range(3)]


def _thing(die: Random, colours=KNOWN_COLOURS, shapes=KNOWN_SHAPES) -> str:
    return f"{die.choice(colours)} {die.choice(shapes)}"


def _novel_thing(die: Random) -> str:
    return die.choice((f"{NOVEL_COLOUR} {die.choice(KNOWN_SHAPES)}", f"{die.choice(KNOWN_COLOURS)} {NOVEL_SHAPE}"))


def _ask_cell(die: Random) -> tuple:
    return ("cell", die.randrange(3), die.randrange(3))


def _put(grid: Grid, place: tuple[int, int], value: str) -> Grid:
    index = 3 * place[0] + place[1]
    return grid._replace(cells=(*grid.cells[:index], value, *grid.cells[index + 1 :]))


def _hits(values: list[str], word: str) -> int:
    return sum(word in value.split() for value in values)
