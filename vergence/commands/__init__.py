"""The commands. Each is a function; its signature is its options and its docstring is its help.

What only one command needs is imported inside it, so that `vergence --help` does not wait for it.
"""

from collections.abc import Callable

from vergence.commands.asking import answer, evaluate
from vergence.commands.catalogue import methods
from vergence.commands.making import reasoners, seedling
from vergence.commands.scenes import data_check
from vergence.commands.showing import env, report
from vergence.commands.training import demo, train

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "train": train,
    "eval": evaluate,
    "answer": answer,
    "report": report,
    "methods": methods,
    "data check": data_check,
    "seedling": seedling,
    "reasoners": reasoners,
    "env": env,
}
"""What is typed after `vergence`, and what is called then."""
