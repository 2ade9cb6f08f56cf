"""Chance by argument: nothing in the package draws from global state, and a draw is a function of its key alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vergence.chance import dice, key, rng, uniform

PACKAGE = Path(__file__).parents[2] / "vergence"
FORKED = "in fork_rng, seeded with a key: libraries draw initial weights from torch's global generator"
ALLOWED = {
    ("chance.py", "numpy.random.default_rng"): "given a key",
    ("chance.py", "random.Random"): "given a key",
    ("models/lora.py", "torch.default_generator.manual_seed"): FORKED,
    ("models/reasoner.py", "torch.manual_seed"): FORKED,
    ("models/seedling.py", "torch.manual_seed"): FORKED,
    ("models/seedling.py", "torch.nn.init.normal_"): FORKED,
    ("train/warm_start.py", "torch.manual_seed"): FORKED,
    ("train/reasoners.py", "random.Random"): "seeded with 0: among many wordings always the same one",
    ("rollout/vllm.py", "secrets.token_hex"): "a label that tells two runs at one server apart; it decides nothing",
    ("train/tracking.py", "uuid.uuid4"): "the name of a run in a tracker; it decides nothing",
}
"""(file, what is called there) -> why it may."""
MODULES = ("random", "numpy.random", "torch.random", "torch.nn.init", "secrets", "uuid")
"""Of these every name draws, or sets what is drawn from."""
KINDS = {"numpy.random.Generator", "random.Random"}
"""Types, which may be named, but not called."""
HARMLESS = {"torch.random.fork_rng"}
TORCH = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "multinomial", "bernoulli"),
    *("normal", "poisson", "manual_seed", "seed", "initial_seed", "set_rng_state", "default_generator"),
    *("cuda.manual_seed", "cuda.manual_seed_all", "cuda.seed", "nn.functional.dropout", "nn.functional.gumbel_softmax"),
}
IN_PLACE = {"uniform_", "normal_", "random_", "exponential_", "bernoulli_", "geometric_", "cauchy_", "log_normal_"}


def names_of(tree: ast.AST) -> dict[str, str]:
    """What the names that a module imports stand for, dotted in full."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """The full name of an expression such as np.random.rand; "" of any other."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, names)
        return before and f"{before}.{node.attr}"
    return ""


