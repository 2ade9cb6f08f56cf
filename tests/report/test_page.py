"""The page is made from files alone, stands alone, and lets nothing that a model wrote act in the browser."""

import itertools
import json
import os
import re
from statistics import fmean

import pytest
from page.planted import trace
from report.planted import AUDIT, HOSTILE, MEASURES, Elements, answered, evaluate, lines, measured, plant, said

from vergence import chance, disk
from vergence.evaluate.compare import compare
from vergence.evaluate.counted import tables as counted_by_world
from vergence.guards.catalogue import raised
from vergence.report.audited import audit_of
from vergence.report.compare import compare as compare_runs
from vergence.report.figures import curves
from vergence.report.headline import answers, headline
from vergence.report.looks import write_looks
from vergence.report.page import report
from vergence.report.shown import mark
from vergence.scenes.embedded import TRAINED, of_key
from vergence.scenes.speech import false_facts
from vergence.types import Fact, UserError


@pytest.fixture
def run(tmp_path):
    """Four steps of a run; its second rollout is hostile, its third states a false fact."""
    scenes = [of_key(f"{world}/train/0/{index}") for index in (0, 1) for world in TRAINED]
    bars = of_key("bars/train/0/0")
    responses = [said(1, scenes[0], 0, "\\boxed{1}", "right"), said(1, scenes[1], 0, HOSTILE + " \ud800")]
    responses.append(said(1, bars, 0, f"I see this: {bars.facts[0].about} is 77. \\boxed{{3}}"))
    responses += [said(step, scene, 0, f"step {step} only") for step in (2, 3, 4) for scene in scenes]
    plant(tmp_path, options={"gamma": "0.02"})
    lines(tmp_path / "rollouts.jsonl", responses)
    return tmp_path


@pytest.fixture
def bare(tmp_path):
    """A single step: a page without curves."""
    return plant(tmp_path, steps=1, options={"gamma": "0.02"})


def page(run):
    path = report(run)
    assert path == run / "report.html"
    return path.read_text(encoding="utf-8")


def test_the_page_stands_alone(run):
    elements = Elements(page(run))
    assert {"script", "link", "iframe", "object", "base", "form", "a"}.isdisjoint(tag for tag, _ in elements.tags)
    for _, attributes in elements.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert not re.search(r"https?:|//", value or "") or (
                name == "src" and value.startswith("data:image/png;base64,")
            )
    policy = next(one["content"] for tag, one in elements.tags if tag == "meta" and "http-equiv" in one)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_what_a_model_wrote_is_shown_and_does_nothing(run):
    html = page(run)
    assert "<script" not in html
    assert html.count("</style>") == 1
    assert HOSTILE in Elements(html).text
    assert all(not attributes.get("src", "").startswith("http") for _, attributes in Elements(html).tags)


def test_no_field_of_a_rollout_is_trusted(run):
    fields = ["question", "gold", "extracted", "world", "status", "finish", "scene"]
    record = said(1, of_key("bars/train/0/0"), 0, "", "right") | dict.fromkeys(fields, '"><script>alert(1)</script>')
    lines(run / "rollouts.jsonl", [record])
    assert "<script" not in page(run)


def test_every_measured_curve_is_drawn(run):
    html = page(run)
    for title in ("Accuracy in training", "KL to the masked view", "Entropy", "Gradient norm", "Ratio clipped"):
        assert f"<b>{title}</b>" in html
    assert html.count("<figure>") == html.count('<svg viewBox="') == 8
    assert "1 value not finite" in html
    assert "fewer than two times: Tune split" in html


def test_first_and_last_step_are_shown_with_their_images(run):
    html = page(run)
    assert "Step 1: 3 of its 3 rollouts" in html
    assert "Step 4: 6 of its 8 rollouts" in html
    assert html.count("<img src=") == 3 + 6
    assert "step 4 only" in html
    assert "step 2 only" not in html


def test_false_facts_are_marked_beside_the_truth(run):
    html, bar = page(run), of_key("bars/train/0/0").facts[0]
    assert "<mark>77</mark>" in html
    assert f"{bar.about}: says <b>77</b>, is <i>{bar.value}</i>" in html


