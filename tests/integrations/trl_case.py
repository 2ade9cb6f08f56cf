"""A few rows for TRL's real trainer with our methods, and what it does with them: what tests of the adapter share."""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig

from vergence.integrations.trl_data import dataset_of, processor_of
from vergence.models.policy import Policy, load
from vergence.scenes import embedded
from vergence.types import Scene

SIBLINGS = 4


@cache
def seedling() -> Policy:
    """The policy in the package, loaded once; nobody changes it."""
    return load("seedling")


def policy_of(dtype: torch.dtype = torch.float64) -> Policy:
    """One that may be changed."""
    return Policy(copy.deepcopy(seedling().model).to(dtype), seedling().reader)


def scenes(number: int) -> list[Scene]:
    """Questions about one image each."""
    return embedded.draw_many(embedded.TRAINED, "tune", number)


def parity(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Worth 1 where the sum of the tokens is odd: siblings differ, without a policy that can answer."""
    return [float(sum(ids) % 2) for ids in completion_ids]


def one_of_one_mind(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """The first question is answered rightly by all siblings, each other one by all but one."""
    return [1.0] * SIBLINGS + [1.0, 0.0, 1.0, 1.0] * (len(completion_ids) // SIBLINGS - 1)


class Said(NamedTuple):
    """What a reward function is told of a generation, row by row."""

    key: list[str]
    completion_ids: list[list[int]]
    reward: list[float]


class Noting:
    """A reward function that keeps what it is told."""

    __name__ = "noting"

    def __init__(self, reward: Callable[..., list[float]] = parity) -> None:
        self.reward, self.said = reward, []

    def __call__(self, **told: Any) -> list[float]:
        rewards = self.reward(**told)
        self.said.append(Said(told["key"], told["completion_ids"], rewards))
        return rewards


class Step(NamedTuple):
    """An optimizer step, just before the weights move."""

    weights: dict[str, Tensor]
    grads: dict[str, Tensor]


class Watching(TrainerCallback):
    """A callback of Hugging Face's that keeps the gradient of every optimizer step, and the weights it is of."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Copies."""
        weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        grads = {
            name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
            for name, weight in model.named_parameters()
            if weight.requires_grad
        }
        self.steps.append(Step(weights, grads))


def config(folder: Any, **changed: Any) -> GRPOConfig:
    """Two questions of four answers each, in two micro-batches; gradients as they are."""
    usual = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": SIBLINGS,
        "max_completion_length": 8,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": 3,
    }
    return GRPOConfig(str(folder), **{**usual, **changed})


def trainer_of(
    folder: Any,
    method: Any = "papo",
    options: dict | None = None,
    *,
    policy: Policy | None = None,
    reward_funcs: Any = parity,
    data: Any = None,
    callbacks: Sequence[Any] = (),
    more: dict | None = None,
    **changed: Any,
) -> Any:
    """TRL's trainer with a method of ours, on a few embedded scenes."""
    from vergence.integrations.trl import VergenceGRPOTrainer

    policy = policy or policy_of()
    return VergenceGRPOTrainer(
        policy.model,
        reward_funcs,
        config(folder, **changed),
        dataset_of(scenes(4)) if data is None else data,
        **{"processing_class": processor_of(policy), "callbacks": list(callbacks), **(more or {})},
        method=method,
        options=options,
    )


def logged(trainer: Any) -> list[dict[str, float]]:
    """TRL's log, one line a step."""
    return [line for line in trainer.state.log_history if "loss" in line]
