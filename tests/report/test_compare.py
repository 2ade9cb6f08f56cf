"""Several runs on one page: what differs is shown and nothing else, and every number is what one finds by hand."""

import json
import re
from itertools import pairwise
from statistics import fmean

import numpy as np
import pytest
from report.planted import HOSTILE, WORLDS, Elements, answered, evaluate, lines, measured, plant

from vergence import chance
from vergence.cli import main
from vergence.evaluate import compare as against
from vergence.evaluate.counted import counted
from vergence.evaluate.interval import holm, sign_flip_p
from vergence.report.compare import MOST, compare, compared, named
from vergence.report.drawing import DASHES, SERIES, look, spread
from vergence.report.figures import overlaid
from vergence.types import UserError

ERRORS = ("perception", "reasoning", "calculation", "inconsistency", "format")


@pytest.fixture
def runs(tmp_path):
    """Three runs of one step each: a page without curves, which take time."""
    folders = {
        "grpo": {"method": "grpo"},
        "papo": {"options": {"gamma": "0.02"}},
        "cppo": {"method": "cppo", "lr": 1e-5},
    }
    return [plant(tmp_path / name / "seed-5", steps=1, **config) for name, config in folders.items()]


def answer_all(run, place, each=10, known=True):
    """Two answers to each question; the later runs are right more often."""
    records = []
    for world in WORLDS:
        for index in range(each):
            for sample in (0, 1):
                right = chance.dice("answers", place, world, index, sample).random() < 0.3 + 0.25 * place
                error = None if right else ERRORS[(index + sample + place) % 5]
                false = int(error == "perception") if known else None
                about = {"error": error, "wording": "short", "question": f"{index}?"}
                about |= {"finish": "stop", "gold": "1", "extracted": "1"}
                records.append(answered(world, index, right, false, **about))
    lines(run / "evaluation" / "after.jsonl", records)
    return records


def page(runs, tmp_path):
    path = compare(runs, tmp_path / "page.html")
    return path.read_text(encoding="utf-8")


def shares(records, of):
    scenes = {}
    for one in records:
        scenes.setdefault(one["scene"], []).append(of(one))
    return {scene: fmean(those) for scene, those in scenes.items()}


def test_only_settings_that_differ_are_shown(runs):
    found = dict(compared(runs).differing)
    assert found == {
        "method": ["grpo", "papo", "cppo"],
        "lr": ["0.00015", "0.00015", "1e-05"],
        "gamma": ["not set", "0.02", "not set"],
    }
    (runs[1] / "data.json").write_text(json.dumps({"source": "a.jsonl", "content": "2e" * 32}))
    assert dict(compared(runs).differing)["content of the data"] == ["not told", "2e" * 8, "not told"]


def test_equal_settings_are_said_to_be(tmp_path):
    same = [plant(tmp_path / name, steps=1) for name in "ab"]
    assert "All settings are the same." in Elements(page(same, tmp_path)).words


def test_differences_are_those_one_finds_by_hand(runs, tmp_path):
    asked = [answer_all(run, place) for place, run in enumerate(runs)]
    tables = {table.title: table for table in compared(runs).tables}
    assert list(tables) == [
        "Accuracy",
        "Accuracy by world",
        "Answers that state a false fact",
        "Why answers are wrong (share of all answers)",
    ]
    scores = {
        "Accuracy": {"": lambda one: one["status"] == "right"},
        "Answers that state a false fact": {"": lambda one: one["false_facts"] > 0},
        "Why answers are wrong (share of all answers)": {
            kind: lambda one, kind=kind: one["error"] == kind for kind in ERRORS
        },
    }
    for title, groups in scores.items():
        p = {}
        for group, of in groups.items():
            was, *others = (shares(records, of) for records in asked)
            for place, now in enumerate(others, 1):
                p[f"{group} {place}"] = sign_flip_p({scene: now[scene] - was[scene] for scene in was})
                line = next(
                    one for one in tables[title].lines if (one.group, one.run) == (group, ("papo", "cppo")[place - 1])
                )
                assert line.value.mean == pytest.approx(fmean(now.values()), abs=1e-12)
                assert line.against.difference.mean == pytest.approx(
                    fmean(now[scene] - was[scene] for scene in was), abs=1e-12
                )
                assert line.against.p == p[f"{group} {place}"]
        adjusted = holm(p)
        found = [one.against.holm for one in tables[title].lines if one.against]
        assert found == list(adjusted.values())
        assert tables[title].tests == len(p) == len(groups) * 2