def test_without_evaluation_the_page_says_so(bare):
    html = page(bare)
    assert "has not been evaluated" in html
    assert "evaluation/before.jsonl" in html


def test_half_an_evaluation_is_shown_and_the_rest_named(bare):
    evaluate(bare, "after")
    html = page(bare)
    assert "evaluation/before.jsonl" in html
    assert "evaluation/after.jsonl" not in html
    assert "75.0" in html


def test_before_and_after_are_compared_on_the_same_questions(bare):
    evaluate(bare, "before", "after", "after-blind")
    html = page(bare)
    assert "+75.0 points" in html
    assert "n = 8" in html
    assert "Missing:" not in html
    assert html.count('<tr class="all">') == 2
    assert "Why answers are wrong" not in html  # these records do not say
    assert "avg@1" in html


def test_a_row_has_the_interval_that_eval_prints(bare):
    """To the last digit that is shown, and beyond: one accuracy has one interval."""
    for place, name in enumerate(("before", "after", "after-blind")):
        records = [
            answered(world, index, chance.dice("eval", name, world, index, sample).random() < odds + 0.1 * place, 0)
            | {"sample": sample, "finish": "stop", "gold": "1", "extracted": "1"}
            for world, each, odds in (("bars", 31, 0.7), ("mosaic", 19, 0.1))
            for index in range(each)
            for sample in range(3)
        ]
        lines(bare / "evaluation" / f"{name}.jsonl", records)
    asked, rows = answers(bare), {row.world: row for row in headline(bare).accuracy}
    against = compare(asked["before"], asked["after"])
    assert list(rows) == ["all", "bars", "mosaic"]
    for world, row in rows.items():
        told = "overall" if world == "all" else world
        for found, name in ((row.before, "before"), (row.after, "after"), (row.blind, "blind")):
            assert found == pytest.approx(counted_by_world(asked[name])[told].accuracy, abs=1e-12)
        assert row.difference == against[told].difference
        low, high = 100 * row.after.low, 100 * row.after.high
        assert f"<small>{low:.1f}–{high:.1f}</small>" in page(bare)


def test_before_and_after_that_were_not_asked_alike_are_no_comparison(bare):
    evaluate(bare, "before", "after", wording="short")
    evaluate(bare, "after", wording="think")
    with pytest.raises(UserError, match=r"before\.jsonl and after\.jsonl cannot be compared: .*wording is short"):
        report(bare)


def test_avg_at_k_is_named_only_where_there_is_one_k(bare):
    evaluate(bare, "before", "after")
    once = (bare / "evaluation" / "after.jsonl").read_text()
    (bare / "evaluation" / "after.jsonl").write_text(once + once)
    assert "avg@" not in page(bare)


def test_other_questions_after_than_before_are_an_error(bare):
    evaluate(bare, "before", "after")
    lines(bare / "evaluation" / "after.jsonl", [answered("bars", 9, True, 0)])
    with pytest.raises(UserError, match="same questions"):
        report(bare)


def test_equal_runs_give_equal_pages(run):
    assert page(run) == page(run)


def test_a_single_step_gives_a_page(run):
    lines(run / "metrics.jsonl", [measured(1)])
    lines(run / "rollouts.jsonl", [said(1, of_key("bars/train/0/0"), 0, "x")])
    html = page(run)
    assert "Too few steps for a curve" in html
    assert "no later rollouts" in html
    assert "1 of 4 steps" in html


def test_a_scene_that_cannot_be_had_any_more_leaves_its_image_out(run):
    lost = said(1, of_key("bars/train/0/0"), 0, "x") | {"scene": "photo-7.png"}
    lines(run / "rollouts.jsonl", [lost])
    assert "No image: &#39;photo-7.png&#39;" in page(run)


