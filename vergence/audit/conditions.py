"""Does it look, and if so, does it see? One model, the same questions, shown in many ways: see docs/audit.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from vergence.audit.altered import CHANGED, changed, in_words, swapped, with_facts, without_image
from vergence.audit.probes import Claim, claims, seen
from vergence.audit.subject import Subject
from vergence.chance import key
from vergence.evaluate.errors import error_of
from vergence.evaluate.suite import Record, Told
from vergence.rewards.reasoner import Question, Reasoner, question
from vergence.rewards.verify import verify_all
from vergence.types import (
    ORIGINAL,
    Blank,
    Blur,
    Jitter,
    Noise,
    Perspective,
    Rotate,
    Scene,
    UserError,
    ViewSpec,
    Wording,
)

KEPT: dict[str, ViewSpec] = {
    "jitter": Jitter(),
    "perspective": Perspective(chance=1.0),
    "rotate": Rotate(),
    "blur": Blur(),
    "noise": Noise(),
}
"""What keeps what matters: the views that CPPO's positive one is drawn from, each by itself."""


class Condition(NamedTuple):
    """One way of showing the questions."""

    name: str
    asked: tuple[Scene, ...]
    judged: tuple[Scene, ...]
    """The same with the question as it was, for what is right and what is to be seen."""
    show: ViewSpec = ORIGINAL


class Shortcut(NamedTuple):
    """Whether what a model says of a picture is enough to answer from."""

    suffices: dict[str, float]
    """Scene -> 1 where the reasoner answers rightly from the model's own caption, else 0."""
    able: dict[str, float]
    """Scene -> the same from the scene's own caption; empty where scenes have none."""


class Heard(NamedTuple):
    """Everything that was asked, before any mean."""

    records: dict[str, list[Record]]
    """By condition; each record has its `condition` and its `error` too."""
    probed: dict[float, dict[str, float]]
    """Position -> scene -> `probes.seen`."""
    shortcut: Shortcut | None
    left_out: list[dict[str, str]]
    """What could not be asked, and why."""


class Left(NamedTuple):
    """Conditions, and those that cannot be had."""

    conditions: list[Condition]
    out: list[dict[str, str]]


def conditions(scenes: Sequence[Scene], seed: int = 0) -> Left:
    """In which ways the questions can be shown, and which not, and why.

    >>> from vergence.scenes.embedded import draw_many
    >>> [condition.name for condition in conditions(draw_many(["bars"], "tune", 8)).conditions][:7]
    ['image', 'blank', 'none', 'facts', 'words', 'swapped', 'changed']
    """
    pictured = [scene for scene in scenes if scene.images]
    found, out = [as_it_is("image", scenes, ORIGINAL)], []
    if not pictured:
        return Left(found, [{"what": "everything about the image", "why": "no question has one"}])
    found.append(as_it_is("blank", pictured, Blank()))
    ways: dict[str, tuple[Callable[[Scene], Scene | None], str]] = {
        "none": (without_image, ""),
        "facts": (with_facts, "no scene has a caption or facts to put into words"),
        "words": (in_words, "no scene has a caption or facts to put into words"),
        "swapped": (lambda scene: swapped(scene, pictured, seed), "no scene beside it has a picture to swap with"),
        "changed": (
            changed,
            "no scene has a counterfactual, as embedded ones have",
        ),
    }
    for name, (way, why) in ways.items():
        made = [(scene, other) for scene in pictured if (other := way(scene)) is not None]
        if made:
            judged = tuple(replace(other, question=scene.question) for scene, other in made)
            found.append(Condition(name, tuple(other for _, other in made), judged))
        else:
            out.append({"what": name, "why": why})
    return Left(found + [as_it_is(name, pictured, show) for name, show in KEPT.items()], out)


def as_it_is(name: str, scenes: Sequence[Scene], show: ViewSpec) -> Condition:
    """The scenes themselves, their images shown as a view says."""
    return Condition(name, tuple(scenes), tuple(scenes), show)


def listen(
    subject: Subject,
    scenes: Sequence[Scene],
    *,
    reasoner: Reasoner | None = None,
    seed: int = 0,
    max_tokens: int = 64,
    wording: Wording = "short",
    told: Told = lambda done, of: None,
) -> Heard:
    """Ask everything that can be asked.

    Args:
        reasoner: answers from the subject's captions; None leaves the shortcut rate out.
        seed: of what is drawn here: pictures that are swapped, claims, the reasoner's noise.
        max_tokens, wording: of the reasoner's answers.
        told: called with (rounds done, of) for a progress bar: every condition, the probes, the captions.

    Raises:
        UserError: there are no questions, or two have the same key.
    """
    if not scenes:
        raise UserError("there are no questions to audit with")
    if len({scene.key for scene in scenes}) < len(scenes):
        raise UserError("two questions have the same key; an audit pairs answers by it")
    left, records, out = conditions(scenes, seed), {}, []
    of = 100 * (len(left.conditions) + 2)
    for number, one in enumerate(left.conditions):

        def within(done: int, whole: int, number: int = number) -> None:
            told(100 * number + 100 * done // whole, of)

        records[one.name] = answers(subject, one, within)
    probed = _probed(subject, scenes, records["image"], seed)
    if not probed:
        out.append({"what": "probes", "why": "no scene has facts that its answer leaves unsaid"})
    told(of - 100, of)
    shortcut = None
    if reasoner is None:
        out.append({"what": "shortcut", "why": "no reasoner was given to answer from captions"})
    else:
        shortcut = _shortcut(subject, scenes, reasoner, seed=seed, max_tokens=max_tokens, wording=wording)
    told(of, of)
    return Heard(records, probed, shortcut, left.out + out)


def answers(subject: Subject, one: Condition, told: Told) -> list[Record]:
    """The records of one condition, under the keys of the scenes as they were, each with `error`."""
    by_key = {asked.key: judged for asked, judged in zip(one.asked, one.judged, strict=True)}
    found = []
    for record in subject.answer(one.asked, one.show, told):
        scene = by_key[record["scene"]]
        error = error_of(record["response"], record["status"], record["finish"], scene)
        found.append({**record, "scene": scene.key.removesuffix(CHANGED), "condition": one.name, "error": error})
    return found


def _probed(subject: Subject, scenes: Sequence[Scene], said: Sequence[Record], seed: int) -> dict:
    """The first answer to each question, probed."""
    first = {record["scene"]: record["response"] for record in reversed(said)}
    asked: list[Claim] = []
    for scene in scenes:
        asked += claims(scene, first[scene.key], scenes, seed) if scene.facts and scene.images else []
    return seen(asked, subject.prefer(asked)) if asked else {}


def _shortcut(
    subject: Subject, scenes: Sequence[Scene], reasoner: Reasoner, *, seed: int, max_tokens: int, wording: Wording
) -> Shortcut:
    """What a reasoner makes of the subject's captions, and of the scenes' own."""
    pictured = [scene for scene in scenes if scene.images]

    def answered(those: Sequence[Scene]) -> dict[str, float]:
        put = "short" if wording == "short" else "think"
        asked = [
            Question(question(scene.caption, scene.question, wording=put), key(seed, "audit", scene.key))
            for scene in those
        ]
        said = reasoner(asked, temperature=0.0, max_tokens=max_tokens) if asked else []
        verdicts = verify_all(said, [scene.gold for scene in those])
        return {scene.key: float(verdict.status == "right") for scene, verdict in zip(those, verdicts, strict=True)}

    return Shortcut(answered(subject.describe(pictured)), answered([one for one in pictured if one.caption]))
