"""Commands that train."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vergence.commands.given import model_of, printable, settings, use
from vergence.report.table import print_json, print_table
from vergence.types import UserError

if TYPE_CHECKING:
    from vergence.train.config import Config

Positional = tyro.conf.Positional
SAID = 10.0
"""Seconds that the first process is given to say what was wrong. The end of any process ends the others at once."""
Track = Annotated[tuple[Literal["wandb", "trackio", "tensorboard"], ...], tyro.conf.UseAppendAction]
"""Other places to show a run in, each one an extra of the package."""


def demo(
    out: Path | None = None,
    seed: int = 0,
    method: str = "papo",
    threads: int | None = None,
    track: Track = (),
    json: bool = False,
) -> None:
    """Train the seedling to look, and show what changed: minutes on two CPU cores, nothing to download.

    Example: vergence demo --seed 1

    Args:
        out: The run folder. By default runs/demo-METHOD-SEED; it must be new or empty.
        seed: Of everything that is drawn.
        method: An entry of `vergence methods`.
        threads: CPU threads; by default what PyTorch finds.
        track: Show the run in wandb, trackio or tensorboard too; may be given more than once.
        json: End with one line of JSON on standard output, and print nothing else there.
    """
    from vergence.recipes import recipe
    from vergence.recipes.before_after import as_json, as_table, before_after
    from vergence.train.display import Display
    from vergence.train.parts import open_data
    from vergence.train.processes import number_of_processes
    from vergence.train.tracking import together, tracking

    if number_of_processes() > 1:
        raise UserError(
            "the demo is for one process; several train by: torchrun ... -m vergence train demo --out runs/x"
        )
    use(threads)
    out = out or _fresh(Path("runs") / f"demo-{method.replace('@', '-')}-{seed}")
    config = replace(recipe("demo", method), seed=seed)
    source = open_data(config) if track else None
    with Display(config.steps) as display, tracking(track, out, config, source=source, tell=display.tell) as tracked:
        outcome = before_after(config, out, watch=together(display, tracked), tell=display.tell)
    if json:
        print_json(as_json(outcome))
    else:
        print_table(*as_table(outcome))
        print(f"{outcome.seconds:.0f} s in all. The run, with its page: {outcome.run / 'report.html'}")


def train(arguments: Sequence[str]) -> None:
    """Train by a recipe, any field of which can be replaced."""
    from vergence.recipes import recipe
    from vergence.train.config import Config
    from vergence.train.config_file import load_config
    from vergence.train.trusted import refuse_unasked

    # the recipe and the method decide the defaults of all other options, so they are looked up first
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    file, method = _value_after("--config", arguments), _value_after("--method", arguments)
    if name and file:
        raise UserError("give a recipe or --config, not both")
    start = load_config(Path(file)) if file else recipe(name or "demo", method or "papo")

    def command(
        out: Path,
        recipe: Positional[str] = "demo",
        config: Path | None = None,
        trust_config: bool = False,
        fields: Annotated[Config, tyro.conf.arg(name="")] = start,
        set: tuple[str, ...] = (),
        guard: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
        columns: tuple[str, ...] = (),
        resume: bool = False,
        until: int | None = None,
        threads: int | None = None,
        track: Track = (),
        quiet: bool = False,
    ) -> None:
        """Train by a recipe, any field of which can be replaced; ends with a checkpoint and a page, report.html.

        Several processes train together when torchrun starts them: torchrun --nproc-per-node 2 -m vergence train ...

        Example: vergence train demo --out runs/mine --steps 20 --method papo --set gamma=0.1 --lr 1e-4

        Args:
            out: The run folder: new or empty, or with --resume one of the same run.
            recipe: Where the fields start from.
            config: A config.yaml to start from instead of a recipe.
            trust_config: Let that file name code that is run, servers that are asked and folders of pictures.
            set: Settings of the method, as NAME=VALUE, on top of the recipe's.
            guard: What a guard does when it is raised, as NAME=warn, NAME=stop or NAME=back: "KL hacking=back". May be
                given more than once.
            columns: Names of the data's columns where they are not known, as OURS=THEIRS: question=prompt_text.
            resume: Go on from the last checkpoint in --out.
            until: Stop after this optimizer step, with a checkpoint; --resume goes on.
            threads: CPU threads; by default what PyTorch finds. A run resumes bit for bit with the same number.
            track: Show the run in wandb, trackio or tensorboard too; may be given more than once.
            quiet: Show no progress.
        """
        use(threads)
        if recipe != (name or "demo"):
            raise UserError(f"put the recipe first: vergence train {recipe} --out ... (its fields are the defaults)")
        if until is not None and until < 1:
            raise UserError(f"--until must be at least 1, got {until}")
        if file and not trust_config:
            refuse_unasked(start, arguments, Path(file))
        _train(_chosen(fields, set, guard, columns), out, resume=resume, until=until, track=track, quiet=quiet)

    tyro.cli(command, prog="vergence train", args=list(arguments))


def _chosen(fields: "Config", set: Sequence[str], guard: Sequence[str], columns: Sequence[str]) -> "Config":
    """The fields with what was given as NAME=VALUE on top, and of a run in the model's place its last checkpoint."""
    from vergence.train.interventions import refuse_unknown

    options = {**fields.options, **settings(set, "--set", "gamma=0.1")}
    named = {**fields.columns, **settings(columns, "--columns", "question=prompt_text")}
    acting = {**fields.guards, **settings(guard, "--guard", "'KL hacking=back'")}
    refuse_unknown(acting)
    return replace(fields, options=options, columns=named, guards=acting, model=str(model_of(fields.model)))


