"""Asking a policy held-out questions: one record per answer, kept before any mean is taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from vergence import chance
from vergence.disk import make, write_whole
from vergence.evaluate.asked import about_asking, pixels_of, weights_of
from vergence.evaluate.errors import error_of
from vergence.evaluate.interval import Estimate, bootstrap
from vergence.models.policy import Policy
from vergence.rewards.judge import by_verifier
from vergence.rollout.decode import sampler_of
from vergence.rollout.render import Wording, render
from vergence.rollout.sampler import roll_out
from vergence.scenes.speech import false_facts
from vergence.train.run import about_gold
from vergence.types import ORIGINAL, RewardSpec, Rollout, Scene, UserError, ViewSpec

Record = dict[str, Any]
LONGEST_LINE = 2**24
"""Bytes of a line that is read to see what a file holds."""
Told = Callable[[int, int], None]
"""(answers given, answers asked for) every so often."""
Keep = Callable[[list[Record]], None]
"""Given each chunk of records as soon as it is finished."""
FIRST = b'{"scene": "'
"""What a record begins with."""
IN_EVERY = {"scene", "sample", "response", "status"}
"""Some of what each record holds."""


def answer(
    policy: Policy,
    scenes: Sequence[Scene],
    *,
    samples: int = 4,
    seed: int = 0,
    show: ViewSpec = ORIGINAL,
    temperature: float = 1.0,
    max_tokens: int = 64,
    wording: Wording = "short",
    at_once: int = 256,
    told: Told = lambda done, of: None,
    keep: Keep = lambda chunk: None,
    done: Sequence[Record] = (),
) -> list[Record]:
    """One record per answer: `samples` answers to each scene, seen as `show` says.

    `false_facts` counts the stated facts that are not so, and `error` says by what a wrong answer is wrong, where the
    scene knows its facts (else None). The noise of an answer is keyed by (seed, scene, sample): two policies asked with
    one seed are asked alike. Each record has what it was asked `under` too.

    Args:
        at_once: answers that are sampled at once; memory only.
        told: called as answers come in, for a progress bar.
        keep: given the records of each chunk as soon as it is finished.
        done: the records that are there already, those of the first scenes: only the others' are asked for.
    """
    how = {"wording": wording, "max_tokens": max_tokens, "temperature": temperature, "samples": samples, "show": show}
    asked_so = under(policy, seed=seed, **how)
    sampler, records = sampler_of(policy, at_once=at_once), list(done)
    number = chunk(samples, at_once) // samples
    for start in range(len(done) // samples, len(scenes), number):
        some = scenes[start : start + number]
        keys = [chance.key(seed, "evaluation", scene.key) for scene in some]
        prompts = [
            render(policy.reader, *asked, wording=wording) for asked in zip(some, [show] * len(some), keys, strict=True)
        ]
        rollouts = roll_out(
            sampler,
            policy.reader,
            some,
            prompts,
            siblings=samples,
            seed=(seed, "evaluation"),
            temperature=temperature,
            max_tokens=max_tokens,
            judge=by_verifier(RewardSpec(), wording=wording),
        )
        about = [about_asking(policy.reader, *asked) for asked in zip(some, prompts, strict=True)]
        new = [_record(rollout) | about[row // samples] | asked_so for row, rollout in enumerate(rollouts)]
        keep(new)
        records += new
        told(len(records), len(scenes) * samples)
    return records


def chunk(samples: int, at_once: int) -> int:
    """How many records `answer` hands to `keep` at a time: those of whole questions.

    >>> chunk(8, 256), chunk(3, 256), chunk(8, 1)
    (256, 255, 8)
    """
    return max(1, at_once // samples) * samples


def under(policy: Policy, *, seed: int, **how: Any) -> dict[str, Any]:
    """The `conditions`, the seed, the limits of image sizes, and a name for the weights.

    With these and the questions the answers are settled.

    Raises:
        UserError: a number is out of its range.
    """
    return conditions(**how) | {"seed": seed, "pixels": pixels_of(policy), "weights": weights_of(policy)}


def conditions(
    *, wording: Wording, max_tokens: int, temperature: float, samples: int, show: ViewSpec = ORIGINAL
) -> dict[str, Any]:
    """What a record says of how it was asked for, which a number depends on as much as on the model.

    >>> conditions(wording="short", max_tokens=64, temperature=1.0, samples=4)
    {'wording': 'short', 'max_tokens': 64, 'temperature': 1.0, 'samples': 4, 'shown': 'image'}

    Raises:
        UserError: a number is out of its range.
    """
    if samples < 1 or max_tokens < 1:
        raise UserError(f"samples and max_tokens must be at least 1, got {samples} and {max_tokens}")
    if not 0 <= temperature < inf:
        raise UserError(f"temperature must be 0 or more, and finite, got {temperature}")
    shown = "image" if show == ORIGINAL else type(show).__name__.lower()
    return {
        "wording": wording,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "samples": samples,
        "shown": shown,
    }


def _record(rollout: Rollout) -> Record:
    facts = rollout.scene.facts
    return {
        "scene": rollout.scene.key,
        "world": rollout.scene.world,
        "sample": rollout.sibling,
        "question": rollout.scene.question,
        "gold": rollout.scene.gold.text,
        **about_gold(rollout.scene.gold),
        "response": rollout.text,
        "extracted": rollout.verdict.extracted,
        "status": rollout.verdict.status,
        "finish": rollout.sampled.finish,
        "tokens": len(rollout.sampled.tokens),
        "false_facts": len(false_facts(rollout.text, facts)) if facts else None,
        "error": error_of(rollout.text, rollout.verdict.status, rollout.sampled.finish, rollout.scene),
    }


def accuracy(records: Sequence[Record]) -> float:
    """avg@k: the share of answers that are right, every question having as many.

    >>> accuracy([{"status": "right"}, {"status": "wrong"}, {"status": "unparsed"}, {"status": "right"}])
    0.5
    """
    return fmean(record["status"] == "right" for record in records)


def perception_errors(records: Sequence[Record]) -> float:
    """The share of answers that state at least one false fact.

    >>> perception_errors([{"false_facts": 0}, {"false_facts": 2}])
    0.5
    """
    return fmean(bool(record["false_facts"]) for record in records)


def by_world(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each world, in the order of first appearance."""
    worlds: dict[str, list[Record]] = {}
    for record in records:
        worlds.setdefault(record["world"], []).append(record)
    return worlds


