"""What a study's records say: for each arm what it reached, and for each pair the difference, over training seeds.

A claim about methods has the training seed as its unit: the difference is taken on the same questions within a seed,
and its interval is Student's t over the seeds' differences. The bootstrap over the questions of one seed stands beside
it; it says how well that one pair of runs is known, and nothing about another seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy import stats

from vergence.evaluate.interval import (
    Estimate,
    holm,
    over_seeds,
    paired_difference,
    sign_flip_p,
    smallest_detectable,
)
from vergence.studies.arms import Arm, Plan, started
from vergence.studies.pairs import FAMILIES, Family, pairs
from vergence.studies.record import Kept, place, read
from vergence.types import UserError

FLIPS = 6
"""Seeds from which on all signs can be flipped to any use: with five, no p is below 0.06."""
SAME = 1e-12
"""Differences that spread by less are all the same."""


class Row(NamedTuple):
    """What an arm reached; estimates are over seeds, each seed's value a mean over its questions."""

    arm: str
    seeds: tuple[int, ...]
    accuracy: Estimate
    """Of the last checkpoint, with the image."""
    by_seed: tuple[float, ...]
    best: Estimate
    """Of the checkpoint that was best on the tune split."""
    blind: Estimate
    """Of the last checkpoint, the image blanked."""
    away: Estimate | None
    """In worlds that were not trained on."""
    misread: Estimate
    """Share of answers whose error is one of perception; or, where errors have no kind, that state a false fact."""
    kinds: bool
    """Whether errors have a kind."""
    unparsed: float
    cut_off: float
    warnings: Mapping[str, int]
    """Name -> the seeds in which it was raised."""
    cost: Mapping[str, float]
    """Means over seeds; see `cost.measured`."""


class Compared(NamedTuple):
    """One arm against another."""

    family: Family
    arm: str
    against: str
    difference: Estimate
    """arm - against, over seeds."""
    by_seed: Mapping[int, Estimate]
    """seed -> the difference on that seed's questions, with the bootstrap's interval over them."""
    p: float | None
    """Student's t on the seeds' differences, two-sided; None for one seed."""
    holm: float | None
    """The same, corrected (Holm 1979) for the `of` comparisons of the family."""
    of: int
    flip: float | None
    """By flipping the signs of the seeds' differences; None for fewer than `FLIPS` seeds."""
    detectable: float | None
    """The smallest difference that so many seeds would show with 80 % probability, if they spread as these do."""
    misread: Estimate | None = None
    """arm - against, of the share of answers that are errors of perception; None where errors have no kind."""
    differs: tuple[str, ...] = ()
    """In what the two differ besides what they are compared for."""


class Found(NamedTuple):
    """All that a study has found by now."""

    rows: tuple[Row, ...]
    compared: tuple[Compared, ...]
    missing: tuple[str, ...]
    """Runs without a record."""

    def of(self, family: Family, arm: str) -> list[Compared]:
        """The comparisons of an arm in a family."""
        return [one for one in self.compared if (one.family, one.arm) == (family, arm)]


Records = Mapping[str, Mapping[int, Kept]]
"""Arm, or what it starts from -> seed -> its record."""


def found(plan: Plan, out: Path) -> Found:
    """What the records in a study's folder say of the plan's arms and seeds.

    Raises:
        UserError: no run has a record yet, or one is damaged.
    """
    names = [*dict.fromkeys(started(plan.arms).values()), *plan.names]
    paths = {(name, seed): place(out, name, seed) for name in names for seed in plan.seeds}
    records: dict[str, dict[int, Kept]] = {name: {} for name in names}
    for (name, seed), path in paths.items():
        if path.is_file():
            records[name][seed] = read(path)
    missing = tuple(f"{name} seed {seed}" for (name, seed), path in paths.items() if not path.is_file())
    rows = tuple(row(arm.name, records[arm.name]) for arm in plan.arms if records[arm.name])
    if not rows:
        raise UserError(f"{out} holds no record of a finished run of this study")
    return Found(rows, tuple(comparisons(plan.arms, records)), missing)


