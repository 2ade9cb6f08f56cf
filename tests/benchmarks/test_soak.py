"""The soak tells growth from noise: a leak of two kilobytes a step is seen, a flat line that trembles is none."""

import pytest

from benchmarks.soak import BOUNDS, OVER, growth, told
from vergence.chance import rng

FLAT = {
    "rss": 600.0 * 2**20,
    "children_rss": 60.0 * 2**20,
    "handles": 10,
    "threads": 7,
    "children": 1,
    "checkpoints": 14.0 * 2**20,
    "cpu_step": 0.07,
    "cpu_all": 0.08,
    "seconds": 0.08,
    "folder": 2**26,
}


def records(*, name="", a_step=0.0, noise=0.0, warm_up=0.0):
    """20,000 steps; `name` grows by so much a step after a warm-up in which all memory grows anyhow."""
    die = rng("soak", name, str(noise))
    found = []
    for step in range(100, 20_001, 100):
        one = {"step": step} | {what: value * (1 + noise * die.normal()) for what, value in FLAT.items()}
        one["rss"] += warm_up * min(step, 8000)
        found.append(one | ({name: one[name] + a_step * step} if name else {}))
    return found


@pytest.mark.parametrize("one", BOUNDS, ids=lambda one: one.name)
def test_what_grows_is_told(one, capsys):
    most = one.most * (FLAT[one.name] if one.is_share else 1 / one.scale)
    assert not told(records(name=one.name, a_step=2 * most / OVER))
    lines = [line for line in capsys.readouterr().out.splitlines() if "GROWS" in line]
    assert [line.split()[0] for line in lines] == [one.name]
    assert told(records(name=one.name, a_step=0.2 * most / OVER))


def test_a_flat_line_that_trembles_does_not_grow():
    for noise in (0.0, 0.001, 0.003):
        assert told(records(noise=noise, warm_up=2000.0))


def test_an_interval_holds_the_growth_nineteen_times_of_twenty():
    inside = 0
    for seed in range(200):
        die = rng("interval", seed)
        made = [{"step": step, "rss": 3.0 * step + 500 * die.normal()} for step in range(100, 20_001, 100)]
        found = growth(made, "rss")
        inside += found.low <= 3.0 * OVER <= found.high
    assert 180 <= inside <= 199
