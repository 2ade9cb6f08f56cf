"""The rollout viewer: a block of a page that shows responses with their tokens coloured by what was measured at each.

The block holds its own style, data and script, needs no network, and stands in any page that has the house's colours.
Whatever a model or a data set wrote enters the page as JSON without a markup character in it, and reaches the reader as
text nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vergence.report import ramps
from vergence.report.legible import bounded, legible
from vergence.report.policy import named
from vergence.report.seen import LONGEST, SceneOf, Seen, Viewed, viewed, written
from vergence.report.statistic import statistic
from vergence.types import ViewSpec

__all__ = ["POLICY", "STYLE", "Seen", "Viewed", "sample", "view_traces", "viewed", "viewer"]

MOST = 1000
"""Rollouts in a page."""
MOST_TOKENS = 150_000
"""Tokens in a page: with a dozen statistics of each it has some ten megabytes."""
MOST_PICTURES = 24_000_000
"""Characters of all pictures in a page; those after are left out, and it says so."""
MOST_STATISTICS = 64
"""Statistics in a page: those that come first. Methods have a dozen."""
PLAIN = 50
"""Responses that are listed for browsers without scripts."""
HEADING = "What it said, token by token"

_HERE = Path(__file__).parent
_SCRIPT = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("viewer_parts.js", "viewer.js"))
STYLE = (_HERE / "viewer.css").read_text(encoding="utf-8") + ramps.style()
"""The block's style sheet."""
POLICY = named(_SCRIPT)
"""What the page's content security policy must name as its script-src: this script and no other."""


@dataclass
class Pictures:
    """The pictures of a page, each once."""

    numbers: dict[str, int] = field(default_factory=dict)
    """Its uri -> its number."""
    size: int = 0
    """Characters of them all."""

    def number(self, uri: str) -> int | None:
        """The number of a picture, which is taken in; None where there is no room for it."""
        if uri not in self.numbers:
            if self.size + len(uri) > MOST_PICTURES:
                return None
            self.numbers[uri] = len(self.numbers)
            self.size += len(uri)
        return self.numbers[uri]


def view_traces(
    traces: Sequence[Mapping[str, Any]],
    scene_of: SceneOf,
    shows: Mapping[str, ViewSpec | None],
    *,
    heading: str = HEADING,
) -> Markup:
    """The viewer of these traces: a sample where they are many, their scenes drawn again."""
    return viewer(viewed(sample(traces), scene_of, shows), of=len(traces), heading=heading)