def test_accuracy_is_compared_as_eval_compares_it(runs):
    asked = [answer_all(run, place) for place, run in enumerate(runs)]
    whole, by_world, *_ = compared(runs).tables
    for place, name in ((1, "papo"), (2, "cppo")):
        expected = against.compare(asked[0], asked[place])
        (line,) = (one for one in whole.lines if one.run == name)
        assert line.against[:2] == expected["overall"][:2]
        assert line.value == pytest.approx(counted(asked[place]).accuracy, abs=1e-12)
        for world in WORLDS:
            (line,) = (one for one in by_world.lines if (one.run, one.group) == (name, world))
            assert line.against[:2] == expected[world][:2]
            in_it = [one for one in asked[place] if one["world"] == world]
            assert line.value == pytest.approx(counted(in_it).accuracy, abs=1e-12)


def test_the_page_says_these_numbers(runs, tmp_path):
    for place, run in enumerate(runs):
        answer_all(run, place)
    found = compared(runs)
    words = Elements(page(runs, tmp_path)).words
    for table in found.tables:
        for line in table.lines:
            if line.against:
                points, p = 100 * line.against.difference.mean, line.against.p
                sign = "+" if round(points, 1) > 0 else "−" if round(points, 1) < 0 else ""
                told = f"{line.run} {line.value.n} {100 * line.value.mean:.1f} "
                tail = f" {sign}{abs(points):.1f} .*? {'<0.001' if p < 0.001 else f'{p:.3f}'} "
                assert re.search(re.escape(told) + r"\S+" + tail.replace("+", r"\+"), words), line
    assert "compared with the first, grpo" in words
    assert "Holm’s correction is over the 2 tests of this table." in words


def test_what_is_not_known_is_left_out(runs):
    for place, run in enumerate(runs):
        answer_all(run, place, known=False)
    assert [table.title for table in compared(runs).tables] == ["Accuracy", "Accuracy by world"]


def test_unlike_questions_are_refused_with_both_names(runs):
    for place, run in enumerate(runs):
        answer_all(run, place)
    answer_all(runs[2], 2, each=9)
    with pytest.raises(UserError, match=r"cppo cannot be compared with grpo: .*only, e\.g\. bars/report/0/9"):
        compared(runs)
    records = answer_all(runs[2], 2)
    lines(runs[2] / "evaluation" / "after.jsonl", [one | {"wording": "think"} for one in records])
    with pytest.raises(UserError, match=r"cppo cannot be compared with grpo: .*wording is short .* think"):
        compared(runs)


def test_runs_that_were_not_evaluated_are_named(runs, tmp_path):
    words = Elements(page(runs, tmp_path)).words
    assert "Fewer than two of these runs were evaluated" in words
    assert "Not evaluated after training: grpo, papo, cppo." in words
    answer_all(runs[1], 1)
    answer_all(runs[2], 2)
    found = compared(runs)
    assert found.not_asked == ["grpo"]
    assert {line.run for table in found.tables for line in table.lines} == {"papo", "cppo"}
    words = Elements(page(runs, tmp_path)).words
    assert "after training: against papo" in words


def test_before_and_after_of_each_run(runs, tmp_path):
    for place, run in enumerate(runs):
        evaluate(run, "before", "after", right={"before": 1, "after": 1 + place})
    words = Elements(page(runs, tmp_path)).words
    assert re.search(r"grpo 8 25\.0 \S+ 25\.0 \S+ 0\.0 ", words)
    assert re.search(r"cppo 8 25\.0 \S+ 75\.0 \S+ \+50\.0 ", words)


def test_warnings_and_audits_stand_under_their_runs(runs, tmp_path):
    lines(runs[1] / "metrics.jsonl", [measured(1) | {"grad_norm": float("inf")}])
    (runs[2] / "evaluation").mkdir()
    audit = {"verdict": "It looks.", "measures": [{"name": "blind gap", "mean": 0.4, "low": 0.3, "high": 0.5, "n": 9}]}
    (runs[2] / "evaluation" / "audit.json").write_text(json.dumps(audit))
    words = Elements(page(runs, tmp_path)).words
    assert "papo not finite step 1 grad_norm is not finite" in words
    assert "None raised in grpo, cppo." in words
    assert "cppo : It looks." in words
    assert "blind gap – – 40.0 30.0 to 50.0, n 9" in words


