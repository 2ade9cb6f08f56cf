"""The commands. Each is a function; its signature is its options and its docstring is its help."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

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

    _use(threads)
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
    from vergence.evaluate.suite import tune_evaluation
    from vergence.recipes import recipe
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
        """Train by a recipe, any field of which can be replaced.

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
        _use(threads)
        if recipe != (name or "demo"):
            raise UserError(f"put the recipe first: vergence train {recipe} --out ... (its fields are the defaults)")
        if until is not None and until < 1:
            raise UserError(f"--until must be at least 1, got {until}")
        chosen = replace(fields, options={**fields.options, **dict(map(_setting, set))})
        evaluate = tune_evaluation(chosen) if chosen.eval_every else None
        with Display(chosen.steps, quiet=quiet) as display:
            last = run(chosen, out, resume=resume, until=until, evaluate=evaluate, watch=display)
        print(last)
        if last.name < name_of(min(chosen.steps, until or chosen.steps)):
            raise KeyboardInterrupt

    tyro.cli(command, prog="vergence train", args=list(arguments))


def evaluate(
    model: Positional[str],
    scenes: str = "embedded",
    worlds: tuple[str, ...] = ("digits", "shapes", "bars", "geometry"),
    device: str = "cpu",
    split: Literal["tune", "report"] = "tune",
    number: int = 240,
    samples: int = 4,
    seed: int = 0,
    show: Literal["image", "blank"] = "image",
    wording: Literal["short", "think"] = "short",
    max_tokens: int = 64,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Answer held-out questions and print avg@k per world, with 95 % intervals over questions.

    Example: vergence eval runs/mine/checkpoints/step-000080 --worlds mosaic

    Args:
        model: A checkpoint or folder in Hugging Face layout, or "seedling".
        scenes: "embedded", or a .jsonl file.
        worlds: Which embedded worlds take turns; mosaic and novel are out of domain.
        device: "cpu", "cuda", ...
        split: tune to choose by, report for the numbers one publishes.
        number: Questions.
        samples: Answers to each, k of avg@k.
        seed: Of the scenes and of the sampling noise.
        show: The image, or a grey one in its place.
        wording: How a question is put.
        max_tokens: Longest answer, tokens.
        out: Write one JSON line per answer to this file.
        json: Print one line of JSON.
    """
    from vergence.evaluate.suite import answer, summary, write_records
    from vergence.models.policy import load
    from vergence.scenes.source import open_source
    from vergence.train.display import counting
    from vergence.types import Blank, Original

    asked = open_source(scenes, worlds).held_out(split, number, seed=seed)
    given = {"samples": samples, "seed": seed, "wording": wording, "max_tokens": max_tokens}
    with counting("answers") as told:
        records = answer(
            load(model, device=device), asked, show=Original() if show == "image" else Blank(), told=told, **given
        )
    if out:
        write_records(out, records)
    found = summary(records)
    if json:
        print_json({name: one._asdict() | {"accuracy": one.accuracy._asdict()} for name, one in found.items()})
        return
    rows = [
        [name, str(one.accuracy), "unknown" if one.perception_errors is None else f"{one.perception_errors:.3f}"]
        for name, one in found.items()
    ]
    title = f"avg@{samples}, {split} split, shown: {show}"
    print_table(title, ["world", "accuracy [95 %]", "states a false fact"], rows)


def report(run: Positional[Path]) -> None:
    """Write a run's report.html again, from its files.

    Example: vergence report runs/mine

    Args:
        run: The run folder.
    """
    from vergence.report.page import report as write

    print(write(run))


def methods(json: bool = False) -> None:
    """List the catalogue: what each entry is, where it comes from, in what it differs from that.

    Example: vergence methods

    Args:
        json: Print one line of JSON.
    """
    from vergence.objectives import ALIASES, METHODS

    about = {name: function().about for name, function in METHODS.items()}
    if json:
        print_json({name: one._asdict() for name, one in about.items()})
        return
    for name, one in about.items():
        also = [alias for alias, full in ALIASES.items() if full == name]
        print(name + (f"  (also: {', '.join(also)})" if also else ""))
        print(f"  {one.title}, arXiv:{one.paper}, as the {one.variant}")
        for line in one.deviations:
            print(f"    differs: {line}")
        for line in one.reconstructed:
            print(f"    reconstructed: {line}")


def data_check(source: Positional[str], out: Path = Path("data-check.png"), number: int = 400) -> None:
    """Say what a source of scenes holds, split by split, and draw a picture sheet of samples.

    Example: vergence data check embedded --out sheet.png

    Args:
        source: "embedded", or a .jsonl file.
        out: Where to write the sheet.
        number: Scenes of each split that are looked at.
    """
    from vergence.scenes.check import check_splits, samples, sheet
    from vergence.scenes.embedded import WORLDS
    from vergence.scenes.source import open_source

    opened = open_source(source, tuple(WORLDS))
    print(check_splits(opened, number=number))
    sheet(samples() if source == "embedded" else opened.train(0, 12, seed=0), out)
    print(f"Samples: {out}")


def seedling(out: Path, seed: int = 0, threads: int | None = None) -> None:
    """Raise the seedling again from its seed: a few minutes on two cores.

    Example: vergence seedling --out my-seedling

    Args:
        out: Where to write it, in Hugging Face layout.
        seed: Of its weights and of what it is shown. The shipped one has seed 0.
        threads: CPU threads. The same bits need the same number; the shipped one was raised with 2.
    """
    from vergence.train.warm_start import WarmStart, raise_and_save

    _use(threads)
    settings = WarmStart(seed=seed)

    def watch(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"step {step:>5}  loss {loss:.3f}", file=sys.stderr)

    raise_and_save(settings, out, watch=watch)
    print(out)


def env() -> None:
    """Print what a bug report needs: versions, threads, devices.

    Example: vergence env
    """
    from vergence.report.environment import environment

    print(environment())


def _use(threads: int | None) -> None:
    if threads is not None:
        import torch

        if threads < 1:
            raise UserError(f"--threads must be at least 1, got {threads}")

        torch.set_num_threads(threads)


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


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "train": train,
    "eval": evaluate,
    "report": report,
    "methods": methods,
    "data check": data_check,
    "seedling": seedling,
    "env": env,
}
