"""The commands. Each is a function; its signature is its options and its docstring is its help.

They are named here and imported when they are called, and what only one needs is imported inside it: `vergence --help`
waits for nothing.
"""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

COMMANDS = {
    "demo": "training.demo",
    "train": "training.train",
    "eval": "asking.evaluate",
    "audit": "auditing.audit",
    "ask": "trying.ask",
    "answer": "asking.answer",
    "look": "looking.look",
    "tokens": "looking.tokens",
    "study": "studying.study",
    "report": "showing.report",
    "same": "comparing.same",
    "push": "sharing.push",
    "export": "exporting.export",
    "methods": "catalogue.methods",
    "recipes": "showing.recipes",
    "verify": "verifying.verify",
    "data check": "scenes.data_check",
    "data sources": "scenes.data_sources",
    "data pixels": "sizing.data_pixels",
    "scale": "scaling.scale",
    "seedling": "making.seedling",
    "reasoners": "making.reasoners",
    "env": "showing.env",
}
"""What is typed after `vergence`, and the function that is called then, by its module in this folder."""


def command(name: str) -> Callable[..., None]:
    """The function of a command."""
    module, _, function = COMMANDS[name].partition(".")
    return getattr(import_module(f"{__name__}.{module}"), function)


def summary(name: str) -> str:
    """The first line of a command's help, read from its source: nothing is imported.

    >>> summary("env")
    'Print what a bug report needs: versions, threads, devices.'
    """
    module, _, function = COMMANDS[name].partition(".")
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    return (ast.get_docstring(found) or "").splitlines()[0]