def _train(config: "Config", out: Path, *, resume: bool, until: int | None, track: Sequence[str], quiet: bool) -> None:
    """Train as the config says; the data is gone through once, after what can be said before that."""
    from vergence import objectives
    from vergence.evaluate.tune import tune_evaluation
    from vergence.report.page import report
    from vergence.train.checkpoint import number_of
    from vergence.train.display import Display
    from vergence.train.forewarned import forewarned
    from vergence.train.loop import train as run
    from vergence.train.parts import open_data
    from vergence.train.processes import is_first, leave
    from vergence.train.run import refuse_used
    from vergence.train.trackers import refuse_missing
    from vergence.train.tracking import together, tracking

    if not is_first():
        _train_along(config, out, resume=resume, until=until)
        return
    objectives.method(config.method, **config.options)
    refuse_missing(track)
    if not resume:
        refuse_used(out)
    source = open_data(config, lambda line: print(printable(line), file=sys.stderr))
    evaluate = tune_evaluation(config, out, source=source) if config.eval_every else None
    showing = Display(config.steps, quiet=quiet)
    with showing as display, tracking(track, out, config, source=source, tell=display.tell) as tracked:
        for warning in forewarned(config):
            display.tell(f"warning, {warning}")
        watched = {"evaluate": evaluate, "watch": together(display, tracked), "tell": display.tell}
        with leaving_nobody(), telling_where(), showing_why(lambda: report(out, source=source)):
            last = run(config, out, resume=resume, until=until, source=source, **watched)
    print(last)
    print(report(out, source=source))
    leave()
    if number_of(last) < min(config.steps, until or config.steps):
        raise KeyboardInterrupt


def _train_along(config: "Config", out: Path, *, resume: bool, until: int | None) -> None:
    """Of several processes, one that is not the first: it trains with the others, and what is to be said they say."""
    from vergence.train.backend import SaidElsewhere
    from vergence.train.interventions import Stopped
    from vergence.train.loop import train as run
    from vergence.train.processes import leave

    def elsewhere(_: object) -> dict[str, float]:
        return {}

    try:
        with leaving_nobody():
            run(config, out, resume=resume, until=until, evaluate=elsewhere)
    except UserError as error:
        time.sleep(SAID)
        if isinstance(error, SaidElsewhere | Stopped):
            sys.exit(getattr(error, "status", 2))
        raise
    leave()


@contextmanager
def leaving_nobody() -> Iterator[None]:
    """A run that ends because another of its processes did says so, and ends with an error."""
    from vergence.train.processes import PeerGone

    try:
        yield
    except PeerGone as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def telling_where() -> Iterator[None]:
    """A run that SIGTERM ends names its checkpoint, and takes no time for a page: it has been given seconds."""
    from vergence.train.processes import leave
    from vergence.train.stopping import Terminated

    try:
        yield
    except Terminated as stopped:
        if stopped.args:
            print(*stopped.args, flush=True)
        leave()
        raise


@contextmanager
def showing_why(page: Callable[[], Path]) -> Iterator[None]:
    """A run that a guard ends has its page all the same, which shows what was raised."""
    from vergence.train.interventions import Stopped
    from vergence.train.processes import leave

    try:
        yield
    except Stopped:
        print(page(), flush=True)
        leave()
        raise


def _fresh(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that is not there yet."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _value_after(flag: str, arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == flag and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{flag}="):
            return argument.split("=", 1)[1]
    return None
