"""What a config from a file may not decide by itself: whose code runs, who is contacted, what else is read.

Configs are passed around with runs and papers. What is in them is data, but for the fields that are named here: each
counts only where the user has typed it, or has said that the file is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vergence.train.config import Config
from vergence.types import UserError


def reaches(config: Config) -> dict[str, str]:
    """What a config reaches beyond data and weights: field -> what it would do, in words.

    >>> reaches(Config())
    {}
    >>> reaches(Config(reasoner="http://10.0.0.1:8000", rewards=("mine.py:short",)))
    {'rewards': 'runs the code of mine.py:short', 'reasoner': 'asks the server http://10.0.0.1:8000'}
    """
    found = {}
    if config.rewards:
        found["rewards"] = f"runs the code of {', '.join(config.rewards)}"
    if config.trust_remote_code:
        found["trust_remote_code"] = f"runs code that comes with the model {config.model}"
    for name in ("captions", "reasoner", "sampler"):
        if "://" in (given := getattr(config, name)):
            found[name] = f"asks the server {given}"
    if config.pictures:
        found["pictures"] = f"reads pictures from {config.pictures}"
    return found


def refuse_unasked(config: Config, arguments: Sequence[str], where: Path) -> None:
    """Raise where a config does one of these things and no argument of the command line says so.

    Args:
        config: as the file says.
        arguments: of the command line, in which the field is named as --field or --field=value.
        where: the file.

    Raises:
        UserError: what it would do, and how it is allowed.
    """
    typed = set(flags(arguments))
    unasked = {name: told for name, told in reaches(config).items() if name not in typed}
    if unasked:
        raise UserError(
            f"{where} {', and '.join(unasked.values())}, which a file is not obeyed in unasked. If you trust it, give "
            f"--trust-config; or say it yourself: {', '.join('--' + name.replace('_', '-') for name in unasked)}"
        )


def flags(arguments: Iterable[str]) -> list[str]:
    """The names of the options among arguments, as Python spells them.

    >>> flags(["demo", "--out", "runs/x", "--trust-remote-code", "--reasoner=weak"])
    ['out', 'trust_remote_code', 'reasoner']
    """
    named = (one.partition("=")[0] for one in arguments if one.startswith("--"))
    return [one.removeprefix("--").removeprefix("no-").replace("-", "_") for one in named]
