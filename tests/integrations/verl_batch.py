"""A case of the laws as verl has it: a TensorDict of nested tensors, and what the model put out."""

from collections.abc import Mapping

import torch
from laws.cases import Case
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils
from verl.workers.config import FSDPActorConfig, PolicyLossConfig

from vergence.integrations.verl_methods import settings

ACTOR = "actor_rollout_ref.actor."
IMAGE = ("image", "logp", None)


def actor_config(name: str, options: Mapping) -> FSDPActorConfig:
    """verl's real configuration of the actor, set as `settings` says."""
    found = settings(name, **options)
    actor = {key.removeprefix(ACTOR): value for key, value in found.items() if key.startswith(ACTOR)}
    mode = actor.pop("policy_loss.loss_mode")
    return FSDPActorConfig(
        rollout_n=2, ppo_micro_batch_size_per_gpu=1, policy_loss=PolicyLossConfig(loss_mode=mode), **actor
    )


def nested(value_BT: Tensor, lengths: list[int]) -> Tensor:
    """The first tokens of each row."""
    rows = [row[:n] for row, n in zip(value_BT, lengths, strict=True)]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def as_verl_has_it(case: Case, rows: slice = slice(None), *, prompt: int = 3) -> tuple[TensorDict, dict[str, Tensor]]:
    """Some rows of a case: the mini-batch, and the model's log-probabilities, of prompt and response.

    The prompt of row i has `prompt` + i tokens; what the model says of it must not matter, so it is large.
    """
    batch = case.batch.rows(rows)
    mask_BT, logp_BT = batch.mask_BT, case.live.value[IMAGE][rows]
    T = mask_BT.shape[1]
    ends = (mask_BT * torch.arange(1, T + 1)).amax(-1).clamp(min=1).tolist()
    fields = {
        "responses": batch.token_BT,
        "response_mask": mask_BT.long(),
        "loss_mask": mask_BT.long(),
        "old_log_probs": batch.sampled_logp_BT,
        "advantages": batch.advantage_BT.where(mask_BT, 0.0),
    }
    names = {"reference": "ref_log_prob", "masked": "masked_log_probs"}
    fields |= {names[view]: value_BT[rows] for (view, _, _), value_BT in case.frozen.value.items()}
    fields = {name: nested(value_BT, ends) for name, value_BT in fields.items()}
    prompts = [torch.zeros(prompt + i, dtype=torch.long) for i in range(len(ends))]
    fields["prompts"] = torch.nested.as_nested_tensor(prompts, layout=torch.jagged)
    # what stands at a token is the log-probability of the next
    junk = [torch.full((prompt + i - 1,), -77.0, dtype=torch.float64) for i in range(len(ends))]
    said = [torch.cat([j, row[:n], row.new_tensor([-77.0])]) for j, row, n in zip(junk, logp_BT, ends, strict=True)]
    offsets = torch.tensor([0, *(len(one) for one in said)]).cumsum(0)
    output = {"log_probs": torch.nested.nested_tensor_from_jagged(torch.cat(said), offsets)}
    return tensordict_utils.get_tensordict(fields), output
