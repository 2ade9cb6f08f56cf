"""BCa intervals: SciPy's, and by simulation; several benchmarks; and what differences do by chance."""

import numpy as np
import pytest
import scipy.stats

from vergence.evaluate.accelerated import accelerated, ends, stratified, together
from vergence.evaluate.interval import RESAMPLES, bootstrap, resampled
from vergence.types import UserError

STUDIES = 2000


def answered(n: int, mean: float, seed: int, k: int = 8) -> np.ndarray:
    """Scores (n, STUDIES): k answers to each question, which share its latent difficulty (correlation 0.5)."""
    generator = np.random.default_rng(seed)
    return generator.binomial(k, generator.beta(mean, 1 - mean, (n, STUDIES))) / k


def named(scores) -> dict[str, float]:
    return {f"{at:04}": float(score) for at, score in enumerate(scores)}


def edges_of(score_NM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `together` does it, for many studies."""
    off = score_NM - score_NM.mean(0)
    skew = (off**3).sum(0) / np.maximum(6 * (off**2).sum(0) ** 1.5, 1e-300)
    low, high = ends(resampled(off, "one"), skew)
    return score_NM.mean(0) + low, score_NM.mean(0) + high


@pytest.mark.parametrize(("n", "mean"), [(60, 0.1), (60, 0.5), (120, 0.9), (240, 0.3)])
def test_the_interval_covers_the_truth_in_93_to_97_of_100_studies(n, mean):
    score_NM = answered(n, mean, seed=n)
    low, high = edges_of(score_NM)
    assert 0.93 <= np.mean((low <= mean) & (mean <= high)) <= 0.97
    one = stratified({"one": named(score_NM[:, 0])})
    assert (one.low, one.high) == pytest.approx((low[0], high[0]))  # what was simulated is what is printed


def test_intervals_of_answers_instead_of_questions_would_cover_far_less():
    """The same simulation, with 8 answers to 60 questions taken for 480 questions."""
    generator = np.random.default_rng(0)
    answer_NM = generator.random((60, 8, 400)) < generator.beta(0.5, 0.5, (60, 1, 400))
    low, high = edges_of(answer_NM.reshape(480, 400).astype(float))
    assert np.mean((low <= 0.5) & (high >= 0.5)) < 0.75


def test_the_interval_of_a_paired_difference_covers_the_truth_too():
    generator = np.random.default_rng(5)
    difficulty = generator.beta(0.5, 0.5, (60, STUDIES))
    better = 0.8 * difficulty + 0.2 * (difficulty > 0.9)
    difference = (generator.binomial(8, better) - generator.binomial(8, difficulty)) / 8
    low, high = edges_of(difference)
    tail = 1 - scipy.stats.beta(0.5, 0.5).cdf(0.9)
    assert 0.93 <= np.mean((low <= 0.2 * tail - 0.1) & (0.2 * tail - 0.1 <= high)) <= 0.97


@pytest.mark.parametrize("mean", [0.1, 0.5])
def test_it_is_scipys(mean):
    scores = answered(80, mean, seed=3)[:, 0]
    theirs = scipy.stats.bootstrap(
        (scores,), np.mean, n_resamples=RESAMPLES, method="BCa", random_state=np.random.default_rng(0), batch=1000
    ).confidence_interval
    ours = accelerated(named(scores))
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)
    plain = bootstrap(named(scores))
    if mean == 0.1:  # where it is skewed, the correction is more than that
        assert ours.low - plain.low > 0.03 * width


def test_several_benchmarks_are_resampled_apart():
    """An easy and a hard one: that they differ is not chance, and the interval must not hold it."""
    easy, hard = named([1.0, 0.9] * 30), {f"h{at}": value for at, value in enumerate([0.0, 0.1] * 30)}
    apart, mixed = stratified({"easy": easy, "hard": hard}), accelerated(easy | hard)
    assert apart.mean == pytest.approx(mixed.mean) == pytest.approx(0.5)
    assert apart.high - apart.low < 0.2 * (mixed.high - mixed.low)
    variance = sum(np.var(list(one.values())) / 60 / 4 for one in (easy, hard))
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.05)


def test_all_benchmarks_alike_or_by_their_questions():
    many, few = named([1.0, 0.0, 1.0, 1.0] * 20), {"x": 0.0, "y": 0.5}
    both = {"many": many, "few": few}
    assert stratified(both).mean == pytest.approx(61 / 82 * (60.5 / 61))
    assert stratified(both, macro=True).mean == pytest.approx((0.75 + 0.25) / 2)
    assert stratified(both).n == stratified(both, macro=True).n == 82


def test_a_benchmark_that_says_nothing_does_not_narrow_the_interval():
    """All of 10 right is no proof of certainty: the exact interval of the 10 is in the interval over both."""
    sure, other = named([1.0] * 10), {f"o{at}": float(at % 2) for at in range(10)}
    alone, both = accelerated(sure), stratified({"sure": sure, "other": other})
    half = accelerated(other)
    assert both.mean - both.low == pytest.approx(np.hypot((1 - alone.low) / 2, (0.5 - half.low) / 2), rel=0.05)
    assert both.high - both.mean == pytest.approx((half.high - 0.5) / 2, rel=0.05)
    assert stratified({"sure": sure}) == bootstrap(sure)


def test_several_scores_at_once_are_each_alone():
    scores = answered(40, 0.4, seed=9)[:, :2]
    rows = {"w": {f"{at:04}": tuple(map(float, pair)) for at, pair in enumerate(scores)}}
    for at, one in enumerate(together(rows)):
        assert one == pytest.approx(stratified({"w": named(scores[:, at])}), abs=1e-12)


def test_without_questions_there_is_no_mean():
    for nothing in ({}, {"a": {}}):
        with pytest.raises(UserError, match="no questions"):
            stratified(nothing)
