"""`vergence methods`: what each entry is, what it looks at, what that costs."""

import json
from inspect import signature

import pytest

from vergence import objectives
from vergence.cli import main
from vergence.commands.catalogue import extra_passes, in_full, options, reads_of, record
from vergence.objectives import ALIASES, METHODS
from vergence.types import About, Erase, Method, Original, Read, Reshape, Term, View

FIELDS = {
    "asks",
    "judge",
    "groups",
    "advantages",
    "kind",
    "name",
    "aliases",
    "title",
    "paper",
    "variant",
    "base",
    "views",
    "extra_passes",
    "terms",
    "reads",
    "options",
    "deviations",
    "reconstructed",
}


def called(capsys, *arguments: str) -> str:
    main(arguments)
    return capsys.readouterr().out


def reading(*reads: Read, **more) -> Method:
    """A method with one term that reads this."""
    term = Term(reads, lambda *_: None, lambda *_: None, lambda *_: None)
    return Method(About("Made up", "0000.00000", "test"), lambda reward_SG: reward_SG, {"term": term}, {}, **more)


IMAGE = Read("image", "logp", when="grad")


def test_the_list_names_every_method_and_every_other_name(capsys):
    out = called(capsys, "methods")
    assert all(f"\n{name}" in f"\n{out}" for name in METHODS)
    assert all(alias in out for alias in ALIASES)
    assert "differs: " in out


@pytest.mark.parametrize("name", METHODS)
def test_every_entry_is_plain_data_and_readable(name):
    entry = record(name, METHODS[name], ALIASES)
    assert json.loads(json.dumps(entry)) == entry
    assert entry.keys() == FIELDS
    method = METHODS[name]()
    assert entry["terms"] == list(method.objective)
    assert entry["views"].keys() == method.views.keys()
    assert entry["options"].keys() == signature(METHODS[name]).parameters.keys()
    assert {read["view"] for read in entry["reads"]} <= entry["views"].keys()
    out = in_full(entry)
    assert out.startswith(name)
    for word in (entry["paper"], *entry["terms"], *entry["views"], *entry["options"], *entry["deviations"]):
        assert word in out


def test_another_name_shows_the_entry_it_stands_for(capsys):
    assert called(capsys, "methods", "papo") == called(capsys, "methods", ALIASES["papo"])
    entry = json.loads(called(capsys, "methods", "papo", "--json"))
    assert "papo" in entry["aliases"]
    assert entry == json.loads(called(capsys, "methods", "--json"))[entry["name"]]


def test_a_known_entry_in_numbers(capsys):
    """PAPO as released: the reference and the masked view, each once per round, without gradient."""
    entry = json.loads(called(capsys, "methods", "papo", "--json"))
    assert (entry["paper"], entry["variant"]) == ("2507.06448", "release")
    assert entry["views"]["reference"]["weights"] == "reference"
    assert entry["views"]["masked"]["weights"] == "now"
    assert entry["views"]["masked"]["show"].startswith("Erase(fraction=0.6, cell=14")
    assert entry["extra_passes"] == {"frozen": 2, "frozen_every": "round", "live": 0, "grad": 0}
    assert {"view": "masked", "quantity": "logp", "against": None, "when": "frozen"} in entry["reads"]
    assert entry["options"]["gamma"] == 0.02


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        (reading(IMAGE), (0, 0, 0)),
        (reading(IMAGE, Read("image", "entropy", when="live")), (0, 0, 0)),  # one pass serves both
        (reading(IMAGE, Read("image", "logp", when="frozen")), (1, 0, 0)),
        (reading(IMAGE, Read("masked", "logp", when="frozen"), Read("masked", "entropy", when="frozen")), (1, 0, 0)),
        (reading(IMAGE, Read("image", "kl", "masked", when="frozen")), (2, 0, 0)),
        (reading(IMAGE, Read("image", "kl", "masked", when="grad")), (0, 0, 1)),
        (reading(IMAGE, Read("masked", "logp", when="live")), (0, 1, 0)),
        (reading(IMAGE, Read("masked", "logp", when="live"), Read("masked", "entropy", when="grad")), (0, 0, 1)),
        (reading(IMAGE, Read("masked", "logp", when="frozen"), Read("masked", "logp", when="grad")), (1, 0, 1)),
    ],
)
def test_passes_are_counted_by_view_and_time(method, passes):
    found = extra_passes(method)
    assert (found["frozen"], found["live"], found["grad"]) == passes
    assert found["frozen_every"] == "round"
    assert extra_passes(method._replace(fresh=True))["frozen_every"] == "step"


def test_what_metrics_and_reshaping_read_counts_too():
    watched, masked = Read("watched", "logp", when="live"), Read("masked", "logp", when="frozen")
    method = reading(
        IMAGE, metrics=reading(IMAGE, watched).objective, reshape=Reshape((masked,), lambda batch, frozen, _: None)
    )
    assert reads_of(method) == [IMAGE, watched, masked]
    assert extra_passes(method) == {"frozen": 1, "frozen_every": "round", "live": 1, "grad": 0}


def test_gates_other_weights_and_odd_defaults_are_told():
    views = {"image": View(Original()), "far": View(Erase(), "reference", gate=lambda advantage_B: advantage_B > 0)}
    entry = record("mine", lambda *, sides=(1, 2), gamma=0.5: reading(IMAGE)._replace(views=views), {"my": "mine"})
    assert entry["aliases"] == ["my"]
    assert entry["views"]["image"] == {"show": "Original()", "weights": "now", "gated": False}
    assert entry["views"]["far"]["weights"] == "reference"
    assert entry["views"]["far"]["gated"]
    assert entry["options"] == {"sides": "(1, 2)", "gamma": 0.5}
    assert options(lambda: None) == {}


def test_controls_are_listed(capsys):
    about = objectives.CONTROLS["blind"].about
    assert f"blind\n  a control: {about}" in called(capsys, "methods")
    assert called(capsys, "methods", "blind") == f"blind\n  a control: {about}\n"
    entries = json.loads(called(capsys, "methods", "--json"))
    assert entries["blind"] == {"kind": "control", "name": "blind", "about": about}
    assert entries.keys() == {*METHODS, *objectives.CONTROLS}


def test_a_controlled_method_is_shown_in_full(capsys):
    entry = json.loads(called(capsys, "methods", "papo+reworded", "--json"))
    assert entry["options"]["strength"] == 1.0
    assert "Reword" in entry["views"]["masked"]["show"]
    assert "strength" not in json.loads(called(capsys, "methods", "papo+swapped", "--json"))["options"]
