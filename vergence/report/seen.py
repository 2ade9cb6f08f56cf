"""What a rollout saw: its scene drawn again from its key, every view of it, and where what it says is not so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from PIL.Image import Image

from vergence import views
from vergence.evaluate.errors import error_of
from vergence.report.shown import Picture, Slip, mark, picture
from vergence.scenes.speech import false_facts
from vergence.types import Caption, Erase, Fact, Reword, Salient, Scene, Swap, UserError, ViewSpec

SceneOf = Callable[[str], Scene]
"""key -> the scene; raises UserError or KeyError where there is none."""

LONGEST = 20_000
"""Characters of a response that are read and shown."""


class Seen(NamedTuple):
    """What a view shows of a scene."""

    name: str
    pictures: tuple[Picture, ...]
    words: str
    """What it says instead of a picture, or why there is none; may be empty."""


class Viewed(NamedTuple):
    """A rollout as the viewer shows it."""

    trace: Mapping[str, Any]
    """The record of `train.traces`, or of `evaluate.looking`."""
    seen: tuple[Seen, ...]
    """The views, in the order to show."""
    error: str | None
    """Of which kind the error is; None where it is right, or where nobody knows."""
    false: tuple[tuple[int, int], ...]
    """Where false values stand in the joined tokens: (start, end) in characters."""
    slips: tuple[Slip, ...]
    trouble: str
    """Why the scene could not be drawn again; empty if it could."""


def viewed(
    traces: Iterable[Mapping[str, Any]], scene_of: SceneOf, shows: Mapping[str, ViewSpec | None]
) -> list[Viewed]:
    """The traces with their scenes drawn again, and what each view showed of them: the same pixels, by the same keys.

    Siblings share their pictures. A scene that cannot be had any more leaves the pictures out and says why.

    Args:
        shows: view name -> what it shows; None shows nothing. A view of a trace that is not among them says so.
    """
    scenes: dict[str, tuple[Scene | None, str]] = {}
    pictures: dict[tuple[str, str, int], Seen] = {}
    found = []
    for trace in traces:
        key = str(trace.get("scene", ""))
        if key not in scenes:
            scenes[key] = _scene(key, scene_of)
        scene, trouble = scenes[key]
        seen = []
        for name in trace.get("views") or ("image",):
            place = (key, str(name), _key_of(trace, name))
            if scene is not None and place not in pictures:
                pictures[place] = _see(scene, str(name), shows, place[2])
            if scene is not None:
                seen.append(pictures[place])
        found.append(_viewed(trace, scene, tuple(seen), trouble))
    return found


def written(trace: Mapping[str, Any]) -> str:
    """What the model wrote: its tokens joined, special ones included; the response, where there are no tokens.

    >>> written({"tokens": ["a", " b"], "response": "a b"}), written({"response": "c"})
    ('a b', 'c')
    """
    return "".join(map(str, trace.get("tokens") or ())) or str(trace.get("response") or "")


def spans(text: str, facts: tuple[Fact, ...]) -> tuple[tuple[int, int], ...]:
    """Where a text states what is not so: (start, end) of each value, in characters.

    >>> spans("red bar: 7. blue bar: 2.", (Fact("red bar", "7"), Fact("blue bar", "3")))
    ((22, 23),)
    """
    found, start = [], 0
    for piece in mark(text, facts):
        if piece.false:
            found.append((start, start + len(piece.text)))
        start += len(piece.text)
    return tuple(found)


def _viewed(trace: Mapping[str, Any], scene: Scene | None, seen: tuple[Seen, ...], trouble: str) -> Viewed:
    error = trace.get("error")
    if scene is None or not scene.facts:
        return Viewed(trace, seen, error, (), (), trouble)
    text = written(trace)[:LONGEST]
    truth = {fact.about: fact.value for fact in scene.facts}
    slips = [Slip(*fact, truth.get(fact.about)) for fact in dict.fromkeys(false_facts(text, scene.facts))]
    if error is None and trace.get("status"):
        response = str(trace.get("response") or "")[:LONGEST]
        error = error_of(response, str(trace["status"]), str(trace.get("finish") or ""), scene)
    return Viewed(trace, seen, error, spans(text, scene.facts), tuple(slips), trouble)


def _key_of(trace: Mapping[str, Any], name: str) -> int:
    keys = trace.get("view_key")
    return int(keys.get(name, 0) if isinstance(keys, Mapping) else keys or 0)


def _scene(key: str, scene_of: SceneOf) -> tuple[Scene | None, str]:
    try:
        return scene_of(key), ""
    except UserError as error:
        return None, str(error)
    except KeyError:
        return None, f"there is no scene {key!r} any more"


def _see(scene: Scene, name: str, shows: Mapping[str, ViewSpec | None], key: int) -> Seen:
    """The view of a scene as `rollout.render` would show it to the policy, before the model's own resize."""
    if name != "image" and name not in shows:
        return Seen(name, (), "what this view showed is not known")
    show = shows.get(name)
    match show:
        case None if name == "image":
            return Seen(name, tuple(map(picture, scene.images)), "" if scene.images else "no image")
        case None:
            return Seen(name, (), "no image")
        case Caption():
            return Seen(name, (), scene.caption or "a caption that was not kept")
        case Swap():
            return Seen(name, (), "what another scene shows")
        case Reword(fraction):
            return Seen(name, tuple(map(picture, scene.images)), views.reword(scene.question, key, fraction=fraction))
    try:
        shown = [_show(show, image, key, index) for index, image in enumerate(scene.images)]
    except UserError as error:
        return Seen(name, (), str(error))
    return Seen(name, tuple(map(picture, shown)), "" if shown else "no image")


def _show(show: Any, image: Image, *key: int) -> Image:
    spec = views.choose(show, *key)
    if isinstance(spec, Erase) and spec.aligned:
        raise UserError("its cells are the model's own image tokens, which only the model knows")
    if isinstance(spec, Salient):
        raise UserError("its cells are the most salient ones, which only its encoder knows")
    return views.show(spec, image.convert("RGB"), *key)
