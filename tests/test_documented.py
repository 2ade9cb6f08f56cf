"""Everything public says what it is: modules, classes, functions, methods, and constants in capitals."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vergence"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.read_text().strip()]  # an empty __init__ says nothing
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def undocumented(source: str) -> list[str]:
    """The public names without a docstring; "" is the module. What stands in a function or private class is private."""
    tree = ast.parse(source)
    return ([] if ast.get_docstring(tree) else [""]) + list(_inside(tree, ""))


def _inside(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in parent.body:
        if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _inside(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_have_docstrings(path):
    assert not undocumented(path.read_text())


def test_a_missing_docstring_is_found():
    source = '"""Module."""\nclass A:\n    """A."""\n    def b(self): ...\n    def _c(self): ...\nasync def d(): ...\n'
    assert undocumented(source) == ["A.b", "d"]
    assert undocumented("x = 1") == [""]
