"""The demo's procedure from end to end, made small: what it writes, what it says, what it refuses."""

from dataclasses import replace

import pytest

from vergence.recipes import before_after as procedure
from vergence.recipes import recipe
from vergence.report.headline import headline
from vergence.train.run import read_lines
from vergence.types import UserError

SMALL = replace(recipe("demo"), steps=1, scenes_per_batch=4, siblings=2, eval_every=0)
PROMISED = {
    "accuracy_before",
    "accuracy_after",
    "difference_interval",
    "blind_accuracy_after",
    "guess_accuracy",
    "perception_errors_before",
    "perception_errors_after",
    "seconds",
    "run",
}


def test_it_answers_trains_answers_again_and_reports(tmp_path, monkeypatch):
    monkeypatch.setattr(procedure, "SCENES", 8)
    monkeypatch.setattr(procedure, "SAMPLES", 2)
    outcome = procedure.before_after(SMALL, tmp_path / "run")
    assert [row.world for row in outcome.rows] == ["digits", "shapes", "bars", "geometry", "overall"]
    told = procedure.as_json(outcome)
    assert told.keys() >= PROMISED
    for name, shown in (
        ("before", "accuracy_before"),
        ("after", "accuracy_after"),
        ("after-blind", "blind_accuracy_after"),
    ):
        records = list(read_lines(tmp_path / "run" / "evaluation" / f"{name}.jsonl"))
        assert len(records) == 16
        assert told[shown] == pytest.approx(sum(record["status"] == "right" for record in records) / 16)
    assert "Before and after" in (tmp_path / "run" / "report.html").read_text()
    overall, *worlds = headline(tmp_path / "run").accuracy  # one number has one interval, wherever it is printed
    shown = [(row.before, row.after, row.difference) for row in (*worlds, overall)]
    assert [(row.before, row.after, row.difference) for row in outcome.rows] == shown


def test_what_cannot_be_trained_is_told_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match="did you mean 'papo'"):
        procedure.before_after(replace(SMALL, method="papoo"), tmp_path / "run")
    with pytest.raises(UserError, match="embedded scenes"):
        procedure.before_after(replace(SMALL, scenes="mine.jsonl"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_captions_are_judged_through_the_reasoner_before_and_after(tmp_path, monkeypatch):
    monkeypatch.setattr(procedure, "SCENES", 4)
    monkeypatch.setattr(procedure, "SAMPLES", 2)
    config = replace(recipe("demo", "racro"), steps=1, scenes_per_batch=4, siblings=2, eval_every=1, eval_scenes=4)
    outcome = procedure.before_after(config, tmp_path / "run")
    for name in ("before", "after", "after-blind"):
        records = list(read_lines(tmp_path / "run" / "evaluation" / f"{name}.jsonl"))
        assert len(records) == 8
        assert all(record["caption"] and record["tentative"] for record in records)
    (line,) = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert {"eval/accuracy", "perception/caption_leak"} <= line.keys()
    assert (outcome.run / "report.html").is_file()