def by_question(records: Sequence[Record]) -> dict[str, float]:
    """Scene -> the share of its answers that are right."""
    answers: dict[str, list[bool]] = {}
    for record in records:
        answers.setdefault(record["scene"], []).append(record["status"] == "right")
    return {scene: fmean(right) for scene, right in answers.items()}


class Summary(NamedTuple):
    """What the answers to some questions come to."""

    accuracy: Estimate
    perception_errors: float | None
    """The share of answers that state a false fact; None where nobody knows the facts."""


def summary(records: Sequence[Record]) -> dict[str, Summary]:
    """For each world, and "overall"."""
    return {
        name: Summary(
            bootstrap(by_question(those)),
            None if any(record["false_facts"] is None for record in those) else perception_errors(those),
        )
        for name, those in {**by_world(records), "overall": records}.items()
    }


def refuse_overwriting(path: Path) -> None:
    """Raise if something else than records is there: they are put in the place of a file, and it may be the data. The
    beginning of a first record is none, or zeros: they are what the loss of power may leave.

    Raises:
        UserError: it is no file, or holds something else.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give --out a file")
    if not path.exists() or not path.stat().st_size:
        return
    line = b"\n"
    try:
        with path.open("rb") as file:
            line = file.readline(LONGEST_LINE)
        found = json.loads(line)
    except (OSError, ValueError, RecursionError):
        begun = line.rstrip(b"\0")
        if begun.startswith(FIRST) or (FIRST.startswith(begun) and len(line) == path.stat().st_size):
            return
        found = None
    if not isinstance(found, dict) or not found.keys() >= IN_EVERY:
        raise UserError(
            f"{path} is there and holds no answers of an evaluation; it is not overwritten: give another --out"
        )


def write_records(path: Path, records: Sequence[Record]) -> None:
    """One JSON line per answer."""
    make(path.parent)
    write_whole(path, "".join(json.dumps(record) + "\n" for record in records))
