"""What an audit shows in the place of a scene: nothing, true facts in words, another picture, the picture changed.

Each is a scene like any other, with what is right for *it* as gold answer and facts. It keeps its key and so the noise
of its answers: what differs between two answers is then what was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vergence import views
from vergence.chance import dice
from vergence.rollout.render import words
from vergence.scenes import embedded
from vergence.scenes.follow import follow
from vergence.types import Gold, Scene, UserError

CHANGED = "#changed"
"""Behind the key of a counterfactual: both of a pair must be right by themselves, not by the same luck."""


def without_image(scene: Scene) -> Scene:
    """The question alone.

    >>> without_image(embedded.of_key("bars/tune/0/0")).images
    ()
    """
    return replace(scene, images=(), question=words(scene.question))


def with_facts(scene: Scene) -> Scene | None:
    """The image, and beside it what is to be seen there in words; None where nobody knows it.

    The words are the scene's caption, which says what the question needs, else all its facts. They stand before the
    question, as the seedling was taught to read captions.

    >>> with_facts(embedded.of_key("mosaic/tune/0/0")).question
    'Picture: bottom right: 4. What is at the bottom right?'
    """
    told = scene.caption or ". ".join(map(str, scene.facts))
    return replace(scene, question=f"Picture: {told.strip()} {scene.question}") if told.strip() else None


def in_words(scene: Scene) -> Scene | None:
    """The same words in the place of the image; None where nobody knows what is to be seen.

    >>> scene = in_words(embedded.of_key("mosaic/tune/0/0"))
    >>> scene.images, scene.question
    ((), 'Picture: bottom right: 4. What is at the bottom right?')
    """
    told = with_facts(scene)
    return without_image(told) if told else None


def swapped(scene: Scene, others: Sequence[Scene], seed: int = 0) -> Scene | None:
    """The question asked about another scene's picture; None where no picture among `others` can be taken.

    Where the facts are known, it is a picture of the same world to which the question has an answer, another than
    this scene's, and that answer is the gold one. Else the gold answer stays: it is right for a picture that is not
    shown.

    >>> one, *rest = embedded.draw_many(["digits"], "tune", 5)
    >>> one.question, one.gold.text, swapped(one, rest).gold.text
    ('What is the sum of the middle row?', '20', '7')
    """
    if not scene.images:
        return None
    if follow(scene.question, scene.facts) is None:
        try:
            return replace(scene, images=views.swap_images(scene, others, "audit", seed, scene.key))
        except UserError:
            return None
    for other in dice("audit", "swap", seed, scene.key).sample(others, len(others)):
        if other.world != scene.world or len(other.images) != len(scene.images):
            continue
        found = follow(scene.question, other.facts)
        answer = found.answer if found else None
        if answer is not None and answer != scene.gold.text and not answer.startswith("-"):
            gold = Gold(answer, "integer" if answer.isdigit() else "word")
            return replace(scene, images=other.images, facts=other.facts, caption="", gold=gold)
    return None


def changed(scene: Scene) -> Scene | None:
    """The counterfactual: one needed fact is another, and so is the answer; None where there is none.

    >>> scene = embedded.of_key("bars/tune/0/0")
    >>> scene.gold.text, changed(scene).gold.text, changed(scene).key
    ('3', '4', 'bars/tune/0/0#changed')
    """
    twin = scene.counterfactual or (_drawn_with_twin(scene) if scene.world in embedded.WORLDS else None)
    return replace(twin, key=scene.key + CHANGED) if twin else None


def _drawn_with_twin(scene: Scene) -> Scene | None:
    """The counterfactual of an embedded scene, which sources leave out."""
    try:
        drawn = embedded.of_key(scene.key)
    except UserError:  # it only calls itself after a world
        return None
    if drawn.question != scene.question or drawn.gold != scene.gold:
        return None
    world, split, seed, index = scene.key.split("/")
    return embedded.draw(world, split, int(index), seed=int(seed)).scene.counterfactual
