"""Data sets of the Hugging Face Hub, and those that `datasets` saved: mapped into memory, images undecoded."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vergence.scenes.tables import Held
from vergence.types import UserError

FORMATS = {"arrow", "cache", "csv", "imagefolder", "json", "parquet", "text", "webdataset"}
"""Of the Hub's files, those that are read; "cache" is what was read before. Other formats of `datasets` may lead on."""


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
        UserError: it cannot be had: no such data set, part or split, no network, no permission; or what it says of
            itself names files that are not its own.
    """
    import datasets

    part = f"{name}{f':{config}' if config else ''}@{split}"
    try:
        with _unasked(fetch=fetch), _own_files(name):
            builder = datasets.load_dataset_builder(name, config or None)
            if (of := type(builder).__module__.rpartition(".")[2]) not in FORMATS:
                raise UserError(f"the data set {part} is of the format {of}, which is not read; convert it to parquet")
            builder.download_and_prepare()
            found = builder.as_dataset(split=split)
    except Exception as reason:  # of the network, of the server, of what the data set itself says
        if isinstance(reason, UserError):
            raise
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
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as reason:
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


@contextmanager
def _own_files(name: str) -> Iterator[None]:
    """Hold a data set to its own repository, or folder: its README may name files of this machine, and other servers.

    Every name of a file, whoever wrote it, goes through one function of `datasets` before anything is looked at.
    """
    from datasets import data_files

    resolve = data_files.resolve_pattern
    home = f"{Path(name).resolve().as_posix()}/" if Path(name).is_dir() else f"hf://datasets/{name}@"

    def own(pattern: str, base_path: str, *more: Any, **named: Any) -> list[str]:
        whole = pattern if "://" in pattern else posixpath.join(base_path, pattern)
        if not whole.startswith(home) or ".." in whole.split("/") or ":" in whole.removeprefix(home):
            raise UserError(
                f"the data set {name} says that its rows are in {pattern[:80]!r}, which is none of its own files, and "
                "is not looked at; download what you trust of it, and name the file"
            )
        return resolve(whole, base_path, *more, **named)

    data_files.resolve_pattern = own
    try:
        yield
    finally:
        data_files.resolve_pattern = resolve


def _refuse_elsewhere(path: Path) -> None:
    """Raise if a folder that `datasets` saved names splits or tables outside of it, or is made of links to such."""
    home = path.resolve()

    def inside(file: Path) -> Path:
        if not file.resolve().is_relative_to(home):
            raise UserError(f"{path} names a table outside of its folder, {str(file)[:200]!r}; save it again")
        return file

    def read(file: Path) -> Any:
        return json.loads(inside(file).read_text(encoding="utf-8"))

    splits = read(path / "dataset_dict.json")["splits"] if (path / "dataset_dict.json").is_file() else []
    for folder in (path, *(inside(path / split) for split in splits)):
        if not (folder / "state.json").is_file():
            continue
        inside(folder / "dataset_info.json")
        for table in read(folder / "state.json")["_data_files"]:
            inside(folder / table["filename"])


def undecoded(found: Any) -> Undecoded:
    """A `datasets.Dataset` whose images stay the bytes they are."""
    return Undecoded(found.with_format("arrow"))


def _first_line(reason: Exception) -> str:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return lines[0][:300].replace(";", ",")
