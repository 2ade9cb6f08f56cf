"""Training runs of the seedling that say what guards are good for: what one is, and those in which nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vergence.recipes import recipe
from vergence.train.config import Config
from vergence.train.loop import Evaluate


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """Runs that fail in one way, at several seeds."""

    name: str
    """Of the folder."""
    guards: tuple[str, ...]
    """Those that are to be raised, first the one that names the cause; none of healthy runs."""
    how: str
    """By what, for the table."""
    config: Config
    seeds: tuple[int, ...] = (0, 1, 2)
    data: Callable[[Path, int], None] | None = None
    """(folder, seed) -> writes `rows.jsonl` and its pictures there: the scenes of the run."""
    around: Callable[[], Any] | None = None
    """A context in which the run is carried out: what is broken around it."""
    evaluate: Evaluate | None = None
    """As of `train`."""

    def configured(self, seed: int, folder: Path) -> Config:
        """The config of one run; data that the drive writes lies in `folder`."""
        scenes = f"{folder / 'rows.jsonl'}#train" if self.data else self.config.scenes
        return replace(self.config, seed=seed, scenes=scenes)


def small(method: str = "grpo", **changed: Any) -> Config:
    """The demo's recipe with a quarter of its scenes and no evaluation; `options` are added to the recipe's."""
    demo = recipe("demo", method)
    options = {**demo.options, **changed.pop("options", {})}
    return replace(demo, **{"scenes_per_batch": 8, "eval_every": 0, "options": options, **changed})


def whole(method: str = "papo", **changed: Any) -> Config:
    """The demo's recipe as it is, but for its evaluations, which change nothing."""
    return small(method, scenes_per_batch=32, **changed)


HEALTHY = (
    Drive(name="healthy-papo", guards=(), how="papo", config=whole(), seeds=tuple(range(10))),
    *(
        Drive(
            name=f"healthy-{method}",
            guards=(),
            how=f"{method}, 8 scenes",
            config=small(method, steps=60),
        )
        for method in ("grpo", "dapo", "cppo", "cappo", "racro", "vppo")
    ),
    Drive(
        name="healthy-papo@full",
        guards=(),
        how="papo@full, gamma 0.005, 8 scenes",
        config=small("papo@full", options={"gamma": "0.005"}, steps=60),
    ),
    Drive(
        name="healthy-parts",
        guards=(),
        how="papo, 8 scenes, 2 steps for each batch",
        config=small("papo", parts=2, steps=80),
    ),
)
