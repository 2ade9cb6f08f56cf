"""The embedded scenes: worlds drawn from a seed, so that a full experiment needs no download.

Every scene is a function of (world, split, seed, index): it can be drawn alone, in any order, on any process.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from random import Random
from typing import Any, NamedTuple

from PIL import Image

from vergence.chance import dice
from vergence.scenes import bars, geometry, grid
from vergence.scenes.speech import OPENINGS
from vergence.scenes.split import SPLITS, Split, assign, content_hash
from vergence.types import Fact, Gold, Scene, UserError


class World(NamedTuple):
    """A kind of scene, as functions of its content (a plain tuple)."""

    draft: Callable[[Random], Any]
    """die -> content."""
    pose: Callable[[Any], tuple[str, Gold]]
    """content -> question and answer."""
    facts: Callable[[Any], tuple[tuple[Fact, ...], tuple[Fact, ...]]]
    """content -> everything visible, and what the question needs."""
    change: Callable[[Any, Random], Any]
    """content -> one needed fact changed, another answer."""
    see: Callable[[Any, Random], str]
    """content -> the needed facts in words."""
    survey: Callable[[Any], str]
    """content -> everything visible, in one fixed order and wording."""
    tour: Callable[[Any, Random], str]
    """content -> much or all of what is visible, in one of many orders and wordings."""
    reason: Callable[[Any, Random], str]
    """content -> the way from the facts to the answer in words."""
    paint: Callable[..., Image.Image]
    """(content, split, *key) -> picture."""
    cells: Callable[[Any], tuple[str, ...]]
    """content -> what is in each of the nine cells, in words."""


def _on_grid(draft: Callable[[Random], grid.Grid]) -> World:
    return World(
        draft, grid.pose, grid.facts, grid.change, grid.see, grid.survey, grid.tour, grid.reason, grid.paint, grid.cells
    )


def _of(module) -> World:
    return World(*(getattr(module, name) for name in World._fields))


WORLDS: dict[str, World] = {
    "digits": _on_grid(grid.draft_digits),
    "shapes": _on_grid(grid.draft_shapes),
    "bars": _of(bars),
    "geometry": _of(geometry),
    "mosaic": _on_grid(grid.draft_mosaic),
    "novel": _on_grid(partial(grid.draft_shapes, novel=True)),
}
TRAINED = ("digits", "shapes", "bars", "geometry")
"""The worlds of the warm start and of training by default. Kept for out-of-domain evaluation are `mosaic`, and
`novel`: shapes as ever, but asked about the colour and the shape that are left out everywhere else."""


class Drawn(NamedTuple):
    """A scene with what only its maker knows."""

    scene: Scene
    content: Any


def draw(world: str, split: Split, index: int, *, seed: int = 0, partner: bool = True) -> Drawn:
    """Scene number `index` of a world, split and seed.

    Content is drawn until its hash belongs to the split, so no two splits share a scene, whatever their seeds; the
    handwriting is that of the split.

    Args:
        partner: draw the counterfactual too.

    Raises:
        UserError: no such world or split.
    """
    if world not in WORLDS:
        raise UserError(f"no world {world!r}; the embedded worlds are {', '.join(WORLDS)}")
    if split not in SPLITS:
        raise UserError(f"no split {split!r}; the splits are {', '.join(SPLITS)}")
    name = f"{world}/{split}/{seed}/{index}"
    for attempt in count():
        die = dice("scene", name, attempt)
        content = WORLDS[world].draft(die)
        scene = _scene(world, split, name, content, die, images=False)
        if assign(content_hash(scene)) == split:
            break
    scene = _scene(world, split, name, content, dice("words", name), images=True)
    if partner:
        scene = replace(scene, counterfactual=_partner(world, split, name, content))
    return Drawn(scene, content)


LONGEST_KEY = 200
"""Characters of a scene's key."""


