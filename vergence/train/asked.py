"""What was asked in a round and answered; and as a file, where a run is saved before the round has trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from vergence.scenes.source import Source
from vergence.types import Metrics, Rollout, Sampled, UserError, Verdict


class Round(NamedTuple):
    """What was asked and answered."""

    rollouts: list[Rollout]
    """Those that train, group by group."""
    position: int
    """How many scenes of the source have been taken."""
    metrics: Metrics
    """About all that was sampled, kept or not."""


def write_round(file: Path, number: int, asked: Round) -> None:
    """Write a round and its number, as JSON. Of a scene its key is kept; every number comes back as it was."""
    held = {"round": number, "position": asked.position, "metrics": asked.metrics}
    file.write_text(json.dumps(held | {"rollouts": [_as_json(one) for one in asked.rollouts]}) + "\n")


def read_round(file: Path, source: Source) -> tuple[int, Round]:
    """The number and the round of a file of `write_round`.

    Args:
        source: has the scenes.

    Raises:
        UserError: the file is damaged, or the source has no such scene.
    """
    try:
        held = json.loads(file.read_text())
        scenes = {key: source.scene(key) for key in dict.fromkeys(one["scene"] for one in held["rollouts"])}
        rollouts = [
            Rollout(
                scene=scenes[one["scene"]],
                sibling=one["sibling"],
                key=one["key"],
                sampled=Sampled(tuple(one["tokens"]), tuple(one["logp"]), tuple(one["entropy"]), one["finish"]),
                text=one["text"],
                verdict=Verdict(**one["verdict"]),
            )
            for one in held["rollouts"]
        ]
        return held["round"], Round(rollouts, held["position"], held["metrics"])
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {file}, the batch that was sampled ahead ({type(error).__name__}: {error}). Delete that "
            f"checkpoint to resume from the one before it"
        ) from error


def _as_json(rollout: Rollout) -> dict[str, Any]:
    sampled = rollout.sampled
    return {
        "scene": rollout.scene.key,
        "sibling": rollout.sibling,
        "key": rollout.key,
        "tokens": sampled.tokens,
        "logp": sampled.logp,
        "entropy": sampled.entropy,
        "finish": sampled.finish,
        "text": rollout.text,
        "verdict": rollout.verdict._asdict(),
    }
