"""The demo's procedure: answer held-out questions, train, answer them again; with the image, and with it blanked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vergence.evaluate.compare import compare
from vergence.evaluate.counted import tables
from vergence.evaluate.interval import Estimate
from vergence.evaluate.measured import renew_card
from vergence.evaluate.suite import Record, accuracy, by_world, perception_errors, write_records
from vergence.evaluate.tune import answering, tune_evaluation
from vergence.report.page import report
from vergence.scenes.embedded import guess_accuracy
from vergence.train.checkpoint import name_of
from vergence.train.config import Config
from vergence.train.display import counting
from vergence.train.loop import Watch, train
from vergence.train.parts import load_policy, open_data
from vergence.train.run import refuse_used
from vergence.types import ORIGINAL, Blank, UserError, ViewSpec

SCENES, SAMPLES = 240, 4
"""Held-out questions of the report split, and answers to each."""


class Row(NamedTuple):
    """One world, or all of them."""

    world: str
    before: Estimate
    after: Estimate
    difference: Estimate
    blind_after: float
    guess: float
    perception_errors_before: float
    perception_errors_after: float


class Outcome(NamedTuple):
    """What the demo found: a row per world, then "overall"."""

    rows: list[Row]
    seconds: float
    run: Path


def before_after(
    config: Config, out: Path, *, watch: Watch = lambda *_: None, tell: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Train, and evaluate before and after on the same held-out questions with the same noise.

    Where the method trains captions, a reasoner answers from them (and from tentative answers), before and after.

    The run folder gains evaluation/before.jsonl, after.jsonl, after-blind.jsonl and report.html.

    Args:
        tell: shown a line at each stage.

    Raises:
        UserError: the config asks for something that does not exist, or `out` is in use.
        KeyboardInterrupt: training was stopped early; its checkpoint is kept.
    """
    since = time.perf_counter()
    if config.scenes != "embedded":
        raise UserError(f"the demo is about embedded scenes, whose facts are known; got scenes={config.scenes!r}")
    ask = answering(config, cache=out / "servers" / "reasoner")  # bad input is told before anything else is
    refuse_used(out)
    source = open_data(config)
    scenes = source.held_out("report", SCENES, seed=config.seed)

    def answers(name: str, model: str | Path, show: ViewSpec = ORIGINAL) -> list[Record]:
        policy = load_policy(config, model)
        with counting("answers") as told:
            records = ask(policy, scenes, samples=SAMPLES, show=show, told=told)
        write_records(out / "evaluation" / f"{name}.jsonl", records)
        return records

    tell(f"training: {config.method}, {config.steps} steps of {config.scenes_per_batch} x {config.siblings} responses")
    evaluate = tune_evaluation(config, out, source=source)
    last = train(config, out, source=source, evaluate=evaluate, watch=watch, tell=tell)
    if last.name != name_of(config.steps):
        raise KeyboardInterrupt
    tell(f"answering {len(scenes)} held-out questions {SAMPLES} times: before, after, and after without the image")
    before, after = answers("before", config.model), answers("after", last)
    blind = answers("after-blind", last, Blank())
    renew_card(last)
    report(out, source=source)
    guess = guess_accuracy(scenes)
    guess["overall"] = sum(guess[scene.world] for scene in scenes) / len(scenes)
    return Outcome(_rows(before, after, blind, guess), time.perf_counter() - since, out)


def _rows(before: list[Record], after: list[Record], blind: list[Record], guess: Mapping[str, float]) -> list[Row]:
    """A row for each world, then "overall", with the intervals that `vergence eval` and the page print."""
    parts = [{**by_world(records), "overall": records} for records in (before, after, blind)]
    first, second, differences = tables(before), tables(after), compare(before, after)
    return [
        Row(
            world,
            first[world].accuracy,
            second[world].accuracy,
            differences[world].difference,
            accuracy(parts[2][world]),
            guess[world],
            perception_errors(parts[0][world]),
            perception_errors(parts[1][world]),
        )
        for world in parts[0]
    ]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The overall row, in the one line that `vergence demo --json` ends with."""
    overall = outcome.rows[-1]
    return {
        "accuracy_before": overall.before.mean,
        "accuracy_after": overall.after.mean,
        "difference": overall.difference.mean,
        "difference_interval": [overall.difference.low, overall.difference.high],
        "blind_accuracy_after": overall.blind_after,
        "guess_accuracy": overall.guess,
        "perception_errors_before": overall.perception_errors_before,
        "perception_errors_after": overall.perception_errors_after,
        "seconds": round(outcome.seconds, 1),
        "run": str(outcome.run),
    }


def as_table(outcome: Outcome) -> tuple[str, list[str], list[list[str]]]:
    """(title, columns, rows) of what the demo prints."""
    columns = ["world", "before", "after", "gain [95 %]", "image blanked", "best guess", "states a false fact"]
    rows = [
        [
            row.world,
            f"{row.before.mean:.3f}",
            f"{row.after.mean:.3f}",
            f"{row.difference.mean:+.3f} [{row.difference.low:+.3f}, {row.difference.high:+.3f}] n={row.difference.n}",
            f"{row.blind_after:.3f}",
            f"{row.guess:.3f}",
            f"{row.perception_errors_before:.3f} -> {row.perception_errors_after:.3f}",
        ]
        for row in outcome.rows
    ]
    return f"avg@{SAMPLES} on held-out scenes of the report split", columns, rows