def test_not_a_run_folder(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yaml"):
        report(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        report(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts.jsonl"])
def test_a_missing_or_empty_file_is_named(bare, name):
    (bare / name).write_text("")
    with pytest.raises(UserError, match=f"{name} is empty"):
        report(bare)
    (bare / name).unlink()
    with pytest.raises(UserError, match=f"holds no {name}"):
        report(bare)


def test_the_entropy_is_drawn_for_each_view(run):
    of_views = [
        measured(step)
        | {"perception/entropy_masked": 0.4 + step, "perception/kept/entropy": 0.3, "perception/kept/kl": 0.1}
        for step in range(1, 5)
    ]
    lines(run / "metrics.jsonl", of_views)
    html = page(run)
    (figure,) = re.findall(r"<figure>(?:(?!</figure>).)*<b>Entropy</b>.*?</figure>", html, re.DOTALL)
    ends = re.findall(r"(image|masked|kept) (\S+) → ([^<]+)<", figure)
    assert ends == [("image", "1.0", "0.25"), ("masked", "1.4", "4.4"), ("kept", "0.30", "0.30")]
    assert 'aria-label="Entropy, nats per token, by view: image from 1.0 to 0.25; masked from' in figure
    dashes = set(re.findall(r"stroke-dasharray: ([^;\"]+)", figure))
    assert len(dashes) == 2  # and one line without


def test_warnings_are_those_that_the_guards_raise(run):
    words = Elements(page(run)).words
    warnings = raised([measured(step) for step in range(1, 5)])
    assert (2, "not finite") in [(one.step, one.name) for one in warnings]
    for one in warnings:
        assert f"{one.name} step {one.step} {one.said}" in words
    lines(run / "metrics.jsonl", [{"step": step, "reward": 0.5} for step in range(1, 5)])
    assert "Warnings None raised in 4 steps." in Elements(page(run)).words


def kinds(name, run):
    """Sixteen questions, two answers to each; who is wrong, and why, is different before and after."""
    pattern = {"before": "PPRPF.C.", "after": "P.R..C.."}[name]
    word = {"P": "perception", "R": "reasoning", "C": "calculation", "F": "format", ".": None}
    records = [
        answered(
            world, index, word[pattern[(index + sample) % 8]] is None, 0, error=word[pattern[(index + sample) % 8]]
        )
        for world in ("bars", "digits")
        for index in range(8)
        for sample in (0, 1)
    ]
    lines(run / "evaluation" / f"{name}.jsonl", records)
    return records


def test_kinds_of_errors_are_shares_of_all_answers(bare):
    before, after = kinds("before", bare), kinds("after", bare)
    words = Elements(page(bare)).words
    table = words[words.index("Why answers are wrong") :]
    for kind in ("perception", "reasoning", "calculation", "inconsistency", "format"):
        was, now = (fmean(one["error"] == kind for one in records) for records in (before, after))
        found = re.search(rf"{kind} 16 ([\d.]+) \S+ ([\d.]+) \S+ ([+−]?[\d.]+) ", table)
        points = f"{abs(100 * (now - was)):.1f}"
        sign = "+" if now > was else "−" if now < was else ""
        assert found.groups() == (f"{100 * was:.1f}", f"{100 * now:.1f}", sign + points), kind


def test_a_wrong_answer_of_an_unknown_kind_is_no_kind(bare):
    kinds("before", bare)
    after = kinds("after", bare)
    after[0] |= {"status": "wrong", "error": None}
    lines(bare / "evaluation" / "after.jsonl", after)
    words = Elements(page(bare)).words
    assert re.search(r"Error n Before.*? perception 15 ", words)


def audited(run, audit):
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / "audit.json").write_text(audit if isinstance(audit, str) else json.dumps(audit))


def test_the_audit_is_shown_with_its_intervals(bare):
    assert "Not audited. vergence audit" in Elements(page(bare)).words
    audited(bare, AUDIT)
    html = page(bare)
    words = Elements(html).words
    assert "Not audited" not in words
    assert "It looks, and misreads. mine, 240 questions, 2 answers to each, wording short." in words
    assert "blind gap image less blank 31.0 25.1 to 36.9 240" in words
    assert "robustness turned less not −2.0 −5.2 to 1.3 240" in words
    assert "perception 65.5 % of the wrong answers, 60.0 to 70.0 30.0 26.0 to 34.0 240" in words
    assert "Perception errors, from grpo to this Count % Drawn n points 12.5 5.0 to 20.0 240" in words
    assert "25 % 12.5 2.5 to 22.5 90 100 % 50.0 40.0 to 60.0 90" in words
    assert 'aria-label="Probes by position: at 25 % 12.5 %; at 100 % 50.0 %."' in html
    assert "Left out: shortcut (nobody wrote captions)." in words


def test_an_audit_is_not_trusted(bare):
    hostile = [one | {"name": HOSTILE, "about": HOSTILE + "x" * 10**4} for one in MEASURES]
    probes = [one | {"position": HOSTILE + "$x$"} for one in AUDIT["probes"]]
    audited(bare, AUDIT | {"verdict": HOSTILE, "model": HOSTILE, "measures": hostile * 100, "probes": probes})
    html = page(bare)
    assert "<script" not in html
    assert html.count("</style>") == 1
    assert len(html) < 2**20
    assert all(not (attributes.get("src") or "").startswith("http") for _, attributes in Elements(html).tags)


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ("[" * 100_000, "is not JSON"),
        (" " * (2**22 + 1), "larger than"),
        ({"measures": {"a": 1}}, "'measures' is no list"),
        ({"measures": [7]}, "measures, entry 1 is no JSON object"),
        ({"measures": [MEASURES[0], MEASURES[1] | {"low": None}]}, "measures, entry 2 has no number for 'low'"),
        ({"errors": [MEASURES[0] | {"mean": float("nan")}]}, "errors, entry 1 has no number for 'mean'"),
        ({"errors": [MEASURES[0] | {"of_wrong": 7}]}, "errors, blind gap, of_wrong is no JSON object"),
        ({"reduction": {"points": {"mean": 1}}}, "reduction, entry 1 has no number for 'low'"),
        ({"probes": [MEASURES[0] | {"n": True}]}, "probes, entry 1 has no number for 'n'"),
    ],
)
def test_a_damaged_audit_is_named(bare, audit, said):
    audited(bare, audit)
    with pytest.raises(UserError, match=said) as error:
        audit_of(bare)
    assert "vergence audit" in str(error.value)


