"""Records of runs that never were, with whatever accuracy one wants."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from vergence.studies.arms import Arm, starting
from vergence.studies.record import place, write

COST = {
    "steps": 60,
    "seconds": 120.0,
    "seconds_per_step": 2.0,
    "passes": 2.0,
    "tokens": 600,
    "forward_tokens_per_step": 20,
    "drawn": 1.0,
}


def answers(right: Sequence[int], *, samples: int = 4, error: str = "reasoning", world: str = "digits") -> list[dict]:
    """Question i has right[i] right answers of `samples`; the others are wrong by `error`."""
    return [
        {
            "scene": f"{world}/report/0/{question}",
            "world": world,
            "status": "right" if sample < number else "wrong",
            "finish": "stop",
            "false_facts": 0,
            "error": None if sample < number else error,
        }
        for question, number in enumerate(right)
        for sample in range(samples)
    ]


def plant(out: Path, arm: Arm, seed: int, right: Sequence[int], **more) -> None:
    """The record of an arm's run that had these many right answers to its questions."""
    header = {
        "name": f"{arm.name} seed {seed}",
        "config": asdict(replace(arm.config, seed=seed)),
        "seconds": 0.0,
        "samples": 4,
        "asked": len(right),
        "elsewhere": [],
        "verifier": "planted",
        "last": 60,
        "best": 60,
        "tune": {},
        "cost": COST,
        "warnings": [],
        "errors_known": True,
    }
    seen = {"image": answers(right), "blank": answers([0] * len(right))}
    write(place(out, arm.name, seed), {**header, **more.pop("header", {})}, {**seen, **more})


def plant_start(out: Path, arm: Arm, seed: int, right: Sequence[int]) -> None:
    """The record of the model that an arm starts from."""
    start = Arm("start", starting(arm, seed))
    plant(out, start, seed, right, header={"cost": {}, "last": 0, "best": 0})