def sample(
    traces: Sequence[Mapping[str, Any]], *, most: int = MOST, tokens: int = MOST_TOKENS
) -> list[Mapping[str, Any]]:
    """Some of the traces by a fixed rule: whole groups of siblings, evenly spaced over the file, the first among them.

    All of them, where there are no more than `most`, with no more than `tokens` tokens.

    >>> traces = [{"step": step, "scene": "a", "sibling": sibling} for step in range(6) for sibling in (0, 1)]
    >>> [trace["step"] for trace in sample(traces, most=4)]
    [0, 0, 3, 3]
    """
    groups: list[list[Mapping[str, Any]]] = []
    for trace in traces:
        if not groups or any(groups[-1][0].get(name) != trace.get(name) for name in ("step", "scene")):
            groups.append([])
        groups[-1].append(trace)
    number = len(groups)
    while number:
        some = [trace for place in range(number) for trace in groups[place * len(groups) // number]]
        size = sum(len(trace.get("tokens") or ()) for trace in some)
        if number == 1 or (len(some) <= most and size <= tokens):
            return some[:most]
        number = max(1, min(number - 1, int(number * min(most / len(some), tokens / max(1, size)))))
    return []


def viewer(rollouts: Sequence[Viewed], *, of: int = 0, heading: str = HEADING) -> Markup:
    """The block that shows these rollouts, once in a page; nothing, where there are none.

    Args:
        of: how many there were, where these are a sample of more.
    """
    if not rollouts:
        return Markup("")
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return Markup(
        environment.get_template("viewer.html").render(
            heading=heading,
            number=len(rollouts),
            of=max(of, len(rollouts)),
            unnamed=len(_names(rollouts)) - MOST_STATISTICS,
            style=Markup(STYLE),
            script=Markup(_SCRIPT),
            data=Markup(embedded(data(rollouts, of=of))),
            plain=[_plain(one) for one in rollouts[:PLAIN]],
        )
    )


def embedded(value: Any) -> str:
    """JSON that can stand in a script element: ASCII alone, and no character that means anything to a browser.

    >>> embedded({"a": "</script>&\\u2028"})
    '{"a":"\\\\u003c/script\\\\u003e\\\\u0026\\\\u2028"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data(rollouts: Sequence[Viewed], *, of: int = 0) -> dict[str, Any]:
    """What the viewer's script reads: pictures once each, statistics by their number, values in three figures.

    A statistic's scale is the same for all rollouts: from the 2nd to the 98th percentile of its values.
    """
    names = _names(rollouts)[:MOST_STATISTICS]
    numbered = {name: number for number, name in enumerate(names)}
    pictures = Pictures()
    lines = [_line(one, numbered, pictures) for one in rollouts]
    values: list[list[float]] = [[] for _ in names]
    for line in lines:
        for number, column in enumerate(line["values"]):
            values[number] += [float(value) for value in column or () if value is not None]
    measured = [statistic(name, values[number]) for name, number in numbered.items()]
    first = next((place for place, one in enumerate(measured) if one.name == "kl masked"), 0)
    return {
        "of": max(of, len(rollouts)),
        "by": first,
        "statistics": [one._asdict() for one in measured],
        "pictures": list(pictures.numbers),
        "rollouts": lines,
    }


def _names(rollouts: Sequence[Viewed]) -> list[str]:
    """Of all statistics, in the order in which they come."""
    return list(dict.fromkeys(str(name) for one in rollouts for name in one.trace.get("stats") or {}))


def _line(one: Viewed, numbered: Mapping[str, int], pictures: Pictures) -> dict[str, Any]:
    """One rollout: texts bounded, its tokens up to `LONGEST` characters, a column of values for each statistic."""
    trace = one.trace
    tokens, left_out = _tokens(trace)
    length, given = len(tokens), trace.get("stats") or {}
    columns: list[list[float | int | None] | None] = [None] * len(numbered)
    for name, column in given.items():
        if str(name) not in numbered:
            continue
        columns[numbered[str(name)]] = [_figures(value) for value in [*column[:length], *[None] * length][:length]]
    selected = {bounded(term, 60): _flags(chosen, length) for term, chosen in (trace.get("selected") or {}).items()}
    return {
        **{name: bounded(trace.get(name), 400) for name in ("scene", "world", "gold", "status", "finish")},
        "step": trace.get("step") if isinstance(trace.get("step"), int) else 0,
        "sibling": trace.get("sibling") if isinstance(trace.get("sibling"), int) else 0,
        "question": bounded(str(trace.get("question") or "").replace("\ufffc", " [image] "), 4000),
        "extracted": None if trace.get("extracted") is None else bounded(trace["extracted"], 400),
        "reward": _figures(trace.get("reward")),
        "advantage": _figures(trace.get("advantage")),
        "error": one.error and bounded(one.error, 60),
        "tokens": [legible(token) for token in tokens],
        "values": columns,
        "looks": None if trace.get("looks") is None else _flags(trace["looks"], length),
        "false": _overlapping(tokens, one.false),
        "selected": {term: flags for term, flags in selected.items() if "1" in flags},
        "more": left_out,
        "seen": [_seen(seen, pictures) for seen in one.seen],
        "slips": [
            [bounded(slip.about, 200), bounded(slip.said, 200), None if slip.true is None else bounded(slip.true, 200)]
            for slip in one.slips[:50]
        ],
        "trouble": bounded(one.trouble, 400),
    }


def _tokens(trace: Mapping[str, Any]) -> tuple[list[str], str]:
    """The tokens up to `LONGEST` characters, or the response as one; and what is left out, in words."""
    text = written(trace)
    given = [str(token) for token in trace.get("tokens") or ()] if trace.get("tokens") else [text]
    kept, room = [], LONGEST
    for token in given:
        if room <= 0:
            break
        kept.append(token[:room])
        room -= len(token)
    more = len(text) - LONGEST
    unread = trace.get("left_out") or 0
    words = [f"{more:,} more characters"] if more > 0 else []
    words += [f"{unread:,} more tokens"] if isinstance(unread, int) and unread > 0 else []
    return kept, f"… and {' and '.join(words)}" if words else ""


def _overlapping(tokens: Sequence[str], spans: Sequence[tuple[int, int]]) -> str:
    """'1' for each token that has a part in one of the spans, blanks before it aside."""
    flags, start = [], 0
    for token in tokens:
        end, first = start + len(token), start + len(token) - len(token.lstrip())
        flags.append(any(first < stop and begin < end for begin, stop in spans))
        start = end
    return _flags(flags, len(tokens))


def _flags(given: Iterable[Any], length: int) -> str:
    return "".join("1" if one else "0" for one in given).ljust(length, "0")[:length]


def _figures(value: Any) -> float | int | None:
    """Three figures of a number; None for what is none, or is not finite."""
    if type(value) not in (int, float) or not isfinite(value):
        return None
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def _seen(seen: Seen, pictures: Pictures) -> list[Any]:
    """[name, [[number of a picture, whether it is small], ...], words]"""
    shown, words = [], seen.words
    for picture in seen.pictures:
        number = pictures.number(picture.uri)
        if number is None:
            words = words or "left out: the page has as many pictures as it can hold"
        else:
            shown.append([number, int(picture.small)])
    return [bounded(seen.name, 60), shown, bounded(words, 400)]


def _plain(one: Viewed) -> dict[str, str]:
    return {
        "question": bounded(one.trace.get("question"), 400),
        "status": bounded(one.trace.get("status"), 40) or "not judged",
        "gold": bounded(one.trace.get("gold"), 200),
        "text": bounded(written(one.trace), 4000),
    }
