"""A response in the terminal, each token on a colour that says how much of a statistic it has.

The colours are readable by colour-blind people (cividis; purple to orange where a statistic has a sign), and nothing is
said by colour alone: the scale is printed with its numbers, and the highest tokens with their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.text import Text

from vergence.harmless import harmless
from vergence.types import UserError

CIVIDIS = ("#2a3f6d", "#575d6d", "#8a8678", "#c3b369", "#fee838")
"""Four steps of the ramp of that name and its end, from low to high."""
PUOR = ("#542788", "#998ec3", "#f1a340", "#b35806")
"""ColorBrewer's: purple below zero, orange above; the strongest are the outermost."""
PLAIN = 0.1
"""Of the scale: below it a token has no colour."""
MOST = 6000
"""Characters of a response that are printed."""


class Scale(NamedTuple):
    """What the colours stand for: from `low` to `high`; what is beyond has the outermost colour."""

    by: str
    low: float
    high: float

    @property
    def signed(self) -> bool:
        """Whether it has a middle at zero."""
        return self.low < 0

    def colour(self, value: float | None) -> str:
        """The background of a token of that value; "" is none.

        >>> scale = Scale("kl masked", 0.0, 2.0)
        >>> scale.colour(0.1), scale.colour(0.5), scale.colour(9.0)
        ('', '#2a3f6d', '#fee838')
        >>> Scale("log ratio masked", -2.0, 2.0).colour(-3.0)
        '#542788'
        """
        share = 0.0 if value is None or self.high <= 0 else value / self.high
        if abs(share) < PLAIN or (share < 0 and not self.signed):
            return ""
        if self.signed:
            return PUOR[(3 if share >= 0.5 else 2) if share > 0 else (0 if share <= -0.5 else 1)]
        return CIVIDIS[min(len(CIVIDIS) - 1, int((share - PLAIN) / (1 - PLAIN) * len(CIVIDIS)))]


def scale_of(records: Sequence[Mapping[str, Any]], by: str) -> Scale:
    """The scale of a statistic over all these records: up to the 98th percentile of its size, from 0 or on both sides.

    >>> scale_of([{"tokens": ["a", "b"], "stats": {"kl masked": [0.0, 2.0]}}], "kl masked").low
    0.0

    Raises:
        UserError: nothing of that name was measured.
    """
    values = [value for record in records for value in record["stats"].get(by, ()) if value is not None]
    if not values:
        names = dict.fromkeys(repr(name)[:40] for record in records for name in record["stats"])
        raise UserError(f"nothing called {repr(by)[:80]} was measured; --by takes {', '.join(names) or 'nothing here'}")
    high = float(np.quantile(np.abs(values), 0.98))
    # a divergence is rounded to just below zero at times: that is no sign
    return Scale(by, -high if min(values) < -1e-3 else 0.0, high)


def coloured(record: Mapping[str, Any], scale: Scale) -> Text:
    """The response; a token that states something seen is underlined where that is known. At most `MOST` characters."""
    text, looks = Text(), record["looks"] or [0] * len(record["tokens"])
    for piece, value, seen in zip(record["tokens"], record["stats"].get(scale.by, []), looks, strict=True):
        if len(text) > MOST:
            text.append(f" ... and {sum(map(len, record['tokens'])) - MOST} characters more")
            break
        lead = len(piece) - len(piece.lstrip())
        text.append(harmless(piece[:lead]))
        text.append(harmless(piece[lead:][:MOST]), style=_style(scale.colour(value), seen))
    return text


def legend(scale: Scale) -> Text:
    """The colours with the numbers that they stand for."""
    unit = "" if scale.by in ("advantage", "weight") else ", nats"
    text = Text(f"{harmless(scale.by)}{unit}: ")
    for share in (-1.0, -0.3, 0.0, 0.3, 1.0) if scale.signed else (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        text.append(f" {share * scale.high:.2f} ", style=_style(scale.colour(share * scale.high), 0))
    return text


def highest(record: Mapping[str, Any], by: str, most: int = 8) -> str:
    """The tokens with most of a statistic (of either sign) and their values, in words.

    >>> highest({"tokens": ["red", " 7"], "stats": {"kl masked": [0.25, 2.0]}}, "kl masked")
    '7 2.00, red 0.25'
    """
    values = [(value or 0.0, piece) for value, piece in zip(record["stats"][by], record["tokens"], strict=True)]
    ranked = sorted((pair for pair in values if pair[1].strip()), key=lambda pair: -abs(pair[0]))
    return ", ".join(f"{harmless(piece).strip()[:40]} {value:.2f}" for value, piece in ranked[:most])


def _style(background: str, underlined: int) -> str:
    line = "underline" if underlined else ""
    if not background:
        return line
    red, green, blue = (int(background[at : at + 2], 16) for at in (1, 3, 5))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 130
    return f"{line} {'white' if dark else 'black'} on {background}".strip()
