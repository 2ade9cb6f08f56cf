"""Options that several commands have, and what they make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vergence.harmless import printable
from vergence.types import UserError, Wording

if TYPE_CHECKING:
    from vergence.models.policy import Policy
    from vergence.scenes.source import Source
    from vergence.train.config import Config
    from vergence.types import Scene, Split


@dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    device: str = "cpu"
    """"cpu", "cuda", ..."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights."""
    min_pixels: int = 0
    """Smaller images are enlarged to so many pixels; 0 is as saved with the model."""
    max_pixels: int = 0
    """Larger images are shrunk to so many pixels; 0 is as saved with the model."""
    trust_remote_code: bool = False
    """Run Python code that lies beside the model's weights."""

    def refuse_missing(self, model: str) -> None:
        """Raise if there is no such model; it is not loaded yet.

        Raises:
            UserError: there is none, or the Hub cannot be reached.
        """
        from vergence.models.folder import locate
        from vergence.train.hub import refuse_unreachable

        where = model_of(model)
        locate(where)
        refuse_unreachable(where)

    def load(self, model: str) -> Policy:
        """The model of that name; see `model_of`.

        Raises:
            UserError: there is none, or it cannot be loaded so.
        """
        import torch

        from vergence.models.policy import load
        from vergence.train.hub import refuse_unreachable

        if min(self.min_pixels, self.max_pixels) < 0:
            raise UserError(
                f"--min-pixels and --max-pixels must be 0 or more, got {self.min_pixels} and {self.max_pixels}"
            )
        where = model_of(model)
        refuse_unreachable(where)
        return load(
            where,
            dtype=getattr(torch, self.dtype),
            device=self.device,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            trust_remote_code=self.trust_remote_code,
        )


@dataclass(frozen=True)
class Data:
    """Where questions come from."""

    scenes: str = "embedded"
    """"embedded"; a file, a folder or a Hub data set: see docs/data.md."""
    worlds: tuple[str, ...] = ("digits", "shapes", "bars", "geometry")
    """Which embedded worlds take turns; mosaic and novel are out of domain."""
    columns: tuple[str, ...] = ()
    """Names of the data's columns where they are not known, as OURS=THEIRS: question=prompt_text."""
    tolerance: float = 0.0
    """Of numbers among the answers, relative."""
    skip_refused: bool = False
    """Go on without the rows that cannot be used."""
    pictures: str = ""
    """A folder besides the data's own that its pictures may be read from; paths count from it too."""

    def open(self, trained: Config | None = None) -> Source:
        """The source; what is left out of it is said on standard error.

        Args:
            trained: the model's config, whose columns and tolerance hold for its own data unless others are given. What
                may be read is the user's to say: no config of a model's names another folder.

        Raises:
            UserError: there is none, or rows cannot be used; or there is no such world, needed or not.
        """
        import sys

        from vergence.scenes.source import Embedded, open_source

        Embedded(self.worlds)
        columns = settings(self.columns, "--columns", "question=prompt_text")
        own = trained if trained and trained.scenes == self.scenes else None
        return open_source(
            self.scenes,
            self.worlds,
            columns=columns or (own.columns if own else {}),
            tolerance=self.tolerance or (own.tolerance if own else 0.0),
            skip_refused=self.skip_refused,
            pictures=self.pictures,
            tell=lambda line: print(printable(line), file=sys.stderr),
        )


def held_out(source: Source, split: Split, number: int, *, seed: int) -> list[Scene]:
    """The first `number` questions of a split; where there are fewer, that is said on standard error.

    Raises:
        UserError: fewer than one is asked for, or the data has none in this split.
    """
    import sys

    if number < 1:
        raise UserError(f"--number must be at least 1, got {number}")
    scenes = source.held_out(split, number, seed=seed)
    if len(scenes) < number:
        print(f"the {split} split has {len(scenes)} of the {number} questions: all of them are taken", file=sys.stderr)
    return scenes


def use(threads: int | None) -> None:
    """Let PyTorch use that many CPU threads; None leaves it as it is.

    Raises:
        UserError: fewer than one.
    """
    if threads is not None:
        import torch

        if threads < 1:
            raise UserError(f"--threads must be at least 1, got {threads}")

        torch.set_num_threads(threads)


def model_of(given: str) -> str | Path:
    """What `models.policy.load` takes: of a run folder its last checkpoint, of anything else itself.

    Of a checkpoint the model's files are hashed first, which takes about as long as to load them.

    >>> model_of("seedling")
    'seedling'

    Raises:
        UserError: it is a run folder without a checkpoint, or the checkpoint is damaged.
    """
    checkpoints = Path(given) / "checkpoints"
    is_run = given != "seedling" and checkpoints.is_dir() and not (Path(given) / "config.json").exists()
    if not is_run and not (Path(given) / "trainer").is_dir():
        return given
    from vergence.train.checkpoint import latest
    from vergence.train.keeping import refuse_damaged

    last = latest(checkpoints) if is_run else Path(given)
    if last is None:
        raise UserError(f"{given} is a run without a checkpoint; train it further (--resume), or name another model")
    refuse_damaged(last)
    return last if is_run else given


def refuse_unnamed(run: str, began_with: str | Path, typed: Sequence[str]) -> None:
    """Raise if a run says that it began with a model of the Hub: what a folder names is fetched only if the user does.

    Raises:
        UserError: it does, and the model is none of those that the user has typed.
    """
    from vergence.models.folder import locate

    if str(began_with) not in typed and not locate(began_with)[1]:
        raise UserError(
            f"{run} says that it began with {began_with}, which is no folder here: name that model too, or leave out "
            "--steps all"
        )


def trained_as(model: str | Path) -> Config | None:
    """The config under which a checkpoint was trained; None where it does not say."""
    where = Path(model) / "trainer" / "config.yaml"
    if not where.is_file():
        return None
    from vergence.train.config_file import load_config

    return load_config(where)


def asked_as(
    trained: Config | None, wording: Wording | None, max_tokens: int | None, otherwise: Wording
) -> tuple[Wording, int]:
    """The wording, and how many tokens a response may have: as given, else as the model was trained, else usual ones.

    >>> asked_as(None, None, None, "short"), asked_as(None, "think", None, "short"), asked_as(None, None, 9, "think")
    (('short', 64), ('think', 2048), ('think', 9))
    """
    put = wording or (trained.wording if trained else otherwise)
    longest = trained.max_tokens if trained else 64 if put == "short" else 2048
    return put, longest if max_tokens is None else max_tokens


def settings(given: Sequence[str], option: str, example: str) -> dict[str, str]:
    """What was given as NAME=VALUE.

    >>> settings(["gamma=0.1"], "--set", "gamma=0.1")
    {'gamma': '0.1'}

    Raises:
        UserError: one has no "=", or a name stands twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UserError(f"{option} takes NAME=VALUE, e.g. {example}, got {text!r}")
        if name in found:
            raise UserError(f"{option} has {name!r} twice")
        found[name] = value
    return found
