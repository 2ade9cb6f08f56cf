"""Data sets of the Hugging Face Hub, and those that `datasets` saved: mapped into memory, images undecoded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vergence.scenes.tables import Held
from vergence.types import UserError


@dataclass(frozen=True, slots=True)
class Undecoded:
    """The rows of a `datasets.Dataset` as Arrow holds them: images are the bytes they are. Nothing is written."""

    rows: Any
    """In the format "arrow"."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return self.rows[at].to_pylist()[0]


def load_hub(name: str, config: str = "", split: str = "train", *, fetch: bool = True) -> Held:
    """A split of a data set of the Hub, or of a folder that is laid out like one; it is downloaded once, and kept.

    Args:
        name: Of the data set.
        config: Its configuration; empty for its only one.
        split: Of its splits.
        fetch: False takes what is kept on this machine, and asks nobody.

    Raises:
        UserError: it cannot be had: no such data set, part or split, no network, no permission.
    """
    import datasets

    part = f"{name}{f':{config}' if config else ''}@{split}"
    try:
        with _unasked(fetch=fetch):
            found = datasets.load_dataset(name, config or None, split=split)
    except Exception as reason:  # of the network, of the server, of what the data set itself says
        if not fetch:
            raise UserError(
                f"the data set {part} is not kept on this machine, and nobody is asked for it here; "
                f"`vergence data check {name}` fetches it"
            ) from reason
        raise UserError(
            f"the data set {part} cannot be loaded ({_first_line(reason)}); is the name right, is there a network? "
            "What is on this machine is named by its file or folder"
        ) from reason
    return Held(f"{name}@{split}", Path(datasets.config.HF_CACHE_HOME).resolve(), undecoded(found))


def load_saved(path: Path, split: str = "") -> tuple[Held, str]:
    """A folder that `datasets` saved, and which of its splits is read, where there are several.

    Raises:
        UserError: it is none, or has several splits and not this one.
    """
    import datasets

    try:
        _refuse_elsewhere(path)
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, TypeError, KeyError) as reason:
        if isinstance(reason, UserError):
            raise
        raise UserError(f"{path} was not saved by datasets ({_first_line(reason)}); save it again") from reason
    if isinstance(found, datasets.DatasetDict):
        split = split or "train"
        if split not in found:
            raise UserError(f"{path} has no split {split!r}; it has {', '.join(found)}: write {path}@SPLIT")
        others = [f"@{name}" for name in found if name != split]
        said = f"{path}: read @{split}" + (f"; not read {', '.join(others)}" if others else "")
        return Held(f"{path}@{split}", path.resolve(), undecoded(found[split])), said
    if split:
        raise UserError(f"{path} has no splits; leave @{split} out")
    return Held(str(path), path.resolve(), undecoded(found)), ""


@contextmanager
def _unasked(*, fetch: bool) -> Iterator[None]:
    """Keep `datasets` from asking the Hub for as long as this lasts, by the switch that HF_DATASETS_OFFLINE sets."""
    import datasets

    was = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = was or not fetch
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was


def _refuse_elsewhere(path: Path) -> None:
    """Raise if a folder that `datasets` saved names tables that lie outside of it."""
    for state in (path / "state.json", *sorted(path.glob("*/state.json"))):
        if not state.is_file():
            continue
        for one in json.loads(state.read_text(encoding="utf-8")).get("_data_files") or ():
            if not (state.parent / one["filename"]).resolve().is_relative_to(path.resolve()):
                raise UserError(f"{state} names a table outside of its folder, {one['filename'][:80]!r}; save it again")


def undecoded(found: Any) -> Undecoded:
    """A `datasets.Dataset` whose images stay the bytes they are."""
    return Undecoded(found.with_format("arrow"))


def _first_line(reason: Exception) -> str:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return lines[0][:300].replace(";", ",")
