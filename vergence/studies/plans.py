"""A study is a function that returns its arms, as a recipe is one that returns a config."""

from __future__ import annotations

from dataclasses import replace

from vergence.recipes import recipe
from vergence.recipes.demo import CLOSER
from vergence.studies.arms import Arm, Plan

ON = {"mean": "token", "clip_low": "0.2", "clip_high": "0.28", "beta": "0"}
"""What methods on GRPO share: a mean over tokens, DAPO's clip, no reference KL."""
ON0 = {**ON, "dual": "0"}
P = {**ON0, "gamma": "0.1", "eta": "0", "cell": "8"}
V = {"entropy": "0", "cell": "8"}


def tiny() -> Plan:
    """Three methods and a control, two seeds, few steps: minutes on two cores.

    It shows that all works, and how long it takes; which method is better it cannot show.
    """
    options = {"grpo": ON, "papo": P, "papo+shuffled": P, "cppo": {**ON0, "coefficient": "0.01"}}
    arms = [_arm(method, method, options[method], steps=10, every=5) for method in options]
    arms = [arm._replace(config=replace(arm.config, eval_scenes=48)) for arm in arms]
    return Plan(arms=tuple(arms), seeds=(0, 1), questions=96, elsewhere=24)


def full() -> Plan:
    """Every paper's method, its controls, and grpo and dapo under them: 16 arms, five seeds, 60 steps each.

    >>> len(full().arms), full().seeds
    (16, (0, 1, 2, 3, 4))
    """
    contrast, closer = {**ON0, "coefficient": "0.01"}, {**ON, **CLOSER}
    arms = (
        ("grpo", ON),
        ("papo", P),
        ("papo+shuffled", P),
        ("cppo", contrast),
        ("cppo+random", contrast),
        ("cappo", closer),
        ("racro", ON0),
        ("dapo", {}),
        ("vppo", V),
        ("vppo+random", V),
        ("vppo+shuffled", V),
        ("papo,eta=0.03", {**P, "eta": "0.03"}),
        ("papo+entropy-only,eta=0.03", {**P, "eta": "0.03"}),
        ("grpo+blind", ON),
        ("papo+reworded", P),
        ("cappo+swapped", closer),
    )
    made = [_arm(name, name.partition(",")[0], options, steps=60, every=20) for name, options in arms]
    return Plan(arms=tuple(made), seeds=tuple(range(5)))


PLANS = {"tiny": tiny, "full": full}
"""By the name that `vergence study --plan` takes."""


def _arm(name: str, method: str, options: dict[str, str], *, steps: int, every: int) -> Arm:
    run = recipe("demo", method)
    return Arm(name, replace(run, options=options, steps=steps, save_every=every, eval_every=every))
