"""What one pass over the rows of a data set counts, in some hundred and fifty bytes a row."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vergence.scenes.digests import Digests
from vergence.scenes.refusals import Refusals
from vergence.scenes.rows import Row, digest
from vergence.scenes.split import SPLITS
from vergence.scenes.tables import Refused
from vergence.scenes.tally import Tally
from vergence.scenes.tokens import image_tokens
from vergence.types import IMAGE

COMMONEST = 8
"""Answers that are named."""
SHOWN = 80
"""Characters of an answer that are kept to count it."""


class Vision(NamedTuple):
    """How a model of the Qwen-VL family cuts an image into tokens: see `tokens.size_as_seen`."""

    patch: int = 14
    """Side of a patch, pixels."""
    merge: int = 2
    """Patches on each side of a token."""
    min_pixels: int = 56**2
    max_pixels: int = 1280 * 28**2


class Spread(NamedTuple):
    """Of a list of numbers."""

    least: float
    median: float
    p95: float
    """95 % are not above it."""
    most: float


@dataclass(slots=True)
class Counted:
    """Counts of the rows that were added so far."""

    vision: Vision = field(default_factory=Vision)
    count_tokens: Callable[[str], int] | None = None
    """Of a question, by a model's tokenizer."""
    context: int = 0
    """Tokens that the model can attend to; 0 where that is not known."""
    max_tokens: int = 0
    """Of a response, which have to fit in as well."""
    long: Refusals = field(default_factory=Refusals)
    """Sound rows that do not."""
    refusals: Refusals = field(default_factory=Refusals)
    answers: Tally = field(default_factory=Tally)
    many: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """What is counted -> of which -> how many."""
    lists: defaultdict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    """What is measured -> the numbers."""
    digests: Digests = field(default_factory=Digests)
    """Of each sound row."""
    contents: Digests = field(default_factory=Digests)
    """Likewise."""

    @property
    def refused(self) -> tuple[Refused, ...]:
        """The first of the rows that cannot be used."""
        return tuple(self.refusals.first)

    def add(self, row: Row | Refused) -> None:
        """Count one more row."""
        if isinstance(row, Refused):
            self.refusals.add(row)
            return
        question = row.question.replace(IMAGE, " ")
        self._count("splits", row.split)
        self._count("declared" if row.declared else "inferred", row.gold.kind)
        self.answers.add(row.gold.text[:SHOWN])
        self._count("images per row", str(len(row.heads)))
        self._count("placeholders", row.form)
        self._measure("characters", len(question.strip()))
        self._measure("words", len(question.split()))
        seen = [image_tokens(head.width, head.height, **self.vision._asdict()) for head in row.heads]
        for head, tokens in zip(row.heads, seen, strict=True):
            self._count("formats", f"{head.format} {head.mode}")
            self._measure("width", head.width)
            self._measure("height", head.height)
            self._measure("megapixels", head.width * head.height / 1e6)
            self._measure("aspect", max(head.width, head.height) / min(head.width, head.height))
            self._measure("bytes", head.bytes)
            self._measure("image tokens", tokens)
        if self.count_tokens:
            self._measure("tokens", asked := self.count_tokens(question))
            self._measure("prompt tokens", asked + sum(seen))
            self._fit(row, asked + sum(seen))
        self.digests.add(digest(row))
        self.contents.add(row.content)

    def _fit(self, row: Row, tokens: int) -> None:
        if not 0 < self.context < tokens + self.max_tokens:
            return
        response = f" and up to {self.max_tokens:,} of a response" if self.max_tokens else ""
        said = f"{tokens:,} tokens{response}, more than the {self.context:,} that the model can attend to"
        remedy = "shorten the question, take smaller images (--max-pixels), or leave the row out"
        self.long.add(Refused(row.file, row.row, "", said, remedy, row.unit))

    def _count(self, what: str, which: str) -> None:
        self.many[what][which] += 1

    def _measure(self, what: str, number: int | float) -> None:
        self.lists[what].append(number)

    def summary(self) -> dict[str, Any]:
        """The counts as plain data, which `summary.say` puts into words and JSON can hold."""
        many, sound = self.many, len(self.digests)
        repeated = zip(("same answer", "other answer"), self.contents.repeats(self.digests), strict=True)
        return {
            "rows": sound + self.refusals.number,
            "sound": sound,
            "refused": {"number": self.refusals.number, "reasons": dict(self.refusals.reasons.most_common())},
            "too long": {"number": self.long.number, "context": self.context, "max_tokens": self.max_tokens},
            "splits": {split: many["splits"][split] for split in SPLITS},
            "kinds": {how: dict(many[how].most_common()) for how in ("declared", "inferred")},
            "answers": {"different": self.answers.different(), "commonest": self.answers.commonest(COMMONEST)},
            "duplicates": {which: number for which, number in repeated if number},
            "placeholders": dict(many["placeholders"].most_common()),
            "images per row": dict(sorted(many["images per row"].items(), key=lambda one: int(one[0]))),
            "formats": dict(many["formats"].most_common()),
            "spreads": {name: spread(numbers)._asdict() for name, numbers in self.lists.items()},
            "vision": self.vision._asdict(),
            "hash": self.digests.fingerprint(),
        }


def spread(numbers: array[float]) -> Spread:
    """Least, median, 95th percentile and most of at least one number.

    >>> spread(array("d", [4, 1, 2]))
    Spread(least=1.0, median=2.0, p95=4.0, most=4.0)
    """
    ordered = np.sort(np.frombuffer(numbers))
    at = [0.0, 0.5, 0.95, 1.0]
    return Spread(*(float(number) for number in np.quantile(ordered, at, method="closest_observation")))
