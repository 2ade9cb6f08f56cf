"""What a study compares: every arm of the plan, no arm twice, nothing left out in silence."""

from dataclasses import fields, replace

import pytest

from vergence import objectives
from vergence.recipes import recipe
from vergence.recipes.demo import CLOSER
from vergence.studies.arms import Arm, Plan, cross, effective, parsed, started, starting
from vergence.studies.pairs import base_of, controls_of, differs, pairs
from vergence.studies.plans import full, tiny
from vergence.train.config import Config
from vergence.types import UserError


def names(arms):
    return [arm.name for arm in arms]


def test_methods_controls_and_sweeps_multiply():
    arms, told = cross(
        "demo",
        methods=["grpo", "papo"],
        controls=["shuffled"],
        sweeps={"gamma": ["0.02", "0.1"], "lr": ["1e-4", "3e-4"]},
    )
    assert names(arms) == [
        "grpo,lr=1e-4",
        "grpo,lr=3e-4",
        *(
            f"{method},gamma={gamma},lr={lr}"
            for method in ("papo", "papo+shuffled")
            for gamma in ("0.02", "0.1")
            for lr in ("1e-4", "3e-4")
        ),
    ]
    made = {arm.name: arm.config for arm in arms}
    assert made["papo+shuffled,gamma=0.1,lr=1e-4"].options["gamma"] == "0.1"
    assert made["papo+shuffled,gamma=0.1,lr=1e-4"].lr == 1e-4
    assert made["grpo,lr=3e-4"].options == recipe("demo", "grpo").options
    # what has no such control or option is said
    assert any("grpo+shuffled is left out" in line for line in told)
    assert any(line.startswith("grpo has no option 'gamma'") for line in told)


def test_a_setting_is_for_all_that_have_it_and_in_no_name():
    arms, _ = cross("demo", methods=["grpo", "papo"], settings={"gamma": "0.5", "steps": "7"})
    assert names(arms) == ["grpo", "papo"]
    assert [arm.config.steps for arm in arms] == [7, 7]
    assert [arm.config.options.get("gamma") for arm in arms] == [None, "0.5"]


def test_a_checkpoint_is_kept_at_every_evaluation_of_a_run():
    ((arm,), _) = cross("demo", methods=["papo"])
    assert arm.config.save_every == arm.config.eval_every == recipe("demo", "papo").eval_every > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["pape"]}, "did you mean 'papo'"),
        ({"methods": ["grpo"], "controls": ["shuffled"]}, "no method of this study takes the control 'shuffled'"),
        ({"methods": ["papo"], "controls": ["shuffle"]}, "did you mean 'shuffled'"),
        ({"methods": ["grpo"], "settings": {"gamma": "1"}}, "no method of this study has an option 'gamma'"),
        ({"methods": ["papo"], "sweeps": {"gama": ["1"]}}, "did you mean 'gamma'"),
        ({"methods": ["papo"], "sweeps": {"gamma": ["much"]}}, "must be a finite number"),
        ({"methods": ["papo"], "sweeps": {"lr": ["fast"]}}, "lr must be float"),
        ({"methods": ["papo"], "sweeps": {"seed": ["1"]}}, "no method of this study has an option 'seed'"),
    ],
)
def test_what_cannot_be_compared_is_told(given, said):
    with pytest.raises(UserError, match=said):
        cross("demo", **given)


@pytest.mark.parametrize("given", ["gamma", "gamma=", "=1", "gamma=1,,2", "gamma=1,1"])
def test_a_sweep_that_does_not_read_is_told(given):
    with pytest.raises(UserError, match="--sweep takes FIELD=A,B,C"):
        parsed([given])


def test_no_option_of_a_method_is_called_like_a_field():
    """Else NAME=VALUE would mean two things."""
    known = {one.name for one in fields(Config)}
    for name in objectives.METHODS:
        assert not known & effective(Config(method=name)).keys()


def test_the_ablations_of_the_papers_have_options():
    wanted = {
        "papo": ("gamma", "fraction", "entropies"),
        "cppo": ("top", "gate", "coefficient", "tau", "views"),
        "cappo": ("coefficient", "weight"),
        "vppo": ("top", "low", "fraction"),
    }
    for method, options in wanted.items():
        assert set(options) <= effective(Config(method=method)).keys()
    halves, _ = cross("demo", methods=["cappo"], sweeps={"coefficient": ["0", "0.2"], "weight": ["none", "exp"]})
    assert len(halves) == 4


