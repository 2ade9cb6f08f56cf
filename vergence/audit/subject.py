"""Whom an audit asks: three functions. A policy has them, and so has whatever else can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from vergence.audit.probes import Prefer, preference
from vergence.evaluate import suite
from vergence.evaluate.suite import Record, Told
from vergence.models.policy import Policy
from vergence.rollout.captions import Captioner, by_policy
from vergence.types import Scene, ViewSpec, Wording


class Subject(NamedTuple):
    """What answers, describes and prefers."""

    answer: Callable[[Sequence[Scene], ViewSpec, Told], list[Record]]
    """(scenes, how they are shown, told) -> the records of `suite.answer`, as many samples to each."""
    describe: Captioner
    """Scenes -> the same, with what the subject itself says of their pictures as captions."""
    prefer: Prefer
    """Which of two claims is likelier."""


def of_policy(
    policy: Policy, *, samples: int, seed: int, temperature: float, max_tokens: int, wording: Wording
) -> Subject:
    """A policy as the audit asks it. All noise is keyed by (seed, scene, sample), whatever is shown."""
    how = {"temperature": temperature, "max_tokens": max_tokens, "wording": wording}

    def answer(scenes: Sequence[Scene], show: ViewSpec, told: Told) -> list[Record]:
        return suite.answer(policy, scenes, samples=samples, seed=seed, show=show, told=told, **how)

    return Subject(
        answer,
        by_policy(suite.sampler_of(policy), policy.reader, seed=seed, **how),
        partial(preference, policy, wording=wording),
    )
