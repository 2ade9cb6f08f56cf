"""No mean without its n and its interval. Questions are resampled, never the answers to one question.

A difference comes with the chance that it would be as large if there were none, and several with what several cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import comb, inf, isfinite, sqrt
from statistics import fmean
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vergence.chance import rng
from vergence.types import UserError

Scores = Float[np.ndarray, "..."]
RESAMPLES = 10_000
KEEP = 1000
"""Up to so many questions the draws are kept for the next mean over as many: speed only, some 20 MB each."""
ALIKE = 1e-9
"""Scores that differ by less are the same but for rounding."""
FLIPS = 20_000
"""Draws of signs, where there are too many differences to go through all."""
EXACT = 15
"""So many differences have 32,768 ways to flip their signs: all are tried."""
LEVEL = 0.05
"""Of a two-sided test; an interval leaves out as much."""


class Estimate(NamedTuple):
    """A mean over questions, with its 95 % interval.

    >>> print(Estimate(0.123, 0.05, 0.2, 60))
    0.123 [0.050, 0.200] n=60
    """

    mean: float
    low: float
    high: float
    n: int
    """Questions."""

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"


def bootstrap(score_by_question: Mapping[str, float], *, least: float = 0.0) -> Estimate:
    """The mean score, with a percentile bootstrap interval over questions (Efron 1979; 10,000 resamples, fixed seed).

    Where all n questions score alike, and so where there is but one, every resample does too. Then the interval is what
    scores between `least` and 1 leave possible: that n of n questions score v is likelier than 2.5 % only if the share
    of those that do not is at most u = 1 - 0.025^(1/n), and these may be anything, so that the mean is between
    v - u (v - least) and v + u (1 - v). For shares that are all 0 or all 1 it is the exact interval of Clopper and
    Pearson (1934).

    >>> print(bootstrap({"a": 1.0, "b": 1.0}))
    1.000 [0.158, 1.000] n=2

    Args:
        least: the lowest score that there can be; the highest is 1.

    Raises:
        UserError: there are no questions.
    """
    scores = np.array([score_by_question[question] for question in sorted(score_by_question)])
    if len(scores) == 0:
        raise UserError("no questions: there is nothing to take a mean of")
    if np.ptp(scores) < ALIKE:
        return exact(float(scores.mean()), len(scores), least)
    low, high = np.percentile(resampled(scores), [2.5, 97.5])
    return Estimate(float(scores.mean()), float(low), float(high), len(scores))


def exact(value: float, n: int, least: float = 0.0) -> Estimate:
    """What n questions that all score `value` leave possible: see `bootstrap`."""
    odd = 1 - 0.025 ** (1 / n)
    return Estimate(value, value - odd * max(0.0, value - least), value + odd * max(0.0, 1 - value), n)


def resampled(scores: Scores, *stratum: str) -> Scores:
    """The means of `RESAMPLES` resamples of N scores; of several studies of N questions, each in its own column.

    >>> bool(abs(resampled(np.array([0.0, 1.0])).mean() - 0.5) < 0.01)
    True

    Args:
        stratum: the benchmark's name, where others are resampled beside it: their draws are not the same.
    """
    n = len(scores)
    drawn = _kept_draws(n, *stratum) if n <= KEEP else _draws(n, *stratum)
    return drawn.astype(float) @ scores / n


def _draws(n: int, *stratum: str) -> np.ndarray:
    """How often each of n questions was drawn in each resample: that is all that a resample's mean needs."""
    drawn = rng("bootstrap", n, *stratum).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    drawn = drawn.astype(np.min_scalar_type(n))
    drawn.flags.writeable = False
    return drawn


_kept_draws = lru_cache(maxsize=8)(_draws)


def paired_difference(before: Mapping[str, float], after: Mapping[str, float]) -> Estimate:
    """The mean of after - before on the same questions, with its interval.

    >>> print(paired_difference({"a": 0.0, "b": 0.5}, {"a": 0.5, "b": 1.0}))
    0.500 [-0.763, 0.921] n=2

    Raises:
        UserError: the questions are not the same.
    """
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())
        raise UserError(
            f"{len(odd)} question(s) were asked only once, e.g. {odd[0]}; compare answers to the same questions"
        )
    return bootstrap({question: after[question] - before[question] for question in before}, least=-1.0)


