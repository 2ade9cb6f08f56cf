"""What the heads of pictures say, of those looked at last: one often serves many questions, near each other."""

from __future__ import annotations

from pathlib import Path

from vergence.scenes.picture import Head

MOST = 2**15
"""Pictures of which it is kept."""


class Heads(dict[Path, Head]):
    """A picture's path -> its head. The oldest makes room for a new one."""

    def __setitem__(self, path: Path, head: Head) -> None:
        if len(self) >= MOST:
            del self[next(iter(self))]
        super().__setitem__(path, head)
