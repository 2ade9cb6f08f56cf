"""Whatever comes from elsewhere: a value or a message, in time, and nothing of it acts in a page or a terminal.

VERGENCE_FUZZ=10000 asks each target for so many inputs; `benchmarks/fuzz.py` runs them longer, with atheris too.
"""

import faulthandler
import os

import pytest
from fuzz.drawing import FromBytes, nested, torn
from fuzz.kinds import Hang, Target, Unescaped, told, within
from fuzz.targets import TARGETS, FromHypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from vergence.types import UserError

MORE = int(os.environ.get("VERGENCE_FUZZ", "0"))
SLOW = 600.0
"""Seconds after which a test that no alarm can end is ended with its process."""


@pytest.fixture(autouse=True)
def _ended():
    faulthandler.dump_traceback_later(max(SLOW, MORE), exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def fuzzed(target: Target, number: int, *, seconds: float | None = None) -> None:
    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # what breaks a law is shown as it is: to make it smaller takes minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data):
        with within(target.seconds if seconds is None else seconds):
            target.run(FromHypothesis(data))

    run()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_a_value_or_a_message(target):
    fuzzed(target, MORE or target.few)


def test_targets_are_told_apart():
    assert len({target.name for target in TARGETS}) == len(TARGETS) > 25


def test_what_escapes_is_found():
    def escapes(draw):
        if draw.below(4) == 3:
            raise KeyError("x")

    with pytest.raises(KeyError):
        fuzzed(Target("wrong", escapes, 1.0, ""), 100)


def test_what_takes_too_long_is_found():
    def endless(draw):
        while True:
            draw.below(2)

    with pytest.raises(Hang):
        fuzzed(Target("wrong", endless, 0.2, ""), 1)


def test_a_message_that_names_nothing_is_found():
    def refused():
        raise UserError("no")

    assert told(refused) is None
    with pytest.raises(AssertionError, match="does not name"):
        told(refused, "config.yaml")


def test_markup_in_a_page_is_found(tmp_path):
    from fuzz.runs import _refuse_markup

    for wrong in ("<b onclick=x>y</b>", "<!-- x -->", "<script>1</script>" * 3, "<a href=https://x>y</a>", "a\u202eb"):
        (tmp_path / "page.html").write_text(f"<p>{wrong}</p>", encoding="utf-8")
        with pytest.raises(Unescaped):
            _refuse_markup(tmp_path / "page.html")


def test_bytes_are_choices():
    draw = FromBytes(bytes([7, 2, 65, 66, 9]))
    assert (draw.below(5), draw.blob(), draw.below(256), draw.below(9)) == (2, b"AB", 9, 0)
    assert torn(FromBytes(b"\x02\x00"), b"abcd") == b"ab"
    assert nested(3) == [[[[]]]]
