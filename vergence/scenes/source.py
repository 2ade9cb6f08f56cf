"""Where scenes come from, behind one small protocol."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol, runtime_checkable

from vergence.scenes import embedded
from vergence.scenes.split import Split
from vergence.types import Scene, UserError


@runtime_checkable
class Source(Protocol):
    """An endless supply of scenes to train on, and fixed ones to evaluate on."""

    def train(self, start: int, number: int, *, seed: int) -> list[Scene]:
        """`number` scenes of the train split from position `start` on: a function of its arguments alone."""
        ...

    def held_out(self, split: Split, number: int, *, seed: int) -> list[Scene]:
        """The first `number` scenes of a split that is not trained on (fewer, if there are no more)."""
        ...

    def scene(self, key: str) -> Scene:
        """The scene of that key, as `train` or `held_out` gave it.

        Raises:
            UserError: this source has none of that key.
        """
        ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """Scenes that are drawn, the worlds taking turns."""

    worlds: tuple[str, ...]

    def __post_init__(self) -> None:
        for world in self.worlds:
            if world not in embedded.WORLDS:
                raise UserError(f"no world {world!r}; the embedded worlds are {', '.join(embedded.WORLDS)}")

    def train(self, start: int, number: int, *, seed: int) -> list[Scene]:
        """See `Source`."""
        return embedded.draw_many(self.worlds, "train", number, start=start, seed=seed)

    def held_out(self, split: Split, number: int, *, seed: int) -> list[Scene]:
        """See `Source`."""
        fair = [number // len(self.worlds) + (turn < number % len(self.worlds)) for turn in range(len(self.worlds))]
        drawn = [embedded.draw_distinct(world, split, n, seed=seed) for world, n in zip(self.worlds, fair, strict=True)]
        return [scene for turn in zip_longest(*drawn) for scene in turn if scene is not None]

    def scene(self, key: str) -> Scene:
        """See `Source`."""
        return embedded.of_key(key)


def open_source(
    scenes: str,
    worlds: Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    tolerance: float = 0.0,
    skip_refused: bool = False,
    pictures: str = "",
    fetch: bool = True,
    tell: Callable[[str], None] = print,
) -> Source:
    """The source that a config names: "embedded", or files, a folder or a data set of the Hub (see `places`).

    Args:
        scenes: Its name.
        worlds: Which embedded worlds take turns.
        columns: Ours -> the data's, where the names of its columns are not known.
        tolerance: Of numbers among the answers, relative.
        skip_refused: Go on without the rows that cannot be used; else one of them is an error.
        pictures: A folder besides the data's own that pictures may be read from.
        fetch: Whether a data set of the Hub may be fetched. Else it is had from this machine or not at all.
        tell: Told which files of several are read, and how many rows were left out, and why.

    Raises:
        UserError: there is no such source, or a row cannot be used (file, row and field are named).
    """
    if scenes == "embedded":
        return Embedded(tuple(worlds))
    from vergence.scenes.files import read

    files = read(scenes, columns=columns, tolerance=tolerance, pictures=pictures, fetch=fetch)
    for line in files.said:
        tell(line)
    good, bad = sum(map(len, files.rows.values())), files.refusals.number
    if bad and not (skip_refused and good):
        command = ["vergence", "data", "check", scenes]
        command += ["--columns", *(f"{ours}={theirs}" for ours, theirs in columns.items())] if columns else []
        command += ["--pictures", pictures] if pictures else []
        without = " --skip-refused (skip_refused: true) trains without them" if good else ""
        raise UserError(
            f"{files.refused[0]}. {bad} of {good + bad} rows cannot be used; "
            f"`{shlex.join(command)} --refused FILE` lists them.{without}"
        )
    if bad:
        reasons = files.refusals.reasons.most_common(4)
        named = ", ".join(f"{number} {reason}" for reason, number in reasons)
        tell(f"{scenes}: {bad} of {good + bad} rows are left out ({named}{', ...' * (len(reasons) > 3)})")
    return files