def row(arm: str, records: Mapping[int, Kept]) -> Row:
    """What an arm reached."""
    kept = [records[seed] for seed in sorted(records)]
    kinds = all(one.header["errors_known"] for one in kept)
    misread = "perception" if kinds else "false_facts"

    def over(name: str = "right", condition: str = "image", *, away: bool = False) -> list[float]:
        shares = [one.share(name, condition, away=away) for one in kept]
        return [fmean(share.values()) for share in shares if share]

    away = over(away=True)
    return Row(
        arm=arm,
        seeds=tuple(sorted(records)),
        accuracy=_share(over()),
        by_seed=tuple(over()),
        best=_share(over(condition="best")),
        blind=_share(over(condition="blank")),
        away=_share(away) if away else None,
        misread=_share(over(misread)),
        kinds=kinds,
        unparsed=fmean(over("unparsed")),
        cut_off=fmean(over("cut_off")),
        warnings=dict(Counter(name for one in kept for name in _warned(one))),
        cost={name: fmean(one.header["cost"][name] for one in kept) for name in kept[0].header["cost"]},
    )


def _warned(kept: Kept) -> list[str]:
    """What was warned of in a run, each once, in the run's order: a set has another in every process."""
    return list(dict.fromkeys(told["name"] for told in kept.header["warnings"]))


def comparisons(arms: Sequence[Arm], records: Records) -> list[Compared]:
    """Every comparison of which both sides have a seed in common; p corrected within each family."""
    made: list[Compared] = []
    for family, arm, against, differs in pairs(arms):
        seeds = sorted(records.get(arm, {}).keys() & records.get(against, {}).keys())
        if seeds:
            sides = {seed: (records[against][seed], records[arm][seed]) for seed in seeds}
            by_seed = {seed: paired_difference(*(one.share() for one in two)) for seed, two in sides.items()}
            made.append(compared(family, arm, against, by_seed, differs)._replace(misread=misread(sides.values())))
    for family in FAMILIES:
        one_family = [one for one in made if one.family == family]
        known = {f"{one.arm} {one.against}": one.p for one in one_family if one.p is not None}
        corrected = holm(known) if known else {}
        for one in one_family:
            adjusted = corrected.get(f"{one.arm} {one.against}")
            made[made.index(one)] = one._replace(holm=adjusted, of=len(known))
    return made


def misread(sides: Iterable[tuple[Kept, Kept]]) -> Estimate | None:
    """How much more the second of each pair misreads than the first, over the pairs; None where nobody knows."""
    shares = [[one.share("perception") if one.header["errors_known"] else None for one in two] for two in sides]
    if any(share is None for two in shares for share in two):
        return None
    return over_seeds([fmean(after.values()) - fmean(before.values()) for before, after in shares])


def compared(
    family: Family, arm: str, against: str, by_seed: Mapping[int, Estimate], differs: Sequence[str] = ()
) -> Compared:
    """One comparison, not yet corrected for the others.

    >>> one = compared("base", "papo", "grpo", {0: Estimate(0.1, 0, 0.2, 8), 1: Estimate(0.3, 0.2, 0.4, 8)})
    >>> round(one.difference.mean, 3), round(one.p, 3)          # t = 2 with one degree of freedom
    (0.2, 0.295)
    """
    values = [one.mean for one in by_seed.values()]
    sd = stdev(values) if len(values) > 1 else 0.0
    return Compared(
        family=family,
        arm=arm,
        against=against,
        difference=over_seeds(values),
        by_seed=dict(by_seed),
        p=t_p(values),
        holm=None,
        of=0,
        flip=sign_flip_p({str(seed): one.mean for seed, one in by_seed.items()}) if len(values) >= FLIPS else None,
        detectable=smallest_detectable(sd, len(values)) if sd > SAME else None,
        differs=tuple(differs),
    )


def t_p(values: Sequence[float]) -> float | None:
    """The two-sided p of Student's t test that the mean is 0; None for fewer than two values.

    Where all are the same it is 1 if they are 0, else 0.

    >>> t_p([0.1]), t_p([0.0, 0.0]), t_p([1.0, -1.0])
    (None, 1.0, 1.0)
    """
    if len(values) < 2:
        return None
    if stdev(values) <= SAME:
        return 1.0 if abs(fmean(values)) <= SAME else 0.0
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def _share(values: Sequence[float]) -> Estimate:
    """A mean of shares over seeds, whose interval ends where shares do."""
    one = over_seeds(values)
    return one._replace(low=max(0.0, one.low), high=min(1.0, one.high)) if isfinite(one.low) else one


def as_json(study: Found) -> dict[str, Any]:
    """All numbers; an end of an interval that one seed leaves open is null."""
    return {
        "families": FAMILIES,
        "rows": [_plain(one._asdict()) for one in study.rows],
        "compared": [_plain(one._asdict()) for one in study.compared],
        "missing": list(study.missing),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value
