"""Intervals: questions are resampled, pairs are kept, and nothing is a mean of nothing."""

import numpy as np
import pytest

from vergence.evaluate.interval import bootstrap, paired_difference
from vergence.evaluate.suite import accuracy, by_question
from vergence.types import UserError


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """100 experiments of 60 questions each: a 95 % interval covers in 88 to 99 of them."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        hits = generator.random(60) < 0.6
        estimate = bootstrap({str(index): float(hit) for index, hit in enumerate(hits)})
        covered += estimate.low <= 0.6 <= estimate.high
    assert 88 <= covered <= 99


def test_many_answers_to_few_questions_do_not_narrow_the_interval():
    """Resampling answers instead of questions would shrink it by the square root of their number."""
    few = [{"scene": str(q), "status": "right" if q % 2 else "wrong"} for q in range(20)]
    many = few * 50
    assert bootstrap(by_question(few)) == bootstrap(by_question(many))
    assert accuracy(many) == 0.5


def test_pairing_removes_what_the_questions_have_in_common():
    hard = {str(q): q / 40 for q in range(40)}
    easier = {question: score + 0.01 for question, score in hard.items()}
    difference = paired_difference(hard, easier)
    assert difference.low == pytest.approx(0.01)
    assert difference.high == pytest.approx(0.01)


def test_other_questions_are_refused():
    with pytest.raises(UserError, match=r"asked only once, e\.g\. b"):
        paired_difference({"a": 1.0}, {"a": 1.0, "b": 0.0})
    with pytest.raises(UserError, match="no questions"):
        bootstrap({})
