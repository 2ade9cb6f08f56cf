"""What a run is made of, before anything is written."""

from typing import NamedTuple

import torch

from vergence import objectives
from vergence.models.policy import Policy, load
from vergence.rollout.generate import Generate
from vergence.rollout.sampler import Sampler
from vergence.scenes.source import Source, open_source
from vergence.scoring.naive import Naive, Scorer
from vergence.train.backend import Backend, OneProcess
from vergence.train.config import Config
from vergence.types import Method


class Parts(NamedTuple):
    """What a run is made of."""

    config: Config
    method: Method
    source: Source
    policy: Policy
    sampler: Sampler
    scorer: Scorer
    backend: Backend
    optimizer: torch.optim.Optimizer


def assemble(config: Config) -> Parts:
    """Everything a run is made of. Nothing is written yet.

    Raises:
        UserError: the config asks for something that does not exist.
    """
    method = objectives.method(config.method, **config.options)
    source = open_source(config.scenes, config.worlds)
    policy = load(config.model, dtype=getattr(torch, config.dtype), device=config.device)
    weights = [weight for weight in policy.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    scorer = make_scorer(config, method, policy)
    return Parts(
        config, method, source, policy, Generate(policy, at_once=config.sample_batch), scorer, OneProcess(), optimizer
    )


def make_scorer(config: Config, method: Method, policy: Policy) -> Scorer:
    """The scorer of all views of a method; the reference weights are loaded only if a view looks with them."""
    owner = {name: view.policy for name, view in method.views.items()} | {"watched": "now"}
    policies = {"now": policy.logits}
    if "reference" in owner.values():
        reference = load(config.model, dtype=getattr(torch, config.dtype), device=config.device)
        reference.model.requires_grad_(False)
        policies["reference"] = reference.logits
    return Naive(policies, owner, temperature=config.temperature)