def of_key(key: str) -> Scene:
    """The scene that has this key.

    >>> of_key("bars/tune/0/3").key
    'bars/tune/0/3'

    Raises:
        UserError: it is not the key of an embedded scene.
    """
    world, split, seed, index = [*key.split("/"), "", "", ""][:4]
    numbered = len(key) <= LONGEST_KEY and (seed + index).isascii() and seed.isdigit() and index.isdigit()
    if numbered and world in WORLDS and split in SPLITS:
        scene = draw(world, split, int(index), seed=int(seed), partner=False).scene
        if scene.key == key:
            return scene
    raise UserError(f"{key[:80]!r} is not the key of an embedded scene: world/split/seed/index, e.g. bars/tune/0/3")


def draw_many(worlds: Sequence[str], split: Split, number: int, *, start: int = 0, seed: int = 0) -> list[Scene]:
    """`number` scenes, the worlds taking turns, from position `start` on."""
    turns = range(start, start + number)
    return [
        draw(worlds[turn % len(worlds)], split, turn // len(worlds), seed=seed, partner=False).scene for turn in turns
    ]


def draw_distinct(world: str, split: Split, number: int, *, seed: int = 0) -> list[Scene]:
    """The first `number` scenes with content of their own: a mean over questions should not count one twice.

    Fewer, if twenty times as many draws do not give as many.
    """
    found: dict[str, Scene] = {}
    for index in range(20 * number):
        scene = draw(world, split, index, seed=seed, partner=False).scene
        found.setdefault(content_hash(scene), scene)
        if len(found) == number:
            break
    return list(found.values())


def say(drawn: Drawn, world: str, die: Random, *, misread: bool = False) -> str:
    """A worked response: facts in one of their orders and wordings, a valid way of reasoning, the answer in a box.

    With `misread` one needed fact is stated wrongly and everything after it follows from that.
    """
    functions = WORLDS[world]
    content = functions.change(drawn.content, die) if misread else drawn.content
    reasoning = functions.reason(content, die)
    thought = f"{die.choice(OPENINGS)}{functions.see(content, die)}.{f' {reasoning}.' if reasoning else ''}"
    return f"<think>{thought}</think>\\boxed{{{functions.pose(content)[1].text}}}"


def guesses(world: str, *, number: int = 2000) -> dict[str, str]:
    """For each question of a world, the answer it most often has in training: the best guess without the image."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(number):
        die = dice("guess", world, index)
        question, gold = WORLDS[world].pose(WORLDS[world].draft(die))
        answers[question][gold.text] += 1
    return {question: counted.most_common(1)[0][0] for question, counted in answers.items()}


def guess_accuracy(scenes: Sequence[Scene]) -> dict[str, float]:
    """By world, the share of these scenes that the best guess from the question alone gets right."""
    right: dict[str, list[bool]] = defaultdict(list)
    best: dict[str, dict[str, str]] = {}
    for scene in scenes:
        if scene.world not in best:
            best[scene.world] = guesses(scene.world)
        right[scene.world].append(best[scene.world].get(scene.question) == scene.gold.text)
    return {world: sum(hits) / len(hits) for world, hits in right.items()}


def _partner(world: str, split: Split, name: str, content: Any) -> Scene:
    """The counterfactual. What may be trained on has a partner that may be trained on too, where there is one.

    Some contents have only two single changes that turn the answer; where neither falls into train, one is taken all
    the same.
    """
    for attempt in range(64):
        other = WORLDS[world].change(content, dice("partner", name, attempt))
        twin = _scene(world, split, name, other, dice("words", name), images=False)
        if split != "train" or assign(content_hash(twin)) == "train":
            break
    return _scene(world, split, name, other, dice("words", name), images=True)


def _scene(world: str, split: str, name: str, content: Any, die: Random, *, images: bool) -> Scene:
    functions = WORLDS[world]
    question, gold = functions.pose(content)
    return Scene(
        key=name,
        world=world,
        images=(functions.paint(content, split, name),) if images else (),
        question=question,
        gold=gold,
        facts=functions.facts(content)[0],
        caption=functions.see(content, die) + ".",
    )
