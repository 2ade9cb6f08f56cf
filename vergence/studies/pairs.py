"""Who is compared with whom: found from the arms' configs, not from their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from vergence.studies.arms import Arm, effective, method_of, started
from vergence.train.config import Config

Family = Literal["start", "base", "control", "variant"]
FAMILIES: dict[Family, str] = {
    "start": "what training gains: an arm against the model that it started from",
    "base": "what a method adds: against the base that is left when its own coefficients are 0",
    "control": "what a control lacks: a method against its control",
    "variant": "what an option changes: an arm against the first of its method",
}
"""Comparisons that are corrected together, and what each is of."""


def pairs(arms: Sequence[Arm]) -> list[tuple[Family, str, str, tuple[str, ...]]]:
    """(family, arm, against what, in what they differ besides) for all that is compared.

    >>> from vergence.studies.plans import tiny
    >>> [pair[:3] for pair in pairs(tiny().arms)][4:]
    [('base', 'papo', 'grpo'), ('control', 'papo', 'papo+shuffled'), ('base', 'cppo', 'grpo')]
    """
    names, found = started(arms), []
    found += [("start", arm.name, names[arm.name], ()) for arm in arms]
    for arm in arms:
        if "+" in arm.config.method:
            continue
        base = base_of(arm, arms)
        if base is not None:
            found.append(("base", arm.name, base.name, differs(arm, base)))
        found += [("control", arm.name, one.name, ()) for one in controls_of(arm, arms)]
        first = next(one for one in arms if one.config.method == arm.config.method)
        if first is not arm:
            found.append(("variant", arm.name, first.name, ()))
    return found


def base_of(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm that a method adds to: its base's, in a config that differs least; None where there is none."""
    base = method_of(arm.config).about.base
    there = [one for one in arms if one.config.method == base]
    return min(there, key=lambda one: len(differs(arm, one)), default=None)


def controls_of(arm: Arm, arms: Sequence[Arm]) -> list[Arm]:
    """The arms that are this one with a control, and nothing else; a control's `strength` is its own."""

    def without(options: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in options.items() if name != "strength"}

    return [
        one
        for one in arms
        if one.config.method.startswith(f"{arm.config.method}+")
        and without(one.config.options) == without(arm.config.options)
        and not differing(one.config, arm.config)
    ]


def differs(arm: Arm, base: Arm) -> tuple[str, ...]:
    """In what a method's arm and its base's differ besides the method's own terms: "dual 3 instead of 0"."""
    mine, theirs = effective(arm.config), effective(base.config)
    silent = (
        {"kl", "kl_cap"} if mine.get("beta") == theirs.get("beta") == "0" else set()
    )  # without a KL they do nothing
    shared = [name for name in theirs if name in mine and mine[name] != theirs[name] and name not in silent]
    told = [f"{name} {mine[name]} instead of {theirs[name]}" for name in shared]
    told += [
        f"{name} {getattr(arm.config, name)} instead of {getattr(base.config, name)}"
        for name in differing(arm.config, base.config)
    ]
    if arm.captions != base.captions:
        told.append("a reasoner answers, from its captions")
    return tuple(told)


def differing(one: Config, other: Config) -> list[str]:
    """The fields in which two configs differ, but for method, options and seed.

    >>> differing(Config(seed=1), Config(lr=1e-3))
    ['lr']
    """
    first, second = asdict(one), asdict(other)
    return [name for name in first if first[name] != second[name] and name not in ("method", "options", "seed")]
