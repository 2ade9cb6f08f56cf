"""What Vergence runs, by the trainer's own code: the only file that knows how the trainer is called."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

from benchmarks.replay import Replay
from vergence import objectives
from vergence.models.patches import project_by_product
from vergence.models.policy import Policy
from vergence.models.prefix import Prefix
from vergence.scoring.naive import Naive, Scorer
from vergence.scoring.shared import Keep, Shared
from vergence.train.backend import OneProcess
from vergence.train.step import accumulate, freeze, reshaped
from vergence.types import Method, Prompt

METHODS: dict[str, Method] = {
    "grpo": objectives.method("grpo", beta="0"),
    "papo": objectives.method("papo@release", beta="0"),
    "papo_grad": objectives.method("papo@paper", beta="0"),
    "cppo": objectives.method("cppo@release-verl", beta="0"),
    "cappo": objectives.method("cappo", beta="0"),
}
"""No reference policy in any of them, so that what the views cost is not hidden behind it."""

BUDGET = 2**14
"""Tokens in one forward pass: the trainer's default."""


def shared(policy: Policy, method: Method, *, keep: Keep = "leaf", budget: int = BUDGET) -> Scorer:
    """The scorer that the trainer takes unless told otherwise."""
    return Shared({"now": Prefix(prepared(policy))}, method.views, keep=keep, budget=budget)


def naive(policy: Policy, method: Method) -> Scorer:
    """The scorer that defines what is correct: one plain forward pass for every view of every rollout."""
    return Naive({"now": prepared(policy).logits}, method.views)


def prepared(policy: Policy) -> Policy:
    """The model as `models.policy.load` prepares it, with patches projected by a product instead of a convolution.

    The modules are copies, so that the peers keep theirs as they were; the weights and their gradients are the same.
    """
    same_weights = {id(weight): weight for weight in policy.model.parameters()}
    return Policy(project_by_product(deepcopy(policy.model, same_weights)), policy.reader)


def training_passes(
    method: Method, scorer: Scorer, replay: Replay, *, budget: int = BUDGET
) -> Callable[[], dict[str, float]]:
    """All that an optimizer step needs besides sampling and the update itself: what is timed."""
    return partial(_passes, method, scorer, replay, budget)


def _passes(method: Method, scorer: Scorer, replay: Replay, budget: int) -> dict[str, float]:
    prompts = {view: [_unseen(prompt) for prompt in replay.prompts[view]] for view in method.views}
    frozen = freeze(method, replay.batch, scorer, prompts, budget=budget)
    batch = reshaped(method, replay.batch, frozen, backend := OneProcess())
    return accumulate(method, batch, frozen, scorer, prompts, backend=backend, budget=budget)


def _unseen(prompt: Prompt) -> Prompt:
    """The same prompt as new: whatever is remembered of one prompt object does not carry over to the next step."""
    return prompt if prompt.pixels is None else prompt._replace(pixels=prompt.pixels.view_as(prompt.pixels))
