"""The files that a folder or a pattern means, and no file that a link in it leads to elsewhere."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vergence.types import UserError

ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
"""Of the files that are read."""
MOST_ENTRIES = 200_000
"""Files and folders among which a source is looked for that a config alone names: it may say "/"."""


def files_of(path: Path, *, trusted: bool = True) -> tuple[Path, list[Path]]:
    """The folder that holds everything, and the files in it, sorted; hidden ones are none.

    Args:
        path: A file, a folder, or a pattern.
        trusted: Whether the user has named it. Else no more than `MOST_ENTRIES` are looked at.

    Raises:
        UserError: there is none; or one is a link that leads out of the folder.
    """
    is_pattern = has_signs(path) and not path.exists()
    if not (path.is_dir() or is_pattern):
        if path.suffix.lower() not in ENDINGS:
            raise UserError(f"{path} is none of {', '.join(ENDINGS)}; convert it to one of these")
        return path.parent, [path]
    if is_pattern:
        if "**" in path.parts:
            raise UserError(f"{path}: ** is no pattern; name the folder, which is read with all that is below it")
        if has_signs(path.parent) and not trusted:
            raise UserError(f"{path}: a pattern of a config alone searches no folders; name it yourself")
        fixed = re.split(r"[*?\[]", str(path))[0]
        root = Path(fixed if fixed.endswith("/") else Path(fixed).parent)
        files = [Path(found) for found in glob.glob(str(path)) if Path(found).is_file()]
    else:
        root, found = path, below(path, None if trusted else MOST_ENTRIES)
        files = [file for file in found if file.suffix.lower() in ENDINGS and file.is_file()]
    if not files and is_pattern:
        raise UserError(f"no file is called {path}; is the pattern in quotes?")
    if not files:
        raise UserError(f"{path} holds no file of {', '.join(ENDINGS)}; rows have to stand in one, beside pictures")
    _refuse_links_out(root, files)
    return root, sorted(files)


def has_signs(path: str | Path) -> bool:
    """Whether it is written as a pattern.

    >>> has_signs("shards/*.parquet"), has_signs("a.csv")
    (True, False)
    """
    return any(sign in str(path) for sign in "*?[")


def _refuse_links_out(root: Path, files: Sequence[Path]) -> None:
    """A folder of somebody else must not have other files of this machine read. In the Hub's own cache, though, every
    file is a link to what is kept beside the folder, of the same data set."""
    home = root.resolve()
    snapshots = next((one.parent for one in (home, *home.parents) if one.parent.name == "snapshots"), None)
    if snapshots and snapshots.parent.name.startswith("datasets--"):
        home = snapshots.parent
    for file in files:
        if not file.resolve().is_relative_to(home):
            raise UserError(
                f"{file} is a link that leads out of {root}, and is not followed: put the files themselves there, as "
                f"cp -rL does, or name one alone"
            )


def below(folder: Path, most: int | None = None, *, hidden: bool = False) -> Iterator[Path]:
    """What is below a folder and is none, however deep; what cannot be looked into is empty.

    Args:
        most: Files and folders that are looked at.
        hidden: Whether files and folders whose names begin with a dot are looked at too.

    Raises:
        UserError: there are more.
    """
    waiting, seen = [str(folder)], 0
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen == most:
                    raise UserError(f"{folder} holds {most:,} files or more, and nobody but a config says to search it")
                if entry.name.startswith(".") and not hidden:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield Path(entry.path)
