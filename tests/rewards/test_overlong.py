"""DAPO's soft penalty on length, against the numbers that its equation 13 gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vergence.rewards.overlong import overlong
from vergence.types import UserError


@pytest.mark.parametrize(
    ("length", "longest", "buffer", "penalty"),
    [
        (0, 20480, 4096, 0.0),
        (16384, 20480, 4096, 0.0),
        (16385, 20480, 4096, -0.000244140625),
        (18432, 20480, 4096, -0.5),
        (20480, 20480, 4096, -1.0),
        (30000, 20480, 4096, -1.0),
        (1536, 2048, 512, 0.0),
        (1792, 2048, 512, -0.5),
        (2048, 2048, 512, -1.0),
        (2048, 2048, 0, 0.0),
        (2049, 2048, 0, -1.0),
    ],
)
def test_oracle(length, longest, buffer, penalty):
    assert overlong(length, longest, buffer) == penalty


@given(st.integers(0, 300), st.integers(0, 200), st.integers(0, 200))
def test_it_falls_from_nothing_to_one(length, longest, buffer):
    if buffer > longest:
        return
    here, next_ = overlong(length, longest, buffer), overlong(length + 1, longest, buffer)
    assert -1.0 <= next_ <= here <= 0.0
    if buffer > 0 and longest - buffer <= length < longest:
        assert here - next_ == pytest.approx(1 / buffer)


@pytest.mark.parametrize("buffer", [-1, 2049])
def test_a_buffer_that_is_none_is_told(buffer):
    with pytest.raises(UserError, match=r"must lie in \[0, 2048\]"):
        overlong(5, 2048, buffer)
