"""A folder may hold more than fits into memory, or on a page: both stay small, and a page says what it leaves out."""

import json
import pickle
import tracemalloc
from itertools import pairwise

import pytest
from page.planted import trace
from report.planted import HOSTILE, Elements, lines, plant

from vergence.evaluate.suite import by_question
from vergence.guards.past import JUMPS, Past
from vergence.report.drawing import MOST as DRAWN
from vergence.report.figures import MOST_OWN, curves, plans
from vergence.report.headline import MOST_WORLDS, table
from vergence.report.page import report
from vergence.report.paired import tables
from vergence.report.publish import files_of
from vergence.report.sampled import sampled
from vergence.report.viewer import MOST, sample
from vergence.scenes.embedded import of_key
from vergence.types import UserError


def record(place, siblings, **more):
    """A trace of few tokens, quickly made."""
    return {"step": place // 64 + 1, "scene": f"bars/train/0/{place // siblings}", "sibling": place % siblings} | more


def most_memory(work):
    """Bytes at the peak of it, beside those that were held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_sample_of_a_file_is_that_of_its_lines(tmp_path):
    path = tmp_path / "traces.jsonl"
    made = [record(place, 4, tokens=["a"] * (place % 7 + 1)) for place in range(320)]
    made[17]["scene"] = 'quoted " and \\ in a name é'
    made[200] = dict(reversed(made[200].items()))  # a line that begins otherwise
    lines(path, made)
    for how in ({}, {"most": 60}, {"most": 3}, {"tokens": 100}, {"most": 100, "tokens": 90}):
        found = sampled(path, **how)
        assert found.of == 320
        if "tokens" not in how:  # a file is first thinned to as many as are shown, then to as many tokens
            assert found.traces == sample(made, **how)
        places = [made.index(one) for one in found.traces]
        assert places[0] == 0
        assert places == sorted(places)
        starts = [place for place in places if place % 4 == 0]
        assert len({b - a for a, b in pairwise(starts)}) <= 4  # evenly spaced
        assert sum(len(one["tokens"]) for one in found.traces) <= how.get("tokens", 10**6)


def test_a_torn_last_trace_is_left_out_and_another_is_named(tmp_path):
    path = tmp_path / "traces.jsonl"
    lines(path, [record(place, 2) for place in range(6)])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 9, "sce')
    assert sampled(path).of == 6
    for place, why in ((b"[]\n", "a list, not an object"), (b"{nonsense}\n", "not JSON"), (b"[" * 10**5 + b"\n", "")):
        for after in (whole, b""):
            path.write_bytes(whole + place + after)
            with pytest.raises(UserError, match=rf"line 7 is no trace: .*{why}"):
                sampled(path)
    path.write_bytes(whole[:-1].replace(b'"sibling": 1}', b'"sibling": }'))  # its beginning and end are in order
    with pytest.raises(UserError, match="is no trace: not JSON"):
        sampled(path)


def test_a_sample_takes_no_more_memory_of_a_longer_file(tmp_path):
    path, taken = tmp_path / "traces.jsonl", []
    for number in (500, 2000):
        lines(
            path, [record(place, 8, tokens=["word"] * 400, stats={"entropy": [0.5] * 400}) for place in range(number)]
        )
        taken.append(most_memory(lambda: sampled(path, most=40)))
    assert path.stat().st_size > 5e6
    assert taken[1] < taken[0] + 200 * 1500  # 188 groups more, a tuple of two numbers each
    assert taken[1] < 2**21


def test_a_page_of_many_rollouts_states_its_sample(tmp_path):
    plant(tmp_path, steps=1)
    one = trace(of_key("bars/train/0/0"), "red bar: 3.", names=["entropy"])
    lines(
        tmp_path / "traces.jsonl",
        (one | {"step": place // 500 + 1, "sibling": place % 100} for place in range(3000)),
    )
    words = Elements(report(tmp_path).read_text()).words
    said = f"A sample: {MOST:,} of 3,000 rollouts, whole groups of siblings, evenly spaced over the file"
    assert said in words
    assert (tmp_path / "report.html").stat().st_size < 2**21


def test_a_figure_of_many_steps_is_small_and_its_page_says_so(tmp_path):
    records = [{"step": step, "reward": (step % 97) / 97} for step in range(1, 20_001)]
    drawn, _ = curves(records)
    assert len(drawn[0].svg) < 2**17
    plant(tmp_path, steps=1)
    for steps in (DRAWN, 2 * DRAWN):
        lines(tmp_path / "metrics.jsonl", [*records[:2], {"step": steps, "reward": 0.5}])
        words = Elements(report(tmp_path).read_text()).words
        assert (f"of {steps} steps at most {DRAWN} are drawn of each, evenly spaced" in words) is (steps > DRAWN)


def test_what_guards_look_back_on_is_no_larger_of_a_longer_run():
    past, sizes = Past(), []
    for step in range(1, 2 * JUMPS + 200):
        past.add({"step": step, "reward": step % 7 / 7})
        if step in (JUMPS + 100, 2 * JUMPS + 100):
            sizes.append(len(pickle.dumps(past)))
    assert abs(sizes[1] - sizes[0]) < 200  # a list of all values would be 9 bytes for each: 9,000


DONE = {"step": 68, "since": 64, "guard": "KL hacking", "said": "it surges", "action": "back", "to": 50}
DONE |= {"option": "gamma", "from_value": 0.2, "to_value": 0.1}


def test_what_guards_made_of_a_run_is_shown(tmp_path):
    plant(tmp_path, steps=1)
    stop = dict.fromkeys(DONE) | {"step": 90, "since": 90, "guard": HOSTILE, "said": HOSTILE, "action": "stop"}
    assert "What was done" not in report(tmp_path).read_text()
    lines(tmp_path / "interventions.jsonl", [DONE, stop, DONE | {"from_value": None}])
    html = report(tmp_path).read_text()
    words = Elements(html).words
    assert "It went back to step 50, and on with gamma 0.1 in place of 0.2. it surges" in words
    assert "It stopped the run." in words
    assert "It went back to step 50, and on with gamma 0.1. it surges" in words
    assert "<script" not in html


@pytest.mark.parametrize(
    "changed", [{"action": "fly"}, {"from_value": "0.2"}, {"guard": None}, {"step": -1}, {"to_value": 10**400}]
)
def test_damaged_interventions_are_named(tmp_path, changed):
    plant(tmp_path, steps=1)
    lines(tmp_path / "interventions.jsonl", [DONE, DONE | changed])
    with pytest.raises(UserError, match=r"interventions\.jsonl, line 2: .*(action|from_value|guard|step|to_value)"):
        report(tmp_path)


def test_what_else_a_run_leaves_does_not_change_its_page(tmp_path):
    plant(tmp_path, steps=2)
    before = report(tmp_path).read_bytes()
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".config.yaml.partial").write_text("half")
    for name in ("abandoned/1", "checkpoints/.partial-step-000002", "checkpoints/.removed-step-000001"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "README.md").write_text("## Versions\n\n- nonsense 1\n")
        lines(tmp_path / name / "metrics.jsonl", [{"step": 99}])
    assert report(tmp_path).read_bytes() == before
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_hashes_are_sent_with_all_that_they_are_of_or_not_at_all(tmp_path):
    for name in ("config.json", "model.safetensors", "SHA256SUMS", "trainer/state.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert [one.name for one in files_of(tmp_path)] == ["config.json", "model.safetensors"]
    assert len(files_of(tmp_path, with_trainer=True)) == 4


def test_values_that_cannot_be_drawn_are_counted_and_only_some_views_are_drawn(tmp_path):
    records = [{"step": step, "reward": value} for step, value in enumerate((0.1, 1e308, -1e308, 0.2), 1)]
    (drawn,), _ = curves(records)
    assert drawn.not_finite == 2
    plant(tmp_path, steps=1)
    lines(tmp_path / "metrics.jsonl", records)
    assert "Reward" in Elements(report(tmp_path).read_text()).words
    wild = [{"step": 1} | {f"perception/{kind}{at}/kl": 0.5 for kind in "ab" for at in range(500)}]
    assert len(plans(wild)) == len(plans([{"step": 1}])) + MOST_OWN


def test_worlds_have_a_line_each_where_there_are_few():
    def asked(worlds):
        records = [{"scene": f"{at}", "world": f"{at}", "status": "right", "false_facts": None} for at in range(worlds)]
        return {"before": records, "after": records}

    for worlds, rows in ((1, 1), (MOST_WORLDS, MOST_WORLDS + 1), (MOST_WORLDS + 1, 1)):
        assert len(table(asked(worlds) | {"blind": []}, by_question)) == rows
        assert len(tables(asked(worlds))) == 1 + (1 < worlds <= MOST_WORLDS)
