"""Commands that show what is there: a run, this machine."""

from pathlib import Path

import tyro

Positional = tyro.conf.Positional


def report(run: Positional[Path]) -> None:
    """Write a run's report.html again, from its files.

    Example: vergence report runs/mine

    Args:
        run: The run folder.
    """
    from vergence.report.page import report as write

    print(write(run))


def env() -> None:
    """Print what a bug report needs: versions, threads, devices.

    Example: vergence env
    """
    from vergence.report.environment import environment

    print(environment())
