"""wandb, trackio and TensorBoard behind one small protocol. Each is an extra, imported when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from PIL import Image

from vergence.types import UserError

PROJECT = "vergence"
"""Under which runs are found, where WANDB_PROJECT or TRACKIO_PROJECT does not say otherwise."""


class Row(NamedTuple):
    """A rollout, as a tracker's table shows it."""

    step: int
    image: Image.Image | None
    question: str
    response: str
    gold: str
    extracted: str
    status: str
    reward: float
    advantage: float


class Tracked(NamedTuple):
    """The run that is tracked: its folder, an id that resuming keeps, and its config as plain data."""

    out: Path
    id: str
    config: Mapping[str, Any]


class Tracker(Protocol):
    """Where a run is shown besides its own folder. Whatever a tracker raises ends the tracking, never the run."""

    def numbers(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the numbers of an optimizer step."""
        ...

    def rollouts(self, step: int, rows: Sequence[Row]) -> None:
        """Take some rollouts of this step's round."""
        ...

    def close(self, *, failed: bool) -> None:
        """End; `failed` where the run did."""
        ...


class Wandb:
    """Weights & Biases. WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME and WANDB_DIR are obeyed.

    Neither code, git remote, console nor the machine's name are sent.
    """

    def __init__(self, run: Tracked) -> None:
        import wandb

        self.wandb = wandb
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", run.out.name),
            dir=os.environ.get("WANDB_DIR", str(run.out)),
            id=run.id,
            resume="allow",
            reinit="create_new",
            config=dict(run.config),
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, x_disable_meta=True),
        )

    def numbers(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self.run.log(dict(metrics), step=step)

    def rollouts(self, step: int, rows: Sequence[Row]) -> None:
        """See `Tracker`."""
        shown = [[self.wandb.Image(row.image) if row.image else None, *text_of(row)] for row in rows]
        self.run.log({"rollouts": self.wandb.Table(columns=["image", *TEXT], data=shown)}, step=step)

    def close(self, *, failed: bool) -> None:
        """See `Tracker`."""
        self.run.finish(exit_code=int(failed))


class Trackio:
    """trackio: a database in this machine's TRACKIO_DIR, read by `trackio show`; a Space only by TRACKIO_SPACE_ID."""

    def __init__(self, run: Tracked) -> None:
        import trackio

        self.trackio = trackio
        self.run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{run.out.name}-{run.id}",
            config=dict(run.config),
            resume="allow",
            embed=False,
        )

    def numbers(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self.run.log(dict(metrics), step=step)

    def rollouts(self, step: int, rows: Sequence[Row]) -> None:
        """See `Tracker`."""
        shown = [[self.trackio.Image(row.image) if row.image else None, *text_of(row)] for row in rows]
        self.run.log({"rollouts": self.trackio.Table(columns=["image", *TEXT], data=shown)}, step=step)

    def close(self, *, failed: bool) -> None:
        """See `Tracker`."""
        self.trackio.finish()  # the run's own would leave trackio to end it again, at the end of the process


class TensorBoard:
    """Event files in RUN/tensorboard. A table is a text and an image for each rollout, as it has no other."""

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.out / "tensorboard"))
        self.writer.add_text("config", indented("\n".join(f"{name}: {value}" for name, value in run.config.items())), 0)

    def numbers(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def rollouts(self, step: int, rows: Sequence[Row]) -> None:
        """See `Tracker`."""
        import numpy as np

        for number, row in enumerate(rows, 1):
            told = "\n\n".join(f"{name}: {text}" for name, text in zip(TEXT, text_of(row), strict=True))
            self.writer.add_text(f"rollouts/{number}", indented(told), step)
            if row.image:
                pixels = np.asarray(row.image.convert("RGB"))
                self.writer.add_image(f"rollouts/{number}", pixels, step, dataformats="HWC")
        self.writer.flush()

    def close(self, *, failed: bool) -> None:
        """See `Tracker`."""
        self.writer.close()


TRACKERS: Mapping[str, Callable[[Tracked], Tracker]] = MappingProxyType(
    {"wandb": Wandb, "trackio": Trackio, "tensorboard": TensorBoard}
)
"""Name, which is also that of the package and of the extra -> how it is opened."""

TEXT = tuple(name for name in Row._fields if name != "image")
"""The columns beside the image."""


def text_of(row: Row) -> list[str | int | float]:
    """What stands in the columns beside the image.

    >>> text_of(Row(5, None, "How many?", "Two.", "2", "2", "right", 1.0, 0.5))
    [5, 'How many?', 'Two.', '2', '2', 'right', 1.0, 0.5]
    """
    return [getattr(row, name) for name in TEXT]


def indented(text: str) -> str:
    """A text as Markdown that shows it as it is, whatever stands in it: every line is indented by four.

    >>> indented("<b>two</b>\\n# three")
    '    <b>two</b>\\n    # three'
    """
    return "\n".join("    " + line for line in text.splitlines())


def refuse_missing(names: Sequence[str]) -> None:
    """Raise unless each of these trackers can be imported; nothing is.

    Raises:
        UserError: no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"no tracker {name!r}; there are {', '.join(TRACKERS)}")
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name, such as wandb leaves behind, is no package
            raise UserError(f"--track {name} needs the package {name}: pip install 'vergence[{name}]'")