def test_traces_bring_the_viewer_in_the_place_of_some_rollouts(bare):
    scene = of_key("bars/train/0/0")
    lines(bare / "traces.jsonl", [trace(scene, f"red bar: 3. {HOSTILE}", sibling=sibling) for sibling in range(3)])
    html = page(bare)
    elements = Elements(html)
    assert 'id="viewer"' in html
    assert "What it said at first" not in html
    assert html.lower().count("<script") == html.lower().count("</script>") == 2  # the data, which is none; and ours
    policy = next(one["content"] for tag, one in elements.tags if tag == "meta" and "http-equiv" in one)
    assert re.fullmatch(
        r".*; style-src-elem( 'sha256-[A-Za-z0-9+/=]+'){2}; script-src 'sha256-[A-Za-z0-9+/=]+'", policy
    )
    (bare / "traces.jsonl").write_text("")
    assert 'id="viewer"' not in page(bare)


@pytest.mark.parametrize("record", [[], {"step": 1, "tokens": 5, "scene": "a", "world": "b"}])
def test_traces_that_are_none_are_named(bare, record):
    lines(bare / "traces.jsonl", [record])
    with pytest.raises(UserError, match=r"traces\.jsonl"):
        report(bare)


def test_what_was_run_is_told(bare):
    told = {"source": "a.jsonl", "rows": {"train": 8, "tune": 1, "report": 1}, "refused": {}, "kinds": {"integer": 10}}
    (bare / "data.json").write_text(json.dumps(told | {"kinds_declared": 10, "content": "1f" * 32}))
    card = bare / "checkpoints" / "step-000004" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("# a card\n\n## Versions\n\n- vergence 0.1.0\n- torch 9.9\n\n## Doing it again\n\n- not this\n")
    words = Elements(page(bare)).words
    assert "Data train 8, tune 1, report 1 rows of a.jsonl (content 1f1f1f1f1f1f1f1f); answers: integer 10" in words
    assert "Versions vergence 0.1.0, torch 9.9" in words
    assert "not this" not in words
    assert "With gamma 0.02." in words


