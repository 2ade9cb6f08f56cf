"""Every number in every guard: a log just below it raises nothing, and one just above it raises the guard.

The logs are constant but for what a case is about.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from vergence.guards.catalogue import GUARDS, raised
from vergence.guards.past import CUT, GRADIENT, RIGHT, UNPARSED, ZERO, Past

LEAK, DISAVOWAL, REPETITION = "perception/caption_leak", "completions/disavowal", "completions/repetition"
TIMED_OUT, LENGTH, DRAWS, CLIP = "rewards/timed_out", "completions/mean_length", "sampling/draws", "clip_ratio/high"
KL, RATIO, MEAN_GAP, GAP = (
    "perception/kl_masked",
    "perception/gradient_ratio",
    "sampler/gap_mean",
    "sampler/gap_of_most",
)
OTHER_KL, OTHER_ENTROPY = "perception/removed/kl", "perception/removed/entropy"
USUAL = {
    **{"loss": 0.1, GRADIENT: 0.15, ZERO: 0.3, RIGHT: 0.8, UNPARSED: 0.0, CUT: 0.0, TIMED_OUT: 0.0, "entropy": 1.0},
    **{LENGTH: 30.0, CLIP: 0.001, "loss/perception": -0.02, LEAK: 0.0, MEAN_GAP: 0.01, GAP: 0.1, DRAWS: 2.0},
    **{DISAVOWAL: 0.0, REPETITION: 0.0, KL: 0.25, "perception/k3_masked": 0.2, "perception/k3_p99_masked": 5.0},
    **{"perception/k3_variance_masked": 0.9, "perception/entropy_masked": 0.4, RATIO: 0.2},
    **{OTHER_KL: 0.2, OTHER_ENTROPY: 0.4},
}


FIRST = 12
"""Lines before anything changes."""


def log(start: dict = {}, then: dict = {}, *, first: int = FIRST, after: int = 6) -> list[dict]:  # noqa: B006
    lines = [USUAL | start for _ in range(first)] + [USUAL | start | then for _ in range(after)]
    return [{"step": step, **line} for step, line in enumerate(lines, 1)]


def from_first(name: str, value: float, rounds: int) -> list[dict]:
    return log({name: value}, first=rounds, after=0)


def noisy(name: str, start: float, then: float, jump: float) -> list[dict]:
    """From one level to another, up and down by half a jump: its noise is jump / 0.954."""
    lines = log({name: start}, {name: then})
    return [{**line, name: line[name] + (jump / 2 if line["step"] % 2 else -jump / 2)} for line in lines]


def spike(times: float, before: int = 25) -> list[dict]:
    return log({}, {GRADIENT: 0.15 * times}, first=before, after=1)


def sparse(share: float) -> list[dict]:
    """On two steps of three so many groups have nothing to teach, and the gradient is next to nothing."""
    lines = log(first=40, after=0)
    return [line | ({ZERO: share, GRADIENT: 0.005} if line["step"] % 3 else {}) for line in lines]


def surge(name: str, times: float) -> list[dict]:
    """Of a number, with half of the accuracy gone."""
    return log({RIGHT: 0.1}, {name: USUAL[name] * times, RIGHT: 0.05})


def harm(start: dict, then: dict) -> list[dict]:
    """With a KL to the masked view that has surged."""
    return log(start, {KL: 1.0, **then})


def noisy_surge(then: float) -> list[dict]:
    return [{**line, KL: 0.25 if line["step"] <= FIRST else 1.0} for line in noisy(RIGHT, 0.8, then, 0.1)]


NUMBER = r"\d+(?:\.\d+)?"


class Bound(NamedTuple):
    """A number of a guard."""

    guard: str
    says: str
    """What its row in docs/watching.md says of the number; empty where that is said above the table."""
    made: Callable[[float], list[dict]]
    """What is tried -> a log."""
    quiet: float
    loud: float
    besides: tuple[str, ...] = ()
    """What else is raised of the quiet one."""


ENTROPY_SIGNS = ("entropy", "perception/entropy_masked")
SURGES = (KL, "perception/k3_masked", "perception/k3_p99_masked", "loss/perception")
BOUNDS = [
    Bound("collapse", "0.7 of its best", lambda x: log({}, {RIGHT: 0.8 * x}), 0.705, 0.695),
    Bound("collapse", "0.1 below it", lambda x: log({RIGHT: 0.2}, {RIGHT: x}), 0.101, 0.099),
    Bound("collapse", "four standard deviations", lambda x: noisy(RIGHT, 0.8, x, 0.2), 0.166, 0.158),
    Bound("gradient", "5 times its start", lambda x: log({}, {GRADIENT: 0.15 * x}), 4.95, 5.05),
    Bound("gradient", "20 times", spike, 19.8, 20.2),
    Bound("gradient", "95 %", sparse, 0.955, 0.945, ("no signal",)),
    Bound("gradient", "the last 21 steps", lambda x: spike(30, x), 19, 20),
    Bound("sampler gap", "half of `most_gap`", lambda x: log({}, {GAP: x}), 0.495, 0.505),
    Bound("sampler gap", "two rounds in a row", lambda x: log({}, {GAP: 0.9}, after=x), 1, 2),
    Bound("sampler gap", "5 times its start", lambda x: log({}, {MEAN_GAP: 0.01 * x}), 4.95, 5.05),
    Bound("sampler gap", "0.02 nats", lambda x: log({MEAN_GAP: 0.001}, {MEAN_GAP: x}), 0.0198, 0.0202),
    Bound(
        "entropy explosion", "3 times its start", lambda x: log({"loss/perception": 0.02}, {"entropy": x}), 2.97, 3.03
    ),
    Bound("entropy collapse", "a tenth of its start", lambda x: log({}, {"entropy": x}), 0.101, 0.099),
    Bound("no signal", "four groups of five", lambda x: log({}, {ZERO: x}), 0.795, 0.805),
    Bound("no signal", "fifteenth round", lambda x: from_first(ZERO, 0.9, x), 14, 15),
    Bound("no signal", "95 %", lambda x: from_first(ZERO, x, 5), 0.945, 0.955),
    Bound("no signal", "five rounds in a row", lambda x: from_first(ZERO, 1.0, x), 4, 5),
    Bound("no signal", "ten times", lambda x: log({}, {DRAWS: x}), 9.9, 10),
    Bound("no signal", "twice in a row", lambda x: log({}, {DRAWS: 12}, after=x), 1, 2),
    Bound("truncation", "0.1 above their start", lambda x: log({}, {CUT: x}), 0.099, 0.101),
    Bound("truncation", "", lambda x: noisy(CUT, 0.3, x, 0.1), 0.455, 0.464),
    Bound("truncation", "half of all", lambda x: from_first(CUT, x, 3), 0.495, 0.505),
    Bound("truncation", "three rounds in a row", lambda x: from_first(CUT, 0.9, x), 2, 3),
    Bound("unparsed", "0.1 above their start", lambda x: log({}, {UNPARSED: x}), 0.099, 0.101),
    Bound("all unparsed", "98 %", lambda x: from_first(UNPARSED, x, 3), 0.975, 0.985),
    Bound("all unparsed", "three rounds in a row", lambda x: from_first(UNPARSED, 1.0, x), 2, 3),
    Bound("length", "twice as long", lambda x: log({}, {LENGTH: 30 * x}), 1.98, 2.02),
    Bound("length", "no higher", lambda x: log({}, {LENGTH: 90.0, RIGHT: x}), 0.81, 0.8),
    Bound("repetition", "0.1 above their start", lambda x: log({}, {REPETITION: x}), 0.099, 0.101),
    Bound("repetition", "half of all", lambda x: from_first(REPETITION, x, 3), 0.495, 0.505),
    Bound("repetition", "three rounds in a row", lambda x: from_first(REPETITION, 0.9, x), 2, 3),
    Bound("disavowal", "5 times their start", lambda x: log({DISAVOWAL: 0.05}, {DISAVOWAL: 0.05 * x}), 4.95, 5.05),
    Bound("disavowal", "0.1 above it", lambda x: log({DISAVOWAL: 0.01}, {DISAVOWAL: x}), 0.109, 0.111),
    Bound("disavowal", "half of all", lambda x: from_first(DISAVOWAL, x, 3), 0.495, 0.505),
    Bound("disavowal", "three rounds in a row", lambda x: from_first(DISAVOWAL, 0.9, x), 2, 3),
    Bound("timed out", "a twentieth", lambda x: log({}, {TIMED_OUT: x}), 0.0495, 0.0505),
    Bound("timed out", "five rounds", lambda x: from_first(TIMED_OUT, 0.9, x), 4, 5),
    *(Bound("KL hacking", "2.5 times its start", lambda x, n=name: surge(n, x), 2.48, 2.52) for name in SURGES),
    Bound("KL hacking", "4 times", lambda x: surge("perception/k3_variance_masked", x), 3.96, 4.04),
    *(Bound("KL hacking", "twice its start", lambda x, n=name: surge(n, x), 1.98, 2.02) for name in ENTROPY_SIGNS),
    Bound("KL hacking", "0.8 of its best", lambda x: harm({RIGHT: 0.2}, {RIGHT: 0.2 * x}), 0.81, 0.79),
    Bound("KL hacking", "two standard deviations", noisy_surge, 0.696, 0.688),
    Bound("KL hacking", "0.1 above their start", lambda x: harm({}, {CUT: x}), 0.099, 0.101),
    Bound("KL hacking", "0.1 above their start", lambda x: harm({}, {UNPARSED: x}), 0.099, 0.101),
    Bound("KL hacking", "at 5 times its start", lambda x: harm({CLIP: 0.002}, {CLIP: 0.002 * x}), 4.95, 5.05),
    Bound("KL hacking", "0.005 or more", lambda x: harm({CLIP: 0.0005}, {CLIP: x}), 0.00495, 0.00505),
    Bound("looks less", "0.4 of its start", lambda x: log({}, {KL: 0.25 * x}), 0.404, 0.396),
    Bound("looks less", "two watched rounds in a row", lambda x: log({}, {KL: 0.05}, after=x), 1, 2),
    Bound("looks less", "", lambda x: log({}, {KL: 0.05}, first=x, after=2), 1, 2),
    Bound("view without effect", "0.01 nats", lambda x: log({}, {OTHER_KL: x}), 0.0101, 0.0099),
    Bound("view without effect", "two watched rounds in a row", lambda x: from_first(OTHER_KL, 0.0, x), 1, 2),
    Bound("view entropy explosion", "3 times its start", lambda x: log({}, {OTHER_ENTROPY: 0.4 * x}), 2.97, 3.03),
    Bound("view entropy explosion", "two watched rounds", lambda x: log({}, {OTHER_ENTROPY: 4.0}, after=x), 1, 2),
    Bound("view entropy explosion", "", lambda x: log({}, {OTHER_ENTROPY: 4.0}, first=x, after=2), 1, 2),
    Bound("view entropy collapse", "a tenth of its start", lambda x: log({}, {OTHER_ENTROPY: 0.4 * x}), 0.101, 0.099),
    Bound("view entropy collapse", "two watched rounds", lambda x: log({}, {OTHER_ENTROPY: 0.0}, after=x), 1, 2),
    Bound("view entropy collapse", "", lambda x: log({}, {OTHER_ENTROPY: 0.0}, first=x, after=2), 1, 2),
    Bound("caption leak", "0.1 above their start", lambda x: log({}, {LEAK: x}), 0.099, 0.101),
    Bound("caption leak", "half of all", lambda x: from_first(LEAK, x, 3), 0.495, 0.505),
    Bound("caption leak", "three rounds in a row", lambda x: from_first(LEAK, 0.9, x), 2, 3),
    Bound("drowned reward", "3 times", lambda x: log({}, {RATIO: x}), 2.97, 3.03),
    Bound("drowned reward", "two watched rounds in a row", lambda x: log({}, {RATIO: 9.0}, after=x), 1, 2),
]


@pytest.mark.parametrize("one", BOUNDS, ids=lambda one: f"{one.guard}: {one.says}")
def test_just_below_a_number_nothing_is_raised_and_just_above_the_guard_is(one):
    assert [found.name for found in raised(one.made(one.quiet))] == [*one.besides]
    assert one.guard in [found.name for found in raised(one.made(one.loud))]


def turn(name: str, *last: float, first: int = FIRST) -> list[dict]:
    """A log that ends with these values of a number."""
    after = [{"step": first + at, **USUAL, name: value} for at, value in enumerate(last, 1)]
    return log(first=first, after=0) + after


TOLD = [
    ("sampler gap", turn(GAP, 0.6, 0.7), 13, "differ by 70% of what most_gap allows, and by 60% a round before"),
    ("sampler gap", log({}, {MEAN_GAP: 0.06}), 11, "the mean gap, in nats, went from 0.01 to 0.06 since step 11"),
    ("no signal", turn(DRAWS, 12, 13), 13, "dynamic sampling drew 13 times for one batch"),
    ("looks less", turn(KL, 0.05, 0.06), 13, "went from 0.25 to 0.06 since step 13"),
    ("view without effect", turn(OTHER_KL, 0.002, 0.001), 13, "to the removed view is 0.001 nats since step 13"),
    ("view without effect", turn(KL, 0.002, 0.001), 13, "to the masked view is 0.001 nats since step 13"),
    (
        "view entropy explosion",
        turn(OTHER_ENTROPY, 2, 4),
        13,
        "the removed view went from 0.4 to 4 since step 13",
    ),
    (
        "view entropy collapse",
        turn(OTHER_ENTROPY, 0.01, 0),
        13,
        "the removed view went from 0.4 to 0 since step 13",
    ),
    ("caption leak", log({}, {LEAK: 0.3}), 11, "the share of captions that give the answer away went from 0 to 0.3"),
    ("disavowal", turn(DISAVOWAL, 0.6, 0.7, 0.8, first=4), 5, "80% of the responses say that there is no image"),
    ("disavowal", log({}, {DISAVOWAL: 0.3}), 11, "say there is no image to be seen went from 0 to 0.3 since step 11"),
    (
        "repetition",
        turn(REPETITION, 0.6, 0.7, 0.8, first=4),
        5,
        "repeat themselves is 80%, high since step 5",
    ),
    ("all unparsed", turn(UNPARSED, 0.98, 0.99, 1.0, first=4), 5, "100% of the responses hold no answer"),
    ("drowned reward", turn(RATIO, 4, 5), 13, "is 5 times as long as the reward's at step 14"),
    ("gradient", spike(30), 26, "was 4.5 at step 26, usually 0.15"),
    ("gradient", log({}, {GRADIENT: 0.9}), 11, "went from 0.15 to 0.9 since step 11"),
]


@pytest.mark.parametrize(("guard", "lines", "since", "said"), TOLD, ids=lambda part: str(part)[:30])
def test_what_is_told_is_what_was_logged_and_since_when(guard, lines, since, said):
    found = next(one for one in raised(lines) if one.name == guard)
    assert said in found.said
    assert found.since == since


def rows() -> dict[str, list[str]]:
    """Guard -> the cells of its row in docs/watching.md."""
    lines = (Path(__file__).parents[2] / "docs" / "watching.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| warning |"))
    told = [line.strip("|").split("|") for line in lines[start + 2 :]]
    told = told[: next(number for number, cells in enumerate(told) if len(cells) < 4)]
    return {name.strip(): [cell.strip() for cell in more] for name, *more in told}


def test_the_table_of_guards_has_a_row_for_each_in_their_order():
    assert list(rows()) == list(GUARDS)


@pytest.mark.parametrize("one", BOUNDS, ids=lambda one: f"{one.guard}: {one.says}")
def test_the_table_of_guards_says_each_number(one):
    assert one.says in rows()[one.guard][0]


@pytest.mark.parametrize("guard", GUARDS)
def test_the_table_of_guards_says_no_other_number(guard):
    said = re.sub("k3|99th|4-gram", "", rows()[guard][0])
    known = " ".join(one.says for one in BOUNDS if one.guard == guard)
    assert set(re.findall(NUMBER, said)) <= set(re.findall(NUMBER, known))


# ---------------------------------------------------------------------------------------------------- what is compared


def followed(values: list[float], name: str = "entropy") -> Past:
    past = Past()
    for step, value in enumerate(values, 1):
        past.add({"step": step, name: value})
    return past


def test_a_start_is_of_ten_values_and_a_present_of_five_and_they_do_not_overlap():
    assert followed([*range(1, 16)]).start("entropy") == 5.5
    assert followed([*range(1, 15)]).start("entropy") is None
    assert followed([*range(1, 16)]).now("entropy") == 13
    assert followed([*range(1, 4)], KL).start(KL) == 1.5
    assert followed([*range(1, 3)], KL).start(KL) is None
    assert followed([*range(1, 4)], KL).now(KL) == 3


@pytest.mark.parametrize("name", ["entropy", LENGTH, GRADIENT, MEAN_GAP])
def test_nothing_is_so_many_times_a_start_of_nothing(name):
    assert raised(log({name: 0.0}, {name: 50.0})) == []


def test_of_what_was_never_logged_there_is_nothing():
    past = followed([])
    assert (past.now("entropy"), past.best("entropy"), past.noise("entropy"), past.start("entropy")) == (0, 0, 0, None)
    assert followed([1.0]).noise("entropy") == 0
    assert (past.step, past.last("entropy", 1), [*past.names()]) == (0, [], [])


def test_noise_is_of_the_last_thousand_jumps_and_in_standard_deviations():
    steady = [0.954 * (number % 2) for number in range(1001)]
    assert followed(steady).noise("entropy") == pytest.approx(1.0)
    assert followed(steady + [0.0] * 499).noise("entropy") > 0.9
    assert followed(steady + [0.0] * 501).noise("entropy") == 0.0


def test_all_unparsed_says_so_where_nearly_all_are_cut_off():
    for cut, is_said in ((0.895, False), (0.905, True)):
        found = {one.name: one.said for one in raised(log({UNPARSED: 1.0, CUT: cut}, first=3, after=0))}
        assert ("cut off" in found["all unparsed"]) == is_said


def test_looks_less_is_told_with_the_gain_where_there_is_one():
    for gain, is_said in ((0.0495, False), (0.0505, True)):
        lines = log({}, {RIGHT: 0.8 + gain})
        (found,) = raised([{**line, KL: 0.25 if line["step"] < FIRST + 5 else 0.05} for line in lines])
        assert ("before you believe the gain" in found.said) == is_said


def test_an_upper_clip_that_has_no_start_yet_does_not_climb():
    """0.006 from the first step on, while the KL to the masked view surges within few watched rounds."""
    assert raised(log({}, {KL: 1.0, CLIP: 0.006}, first=4, after=3)) == []
    assert [one.name for one in raised(log({CLIP: 0.0005}, {KL: 1.0, CLIP: 0.006}))] == ["KL hacking"]
