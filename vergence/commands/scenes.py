"""Commands about scenes: what a data set holds, and which ones are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import tyro

from vergence.commands.given import printable, settings
from vergence.report.table import print_json, print_table
from vergence.types import UserError

if TYPE_CHECKING:
    from vergence.scenes.counted import Counted, Vision
    from vergence.scenes.files import Survey
    from vergence.scenes.overlap import Pair
    from vergence.sources.known import Known

Positional = tyro.conf.Positional
PATIENCE = 2.0
"""Seconds before a progress bar appears."""
NAMED = 5
"""Pairs of rows that are printed."""


def data_check(
    source: Positional[str],
    columns: tuple[str, ...] = (),
    tolerance: float = 0.0,
    pictures: str = "",
    model: str = "",
    patch: int = 14,
    min_pixels: int = 0,
    max_pixels: int = 0,
    max_tokens: int = 0,
    decode: bool = False,
    refused: Path | None = None,
    against: str = "",
    out: Path | None = None,
    sheet: Path | None = None,
    number: int = 400,
    json: bool = False,
) -> None:
    """Say what a data set holds, what of it cannot be used and why, and what it shares with another one.

    Example: vergence data check geometry3k:data/geometry3k --refused refused.jsonl --against mathverse:data/mathverse

    Args:
        source: A file or folder, a Hub name, a known data set as name:path (docs/data.md), or "embedded".
        columns: Names of the data's columns where they are not known, as OURS=THEIRS: question=prompt_text.
        tolerance: Of numbers among the answers, relative; 0 is exact.
        pictures: A folder besides the data's own that its pictures may be read from; paths count from it too.
        model: Whose tokenizer counts the questions, and whose image processor the images: a folder or a Hub name.
        patch: Side of a patch, pixels: 14 in Qwen2-VL and Qwen2.5-VL, 16 in Qwen3-VL.
        min_pixels: Smaller images are enlarged to so many. 0: as the model says, else 3,136.
        max_pixels: Larger images are shrunk to so many. 0: as the model says, else 1,003,520.
        max_tokens: Of the longest response, which has to fit into the model's context behind the prompt.
        decode: Decode every image, which finds those whose end is missing. Else their heads are read.
        refused: Write one JSON line for each row that cannot be used or is too long: file, row, field, reason, remedy.
        against: Another data set: which rows are in both? All images of both are decoded.
        out: Write one JSON line for each such row.
        sheet: Draw a picture sheet of some rows; of the embedded worlds data-check.png by default.
        number: Scenes of each split that are looked at, of the embedded worlds.
        json: Print one line of JSON.
    """
    from vergence.scenes.counted import Counted
    from vergence.scenes.listing import write_list, writing_list
    from vergence.scenes.refusals import Refusals

    reading = _as_read(columns, tolerance, pictures, max_tokens)
    _check_outputs(refused, out, sheet, against)
    if source == "embedded":
        if refused or against or json:
            raise UserError("--refused, --against and --json are for data sets: the embedded worlds have no rows")
        _check_embedded(number, sheet or Path("data-check.png"))
        return
    with writing_list(refused) as write:
        listed = [Refusals(lambda one: write(one._asdict())) for _ in ("too long", "refused")]
        counted = Counted(*_reading(model, patch, min_pixels, max_pixels), max_tokens, *listed)
        found = _counted(source, reading, counted, against, sheet, decode=decode)
    if out:
        write_list(out, found.get("overlap", {}).get("pairs", []))
    print_json(found) if json else _tell(found, listed=bool(refused))


def data_sources(name: Positional[str] = "", json: bool = False) -> None:
    """List the data sets whose schema is known, or show one with its schema and an invented row.

    Example: vergence data sources geometry3k

    Args:
        name: One of them, by our name or the Hub's.
        json: Print one line of JSON.
    """
    import difflib

    from vergence.sources.catalogue import KNOWN, known

    one = known(name) if name else None
    if name and not one:
        near = difflib.get_close_matches(name, [one.name for one in KNOWN], n=1, cutoff=0.0)[0]
        raise UserError(f"{name!r} is not a known data set; did you mean {near!r}? `vergence data sources` lists them")
    if json:
        print_json(_plain(one) if one else [_plain(each) for each in KNOWN])
    elif one:
        _show(one)
    else:
        rows = [[each.name, rows_in_words(each), each.licence, ", ".join(each.unverified) or "-"] for each in KNOWN]
        print_table("known data sets", ["name", "rows", "licence", "unverified"], rows)
        print("`vergence data sources NAME` shows one; open it as NAME:PATH, or by its name on the Hub.")


def _as_read(columns: tuple[str, ...], tolerance: float, pictures: str, max_tokens: int) -> dict[str, Any]:
    """How rows are read: arguments of `survey`."""
    if not 0 <= tolerance < 1 or max_tokens < 0:
        raise UserError(f"--tolerance is relative and lies in [0, 1), got {tolerance}; --max-tokens is at least 0")
    named = settings(columns, "--columns", "question=prompt_text")
    return {"columns": named, "tolerance": tolerance, "pictures": pictures}


def _check_outputs(refused: Path | None, out: Path | None, sheet: Path | None, against: str) -> None:
    """Say now that one cannot be written, not after the data set was read."""
    from vergence.scenes.listing import check_apart, check_output
    from vergence.scenes.overlap import Pair
    from vergence.scenes.tables import Refused

    for path, fields in ((refused, Refused._fields), (out, Pair._fields), (sheet, ())):
        if path:
            check_output(path, fields)
    check_apart((refused, out, sheet))
    if out and not against:
        raise UserError("--out lists what --against finds; name both")


def _check_embedded(number: int, out: Path) -> None:
    from vergence.scenes.check import check_splits, samples
    from vergence.scenes.embedded import WORLDS
    from vergence.scenes.listing import check_output
    from vergence.scenes.sheet import sheet
    from vergence.scenes.source import Embedded

    check_output(out)
    print(check_splits(Embedded(tuple(WORLDS)), number=number))
    sheet(samples(), out)
    print(f"Samples: {out}")


def _counted(
    source: str,
    reading: dict[str, Any],
    counted: Counted,
    against: str,
    sheet: Path | None,
    *,
    decode: bool,
) -> dict[str, Any]:
    """All that is said of a data set, its counts filled; the sheet is drawn."""
    from vergence.scenes.census import take
    from vergence.scenes.counted import Counted
    from vergence.scenes.files import survey
    from vergence.scenes.overlap import Looks, overlap

    mine, looks = survey(source, **reading), Looks() if against else None
    with _slowly("rows", mine.expected_rows) as told:
        scenes = take(mine, counted, looks, decode=decode, samples=12 if sheet else 0, told=told)
    found = {"source": source, "read": list(mine.said), **counted.summary()}
    found["warnings"] = _warnings(mine, found["rows"])
    if looks is not None:
        others, theirs, other = survey(against, pictures=reading["pictures"]), Looks(), Counted()
        found["read"] += others.said
        with _slowly("rows of the other", others.expected_rows) as told:
            take(others, other, theirs, told=told)
        rows = {"rows": len(looks.places), "other rows": len(theirs.places) + other.refusals.number}
        rows["other sound"] = len(theirs.places)
        found["overlap"] = {"with": against, **rows, **_shared(list(overlap(looks, theirs)))}
    if sheet and scenes:
        from vergence.scenes.sheet import sheet as draw

        draw(scenes, sheet)
    return found


def _reading(model: str, patch: int, least: int, most: int) -> tuple[Vision, Callable[[str], int] | None, int]:
    """How a model counts the tokens of an image and of a text, and its context. Without one texts are not counted."""
    from vergence.scenes.counted import Vision

    plain = Vision()
    if not model:
        return _sound(Vision(patch, plain.merge, least or plain.min_pixels, most or plain.max_pixels)), None, 0
    from transformers import AutoConfig, AutoTokenizer, Qwen2VLImageProcessorPil

    from vergence.commands.given import model_of
    from vergence.models.folder import locate, why

    name, _ = locate(model_of(model))
    try:
        tokenizer, processor = AutoTokenizer.from_pretrained(name), Qwen2VLImageProcessorPil.from_pretrained(name)
        context = getattr(AutoConfig.from_pretrained(name).get_text_config(), "max_position_embeddings", None) or 0
    except (OSError, ValueError) as error:
        raise UserError(f"the tokenizer or image processor of {model} cannot be read: {why(error, model)}") from error
    limits = processor.size
    if not (limits.get("shortest_edge") and limits.get("longest_edge")):
        raise UserError(f"{model} is not of the Qwen-VL family, whose rule counts image tokens; leave out --model")
    least, most = least or limits["shortest_edge"], most or limits["longest_edge"]
    vision = _sound(Vision(processor.patch_size, processor.merge_size, least, most))
    return vision, lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]), context


def _sound(vision: Vision) -> Vision:
    if vision.patch < 1 or not 0 < vision.min_pixels <= vision.max_pixels:
        raise UserError(
            f"--patch {vision.patch}, --min-pixels {vision.min_pixels} and --max-pixels {vision.max_pixels} leave no "
            "size of an image: take a patch of 14 or 16, and a minimum above 0 and not above the maximum"
        )
    return vision


@contextmanager
def _slowly(what: str, of: int | None) -> Iterator[Callable[[int], None]]:
    """A bar that appears when it takes long."""
    from vergence.train.display import counting

    start, shown = monotonic(), None
    with ExitStack() as stack:

        def told(done: int) -> None:
            nonlocal shown
            if shown is None and monotonic() - start > PATIENCE:
                shown = stack.enter_context(counting(what))
            if shown is not None:
                shown(done, of)

        yield told


def _warnings(mine: Survey, rows: int) -> list[str]:
    """What is strange about a data set that is known, or would be if its name were given."""
    from vergence.scenes.summary import unexpected
    from vergence.scenes.tables import Refused
    from vergence.sources.catalogue import with_columns

    known = {one.name: one for _, one in mine.known}
    if len(known) == 1:
        told = unexpected(rows, *known.values())
        return [told] if told else []
    entries = (entry.fields for part in mine.parts for entry in part.table.rows())
    first = next((fields for fields in entries if not isinstance(fields, Refused)), {})
    one = None if known else with_columns(first)
    return [f"note: these are the columns of {one.title}; {one.name}:PATH reads them as that"] if one else []


def _shared(pairs: list[Pair]) -> dict[str, Any]:
    counts = {how: sum(pair.how == how for pair in pairs) for how in ("exact", "near", "image")}
    return {**counts, "pairs": [pair._asdict() for pair in pairs]}


def _tell(found: dict[str, Any], *, listed: bool) -> None:
    from vergence.scenes.summary import say, say_overlap

    for line in found["read"]:
        print(printable(line))
    print(printable(say(found, found["source"])))
    if "overlap" in found:
        print(printable(say_overlap(found["overlap"], most=NAMED)))
    for warning in found["warnings"]:
        print(warning)
    if (found["refused"]["number"] or found["too long"]["number"]) and not listed:
        print("--refused FILE.jsonl lists the rows that cannot be used, with what to do about each.")


def rows_in_words(known: Known) -> str:
    """How many rows each split should have."""
    if len(known.rows) > 3:
        return f"{len(known.rows)} splits, {sum(known.rows.values()):,} in all"
    return ", ".join(f"{split} {number:,}" for split, number in known.rows.items())


def _plain(known: Known) -> dict[str, Any]:
    """As JSON can hold it: without its function, images by their sizes."""
    plain = {name: value for name, value in known._asdict().items() if name != "adapt"}
    return {**plain, "rows": dict(known.rows), "columns": dict(known.columns), "schema": dict(known.schema)}


def _show(known: Known) -> None:
    """Print all that is known of one."""
    print(f"{known.name}: {known.title}\n  {known.card}\n  licence: {known.licence}\n  rows: {rows_in_words(known)}")
    if known.hub:
        print(f"  on the Hub: {', '.join(known.hub)}{f', configuration {known.config!r}' if known.config else ''}")
    if known.load:
        print(f"  before use: {known.load}")
    if known.unverified:
        print(f"  unverified: {', '.join(known.unverified)}")
    rows = [[name, kind, repr(known.example[name])] for name, kind in known.schema.items()]
    print_table("schema, and an invented row", ["column", "type", "for example"], rows)
