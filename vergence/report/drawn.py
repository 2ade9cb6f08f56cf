"""Where a page has the pictures of a run from: this machine alone, whatever the run's config names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from vergence.scenes.source import Source
from vergence.scenes.split import Split
from vergence.train.config import Config
from vergence.train.parts import open_data
from vergence.types import Scene, UserError


@dataclass(frozen=True, slots=True)
class Without:
    """A `Source` that has no scene, and says why."""

    why: str

    def train(self, start: int, number: int, *, seed: int) -> list[Scene]:
        """See `Source`. Raises a UserError."""
        self._refuse()

    def held_out(self, split: Split, number: int, *, seed: int) -> Sequence[Scene]:
        """See `Source`. Raises a UserError."""
        self._refuse()

    def scene(self, key: str) -> Scene:
        """See `Source`. Raises a UserError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(self.why)


def scenes_of(config: Config, pictures: str = "") -> Source:
    """The scenes of a run, to be shown again. Nobody is asked for them: a data set of the Hub is had from what is kept
    on this machine. Data that cannot be had leaves the pictures out, and the page says why.

    Args:
        config: the run's. It may be a stranger's: the folder of pictures that it names is not read.
        pictures: the folder besides the data's own that the user lets be read.
    """
    try:
        return open_data(replace(config, skip_refused=True, pictures=pictures), fetch=False)
    except UserError as error:
        named = f" (its config names {config.pictures[:200]!r}: give --pictures)" if config.pictures else ""
        return Without(f"{error}{named}")
