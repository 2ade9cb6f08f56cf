"""Rows of a JSONL file with a gold and a response each: judged one by one, a bad one told and not dropped."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

from vergence.rewards.form import Extract
from vergence.rewards.kinds import read_gold
from vergence.rewards.pool import SECONDS, workers
from vergence.rewards.verify import VERSION, verify
from vergence.types import Gold, RewardSpec, UserError, Wording

ACCURACY = RewardSpec(accuracy=1.0, format=0.0)
_CHUNK = 512
_MOST_CHOICES = 26


class Row(NamedTuple):
    """One line: what it holds, and what is wrong with it if something is."""

    fields: Mapping[str, Any]
    error: str = ""
    line: int = 0
    """Where it stands in the file, from 1."""


def read_rows(lines: Iterable[str]) -> Iterator[Row]:
    """The rows of a JSONL file; empty lines are none. Bytes that are not UTF-8 are expected as surrogates.

    >>> [(row.line, row.error[:17]) for row in read_rows(['{"gold": "1"}', '', 'gold: 1'])]
    [(1, ''), (3, 'not a JSON object')]
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if re.search("[\udc80-\udcff]", line):
            yield Row({}, "not UTF-8; save the file as UTF-8", number)
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            yield Row(found, line=number)
        else:
            like = '{"gold": "12", "response": "\\\\boxed{12}"}'
            yield Row({}, f"not a JSON object; write one such as {like}", number)


def asked(fields: Mapping[str, Any]) -> tuple[str, Gold]:
    """(response, gold) of a row. `kind`, `choices` (texts, as a list, an object of letters, or either as JSON in a
    text) and `tolerance` are optional.

    >>> asked({"gold": 12, "response": "\\\\boxed{12}"})
    ('\\\\boxed{12}', Gold(text='12', kind='integer', choices=(), tolerance=0.0))

    Raises:
        UserError: a field is missing, or cannot be used; the message names it.
    """
    for name in ("gold", "response"):
        if name not in fields:
            there = ", ".join(repr(one)[:40] for one in list(fields)[:10])
            raise UserError(f"no field {name!r}; it has {there or 'none'}")
    response, kind, choices = fields["response"], fields.get("kind"), _choices(fields.get("choices"))
    if not isinstance(response, str):
        raise UserError(f"response: {json.dumps(response)[:80]} is no text")
    if kind is not None and not isinstance(kind, str):
        raise UserError(f"kind: {json.dumps(kind)[:80]} is no text")
    tolerance = _tolerance(fields.get("tolerance"))
    if not _is_scalar(fields["gold"]):
        raise UserError(f"gold: {json.dumps(fields['gold'])[:80]} is neither a text nor a number")
    try:
        gold = read_gold(str(fields["gold"]), choices=choices, kind=kind, tolerance=tolerance)
    except UserError as error:
        raise UserError(f"gold: {error}") from error
    return response, gold


def _choices(value: Any) -> list[str]:
    found = value
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = value
    if isinstance(found, dict):
        found = {letter: text for letter, text in found.items() if text is not None}
        letters = [chr(ord("A") + at) for at in range(len(found))]
        found = [found[letter] for letter in letters] if sorted(found) == letters else value
    found = [] if found in (None, "") else found
    if not isinstance(found, list | tuple) or len(found) > _MOST_CHOICES or not all(map(_is_scalar, found)):
        raise UserError(
            f"choices: {json.dumps(value)[:80]} is no list of up to {_MOST_CHOICES} texts, for A, B, C, ..."
        )
    return [str(each) for each in found]


def _tolerance(value: Any) -> float:
    try:
        if value is not None and not _is_scalar(value):
            raise ValueError
        return float(value or 0.0)
    except (ValueError, OverflowError):
        raise UserError(f"tolerance: {json.dumps(value)[:80]} is no number") from None


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def judged(
    rows: Iterable[Row],
    *,
    wording: Wording = "think",
    extract: Extract = "box",
    arithmetic: bool = False,
    seconds: float = SECONDS,
    told: Callable[[int], object] = lambda done: None,
) -> Iterator[dict[str, Any]]:
    """Each row with `reward` (1 or 0), `status`, `kind`, `extracted`, `seconds` and `verifier`, in order.

    A row that cannot be judged has the status "error", no reward, and in `error` its line and what is wrong with it.

    >>> next(judged([Row({"gold": "12", "response": "\\\\boxed{12}", "id": 3})]))["status"]
    'right'

    Args:
        told: called with the number of rows that are done, now and then.
    """

    def judge(row: Row) -> dict[str, Any]:
        start = time.perf_counter()
        try:
            if row.error:
                raise UserError(row.error)
            response, gold = asked(row.fields)
        except UserError as error:
            wrong = f"line {row.line}: {error}"
            return {**row.fields, "reward": None, "status": "error", "extracted": None, "error": wrong}
        verdict = verify(
            response, gold, ACCURACY, wording=wording, extract=extract, arithmetic=arithmetic, seconds=seconds
        )
        took = round(time.perf_counter() - start, 6)
        found = {"reward": verdict.reward, "status": verdict.status, "kind": gold.kind, "extracted": verdict.extracted}
        return {**row.fields, **found, "seconds": took, "verifier": VERSION}

    done, rest = 0, iter(rows)
    with ThreadPoolExecutor(workers()) as beside:
        while chunk := list(islice(rest, _CHUNK)):
            yield from beside.map(judge, chunk)
            done += len(chunk)
            told(done)
