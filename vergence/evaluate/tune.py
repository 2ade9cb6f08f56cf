"""Evaluation as a method is meant to be used: the policy's own answers, or a reasoner's from its captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from vergence import objectives
from vergence.evaluate.pipeline import answer_by_reasoner
from vergence.evaluate.suite import Record, answer, summary
from vergence.models.policy import Policy
from vergence.rollout.reason import load_reasoner
from vergence.scenes.source import Source
from vergence.train.config import Config
from vergence.train.loop import Evaluate
from vergence.train.parts import open_data
from vergence.types import Scene, UserError

Answering = Callable[..., list[Record]]
"""(policy, scenes, samples=, show=, told=) -> records."""


def answering(config: Config, *, tentative: bool = True, cache: Path | None = None) -> Answering:
    """How held-out questions are answered under this config: by the policy, or, where its method trains captions, by
    the config's reasoner from them.

    Args:
        tentative: the reasoner is shown the policy's own answer too, as in RACRO's inference.
        cache: where a server's answers are kept.

    Raises:
        UserError: there is no such method or reasoner.
    """
    asked = {name: getattr(config, name) for name in ("seed", "temperature", "max_tokens", "wording")}
    asked["at_once"] = config.sample_batch
    if objectives.method(config.method, **config.options).ask == "answer":
        return partial(answer, **asked)
    reasoner = load_reasoner(config.reasoner, model=config.server_model, device=config.device, cache=cache)

    def through(policy: Policy, scenes: Sequence[Scene], **options) -> list[Record]:
        return answer_by_reasoner(
            policy, reasoner, scenes, tentative=tentative, named=config.reasoner, **asked, **options
        )

    return through


def tune_evaluation(config: Config, run: Path | str | None = None, *, source: Source | None = None) -> Evaluate:
    """What the training loop calls every so often: accuracy (and its interval) and perception errors, tune split.

    Of a method that trains captions it is the reasoner's accuracy from the caption alone: what is trained.

    Args:
        run: the run's folder, where a server's answers are kept.
        source: the config's, where it has been opened already.

    Raises:
        UserError: there are no scenes to ask about.
    """
    try:
        scenes = (source or open_data(config)).held_out("tune", config.eval_scenes, seed=config.seed)
    except UserError as error:
        raise UserError(f"{error}; or train without evaluations: --eval-every 0") from error
    ask = answering(config, tentative=False, cache=Path(run) / "servers" / "reasoner" if run else None)

    def evaluate(policy: Policy) -> Mapping[str, float]:
        found = summary(ask(policy, scenes, samples=config.eval_samples))
        overall = found["overall"].accuracy
        metrics = {"accuracy": overall.mean, "accuracy_low": overall.low, "accuracy_high": overall.high}
        metrics["questions"] = overall.n
        if found["overall"].perception_errors is not None:
            metrics["perception_errors"] = found["overall"].perception_errors
        return metrics | {f"accuracy/{world}": one.accuracy.mean for world, one in found.items() if world != "overall"}

    return evaluate
