"""What a user writes for a source of scenes, and the tables that it means.

data.jsonl   shards/*.parquet   folder/   owner/name   owner/name:config   known:path
each with @split, where the data has splits of its own, and #train, #tune or #report, to use all of it for that;
several of them with commas between
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

from vergence.scenes.cells import Cells, separator_of
from vergence.scenes.folders import ENDINGS, files_of, has_signs
from vergence.scenes.jsonl import JsonLines, holds_no_rows, read_json
from vergence.scenes.parquet import read_parquet
from vergence.scenes.rows import Part
from vergence.scenes.split import SPLITS, Split
from vergence.scenes.tables import Held, Table, unread
from vergence.sources.catalogue import known
from vergence.sources.known import Known
from vergence.types import UserError

NO_ROWS = ("dataset_info.json", "dataset_infos.json")
"""Files of these names describe a data set."""

_SPLITS = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation", "testing": "test"}
_NAMED = re.compile(r"train(?:ing)?|test(?:ing|mini)?|val(?:id(?:ation)?)?|dev")
_SHARD = re.compile(r"(.+)-[0-9]{5}-of-[0-9]{5}(?:-[0-9a-f]{16})?")
_HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class Located(NamedTuple):
    """The tables of a source, and what is to be said of them."""

    parts: tuple[Part, ...]
    said: tuple[str, ...]
    """Which files or splits are read, and which are not, wherever there are several."""


def parts_of(source: str, *, fetch: bool = True) -> Located:
    """The tables of a source, none of which was read further than its head.

    Args:
        source: As the user writes it.
        fetch: Whether a data set of the Hub may be fetched, and a folder be searched however large it is: whether the
            user has named it. Else it is had from this machine or not at all.

    Raises:
        UserError: there is nothing of that name, or no such split; what there is is named.
    """
    several = [source] if _exists(source) else [one.strip() for one in source.split(",") if one.strip()]
    those = [_parts(one, fetch=fetch) for one in several]
    found = [part for one in those for part in one.parts]
    if not found:
        raise UserError("no source of scenes is named; name a file, a folder, a data set of the Hub, or 'embedded'")
    names = [part.name for part in found]
    parts = (
        replace(part, name=f"{part.name}~{names[:at].count(part.name) + 1}") if names.count(part.name) > 1 else part
        for at, part in enumerate(found)
    )
    return Located(tuple(parts), tuple(line for one in those for line in one.said))


def split_of(path: Path) -> str:
    """The split that a file is called, or a shard of it, or a folder on the way to it; "" if there is none. A name in
    which such a word stands beside others says nothing.

    >>> [split_of(Path(name)) for name in ("test-00000-of-00002.parquet", "val.jsonl", "train/a.csv", "dev-kit/a.csv")]
    ['test', 'validation', 'train', '']
    """
    for name in (path.stem, *reversed(path.parts[:-1])):
        if shard := _SHARD.fullmatch(name):
            return _SPLITS.get(shard[1], shard[1])
        if _NAMED.fullmatch(name.lower()):
            return _SPLITS.get(name.lower(), name.lower())
    return ""


def _parts(source: str, *, fetch: bool) -> Located:
    named, ours = _use(source)
    prefix, _, path = named.partition(":")
    declared = known(prefix) if path else None
    if declared and (_is_local(path) or not _HUB.fullmatch(prefix)):
        return _local(path, declared, ours, fetch=fetch)
    return _local(named, None, ours, fetch=fetch) if _is_local(named) else _hub(named, ours, fetch=fetch)


def _use(source: str) -> tuple[str, Split | None]:
    """Without what stands behind `#`."""
    named, mark, ours = source.rpartition("#")
    if not mark or _exists(source):
        return source, None
    if ours not in SPLITS:
        raise UserError(f"{source}: behind # stands what all of it is used for, one of {', '.join(get_args(Split))}")
    return named, ours


def _split(source: str) -> tuple[str, str]:
    """Without what stands behind `@`."""
    named, mark, split = source.rpartition("@")
    return (source, "") if not mark or _exists(source) else (named, split)


def _exists(source: str) -> bool:
    try:
        return bool(source.strip()) and Path(source).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path; nobody's home
        return False


def _is_local(source: str) -> bool:
    path = _split(source)[0]
    return (
        _exists(path)
        or path.startswith(("/", "./", "../", "~"))
        or has_signs(path)
        or Path(path).suffix.lower() in ENDINGS
    )


def _hub(source: str, ours: Split | None, *, fetch: bool) -> Located:
    from vergence.scenes.hub import load_hub

    source, split = _split(source)
    name, _, config = source.partition(":")
    declared = known(name)
    if declared is None and not _HUB.fullmatch(name):
        raise UserError(
            f"there is no {source or f'@{split}'}; name a file ({', '.join(ENDINGS)}), a folder, a data set of the Hub "
            "(owner/name), one that `vergence data sources` lists, or 'embedded'"
        )
    if declared:
        if not declared.hub:
            raise UserError(f"{declared.title} is on no Hub; {declared.load or 'give its files'} as {name}:PATH")
        name = name if "/" in name else declared.hub[0]
        config, split = config or declared.config, split or next(iter(declared.rows), "train")
    table = load_hub(name, config, split or "train", fetch=fetch)
    world = declared.name if declared else name.rpartition("/")[2]
    hint = (declared.load if declared else "") or "download the files of the data set, and name their folder"
    part = Part(table, f"{world}/{split or 'train'}", world, table.folder, declared, ours, hint)
    return Located((part,), (f"{name}: read @{split or 'train'}; not read its other splits, if there are any",))


def _local(source: str, declared: Known | None, ours: Split | None, *, fetch: bool) -> Located:
    source, split = _split(source)
    path = Path(source).expanduser()
    if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        from vergence.scenes.hub import load_saved

        table, said = load_saved(path, split)
        name = path.resolve().name
        part = Part(table, name, declared.name if declared else name, table.folder, declared, ours)
        return Located((part,), (said,) if said else ())
    root, all_files = files_of(path, trusted=fetch)
    files = all_files if len(all_files) == 1 else [file for file in all_files if not _describes(file)]
    if not files:
        raise UserError(f"{path} holds no rows, but files that describe them; name the file that has the rows")
    chosen, wanted = _chosen(source, split, {file: split_of(file.relative_to(root)) for file in files})
    world = declared.name if declared else path.stem if path.is_file() else root.resolve().name
    hint = declared.load if declared else ""
    parts = tuple(
        Part(_table(file, alone=len(files) == 1), _key(file, root), world, root.resolve(), declared, ours, hint)
        for file in chosen
    )
    if path.is_file():
        return Located(parts, ())
    others = [file for file in files if file not in set(chosen)]
    bare = [file for file in all_files if file not in set(files)]
    return Located(parts, (_said(source, wanted, root, (chosen, others, bare)),))


def _chosen(source: str, split: str, splits: dict[Path, str]) -> tuple[list[Path], str]:
    """The files of a split, and which; all of them, where no name says one.

    Raises:
        UserError: there is no such split; or none was named, and it is not plain which files are to be read.
    """
    there = sorted(set(splits.values()) - {""})
    wanted = _SPLITS.get(split, split)
    if wanted and wanted not in there:
        said = f"it has {', '.join(there)}" if there else "no name of a file says one"
        raise UserError(f"{source} has no split {split!r}; {said}")
    if not wanted and len(set(splits.values())) < 2:
        return list(splits), ""
    if not wanted and "" in splits.values():
        named, other = (
            next(file.name for file, one in splits.items() if bool(one) == is_one) for is_one in (True, False)
        )
        raise UserError(
            f"{source} has files that are called after a split ({named}) and others that are not ({other}); write "
            f"{source}@{there[0]} for the former alone, or the files that you mean with commas between"
        )
    if not wanted and "train" not in there:
        raise UserError(f"{source} has the splits {', '.join(there)}; write {source}@SPLIT for one of them")
    wanted = wanted or "train"
    return [file for file in splits if splits[file] == wanted], wanted


def _said(source: str, wanted: str, root: Path, groups: Sequence[Sequence[Path]]) -> str:
    """Which files of a folder or pattern are read, which are not, and which have no rows."""

    def names(those: Sequence[Path]) -> str:
        more = f" and {len(those) - 4} others" if len(those) > 5 else ""
        return ", ".join(str(file.relative_to(root)) for file in those[: 4 if more else 5]) + more

    heads = (f"read {f'@{wanted}, ' * bool(wanted)}", "not read ", "without rows ")
    return f"{source}: " + "; ".join(head + names(those) for head, those in zip(heads, groups, strict=True) if those)


def _describes(file: Path) -> bool:
    """Whether it is about data, and holds no rows."""
    try:
        return file.name in NO_ROWS or (file.suffix.lower() == ".json" and holds_no_rows(file))
    except OSError:
        return False  # said when it is opened


def _table(path: Path, *, alone: bool) -> Table:
    """The table that a file is; of several files one that cannot be read is a row that is refused."""
    try:
        return _opened(path)
    except UserError as problem:
        if alone:
            raise
        said = str(problem).removeprefix(f"{path} ").removeprefix("is ")
        return Held(str(path), path.parent.resolve(), [unread(str(path), said)], "file")


def _opened(path: Path) -> Table:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, and a device never ends
            raise UserError(f"{path} is no file but a device or a pipe; name a file")
        path.open("rb").close()
    except OSError as reason:
        raise UserError(
            f"{path} cannot be read ({reason.strerror}); name a file, a folder, a data set of the Hub, or 'embedded'"
        ) from reason
    match path.suffix.lower():
        case ".parquet":
            return read_parquet(path)
        case ".csv" | ".tsv":
            separator = "\t" if path.suffix.lower() == ".tsv" else separator_of(path)
            return Cells(str(path), path.parent.resolve(), separator)
        case ".json":
            return read_json(path)
    return JsonLines(str(path), path.parent.resolve())


def _key(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()