def test_names_tell_runs_apart(tmp_path):
    assert named([tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "b" / "y"]) == ["a/x", "b/x", "b/y"]
    with pytest.raises(UserError, match="given twice"):
        named([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_one_run_is_no_comparison_and_too_many_are_no_page(tmp_path):
    with pytest.raises(UserError, match="2 to 12 runs, not 1"):
        compared([tmp_path])
    with pytest.raises(UserError, match="vergence study"):
        compared([tmp_path / str(number) for number in range(MOST + 1)])


def test_a_name_is_text(tmp_path):
    """Also in a figure, where a dollar sign would be a formula and a bracket an element."""
    name = "<script>$x$"
    same = [plant(tmp_path / name), plant(tmp_path / "b", method=HOSTILE[:8] + "grpo")]
    for run in same:
        lines(run / "metrics.jsonl", [{"step": step, "reward": step / 4} for step in (1, 2)])
    html = page(same, tmp_path)
    assert "<script" not in html
    assert html.count("&lt;script&gt;$x$") >= 4
    assert re.search(r"<text[^>]*>&lt;script&gt;\$x\$</text>", html)
    assert html.count("</style>") == 1


def test_a_run_keeps_its_line_in_every_figure():
    logs = {f"run {place}": [measured(step) | {"reward": place + step} for step in (1, 3)] for place in range(3)}
    curves = overlaid(logs)
    assert [curve.title for curve in curves[:2]] == ["Reward", "Accuracy in training"]
    for curve in curves:
        assert [(line.label, line.style) for line in curve.lines] == [(f"run {place}", place) for place in range(3)]
        for name in logs:
            assert re.search(rf"<text[^>]*>{name}</text>", curve.svg)
    assert [(line.first, line.last) for line in curves[0].lines] == [(1.0, 3.0), (2.0, 4.0), (3.0, 5.0)]
    assert "run 0 from 1.0 to 3.0; run 1 from 2.0 to 4.0" in curves[0].svg


def test_every_style_is_its_own_in_colour_or_dash():
    assert len({look(style) for style in range(MOST)}) == MOST == 2 * len(SERIES)
    assert len({look(style)[1] for style in range(len(DASHES))}) == len(DASHES)  # in print, without colours


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_moved_apart_in_order_and_no_further_than_they_must(seed):
    draws = np.random.default_rng(seed)
    heights, least = draws.uniform(0, 1, size=8).tolist(), float(draws.uniform(0.01, 0.4))
    moved = spread(heights, least)
    order = np.argsort(heights)
    assert all(moved[after] - moved[before] >= least - 1e-6 for before, after in pairwise(order))
    alone = [
        at for at in order if all(abs(heights[at] - other) > 8 * least for other in heights if other != heights[at])
    ]
    assert all(moved[at] == pytest.approx(heights[at], abs=1e-6) for at in alone)
    assert fmean(moved) == pytest.approx(fmean(heights), abs=1e-6)


def test_the_command_writes_a_page_and_json(runs, tmp_path, capsys, monkeypatch):
    for place, run in enumerate(runs):
        answer_all(run, place)
    monkeypatch.chdir(tmp_path)
    main(["report", *map(str, runs)])
    assert capsys.readouterr().out == "comparison.html\n"
    main(["report", *map(str, runs), "--json", "--out", "again.html"])
    said = json.loads(capsys.readouterr().out)
    assert (tmp_path / "comparison.html").read_bytes() == (tmp_path / "again.html").read_bytes()
    assert said["runs"] == ["grpo", "papo", "cppo"]
    assert said["differing"]["gamma"] == {"grpo": "not set", "papo": "0.02", "cppo": "not set"}
    line = compared(runs).tables[0].lines[1]
    assert said["lines"][1]["difference"] == line.against.difference._asdict()
    assert said["lines"][1]["holm"] == line.against.holm
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(SystemExit):
        main(["report", *map(str, runs), "--out", "mine.html"])
    assert "no page of ours" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report"])
    assert "name a run folder" in capsys.readouterr().err


def test_the_page_stands_alone_and_is_read_aloud(runs, tmp_path):
    for place, run in enumerate(runs):
        answer_all(run, place)
    lines(runs[0] / "metrics.jsonl", [measured(step) for step in (1, 2)])
    elements = Elements(page(runs, tmp_path))
    assert {"script", "link", "iframe", "object", "base", "form", "a", "img"}.isdisjoint(
        tag for tag, _ in elements.tags
    )
    policy = next(one["content"] for tag, one in elements.tags if tag == "meta" and "http-equiv" in one)
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    levels = [int(tag[1]) for tag, _ in elements.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for tag, attributes in elements.tags:
        if tag == "th":
            assert attributes.get("scope")
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