def global_draws(source: str) -> Iterator[str]:
    """What in a module draws from, or seeds, a generator that was not handed to it; and the salted `hash`."""
    tree = ast.parse(source)
    names, inner, called = names_of(tree), set(), set()
    own = {id(part) for node in ast.walk(tree) if _is_hash(node) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called.add(id(node.func))
            if _given(node):
                inner.add(id(node.func))  # with generator=..., of which the maker is asked
            elif isinstance(node.func, ast.Attribute) and node.func.attr in IN_PLACE and not dotted(node.func, names):
                yield node.func.attr
            elif isinstance(node.func, ast.Name) and node.func.id == "hash" and id(node) not in own:
                yield "hash"
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            name = dotted(node, names)
            if isinstance(node, ast.Attribute):
                inner.add(id(node.value))  # np.random.rand is one thing
            below, harmless = name.removeprefix("torch."), HARMLESS if id(node) in called else HARMLESS | KINDS
            of_torch = name != below and any(f"{below}.".startswith(f"{one}.") for one in TORCH)
            if name.rpartition(".")[0] in MODULES or of_torch or name == "os.urandom":
                yield from () if name in harmless else (name,)


def _is_hash(node: ast.AST) -> bool:
    """How a class says what its own hash is: nothing is drawn with it."""
    return isinstance(node, ast.FunctionDef) and node.name == "__hash__"


def _given(call: ast.Call) -> bool:
    return any(word.arg == "generator" for word in call.keywords)


def found_in_package() -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in global_draws(path.read_text()):
            where = (path.relative_to(PACKAGE).as_posix(), name)
            found[where] = found.get(where, 0) + 1
    return found


def test_nothing_draws_from_global_state():
    """And what may, still does: an exception that nobody needs any more is to be struck out."""
    found = found_in_package()
    assert found.keys() == ALLOWED.keys(), "draw from a key (vergence.chance), or say here why not"


def test_what_is_seeded_globally_is_put_back():
    """Where torch's global generator is seeded, it is inside of `fork_rng`."""
    for file in {file for (file, _), why in ALLOWED.items() if why == FORKED}:
        tree, outside = ast.parse((PACKAGE / file).read_text()), []
        forked = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item.context_expr) for item in node.items)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("manual_seed") and id(node) not in forked:
                outside.append(ast.unparse(node))
        assert not outside, file


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import random\nrandom.shuffle(x)", "random.shuffle"),
        ("import random as r\ndef f(): return r.random()", "random.random"),
        ("from random import choice\nchoice(x)", "random.choice"),
        ("from random import choice\nsorted(x, key=choice)", "random.choice"),
        ("import numpy as np\nnp.random.rand(3)", "numpy.random.rand"),
        ("import numpy as np\nnp.random.default_rng()", "numpy.random.default_rng"),
        ("from numpy.random import permutation\npermutation(3)", "numpy.random.permutation"),
        ("from numpy import random\nrandom.seed(0)", "numpy.random.seed"),
        ("import torch\ntorch.randn(2)", "torch.randn"),
        ("import torch\ntorch.manual_seed(0)", "torch.manual_seed"),
        ("from torch import multinomial\nmultinomial(p, 1)", "torch.multinomial"),
        ("from torch.nn import functional as F\nF.dropout(x)", "torch.nn.functional.dropout"),
        ("from torch import nn\nnn.init.normal_(w)", "torch.nn.init.normal_"),
        ("x.weight.data.normal_()", "normal_"),
        ("hash(scene)", "hash"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4"),
        ("import os\nos.urandom(8)", "os.urandom"),
        ("from random import Random\ndie = Random()", "random.Random"),
    ],
)
def test_a_global_draw_is_found(source, name):
    assert [*global_draws(source)] == [name]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ng = torch.Generator().manual_seed(0)\ntorch.rand(3, generator=g)",
        "x.normal_(generator=g)",
        "from random import Random\ndef draft(die: Random) -> int: return die.randrange(3)",
        "import numpy as np\ndef draw(die: np.random.Generator): return die.random()",
        "from vergence.chance import dice, rng\nrng(1).random(3)\ndice(2).shuffle(x)",
        "from vergence import chance\nchance.uniform(key_B, 0, 3)",
    ],
)
def test_a_draw_from_what_was_handed_over_is_none(source):
    assert not [*global_draws(source)]


PARTS = st.lists(st.integers(-9, 99) | st.text("ab/1", max_size=4), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_a_key_is_its_parts(one, other):
    """Other parts, another key; and what belongs to one key draws the same, whoever drew before."""
    assert (key(*one) == key(*other)) == (one == other)
    before = rng(*one).random(2), dice(*one).random()
    rng(*other).random(9), dice(*other).random()
    again = rng(*one).random(2), dice(*one).random()
    assert (before[0] == again[0]).all()
    assert before[1] == again[1]


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), st.integers(-1, 40), st.integers(1, 9), st.data())
def test_noise_is_nobodys_but_the_keys(keys, position, size, data):
    """A row's draws do not depend on which rows stand beside it, on its place among them, or on how many words there
    are; another position has others."""
    drawn_BV = uniform(torch.tensor(keys), position, size)
    order = data.draw(st.permutations(range(len(keys))))
    assert torch.equal(uniform(torch.tensor(keys)[order], position, size), drawn_BV[order])
    assert torch.equal(uniform(torch.tensor(keys), position, size + 3)[:, :size], drawn_BV)
    assert not torch.equal(uniform(torch.tensor(keys), position + 1, size), drawn_BV)
