"""The page is made from files alone, stands alone, and lets nothing that a model wrote act in the browser."""

import json
import re
from html.parser import HTMLParser

import pytest

from vergence.report.figures import curves
from vergence.report.page import report
from vergence.report.shown import mark
from vergence.scenes.embedded import TRAINED, of_key
from vergence.scenes.speech import false_facts
from vergence.train.config import Config, to_yaml
from vergence.types import Fact, UserError

HOSTILE = "<script>alert(1)</script></style><img src=https://evil.example/x onerror=alert(2)>{{ 7 * 7 }}"


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def measured(step):
    return {
        "step": step,
        "rewards/accuracy": step / 10,
        "entropy": 1 / step,
        "grad_norm": float("nan") if step == 2 else 0.5,
        "completions/mean_length": 30.0,
        "clip_ratio/high": 0.01,
        "clip_ratio/low": 0.0,
        "perception/kl_masked": 0.2 * step,
        "perception/k3_masked": 0.3 * step,
    }


def said(step, scene, sibling, response, status="wrong"):
    return {
        "step": step,
        "scene": scene.key,
        "world": scene.world,
        "sibling": sibling,
        "question": scene.question,
        "gold": scene.gold.text,
        "response": response,
        "extracted": None,
        "status": status,
        "reward": float(status == "right"),
        "advantage": -0.5,
        "finish": "stop",
        "tokens": 9,
    }


def answered(world, index, right, false):
    scene = f"{world}/report/0/{index}"
    return {"scene": scene, "world": world, "sample": 0, "status": "right" if right else "wrong", "false_facts": false}


@pytest.fixture
def run(tmp_path):
    """Four steps of a run; its second rollout is hostile, its third states a false fact."""
    scenes = [of_key(f"{world}/train/0/{index}") for index in (0, 1) for world in TRAINED]
    bars = of_key("bars/train/0/0")
    responses = [said(1, scenes[0], 0, "\\boxed{1}", "right"), said(1, scenes[1], 0, HOSTILE + " \ud800")]
    responses.append(said(1, bars, 0, f"I see this: {bars.facts[0].about} is 77. \\boxed{{3}}"))
    responses += [said(step, scene, 0, f"step {step} only") for step in (2, 3, 4) for scene in scenes]
    (tmp_path / "config.yaml").write_text(to_yaml(Config(steps=4, seed=5, options={"gamma": "0.02"})))
    lines(tmp_path / "metrics.jsonl", map(measured, range(1, 5)))
    lines(tmp_path / "rollouts.jsonl", responses)
    return tmp_path


def page(run):
    path = report(run)
    assert path == run / "report.html"
    return path.read_text(encoding="utf-8")


def evaluate(run, *names):
    right = {"before": 0, "after": 3, "after-blind": 1}
    for name in names:
        asked = [answered(world, index, index < right[name], 1) for world in ("bars", "mosaic") for index in range(4)]
        lines(run / "evaluation" / f"{name}.jsonl", asked)


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


@pytest.mark.parametrize("field", ["question", "gold", "extracted", "world", "status", "finish", "scene"])
def test_no_field_of_a_rollout_is_trusted(run, field):
    record = said(1, of_key("bars/train/0/0"), 0, "", "right") | {field: '"><script>alert(1)</script>'}
    lines(run / "rollouts.jsonl", [record])
    assert "<script" not in page(run)


def test_every_measured_curve_is_drawn(run):
    html = page(run)
    for title in ("Accuracy in training", "KL to the masked view", "Entropy", "Gradient norm", "Ratio clipped"):
        assert f"<b>{title}</b>" in html
    assert html.count("<figure>") == html.count('<svg viewBox="') == 7
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


def test_without_evaluation_the_page_says_so(run):
    html = page(run)
    assert "has not been evaluated" in html
    assert "evaluation/before.jsonl" in html


def test_half_an_evaluation_is_shown_and_the_rest_named(run):
    evaluate(run, "after")
    html = page(run)
    assert "evaluation/before.jsonl" in html
    assert "evaluation/after.jsonl" not in html
    assert "75.0" in html


def test_before_and_after_are_compared_on_the_same_questions(run):
    evaluate(run, "before", "after", "after-blind")
    html = page(run)
    assert "+75.0 points" in html
    assert "n = 8" in html
    assert "Missing:" not in html
    assert html.count('<tr class="all">') == 2
    assert "avg@1" in html


def test_avg_at_k_is_named_only_where_there_is_one_k(run):
    evaluate(run, "before", "after")
    once = (run / "evaluation" / "after.jsonl").read_text()
    (run / "evaluation" / "after.jsonl").write_text(once + once)
    assert "avg@" not in page(run)


def test_other_questions_after_than_before_are_an_error(run):
    evaluate(run, "before", "after")
    lines(run / "evaluation" / "after.jsonl", [answered("bars", 9, True, 0)])
    with pytest.raises(UserError, match="same questions"):
        report(run)


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
def test_a_missing_or_empty_file_is_named(run, name):
    (run / name).write_text("")
    with pytest.raises(UserError, match=f"{name} is empty"):
        report(run)
    (run / name).unlink()
    with pytest.raises(UserError, match=f"holds no {name}"):
        report(run)


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
