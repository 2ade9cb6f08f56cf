"""What is known of a checkpoint by now: the results that its run folder holds, and the card that tells them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vergence.disk import write_whole
from vergence.evaluate.accelerated import stratified
from vergence.evaluate.kept import AGAINST
from vergence.evaluate.suite import Record, by_question, by_world
from vergence.train.card import Number, card, code, numbers_of, put
from vergence.train.checkpoint import latest, step_of
from vergence.train.config_file import load_config
from vergence.train.data import read_data
from vergence.train.recorded import FINITE, METRICS, PUT, TUNED, checked
from vergence.train.run import read_lines
from vergence.train.sums import CARD


def measured(checkpoint: Path) -> list[Number]:
    """The last evaluation on the way to a run's checkpoint, and before it, of the last one, what `evaluation/` holds.

    Raises:
        UserError: a file is damaged.
    """
    run, step = checkpoint.parent.parent, step_of(checkpoint)
    found = list(_answered(run / "evaluation")) if latest(run / "checkpoints") == checkpoint else []
    path, fields = run / "metrics.jsonl", METRICS | {name: FINITE._replace(needed=False) for name in TUNED}
    return found + numbers_of(line for line in checked(read_lines(path), path, fields) if line["step"] <= step)


def _answered(folder: Path) -> Iterator[Number]:
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem.endswith(AGAINST):  # another checkpoint's
            continue
        records = list(checked(read_lines(path), path, PUT))
        if records:
            worlds = by_world([{"world": ""} | record for record in records])  # an older file may not say
            one = stratified({str(at): by_question(those) for at, those in enumerate(worlds.values())})
            yield Number(code(path.stem), one.mean, one.low, one.high, one.n, _how(records, len(records) / one.n))


def _how(records: Sequence[Record], samples: float) -> str:
    """The conditions of an evaluation; of several in one file it is said that they differ."""
    named = ("wording", "max_tokens", "temperature", "shown")
    found = {tuple(record.get(name) for name in named) for record in records}
    if len(found) > 1 or None in next(iter(found)):
        return f"avg@{samples:g}, " + ("under conditions that differ" if len(found) > 1 else "conditions not recorded")
    ((wording, max_tokens, temperature, shown),) = found
    told = put(str(wording), int(max_tokens), float(temperature), samples)
    told += "" if shown == "image" else f", shown {code(str(shown))} in place of the image"
    return told + (", answered by a reasoner from its captions" if "caption" in records[0] else "")


def card_now(checkpoint: Path) -> str | None:
    """A checkpoint's card with what was measured by now; None where it is none of a run.

    Raises:
        UserError: a file of the run is damaged.
    """
    run = checkpoint.parent.parent
    if not (checkpoint / "trainer" / "state.json").is_file() or not (run / "metrics.jsonl").is_file():
        return None
    config = load_config(checkpoint / "trainer" / "config.yaml")
    return card(config, read_data(run), step=step_of(checkpoint), numbers=measured(checkpoint))


def renew_card(checkpoint: Path) -> None:
    """Write a checkpoint's card again, with what was measured since; nothing where it is none of a run.

    Raises:
        UserError: a file of the run is damaged.
    """
    told = card_now(checkpoint)
    if told is not None:
        write_whole(checkpoint / CARD, told)  # which is not among the files that a checkpoint is known by
