"""Commands that show what is there: a run, this machine."""

from pathlib import Path

import tyro

Positional = tyro.conf.Positional


def report(runs: Positional[tuple[Path, ...]], out: Path | None = None, pictures: str = "", json: bool = False) -> None:
    """Write a run's page, report.html, from its files; or one page that compares several runs.

    Example: vergence report runs/mine
    Example: vergence report runs/grpo runs/papo runs/cppo --out papers/three.html

    Runs that were evaluated are compared on the same questions, each with the first: paired differences with their
    intervals, p and Holm's correction. Where they were not asked the same questions, that is an error.

    Nobody is asked for anything: the pictures of a run's data are had from this machine, or the page says why not.

    Args:
        runs: The run folders: one, or several to compare.
        out: Where to write the page. By default report.html in the run's folder, or comparison.html where one stands.
        pictures: Of one run: a folder besides the data's own that its pictures may be read from.
        json: For several runs, print in one line what the page says: settings that differ, warnings, differences.
    """
    from vergence.report import compare
    from vergence.report.page import report as write
    from vergence.report.table import print_json
    from vergence.train.display import counting
    from vergence.types import UserError

    if not runs:
        raise UserError("name a run folder, such as `vergence report runs/mine`, or several to compare them")
    if len(runs) == 1:
        path = write(runs[0], out=out, pictures=pictures)
        print_json({"page": str(path)}) if json else print(path)
        return
    path = Path(compare.PAGE) if out is None else out
    compare.refuse_others(path)
    with counting("runs") as told:
        found = compare.compared(runs, told=told)
    compare.write(found, path)
    print_json({"page": str(path)} | compare.comparison_as_json(found)) if json else print(path)


def recipes(name: Positional[str] = "", method: str = "papo") -> None:
    """List the recipes, or print one as the config.yaml that `train --config` reads.

    Example: vergence recipes qwen2.5-vl-3b --method cppo

    Args:
        name: A recipe. By default all of them.
        method: An entry of `vergence methods`; a recipe's settings depend on it.
    """
    from vergence import objectives
    from vergence.recipes import RECIPES, recipe
    from vergence.train.config_file import to_yaml

    config = recipe(name or "demo", method)
    objectives.method(config.method, **config.options)
    if name:
        print(to_yaml(config), end="")
        return
    for one, make in RECIPES.items():
        print(f"{one}\n  {(make.__doc__ or '').splitlines()[0]}")


def env() -> None:
    """Print what a bug report needs: versions, threads, devices.

    Example: vergence env
    """
    from vergence.report.environment import environment

    print(environment())
