"""Imports point one way, files and functions stay short: read from the source, so a lazy import counts too."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vergence"
LAYERS = (
    {"types", "chance"},
    {"disk", "harmless"},
    {"rewards", "sources"},
    {"scenes", "views", "scoring", "objectives"},
    {"models"},
    {"rollout", "guards"},
    {"train"},
    {"evaluate", "same"},
    {"audit", "harnesses"},
    {"report"},
    {"recipes", "integrations"},
    {"studies"},
    {"commands"},
    {"cli"},
    {"vergence", "__main__"},  # the package itself: the same calls under one name
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
LONG_FILES = {"types.py": 560}
"""`types.py` holds every value that crosses a folder, in one file on purpose."""

FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Every module that a source imports, dotted in full; `from vergence import x` is vergence.x."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*here, base]).rstrip(".")
            if base == "vergence":
                yield from (f"vergence.{alias.name}" for alias in node.names)
            else:
                yield base


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def wrong_imports(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """The imports that point upwards or sideways, or, in `objectives`, at anything but types, torch and the library.

    jaxtyping is for annotations.
    """
    own, wrong = part_of(module), []
    for target in imported(source, module, is_package=is_package):
        top = target.split(".")[0]
        if top == "vergence":
            part = part_of(target)
            below = RANK.get(part, len(LAYERS)) < RANK[own] and (own != "objectives" or part == "types")
            if part != own and not below:
                wrong.append(target)
        elif own == "objectives" and top not in {"torch", "jaxtyping"} and top not in sys.stdlib_module_names:
            wrong.append(target)
    return wrong


def long_functions(source: str, most: int = 60) -> list[str]:
    return [
        f"{node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > most
    ]


def test_every_part_has_its_place():
    parts = {part_of(module_name(path)) for path in FILES}
    assert parts <= RANK.keys(), f"say in LAYERS where {parts - RANK.keys()} stands"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    assert not wrong_imports(path.read_text(), module_name(path), is_package=path.name == "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= LONG_FILES.get(path.name, 300)
    assert not long_functions(source)


def test_folders_are_one_deep():
    assert all(len(path.relative_to(PACKAGE).parts) <= 2 for path in FILES)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vergence.scenes.grid", "import vergence.train.loop"),
        ("vergence.scenes.grid", "from vergence.models.policy import Policy"),
        ("vergence.scenes.grid", "from vergence import rollout"),
        ("vergence.scenes.grid", "from vergence import views"),
        ("vergence.scenes.grid", "def late():\n    from ..train import loop"),
        ("vergence.scenes.grid", "from vergence import nowhere"),
        ("vergence.models.policy", "import os, vergence.rollout.sampler as s"),
        ("vergence.train.loop", "from vergence.evaluate.suite import answer"),
        ("vergence.types", "from vergence.chance import key"),
        ("vergence.rollout.render", "from vergence import UserError, cli"),
        ("vergence.objectives.grpo", "from vergence import chance"),
        ("vergence.objectives.grpo", "import numpy as np"),
    ],
)
def test_a_wrong_import_is_found(module, source):
    assert wrong_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vergence.objectives.grpo", "import math\nimport torch.nn.functional as F\nfrom vergence.types import B"),
        ("vergence.objectives.grpo", "from .terms import k3\nfrom vergence import objectives"),
        ("vergence.rollout.render", "from vergence import views\nfrom vergence.models.policy import Reader"),
        ("vergence.cli", "from vergence.recipes import recipe\nimport PIL"),
    ],
)
def test_a_right_import_is_let_through(module, source):
    assert not wrong_imports(source, module)


def test_a_long_function_is_found():
    assert long_functions("def f():\n" + "    x = 1\n" * 60) == ["f: 61"]


def code_lines(source: str) -> int:
    """Lines of functions and classes that are neither docstring, comment nor blank."""
    found: set[int] = set()
    for top in ast.parse(source).body:
        if isinstance(top, ast.FunctionDef | ast.ClassDef):
            found |= set(range(top.lineno, top.end_lineno + 1))
            for node in ast.walk(top):
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                    found -= set(range(node.lineno, node.end_lineno + 1))
    return sum(
        1 for n, line in enumerate(source.splitlines(), 1) if n in found and line.strip(" ")[:1] not in ("", "#")
    )


@pytest.mark.parametrize("name", ["grpo", "dapo", "papo", "papo_full", "contrast", "cppo", "cappo", "racro", "vppo"])
def test_a_method_is_at_most_sixty_lines_of_code(name):
    assert code_lines((PACKAGE / "objectives" / f"{name}.py").read_text()) <= 60


def test_lines_of_code_are_counted():
    assert code_lines('import x\n\n\ndef f():\n    """Doc."""\n\n    # why\n    return 1\n') == 2
