"""Where a page has the pictures of a run from: this machine alone, whatever the run's config names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from vergence.scenes.files import Files
from vergence.scenes.source import Source
from vergence.scenes.split import Split
from vergence.train.config import Config
from vergence.train.data import FILE, Data
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


def scenes_of(config: Config, data: Data, pictures: str = "") -> Source:
    """The scenes of a run, to be shown again. Nobody is asked for them: a data set of the Hub is had from what is kept
    on this machine. Data that cannot be had, or is not what the run was trained on, leaves the pictures out, and the
    page says why.

    Args:
        config: the run's. It may be a stranger's: the folder of pictures that it names is not read, and no large folder
            is searched.
        data: what the run says its data was. Only who has that data is shown it: the config may name any file.
        pictures: the folder besides the data's own that the user lets be read.
    """
    named = f" (its config names {config.pictures[:200]!r}: give --pictures)" if config.pictures else ""
    if config.scenes != "embedded" and not data.get("content"):
        return Without(
            f"the run does not say what was in {config.scenes[:200]!r}: its {FILE} is missing, or does not say it"
        )
    try:
        source = open_data(replace(config, skip_refused=True, pictures=pictures), fetch=False)
    except UserError as error:
        return Without(f"{error}{named}")
    if isinstance(source, Files) and source.content != data["content"]:
        return Without(
            f"{config.scenes[:200]!r} on this machine is not what the run was trained on: its content is "
            f"{source.content[:16]}, and was {data['content'][:16]}{named}"
        )
    return source