def sign_flip_p(difference_by_question: Mapping[str, float]) -> float:
    """How likely a mean difference at least as large, up or down, is if each could as well have the other sign.

    The permutation test of paired answers (Fisher 1935). Differences of 0 have no sign. Up to `EXACT` others, all signs
    are gone through, and p is a share of them; of more, `FLIPS` are drawn with a fixed key, and
    p = (1 + those as large) / (1 + FLIPS) (Phipson and Smyth 2010), which is never 0.

    >>> sign_flip_p({"a": 1.0, "b": 1.0, "c": 0.5}), sign_flip_p({"a": 0.0})
    (0.25, 1.0)

    Raises:
        UserError: there are no questions.
    """
    if not difference_by_question:
        raise UserError("no questions: there is nothing to compare")
    difference = np.array([difference_by_question[question] for question in sorted(difference_by_question)])
    difference = difference[abs(difference) >= ALIKE]
    if not len(difference):
        return 1.0
    return float(flip_p(difference[:, None])[0])


def flip_p(differences: Float[np.ndarray, "N studies"]) -> Float[np.ndarray, " studies"]:
    """`sign_flip_p` of several studies at once, each a column of N differences other than 0."""
    n, told = len(differences), abs(differences.sum(0)) - ALIKE
    if n <= EXACT:
        sign = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return (abs(sign @ differences) >= told).mean(0)
    draws, as_large = rng("sign flip", n), np.zeros(differences.shape[1])
    for _ in range(FLIPS // 2000):  # in parts: memory only
        sign = 1.0 - 2.0 * draws.integers(0, 2, (2000, n))
        as_large += (abs(sign @ differences) >= told).sum(0)
    return (1 + as_large) / (1 + FLIPS)


def holm(p_by_name: Mapping[str, float]) -> dict[str, float]:
    """Each p as it counts where as many are looked at (Holm 1979): all that are at most 0.05 hold together at 5 %.

    The smallest of m is multiplied by m, the next by m - 1, ...; none becomes smaller than one before it, nor more
    than 1.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(p_by_name, key=p_by_name.__getitem__)):
        least = min(1.0, max(least, (len(p_by_name) - rank) * p_by_name[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_by_name}


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one number per training seed, with Student's t interval; n is the seeds.

    mean +- t(0.975; n - 1) sd / sqrt(n). One seed tells nothing of the others: its interval is the whole line.

    >>> print(over_seeds([0.1, 0.2, 0.3]))
    0.200 [-0.048, 0.448] n=3

    Raises:
        UserError: there are no seeds, or a value is not finite.
    """
    from scipy.stats import t

    if not values or not all(map(isfinite, values)):
        raise UserError(f"a mean over seeds needs a finite number of each, got {list(values)}")
    mean, n = fmean(values), len(values)
    if n == 1:
        return Estimate(mean, -inf, inf, 1)
    half = float(t.ppf(1 - LEVEL / 2, n - 1)) * float(np.std(values, ddof=1)) / sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def smallest_detectable(sd: float, n: int, power: float = 0.8) -> float:
    """The true mean difference of n pairs that a two-sided paired t test at 5 % finds with this probability.

    The root in d of 1 - F(t; d sqrt(n) / sd) + F(-t; d sqrt(n) / sd) = power, with F of the noncentral t distribution
    with n - 1 degrees of freedom and t its critical value; for large n it is (1.960 + 0.842) sd / sqrt(n).

    >>> round(smallest_detectable(0.4, 240), 3), round(smallest_detectable(0.02, 5), 3)
    (0.073, 0.034)

    Args:
        sd: standard deviation of the differences, over questions or over seeds: whatever n counts.

    Raises:
        UserError: sd is negative, there are fewer than two pairs, or the power is not between 0.05 and 1.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    if not (isfinite(sd) and sd >= 0 and n >= 2 and LEVEL < power < 1):
        raise UserError(f"sd must be 0 or more, n at least 2, {LEVEL} < power < 1; got {sd}, {n}, {power}")
    critical = t.ppf(1 - LEVEL / 2, n - 1)

    def beyond(shift: float) -> float:
        below = nct.cdf(-critical, n - 1, shift) if shift < 5 else 0.0  # SciPy has no number for some of the smallest
        return float(nct.sf(critical, n - 1, shift) + below) - power

    high = 1.0
    while beyond(high) < 0:
        high *= 1.5
    return float(brentq(beyond, 0.0, high)) * sd / sqrt(n)


def pass_at(k: int, n: int, c: int) -> float:
    """The chance that one of k answers is right, from n answers of which c are: 1 - C(n - c, k) / C(n, k).

    Unbiased (Chen et al. 2021, arXiv:2107.03374, eq. 1), as "any of the first k" is too, with more noise.

    >>> pass_at(1, 8, 2), pass_at(2, 4, 2), pass_at(8, 8, 1), round(pass_at(4, 8, 1), 3)
    (0.25, 0.8333333333333334, 1.0, 0.5)

    Raises:
        UserError: not 1 <= k <= n, or not 0 <= c <= n.
    """
    if not (1 <= k <= n and 0 <= c <= n):
        raise UserError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, got k={k}, n={n}, c={c}")
    return 1 - comb(n - c, k) / comb(n, k)