def test_a_plan_refuses_what_it_could_not_tell_apart():
    (arm,), _ = cross("demo", methods=["papo"])
    with pytest.raises(UserError, match="papo stands twice"):
        Plan(arms=(arm, arm), seeds=(0,))
    with pytest.raises(UserError, match="a seed stands twice"):
        Plan(arms=(arm,), seeds=(0, 0))
    with pytest.raises(UserError, match="needs a seed"):
        Plan(arms=(arm,), seeds=())
    with pytest.raises(UserError, match="cannot be called"):
        Plan(arms=(arm._replace(name="../papo"),), seeds=(0,))
    decaying = arm._replace(config=replace(arm.config, decay="linear"))
    with pytest.raises(UserError, match="decay=constant"):
        Plan(arms=(decaying,), seeds=(0,), seconds=10.0)


def test_the_full_plan_is_what_it_says():
    on = {"mean": "token", "clip_low": "0.2", "clip_high": "0.28", "beta": "0"}
    papo = {**on, "dual": "0", "gamma": "0.1", "eta": "0", "cell": "8"}
    found = {arm.name: arm.config for arm in full().arms}
    assert len(found) == 16
    assert found["papo+entropy-only,eta=0.03"].method == "papo+entropy-only"
    assert found["papo,eta=0.03"].options == {**papo, "eta": "0.03"}
    assert found["papo+reworded"].options == papo
    assert found["cappo+swapped"].options == {**on, **CLOSER}
    for name, config in found.items():
        expected = replace(
            recipe("demo", config.method), options=config.options, steps=60, save_every=20, eval_every=20
        )
        assert config == expected
        assert name.partition(",")[0] == config.method


def test_every_method_meets_its_base_and_its_own_controls():
    arms = {arm.name: arm for arm in full().arms}
    every = list(arms.values())
    assert {name: base.name for name in arms if "+" not in name and (base := base_of(arms[name], every))} == {
        **dict.fromkeys(("papo", "cppo", "cappo", "racro", "papo,eta=0.03"), "grpo"),
        "vppo": "dapo",
    }
    assert names(controls_of(arms["papo"], every)) == ["papo+shuffled", "papo+reworded"]
    assert names(controls_of(arms["papo,eta=0.03"], every)) == ["papo+entropy-only,eta=0.03"]
    assert names(controls_of(arms["grpo"], every)) == ["grpo+blind"]
    assert ("variant", "papo,eta=0.03", "papo", ()) in pairs(every)


def test_a_base_that_differs_in_more_is_said_to():
    arms = {arm.name: arm for arm in full().arms}
    assert differs(arms["papo"], arms["grpo"]) == ()
    assert "dual 3 instead of 0" in differs(arms["vppo"], arms["dapo"])
    assert differs(arms["racro"], arms["grpo"]) == ("a reasoner answers, from its captions",)


def test_a_method_meets_the_base_of_its_own_learning_rate():
    arms, _ = cross("demo", methods=["grpo", "papo"], sweeps={"lr": ["1e-4", "3e-4"]})
    met = {(arm, against) for family, arm, against, _ in pairs(arms) if family == "base"}
    assert met == {("papo,lr=1e-4", "grpo,lr=1e-4"), ("papo,lr=3e-4", "grpo,lr=3e-4")}


def test_a_control_is_of_the_arm_with_its_config_whatever_its_own_strength():
    arms, _ = cross("demo", methods=["papo"], controls=["shuffled"], sweeps={"lr": ["1e-4", "3e-4"]})
    assert {arm.name: names(controls_of(arm, arms)) for arm in arms if "+" not in arm.config.method} == {
        "papo,lr=1e-4": ["papo+shuffled,lr=1e-4"],
        "papo,lr=3e-4": ["papo+shuffled,lr=3e-4"],
    }
    (papo, shuffled), _ = cross("demo", methods=["papo"], controls=["shuffled"])
    strong = replace(shuffled.config, options={**shuffled.config.options, "strength": "0.5"})
    assert controls_of(papo, [papo, shuffled._replace(config=strong)]) == [shuffled._replace(config=strong)]


def test_arms_that_ask_alike_share_a_start():
    assert set(started(full().arms).values()) == {"start", "start,answered=reasoner"}
    arms, _ = cross("demo", methods=["grpo", "papo"], sweeps={"max_tokens": ["32", "64"]})
    assert started(arms) == {
        **dict.fromkeys(("grpo,max_tokens=32", "papo,max_tokens=32"), "start"),
        **dict.fromkeys(("grpo,max_tokens=64", "papo,max_tokens=64"), "start,max_tokens=64"),
    }
    assert starting(arms[0], 1) != starting(arms[1], 1)
    assert len(tiny().seeds) == 2
    assert isinstance(tiny().arms[0], Arm)
