"""Showing a run in wandb, trackio or TensorBoard while it trains: told what `watch` is told, and never in its way."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

from PIL import Image

from vergence.scenes.source import Source
from vergence.train.config import Config
from vergence.train.loop import Watch
from vergence.train.trackers import TRACKERS, Row, Tracked, Tracker, refuse_missing
from vergence.train.watch import watching
from vergence.types import Metrics, Scene, UserError

SCENES, SIBLINGS = 4, 4
"""Of a watched round: how many scenes are shown, and how many responses to each."""
LONGEST, LARGEST = 4000, 448
"""Characters of a text, and pixels of a side of a picture, that are shown."""
STATE = "tracking.json"
"""In the run folder: the id under which it is tracked, and the last step that each tracker took."""


@contextmanager
def tracking(
    names: Sequence[str],
    out: Path,
    config: Config,
    *,
    source: Source | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Watch]:
    """Give a `watch` for `train.loop.train` that shows every step in these trackers, and close them at the end.

    They are opened at the first step. A tracker that fails is told of once, left out from then on, and changes
    nothing of the run. A resumed run goes on in the same tracked run, and steps that were shown are not shown again.

    Args:
        names: of `trackers.TRACKERS`.
        out: the run folder; it need not be there yet.
        source: where the pictures of rollouts come from; without it the tables have none.

    Raises:
        UserError: no such tracker, or its package is not installed.
    """
    refuse_missing(names)
    tracked = Tracking(names, out, config, source=source, tell=tell)
    failed = True
    try:
        yield tracked
        failed = False
    finally:
        tracked.close(failed=failed)


def together(*watches: Watch) -> Watch:
    """All of them, one after the other.

    >>> together(lambda *step: print("first", step), lambda *step: print("second", step))(1, {}, 0.5)
    first (1, {}, 0.5)
    second (1, {}, 0.5)
    """

    def all_of_them(step: int, metrics: Metrics, seconds: float) -> None:
        for watch in watches:
            watch(step, metrics, seconds)

    return all_of_them


class Tracking:
    """The trackers of a run, those left out that failed. See `tracking`."""

    def __init__(
        self, names: Sequence[str], out: Path, config: Config, *, source: Source | None, tell: Callable[[str], None]
    ) -> None:
        self.names, self.out, self.config, self.source, self.tell = tuple(names), out, config, source, tell
        self.trackers: dict[str, Tracker] = {}
        self.state: dict[str, Any] | None = None
        self.read, self.shown = 0, 0
        """Bytes of rollouts.jsonl that were read; the first step of the round that was shown last."""

    def __call__(self, step: int, metrics: Metrics, seconds: float) -> None:
        """Show a step; never raises."""
        if self.state is None:
            self.state = read_state(self.out)
            for name in dict.fromkeys(self.names):
                self._try(name, lambda name=name: self.trackers.update({name: TRACKERS[name](self._run())}))
        behind = [name for name in self.trackers if step > self.state["last"].get(name, 0)]
        if not behind:
            return
        numbers = {name: float(value) for name, value in metrics.items() if name != "step" and is_number(value)}
        rows = self._rows(step)
        for name in behind:
            self._try(name, lambda name=name: self._show(name, step, numbers | {"seconds": seconds}, rows))

    def close(self, *, failed: bool) -> None:
        """End all of them; never raises."""
        for name in list(self.trackers):
            self._try(name, lambda name=name: self.trackers[name].close(failed=failed))
        self.trackers = {}

    def _run(self) -> Tracked:
        return Tracked(self.out, self.state["id"], json.loads(json.dumps(asdict(self.config), default=str)))

    def _show(self, name: str, step: int, numbers: Mapping[str, float], rows: Sequence[Row]) -> None:
        tracker = self.trackers[name]
        tracker.numbers(step, numbers)
        if rows:
            tracker.rollouts(step, rows)
        self.state["last"][name] = step
        write_state(self.out, self.state)

    def _rows(self, step: int) -> list[Row]:
        """Those to show at this step: of a watched round at its first; of the last round at the end, if not before."""
        first = step - (step - 1) % self.config.steps_per_batch
        watched = step == first and watching(self.config, (step - 1) // self.config.steps_per_batch)
        if first == self.shown or not (watched or step == self.config.steps):
            return []
        records = []
        try:
            with (self.out / "rollouts.jsonl").open("rb") as file:
                file.seek(self.read)
                for line in iter(file.readline, b""):
                    record = json.loads(line)
                    if record["step"] > first:
                        break
                    self.read = file.tell()
                    records += [record] if record["step"] == first else []
        except (OSError, ValueError):
            return []
        self.shown = first
        return rows_of(records, self.source)

    def _try(self, name: str, do: Callable[[], None]) -> None:
        """Do it; where it fails, say so and leave the tracker out."""
        try:
            with redirect_stdout(sys.stderr):  # standard output is for what a program reads
                do()
        except (Exception, SystemExit) as error:
            self.trackers.pop(name, None)
            why = (str(error).strip().splitlines() or [""])[0][:300]
            self.tell(
                f"{name} is left out from here on ({type(error).__name__}: {why}); the run goes on, and all its "
                f"numbers are in {self.out / 'metrics.jsonl'}"
            )


def rows_of(records: Sequence[Mapping[str, Any]], source: Source | None) -> list[Row]:
    """The first siblings of the first scenes among records of rollouts.jsonl, with what the policy was shown.

    >>> record = {"step": 1, "scene": "a", "sibling": 0, "question": "How many?", "gold": "2", "extracted": None}
    >>> record |= {"response": "two " * 2000, "status": "unparsed", "reward": 0.0, "advantage": -1.0}
    >>> row, = rows_of([record], None)
    >>> row.response[-29:], row.extracted
    ('two  ... 4000 more characters', '')
    """
    scenes = list(dict.fromkeys(record["scene"] for record in records))[:SCENES]
    pictures = {scene: picture(scene, source) for scene in scenes}
    return [
        Row(
            step=record["step"],
            image=pictures[record["scene"]],
            **{name: cut(str(record[name] or "")) for name in ("question", "response", "gold", "extracted", "status")},
            reward=float(record["reward"]),
            advantage=float(record["advantage"]),
        )
        for record in records
        if record["scene"] in pictures and record["sibling"] < SIBLINGS
    ]


def picture(key: str, source: Source | None) -> Image.Image | None:
    """A scene's images side by side, each at most `LARGEST` pixels; None where there are none to be had."""
    if source is None:
        return None
    try:
        scene: Scene = source.scene(key)
        images = [image.convert("RGB") for image in scene.images]
    except (UserError, OSError):
        return None
    for image in images:
        image.thumbnail((LARGEST, LARGEST))
    if not images:
        return None
    sheet = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet


def cut(text: str) -> str:
    """The text, or its first `LONGEST` characters and how many follow."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... {len(text) - LONGEST} more characters"


def is_number(value: Any) -> bool:
    """Whether it can be drawn: a number that is not nan.

    >>> [is_number(value) for value in (1, 0.5, float("nan"), True, "a", None)]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value)


def read_state(out: Path) -> dict[str, Any]:
    """Under which id the run is tracked, and how far; a new id where it was not."""
    try:
        state = json.loads((out / STATE).read_text())
        return {"id": str(state["id"]), "last": {str(name): int(step) for name, step in state["last"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"id": uuid.uuid4().hex[:8], "last": {}}


def write_state(out: Path, state: Mapping[str, Any]) -> None:
    """Keep it, so that a torn write leaves the one before."""
    partial = out / f"{STATE}.partial"
    partial.write_text(json.dumps(state) + "\n")
    os.replace(partial, out / STATE)