def test_a_page_elsewhere_takes_no_other_files_place(bare, tmp_path):
    path = report(bare, out=tmp_path / "elsewhere" / "page.html")
    assert path == report(bare, out=path)
    assert not (bare / "report.html").exists()
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine")
    with pytest.raises(UserError, match="no page of ours"):
        report(bare, out=mine)
    assert mine.read_text() == "<p>mine"
    with pytest.raises(UserError, match="is a folder"):
        report(bare, out=tmp_path)


def written(kind, run, path):
    if kind == "page":
        return report(run, out=path)
    if kind == "comparison":
        return compare_runs([run, run.parent / "other"], path)
    return write_looks(path, "a look", [trace(of_key("bars/train/0/0"), "red bar: 3.")], of_key, {})


@pytest.mark.parametrize("kind", ["page", "comparison", "looks"])
def test_a_page_that_is_not_finished_leaves_the_one_before(tmp_path, monkeypatch, kind):
    run, _ = (plant(tmp_path / name, steps=1) for name in ("one", "other"))
    path = written(kind, run, tmp_path / "pages" / "page.html")
    before, sync = path.read_bytes(), disk.sync
    monkeypatch.setattr(disk, "sync", lambda path: sync(path) if path.is_dir() else 1 / 0)
    with pytest.raises(ZeroDivisionError):  # in the middle of it
        written(kind, run, path)
    assert [*path.parent.iterdir()] == [path]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["report.html", ".report.html.partial"])
def test_a_link_in_a_folder_of_others_has_no_other_file_overwritten(bare, tmp_path_factory, name):
    mine = tmp_path_factory.mktemp("mine") / "notes.txt"
    mine.write_text("not a page")
    (bare / name).symlink_to(mine)
    if name == "report.html":
        with pytest.raises(UserError, match="is no page of ours; it is not overwritten"):
            report(bare)
    else:
        report(bare)
    assert mine.read_text() == "not a page"


def test_a_pipe_is_no_place_for_a_page(bare):
    os.mkfifo(bare / "pipe")
    with pytest.raises(UserError, match="is a device or a pipe"):
        report(bare, out=bare / "pipe")


def test_those_who_do_not_see_have_headings_captions_and_words(run):
    evaluate(run, "before", "after", "after-blind", error=None)
    audited(run, AUDIT)
    html = page(run)
    levels = [int(tag[1]) for tag, _ in Elements(html).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert html.count("<table") == html.count("<caption>") > 3
    for tag, attributes in Elements(html).tags:
        if tag == "th":
            assert attributes.get("scope")
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
        if tag == "img":
            assert attributes.get("alt")


def test_marks_keep_the_text_and_find_each_false_value():
    facts = of_key("digits/train/0/0").facts
    cells = {fact.about: fact.value for fact in facts}
    wrong = str((int(cells["top right"]) + 1) % 10)
    text = f"I see this: top row backward is {wrong} {cells['top center']} {cells['top left']}. So 1+1=2."
    pieces = mark(text, facts)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.text for piece in pieces if piece.false] == [wrong]
    assert false_facts(text, facts) == [Fact("top right", wrong)]


def test_statements_that_run_into_each_other_are_marked_whole():
    facts = [Fact("red bar", "7"), Fact("blue bar", "3")]
    assert [piece.false for piece in mark("red bar: 7, blue bar: 7", facts)] == [True]


def test_a_long_run_is_thinned():
    records = [{"step": step, "entropy": float(step % 7)} for step in range(1, 5001)]
    drawn, _ = curves(records)
    assert drawn[0].svg.count("<use") <= 450
    assert len(drawn[0].svg) < 100_000
