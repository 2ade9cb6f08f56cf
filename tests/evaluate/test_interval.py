"""Intervals: questions are resampled, pairs are kept, and nothing is a mean of nothing."""

import itertools

import numpy as np
import pytest
import scipy.stats

from vergence.chance import rng
from vergence.evaluate.interval import (
    FLIPS,
    RESAMPLES,
    bootstrap,
    flip_p,
    holm,
    over_seeds,
    paired_difference,
    pass_at,
    resampled,
    sign_flip_p,
    smallest_detectable,
)
from vergence.evaluate.suite import accuracy, by_question
from vergence.types import UserError


@pytest.mark.parametrize(("n", "mean", "least", "most"), [(60, 0.5, 0.93, 0.97), (60, 0.05, 0.85, 0.93)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(n, mean, least, most):
    """2,000 studies, 8 answers to each question that share its difficulty: 93 to 97 of 100 intervals hold the truth.

    Not so near 0 and 1, where few questions make the mean skewed: `accelerated` is for that.
    """
    generator = np.random.default_rng(n)
    score_NM = generator.binomial(8, generator.beta(mean, 1 - mean, (n, 2000))) / 8
    low, high = np.percentile(resampled(score_NM), [2.5, 97.5], axis=0)
    assert least <= np.mean((low <= mean) & (mean <= high)) <= most
    one = bootstrap(named(score_NM[:, 3]))
    assert (one.low, one.high) == pytest.approx((low[3], high[3]))  # what was simulated is what is printed


def test_many_answers_to_few_questions_do_not_narrow_the_interval():
    """Resampling answers instead of questions would shrink it by the square root of their number."""
    few = [{"scene": str(q), "status": "right" if q % 2 else "wrong"} for q in range(20)]
    many = few * 50
    assert bootstrap(by_question(few)) == bootstrap(by_question(many))
    assert accuracy(many) == 0.5


def test_pairing_removes_what_the_questions_have_in_common():
    hard = {str(q): q / 40 for q in range(40)}
    easier = {question: score + (0.01 if int(question) % 2 else 0.02) for question, score in hard.items()}
    difference = paired_difference(hard, easier)
    assert difference.mean == pytest.approx(0.015)
    assert 0.01 < difference.low < difference.high < 0.02


def test_other_questions_are_refused():
    with pytest.raises(UserError, match=r"asked only once, e\.g\. b"):
        paired_difference({"a": 1.0}, {"a": 1.0, "b": 0.0})
    with pytest.raises(UserError, match="no questions"):
        bootstrap({})


def test_where_all_questions_score_alike_few_of_them_say_little():
    """The exact interval: with n of n right, 0.025^(1/n) is the share of right ones that has this happen in 2.5 %."""
    for number in (1, 5, 240):
        least = 0.025 ** (1 / number)
        none, every = (bootstrap({str(q): value for q in range(number)}) for value in (0.0, 1.0))
        assert (none.mean, none.low, none.high) == pytest.approx((0, 0, 1 - least))
        assert (every.mean, every.low, every.high) == pytest.approx((1, least, 1))
        half = bootstrap({str(q): 0.5 for q in range(number)})
        assert (half.low, half.high) == pytest.approx((least / 2, 1 - least / 2))
        same = paired_difference({str(q): 0.5 for q in range(number)}, {str(q): 0.5 for q in range(number)})
        assert (same.low, same.high) == pytest.approx((least - 1, 1 - least))


def test_the_exact_interval_covers_the_truth_at_least_as_often_as_it_says():
    """Questions that are right with the chance at the end of the interval are all right in 2.5 % of experiments."""
    generator, number = np.random.default_rng(1), 8
    truth = bootstrap({str(q): 1.0 for q in range(number)}).low
    missed = np.mean((generator.random((200_000, number)) < truth).all(1))
    assert missed == pytest.approx(0.025, abs=0.0015)


# ------------------------------------------------------------------------------------------------- tests of difference


def named(values) -> dict[str, float]:
    return {f"{at:04}": float(value) for at, value in enumerate(values)}


@pytest.mark.parametrize("n", [4, 10, 15])
def test_few_differences_are_tested_exactly_as_scipy_does(n):
    difference = np.round(np.random.default_rng(n).normal(0.2, 0.5, n), 2)
    theirs = scipy.stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    ).pvalue
    assert sign_flip_p(named(difference)) == pytest.approx(theirs, abs=1e-12)
    signs = np.array(list(itertools.product((-1, 1), repeat=min(n, 10))))
    if n <= 10:  # and by hand
        assert theirs == np.mean(abs(signs @ difference) >= abs(difference.sum()) - 1e-9)


def test_many_differences_are_tested_as_scipy_does_up_to_the_noise_of_the_draws():
    difference = np.random.default_rng(1).normal(0.15, 0.5, 40)
    theirs = scipy.stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=99_999, random_state=np.random.default_rng(0)
    ).pvalue
    assert 0.02 < theirs < 0.2
    assert sign_flip_p(named(difference)) == pytest.approx(theirs, abs=4 * (theirs / FLIPS) ** 0.5)
    assert sign_flip_p(named(difference + 5)) == 1 / (1 + FLIPS)
    assert sign_flip_p(named(difference)) == sign_flip_p(named(-difference))


