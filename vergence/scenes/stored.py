"""Where a row's pictures are: in the row itself, as bytes or text, or in files beside it and nowhere else."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from PIL import Image

from vergence.scenes.columns import Unfit
from vergence.scenes.jsonl import unquoted
from vergence.scenes.picture import MOST_BYTES, Stored
from vergence.scenes.question import shown
from vergence.scenes.tables import Fields
from vergence.types import UserError

MOST_IMAGES = 64
"""In one row."""

_ENCODED = re.compile(r"data:image/[\w.+-]+(?:;[\w=.-]+)*;base64,|(?=/9j/|iVBORw0KGgo|R0lGOD|UklGR)", re.ASCII)
"""How an image starts that is written in base64: as a url, or as JPEG, PNG, GIF and WebP themselves do."""


class Place(NamedTuple):
    """Where paths count from. Both folders are absolute, without links."""

    folder: Path | None
    """The folder of the file; None where there is none."""
    root: Path | None
    """The folder that the user named, which holds the other. Nothing outside of it and of `pictures` is read."""
    file: str
    """What messages call the file."""
    hint: str = ""
    """What to do if a picture is missing; empty for the usual."""
    pictures: Path | None = None
    """A further folder that the user named, absolute and without links: paths count from it too."""


def folder_of(pictures: str | Path) -> Path | None:
    """A folder that the user lets pictures be read from, absolute and without links; None for no name.

    Raises:
        UserError: there is no such folder.
    """
    if not str(pictures):
        return None
    folder = Path(pictures).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; --pictures takes one that pictures may be read from")
    return folder.resolve()


def pictures(column: str, value: Any, place: Place) -> tuple[Stored, ...]:
    """The pictures of a column: none, one or a list.

    Raises:
        Unfit: one of them is nothing of the kind, is not there, or lies where it must not.
    """
    value = unquoted(value)
    values = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    if len(values) > MOST_IMAGES:
        raise Unfit(column, f"{len(values)} images, more than the {MOST_IMAGES} that one question may have; split it")
    return tuple(_picture(column, one, place) for one in values)


def _picture(column: str, value: Any, place: Place) -> Stored:
    if isinstance(value, Mapping) and "image" in value:  # as verl writes them
        value = value["image"]
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):  # as `datasets` stores them
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        raise Unfit(column, f"must be a path in quotes or an image's bytes, got {shown(value)}; write the path")
    encoded = _ENCODED.match(value)
    if encoded and len(value) > 64:
        return _decoded(column, value[encoded.end() :])
    if re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://|//|\\\\", value):
        raise Unfit(column, f"{value[:80]!r} is on the network; download the picture, and write its path")
    if value.startswith("file:"):
        value = _of_url(column, value)
    return _path(column, value, place)


def _of_url(column: str, url: str) -> str:
    """The path that a file's url means, on this machine."""
    try:
        parsed = urlsplit(url)
    except ValueError as reason:
        raise Unfit(column, f"{url[:80]!r} is no url ({reason}); write the picture's path") from reason
    path = unquote(parsed.path)
    if parsed.netloc not in ("", "localhost") or path.startswith("//"):
        raise Unfit(column, f"{url[:80]!r} is on another machine; download the picture, and write its path")
    return path


def _decoded(column: str, text: str) -> bytes:
    if len(text) > MOST_BYTES * 4 // 3 + 4:
        raise Unfit(column, f"has more than {MOST_BYTES:,} bytes; shrink it")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as reason:
        raise Unfit(column, f"is not base64 ({reason}); encode it again, or keep it as a file") from reason


def _path(column: str, name: str, place: Place) -> Path:
    if place.folder is None or place.root is None:
        raise Unfit(column, f"{name[:80]!r} is a path, and {place.file} has no folder; give bytes, or a folder")
    found, roots = [], [root for root in (place.root, place.pictures) if root is not None]
    for folder in dict.fromkeys((place.folder, *roots)):
        try:
            path = Path(os.path.realpath(folder / name))
            if any(map(path.is_relative_to, roots)):  # nobody learns whether there is something elsewhere
                if path.is_file():
                    return path
                found.append(path)
        except (OSError, ValueError) as reason:  # too long for the file system; a null
            raise Unfit(column, f"{name[:80]!r} is not a path ({str(reason)[:80]}); write the picture's") from reason
    if not found:  # a data set from elsewhere must not read other files of this machine
        remedy = "copy the picture there, and write a relative path, or name the folder that has it with --pictures"
        raise Unfit(column, f"{name[:200]!r} leads out of the file's folder; {remedy}")
    whence = f"the folder of {Path(place.file).name}"
    whence += "" if place.root == place.folder else f", or from {place.root}"
    remedy = place.hint or "copy the picture there, or correct the path"
    raise Unfit(column, f"there is no file {name[:200]!r} (paths count from {whence}); {remedy}")


def looks_like_images(fields: Fields) -> list[str]:
    """The columns that seem to hold images, by their names or by what they hold.

    >>> looks_like_images({"question": "?", "img": None, "photo_of": "a", "shown": "deep/a.PNG", "imagine": 1})
    ['img', 'photo_of', 'shown']
    """
    return [name for name, value in fields.items() if _NAMED.search(name) or _holds(value)]


_NAMED = re.compile(
    r"(?:^|_)(?:im|img|imgs|image|images|pic|pics|picture|pictures|photo|photos|figure)(?:_|[0-9]|$)", re.I
)
_ENDING = re.compile(r"\.(?:png|jpe?g|webp|gif|bmp|tiff?|avif)$", re.IGNORECASE)


def _holds(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes)
    return isinstance(value, Image.Image) or (isinstance(value, str) and bool(_ENDING.search(value.strip()[-8:])))
