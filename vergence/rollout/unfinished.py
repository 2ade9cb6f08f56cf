"""What a sampler had said of a round that could not be finished: kept in a file, for the run that goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vergence.models.policy import Policy
from vergence.types import Asked, Sampled, UserError


class SamplerDown(UserError):
    """A sampler with weights of its own cannot be had.

    Args:
        told: why, and what to do.
        finished: what it had said before, by the place in what was asked.
    """

    def __init__(self, told: str, finished: Mapping[int, Sampled] | None = None) -> None:
        super().__init__(told)
        self.finished = dict(finished or {})


class Unfinished:
    """A `Sampler` and `Following` that hands everything on to another one, and loses nothing that this had finished.

    Where a round ends because the sampler or a judge cannot be had, its responses are written to a file, by their keys;
    a key is of one round, scene and sibling. The run that goes on has the same weights in the round that it asks first.
    In that round alone the file is believed, and what stands in it is not asked again.

    Args:
        sampler: is a `Following` too.
        file: in the run's folder.
    """

    def __init__(self, sampler: Any, file: Path) -> None:
        self.sampler, self.file = sampler, file
        self._kept: dict[int, Sampled] | None = None
        self._said: dict[int, Sampled] = {}

    def follow(self, policy: Policy) -> None:
        """See `Following`. The first one finds what was kept; at the next one, that round is over."""
        self.sampler.follow(policy)
        if self._kept is None:
            self._kept = read(self.file)
            self._said = dict(self._kept)
        else:
            self._forget()

    def rest(self) -> None:
        """See `Following`. The round is complete."""
        self._forget()
        self.sampler.rest()

    def close(self) -> None:
        """See `Following`."""
        self.sampler.close()

    def __call__(self, asked: Sequence[Asked], *, temperature: float, max_tokens: int) -> list[Sampled]:
        """See `Sampler`.

        Raises:
            SamplerDown: it cannot be had; what it had said is kept.
        """
        kept = self._kept or {}
        left = [one for one in asked if one.key not in kept]
        try:
            drawn = self.sampler(left, temperature=temperature, max_tokens=max_tokens) if left else []
        except SamplerDown as error:
            self._said |= {left[row].key: sampled for row, sampled in error.finished.items()}
            self.keep()
            raise
        self._said |= {one.key: sampled for one, sampled in zip(left, drawn, strict=True)}
        fresh = iter(drawn)
        return [kept[one.key] if one.key in kept else next(fresh) for one in asked]

    def keep(self) -> None:
        """Write what was said in this round, which cannot go on; what cannot be written is asked again."""
        with suppress(OSError):
            write(self.file, self._said)

    def _forget(self) -> None:
        self._kept, self._said = {}, {}
        with suppress(OSError):
            self.file.unlink(missing_ok=True)


def write(file: Path, said: Mapping[int, Sampled]) -> None:
    """Responses by their keys, as JSON under another name first; every number comes back as it was."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps([{"key": key, **sampled._asdict()} for key, sampled in said.items()]) + "\n")
    os.replace(partial, file)


def read(file: Path) -> dict[int, Sampled]:
    """What `write` wrote; nothing if there is no such file, or it is damaged: then it is asked again."""
    try:
        return {
            one["key"]: Sampled(tuple(one["tokens"]), tuple(one["logp"]), tuple(one["entropy"]), one["finish"])
            for one in json.loads(file.read_bytes())
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
