"""The hashes of a checkpoint's files, as `sha256sum -c SHA256SUMS` reads them in its folder.

The model card is not among them: it is written again with every result that comes, and no run goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

SUMS, CARD = "SHA256SUMS", "README.md"
STATE = "trainer/state.json"
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
AT_ONCE = 8
"""Files that are read side by side."""
LONGEST = 2**20
"""Bytes of the list that are read; one of our own has a few thousand."""


def files_of(checkpoint: Path) -> list[str]:
    """The names of the files that are hashed, in order."""
    found = (path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in (SUMS, CARD))


def write_sums(checkpoint: Path) -> None:
    """Hash all files of a checkpoint that is being written, and write the list."""
    names = files_of(checkpoint)
    lines = (f"{digest}  {name}\n" for digest, name in zip(_digests(checkpoint, names), names, strict=True))
    (checkpoint / SUMS).write_text("".join(lines))


def damage(checkpoint: Path, *, trainer: bool = True) -> str:
    """What is wrong with a checkpoint's files; "" if nothing is, or if it is one of an older version without hashes.

    Args:
        trainer: whether what only a resumed run needs is read too: twice the size of the weights, and more.
    """
    if (checkpoint / STATE).exists() and not (checkpoint / STATE).is_file():
        return f"{STATE} is no file"  # but a pipe, which would be waited for, or a device, which never ends
    try:
        state = json.loads((checkpoint / STATE).read_bytes())
        number = state.get("files")
        step, position = state["step"], state["position"]
        if not isinstance(step, int) or not isinstance(position, int):
            return f"{STATE} says no step"
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        return f"{STATE} cannot be read ({type(error).__name__})"
    if not (checkpoint / SUMS).is_file():
        return "" if number is None else f"{SUMS} is missing"
    listed = _listed(checkpoint / SUMS)
    if isinstance(listed, str):
        return listed
    if len(listed) != number:
        return f"{SUMS} lists {len(listed)} files, and {number} were written"
    names = [name for name in listed if trainer or not name.startswith("trainer/")]
    gone = [name for name in names if not (checkpoint / name).is_file()]
    if gone:
        return f"{gone[0]} is missing"
    try:
        found = _digests(checkpoint, names)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    wrong = [name for name, digest in zip(names, found, strict=True) if digest != listed[name]]
    return f"{wrong[0]} is not what was written" if wrong else ""


def _listed(path: Path) -> dict[str, str] | str:
    """Name -> digest; or what is wrong with the list. No name leads out of the folder."""
    found: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            lines = file.read(LONGEST).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{SUMS} cannot be read"
    for number, line in enumerate(lines, 1):
        read = LINE.fullmatch(line)
        if read is None or ".." in (parts := PurePosixPath(read[2]).parts) or parts[0] == "/":
            return f"line {number} of {SUMS} is damaged"
        found[read[2]] = read[1]
    return found


def _digests(folder: Path, names: list[str]) -> list[str]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda name: _digest(folder / name), names))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
