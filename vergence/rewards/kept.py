"""Answers of a server on disk, one file each, so that none is asked for twice."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from vergence.rewards.completion import Said
from vergence.types import UserError


class Kept(NamedTuple):
    """A folder of answers, by the names of their requests; None keeps nothing.

    >>> Kept(None).keep("name", Said("4"))
    >>> Kept(None).find("name") is None
    True
    """

    folder: Path | None

    def find(self, name: str) -> Said | None:
        """The answer to the request of this name; None if there is none, or its file is damaged."""
        if self.folder is None:
            return None
        try:
            found = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        match found:
            case {"request": str(request), "answer": str(answer), **more} if request == name:
                thought, finish = more.get("thought", ""), more.get("finish", "stop")
                return Said(answer, thought, finish) if isinstance(thought, str) and isinstance(finish, str) else None
        return None

    def keep(self, name: str, said: Said) -> None:
        """Write the answer under another name and rename it, so that what has the name of one is whole.

        Raises:
            UserError: it cannot be written.
        """
        if self.folder is None:
            return
        more = {"thought": said.thought, "finish": said.finish} if said.thought or said.finish != "stop" else {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".partial-") as partial:
                (Path(partial) / "answer").write_text(json.dumps({"request": name, "answer": said.text, **more}))
                os.replace(Path(partial) / "answer", self.folder / f"{name}.json")
        except OSError as error:
            raise UserError(
                f"cannot keep an answer in {self.folder} ({error.strerror}); free some space or give another folder"
            ) from error
