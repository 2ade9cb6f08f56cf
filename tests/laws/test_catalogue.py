"""Choosing and composing methods: what is accepted, and what the refusal says."""

import ast
import sys
from pathlib import Path

import pytest
import torch

import vergence.objectives
from laws.cases import CASES, make, only, step
from vergence.objectives import ALIASES, METHODS, method, papo
from vergence.objectives.objective import add, reads_of
from vergence.objectives.terms import surrogate
from vergence.types import Erase, Original, Read, UserError, View


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_its_method(alias, name):
    assert alias not in METHODS
    assert method(alias).about == CASES[name].about


@pytest.mark.parametrize(("run", "options"), papo.PUBLISHED.items())
def test_the_published_coefficients_of_papo_are_its_options_and_in_the_table(run, options):
    default, index = method(f"papo-{run.split('-')[0]}"), Path(__file__).parents[2] / "docs" / "papers.md"
    published = method(f"papo-{run.split('-')[0]}", **options)
    assert f"`{run}`" in index.read_text(encoding="utf-8")
    if run in ("grpo-3b", "dapo-3b"):
        case = make(default, 0)
        assert step(default, case).loss == step(published, case).loss


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"gamma": "1e-2", "cell": "28"}, {"gamma": 0.01, "cell": 28}),
        ({"gamma": 1, "fraction": 1}, {"gamma": 1.0, "fraction": 1.0}),
        ({"cell": 28.0}, {"cell": 28}),
        ({"estimator": "k2", "mean": "sequence"}, {"estimator": "k2", "mean": "sequence"}),
    ],
)
def test_options_may_come_as_text(options, want):
    given, plain = method("papo", **options), METHODS["papo-grpo@release"](**want)
    case = make(plain, 0)
    assert step(given, case).loss == step(plain, case).loss
    assert given.views == plain.views


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grop", {}, "no method 'grop'; did you mean 'grpo'?"),
        ("zzz", {}, "no method 'zzz'; There are: "),
        ("papo", {"gama": 1}, "no option 'gama'; did you mean 'gamma'?"),
        ("grpo", {"gamma": 1}, "method 'grpo' has no option 'gamma'"),
        ("papo", {"gamma": "much"}, "option 'gamma' of method 'papo' must be a finite number, got 'much'"),
        ("papo", {"gamma": "nan"}, "must be a finite number, got 'nan'"),
        ("papo", {"gamma": True}, "must be a finite number, got True"),
        ("papo", {"gamma": None}, "must be a finite number, got None"),
        ("papo", {"cell": 14.5}, "option 'cell' of method 'papo' must be a whole number, got 14.5"),
        ("papo", {"cell": "14.5"}, "must be a whole number, got '14.5'"),
        ("papo", {"estimator": "k4"}, "must be one of k1, k2, k3, k3-printed, got 'k4'"),
        ("papo", {"fraction": 1.5}, r"Erase.fraction must lie in \[0, 1\], got 1.5"),
        ("grpo", {"clip_low": 1.5}, "clip_low must lie in"),
        ("grpo", {"clip_high": -0.1}, "clip_high be >= 0"),
        ("grpo", {"dual": 0.5}, "dual must be > 1, or 0"),
        ("grpo", {"kl_cap": -1}, "kl_cap must be > 0, or 0"),
        ("grpo", {"kl": "k4"}, "must be one of k1, k2, k3, full, got 'k4'"),
        ("dapo", {"overlong": 1.5}, "overlong is a share of the longest response"),
        ("drgrpo", {"budget": 0}, "budget must be at least 1 token, got 0"),
        ("vppo", {"top": 0}, r"top must lie in \(0, 1\] and low in \[0, 1\], got 0.0 and 0.9"),
        ("vppo", {"low": 1.5}, r"top must lie in \(0, 1\] and low in \[0, 1\], got 0.4 and 1.5"),
    ],
)
def test_a_refusal_says_what_to_do(name, options, message):
    with pytest.raises(UserError, match=message):
        method(name, **options)


def test_an_unknown_name_is_answered_with_all_there_are():
    with pytest.raises(UserError) as refusal:
        method("zzz")
    assert str(refusal.value).split("There are: ")[1].split(", ") == sorted({*METHODS, *ALIASES})


def test_objectives_with_a_term_of_the_same_name_do_not_add_up():
    with pytest.raises(UserError, match=r"terms \['reference_kl', 'surrogate'\] are in more than one"):
        add(method("grpo").objective, method("papo").objective)


def test_a_method_says_what_it_looks_at():
    released = method("papo", fraction=0.4, cell=28)
    assert reads_of(released.objective) == (
        Read("image", "logp", when="grad"),
        Read("reference", "logp", when="frozen"),
        Read("masked", "logp", when="frozen"),
    )
    assert released.views == {
        "image": View(Original()),
        "reference": View(Original(), policy="reference"),
        "masked": View(Erase(0.4, 28)),
    }
    assert list(method("papo@full", gamma=0.0, eta=0.01).views) == ["image", "reference", "masked"]


def test_the_loss_is_the_sum_of_what_its_terms_report():
    papo = method("papo", eta=0.05)
    case = make(papo, 0)
    parts = sum(step(only(papo, name), case).loss for name in papo.objective)
    assert step(papo, case).loss == pytest.approx(parts, abs=1e-12)


def test_shapes_are_checked_while_testing():
    with pytest.raises(TypeError):
        surrogate(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3), clip=(0.2, 0.2))


def test_objectives_need_types_and_torch_only():
    for file in Path(vergence.objectives.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                known = top in sys.stdlib_module_names | {"torch", "jaxtyping"}
                assert known or name.startswith(("vergence.objectives", "vergence.types")), (
                    f"{file.name} imports {name}"
                )