def test_what_did_not_change_has_no_sign():
    """400 questions alike on both sides neither help nor harm: the 8 others are tested exactly."""
    difference = [0.25] * 7 + [-0.25] + [0.0] * 400
    assert sign_flip_p(named(difference)) == 2 * (1 + 8) / 2**8
    assert sign_flip_p(named([0.0] * 9)) == 1.0
    with pytest.raises(UserError, match="no questions"):
        sign_flip_p({})


@pytest.mark.parametrize(("n", "k"), [(12, 4), (60, 8)])
def test_of_2000_pairs_of_equal_models_at_most_6_of_100_are_told_apart(n, k):
    """Two equal models answer the same questions k times: what is called a difference at p <= 0.05 is a false one."""
    generator = np.random.default_rng(n)
    difficulty = generator.beta(0.5, 0.5, (n, 2000))
    one, other = (generator.binomial(k, difficulty) / k for _ in range(2))
    p = flip_p(one - other)
    assert (0.035 if n > 20 else 0.01) <= np.mean(p <= 0.05) <= 0.06
    kept = (one - other)[:, 5]
    assert sign_flip_p(named(kept)) == pytest.approx(flip_p(kept[abs(kept) > 0][:, None])[0])


def test_a_real_difference_is_found():
    generator = np.random.default_rng(2)
    difficulty = generator.beta(2, 2, (60, 300))
    one, other = (generator.binomial(8, np.clip(difficulty + more, 0, 1)) / 8 for more in (0.15, 0.0))
    assert np.mean(flip_p(one - other) <= 0.05) > 0.95


def test_holm_by_hand_and_its_family_wise_error():
    assert holm({"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.5}) == pytest.approx(
        {"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.5}
    )
    assert holm({"b": 0.9, "a": 0.6}) == {"b": 1.0, "a": 1.0}
    assert holm({"one": 0.03}) == {"one": 0.03}
    assert holm({}) == {}
    p_SM = np.random.default_rng(0).random((2000, 5))
    wrong = [min(holm(dict(zip("abcde", map(float, row), strict=True))).values()) <= 0.05 for row in p_SM]
    assert 0.035 < np.mean(wrong) < 0.065
    assert np.mean(p_SM.min(1) <= 0.05) > 0.2  # without it


# ------------------------------------------------------------------------------------------------- over seeds


def test_the_interval_over_seeds_is_students():
    values = [0.61, 0.64, 0.58, 0.66, 0.60]
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = over_seeds(values)
    assert found == pytest.approx((np.mean(values), theirs.low, theirs.high, 5))
    assert over_seeds([0.5]) == (0.5, -np.inf, np.inf, 1)
    for wrong in ([], [0.5, float("nan")]):
        with pytest.raises(UserError, match="finite number"):
            over_seeds(wrong)


@pytest.mark.parametrize(("n", "power"), [(2, 0.8), (5, 0.8), (60, 0.8), (60, 0.95), (60, 0.06)])
def test_the_smallest_detectable_difference_is_detected_as_often_as_it_says(n, power):
    sd = 0.3
    shift = smallest_detectable(sd, n, power)
    drawn = np.random.default_rng(n).normal(shift, sd, (20_000, n))
    noise = (power * (1 - power) / 20_000) ** 0.5
    found = np.mean(scipy.stats.ttest_1samp(drawn, 0, axis=1).pvalue <= 0.05)
    assert found == pytest.approx(power, abs=4 * noise)


def test_the_smallest_detectable_difference_of_many_is_the_closed_form():
    z = scipy.stats.norm.ppf([0.975, 0.8]).sum()
    assert smallest_detectable(0.4, 100_000) == pytest.approx(z * 0.4 / 100_000**0.5, rel=1e-4)
    assert smallest_detectable(0.0, 10) == 0.0
    for wrong in ((0.4, 1), (-1.0, 9), (0.4, 9, 1.0)):
        with pytest.raises(UserError, match="n at least 2"):
            smallest_detectable(*wrong)


def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_that_hold_a_right_one():
    for n, c in ((5, 0), (5, 2), (6, 1), (6, 6)):
        right = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            assert pass_at(k, n, c) == pytest.approx(np.mean([any(some) for some in itertools.combinations(right, k)]))
    for wrong in ((0, 4, 1), (5, 4, 1), (1, 4, 5)):
        with pytest.raises(UserError, match="pass@k needs"):
            pass_at(*wrong)


def test_draws_that_are_kept_are_those_that_were_drawn():
    for n in (1, 7, 240, 255, 256):
        scores = np.random.default_rng(n).random((n, 2))
        drawn = rng("bootstrap", n, "bars").multinomial(n, np.full(n, 1 / n), RESAMPLES)
        for _ in range(2):
            assert np.array_equal(resampled(scores, "bars"), drawn @ scores / n)
            assert np.array_equal(resampled(scores[:, 0], "bars"), drawn @ scores[:, 0] / n)
