"""Commands that train."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from vergence.commands.given import model_of, use
from vergence.report.table import print_json, print_table
from vergence.types import UserError

Positional = tyro.conf.Positional


def demo(
    out: Path | None = None, seed: int = 0, method: str = "papo", threads: int | None = None, json: bool = False
) -> None:
    """Train the seedling to look, and show what changed: minutes on two CPU cores, nothing to download.

    Example: vergence demo --seed 1

    Args:
        out: The run folder. By default runs/demo-METHOD-SEED; it must be new or empty.
        seed: Of everything that is drawn.
        method: An entry of `vergence methods`.
        threads: CPU threads; by default what PyTorch finds.
        json: End with one line of JSON on standard output, and print nothing else there.
    """
    from vergence.recipes import recipe
    from vergence.recipes.before_after import as_json, as_table, before_after
    from vergence.train.display import Display

    use(threads)
    out = out or _fresh(Path("runs") / f"demo-{method.replace('@', '-')}-{seed}")
    config = replace(recipe("demo", method), seed=seed)
    with Display(config.steps) as display:
        outcome = before_after(config, out, watch=display, tell=lambda line: print(line, file=sys.stderr))
    if json:
        print_json(as_json(outcome))
    else:
        print_table(*as_table(outcome))
        print(f"{outcome.seconds:.0f} s in all. The run, with its page: {outcome.run / 'report.html'}")


def train(arguments: Sequence[str]) -> None:
    """Train by a recipe, any field of which can be replaced."""
    from vergence.evaluate.tune import tune_evaluation
    from vergence.recipes import recipe
    from vergence.report.page import report
    from vergence.train.checkpoint import name_of
    from vergence.train.config import Config, load_config
    from vergence.train.display import Display
    from vergence.train.loop import train as run

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
        fields: Annotated[Config, tyro.conf.arg(name="")] = start,
        set: tuple[str, ...] = (),
        resume: bool = False,
        until: int | None = None,
        threads: int | None = None,
        quiet: bool = False,
    ) -> None:
        """Train by a recipe, any field of which can be replaced; ends with a checkpoint and a page, report.html.

        Example: vergence train demo --out runs/mine --steps 20 --method papo --set gamma=0.1 --lr 1e-4

        Args:
            out: The run folder: new or empty, or with --resume one of the same run.
            recipe: Where the fields start from.
            config: A config.yaml to start from instead of a recipe.
            set: Settings of the method, as NAME=VALUE, on top of the recipe's.
            resume: Go on from the last checkpoint in --out.
            until: Stop after this optimizer step, with a checkpoint; --resume goes on.
            threads: CPU threads; by default what PyTorch finds. A run resumes bit for bit with the same number.
            quiet: Show no progress.
        """
        use(threads)
        if recipe != (name or "demo"):
            raise UserError(f"put the recipe first: vergence train {recipe} --out ... (its fields are the defaults)")
        if until is not None and until < 1:
            raise UserError(f"--until must be at least 1, got {until}")
        options = {**fields.options, **dict(map(_setting, set))}
        chosen = replace(fields, options=options, model=str(model_of(fields.model)))
        evaluate = tune_evaluation(chosen, out) if chosen.eval_every else None
        with Display(chosen.steps, quiet=quiet) as display:
            tell = partial(display.console.print, highlight=False, markup=False, soft_wrap=True)
            last = run(chosen, out, resume=resume, until=until, evaluate=evaluate, watch=display, tell=tell)
        print(last)
        print(report(out))
        if last.name < name_of(min(chosen.steps, until or chosen.steps)):
            raise KeyboardInterrupt

    tyro.cli(command, prog="vergence train", args=list(arguments))


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"--set takes NAME=VALUE, e.g. gamma=0.1, got {text!r}")
    return name, value


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
