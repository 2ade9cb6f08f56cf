"""What drives a run into a failure from outside of its settings: data that is spoilt, and parts that are broken."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

import vergence.models.reader as reader
import vergence.rewards.judge as judge
import vergence.train.parts as parts
from vergence.models.policy import Policy, load
from vergence.rollout.decode import Decode
from vergence.scenes.embedded import TRAINED, draw_many
from vergence.types import Asked, Sampled, Scene


def _rows(folder: Path, seed: int, shown: Callable[[int, Scene], dict[str, Any]], number: int = 256) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for at, scene in enumerate(draw_many(TRAINED, "train", number, seed=seed)):
        changed = shown(at, scene)
        picture = changed.pop("picture", scene.images[0])
        picture.save(folder / f"{at}.png")
        row = {"question": scene.question, "answer": scene.gold.text, "caption": scene.caption, "world": scene.world}
        lines.append(json.dumps({**row, "images": [f"{at}.png"], **changed}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))


def blank_pictures(folder: Path, seed: int) -> None:
    """Every picture is one grey: a loader that lost the images."""
    _rows(folder, seed, lambda _, scene: {"picture": Image.new("RGB", scene.images[0].size, (40, 40, 40))})


def telling_captions(folder: Path, seed: int) -> None:
    """Every caption says the answer: written by a model that was shown the solutions."""
    _rows(folder, seed, lambda _, scene: {"caption": f"{scene.caption} The answer is {scene.gold.text}."})


def long_comparisons(folder: Path, seed: int) -> None:
    """Every fourth answer is an expression, which is compared by algebra."""
    _rows(
        folder, seed, lambda at, scene: {} if at % 4 else {"answer": f"\\frac{{x^2+{at}x}}{{x}}", "kind": "expression"}
    )


# ---------------------------------------------------------------------------------------------------- what is broken


class Stale:
    """A sampler with weights of its own that `follows` the policy for so many rounds and then no more."""

    def __init__(self, follows: int) -> None:
        self.left, self.own = follows, load("seedling")
        self.decode = Decode(self.own)

    def follow(self, policy: Policy) -> None:
        """Take the policy's weights, the first times."""
        if self.left > 0:
            self.own.model.load_state_dict(policy.model.state_dict())
        self.left -= 1

    def __call__(self, asked: list[Asked], *, temperature: float, max_tokens: int) -> list[Sampled]:
        """Ours, of its own weights."""
        return self.decode(asked, temperature=temperature, max_tokens=max_tokens)

    def rest(self) -> None:
        """Nothing to make room for."""

    def close(self) -> None:
        """Nothing is left running."""


@contextmanager
def _instead(module: Any, name: str, new: Any) -> Iterator[None]:
    old = getattr(module, name)
    setattr(module, name, new)
    try:
        yield
    finally:
        setattr(module, name, old)


def stale_sampler() -> Any:
    """Weights reach the sampler for 20 rounds, and then no more."""
    return _instead(parts, "_sampler", lambda *_: Stale(20))


def starved_verifier() -> Any:
    """The processes that compare expressions have a millisecond for each, as on a machine that is given to others."""
    return _instead(judge, "verify_all", partial(judge.verify_all, seconds=0.001))


def deaf_reader() -> Any:
    """The token that is taken for the end of a response is none that the model ever says."""
    return _instead(reader.Reader, "eos_id", property(lambda _: -1))


def means_of_nothing(policy: Policy) -> dict[str, float]:
    """An evaluation by kinds of questions, one of which does not occur: its mean is 0 / 0."""
    return {"of_charts": float("nan")}
