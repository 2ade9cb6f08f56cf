"""verl's own worker with our parts in it, on a CPU, with the seedling: FSDP2 over gloo.

Building it puts verl's own forward into the family's class, for the whole process: what our trainer says of a step is
asked before (`wanted`).
"""

import os
import socket
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from integrations import verl_cpu  # isort: skip

import torch
from integrations.verl_batch import actor_config
from scoring.steps import MIXED, Outcome, as_sampled, batch_of, moved, naive, policy_of, prompts_of, scenes, take
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
from verl.workers.utils.padding import response_to_nested

import vergence.models
from vergence.integrations.verl_loss import Loss, reshaped
from vergence.integrations.verl_methods import looking
from vergence.integrations.verl_plugin import LookingActor
from vergence.integrations.verl_views import VIEWS
from vergence.models.policy import Policy
from vergence.types import Batch, Method, Prompt, with_advantage

assert verl_cpu
SEEDLING = Path(vergence.models.__file__).parent / "seedling_files"


STEPS = {
    "papo": ("papo", {"kl_cap": 10.0, "eta": 0.03}),
    "vppo": ("vppo", {"low": 0.5, "top": 0.4}),
    "papo, a round": ("papo", {"beta": 0.0}),
    "vppo, a round": ("vppo-grpo", {"beta": 0.0, "low": 0.5, "top": 0.4}),
}
"""Two optimizer steps, and two that begin with rewards, as verl's trainer does."""
WHOLE = tuple(range(8))
REWARDS = (1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0)


class Step(NamedTuple):
    """An optimizer step, and what it comes to in our own trainer."""

    method: Method
    policy: Policy
    batch: Batch
    prompts: Mapping[str, Sequence[Prompt]]
    outcome: Outcome


@cache
def wanted() -> dict[str, Step]:
    """Each of `STEPS` by our own trainer: four scenes, of which one has two images and one has none."""
    policy, found = policy_of("qwen3_vl", torch.float32), {}
    for case, (name, options) in STEPS.items():
        method = looking(name, **options)
        prompts = prompts_of(policy, method, scenes(MIXED))
        batch = batch_of([[5, 3], [4, 7], [2, 6], [3, 3]], torch.float32)
        if case.endswith("a round"):
            batch = as_sampled(policy, batch, prompts, method, away=0.0)
            batch = with_advantage(batch, method.credit(torch.tensor(REWARDS).view(4, 2)).flatten())
        else:
            batch = as_sampled(policy, batch, prompts, method)
        policies = {"now": policy, "reference": moved(policy)}
        outcome = take(policy, method, batch, prompts, naive(policies, method))
        found[case] = Step(method, policy, batch, prompts, outcome)
    return found


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def one_of(rank: int, of: int, port: int) -> None:
    """Make this process one of several. verl would itself, but asks for gloo twice where the device is the CPU."""
    where = {"WORLD_SIZE": of, "RANK": rank, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()}, MASTER_ADDR="127.0.0.1")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=of)


def worker(case: str, *, rows: int = 2, dynamic: bool = False) -> LookingActor:
    """verl's training worker with the seedling in float32: so many rows to a micro-batch, or so many tokens."""
    wanted()
    name, options = STEPS[case]
    precision = dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")
    engine = FSDPEngineConfig(
        strategy="fsdp2",
        model_dtype="fp32",
        mixed_precision=precision,
        use_torch_compile=False,
        use_dynamic_bsz=dynamic,
        micro_batch_size_per_gpu=rows,
        infer_micro_batch_size_per_gpu=rows,
        max_token_len_per_gpu=160,
        infer_max_token_len_per_gpu=160,
    )
    made = LookingActor(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=HFModelConfig(
                path=str(SEEDLING),
                use_remove_padding=False,
                enable_gradient_checkpointing=False,
                override_config={"attn_implementation": "sdpa"},
            ),
            engine_config=engine,
            optimizer_config=FSDPOptimizerConfig(lr=1e-3, clip_grad=1e9, weight_decay=0.0, total_training_steps=9),
            checkpoint_config=CheckpointConfig(),
        )
    )
    made.reset()
    made.set_loss_fn(Loss(actor_config(name, options), looking(name, **options)))
    return made


def jagged(rows: Sequence[Tensor]) -> Tensor:
    """The rows, nested."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def as_verl_has_it(step: Step, rows: Sequence[int]) -> TensorDict:
    """Some rollouts as verl's worker gets them: nested tensors, pixels row by row, the views' pixels beside them."""
    policy, batch, prompts, frozen = step.policy, step.batch, step.prompts, step.outcome.frozen
    lengths = {row: int(batch.mask_BT[row].sum()) for row in rows}
    of_row = {row: {view: those[batch.scene_B[row]] for view, those in prompts.items()} for row in rows}
    asked = [torch.tensor(of_row[row]["image"].tokens) for row in rows]
    said = [batch.token_BT[row, : lengths[row]] for row in rows]
    ids = [torch.cat(both) for both in zip(asked, said, strict=True)]
    fields = {"prompts": asked, "responses": said, "input_ids": ids}
    fields["response_mask"] = fields["loss_mask"] = [torch.ones_like(one) for one in said]
    numbers = {"old_log_probs": batch.sampled_logp_BT, "advantages": batch.advantage_BT}
    if ("reference", "logp", None) in frozen.value:
        numbers["ref_log_prob"] = frozen.logp("reference")
    fields |= {name: [value_BT[row, : lengths[row]] for row in rows] for name, value_BT in numbers.items()}
    inputs, seen = [], []
    for row in rows:
        clean = of_row[row].pop("image")
        inputs.append({} if clean.pixels is None else {"pixel_values": clean.pixels, "image_grid_thw": clean.grid})
        seen.append({view: {"pixel_values": one.pixels} for view, one in of_row[row].items() if one.pixels is not None})
    fields["position_ids"] = [_positions(policy, one, of) for one, of in zip(ids, inputs, strict=True)]
    data = tensordict_utils.get_tensordict(
        {name: jagged(those) for name, those in fields.items()} | {"multi_modal_inputs": inputs, VIEWS: seen}
    )
    tensordict_utils.assign_non_tensor(data, temperature=1.0, global_batch_size=len(batch.mask_BT), compute_loss=False)
    return data


def _positions(policy: Policy, ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """As verl's agent loop makes them: of the text, and of image and text in three directions."""
    shown = (ids == policy.reader.image_id).int()[None]
    found, _ = policy.model.model.get_rope_index(
        ids[None], mm_token_type_ids=shown, image_grid_thw=inputs.get("image_grid_thw")
    )
    return torch.cat([torch.arange(len(ids))[None], found[:, 0]])


def trained(made: LookingActor, data: TensorDict) -> tuple[dict[str, Tensor], dict[str, float]]:
    """One optimizer step by verl: the whole gradient that the optimizer was given, and the metrics, micro-batch by
    micro-batch."""
    found, step = {}, made.engine.optimizer_step

    def looked_at() -> float:
        for name, one in made.engine.module.named_parameters():
            found[name] = torch.zeros_like(one).full_tensor() if one.grad is None else one.grad.full_tensor().clone()
        return step()

    made.engine.optimizer_step = looked_at
    try:
        metrics = tensordict_utils.get(made.train_batch(data), "metrics")
    finally:
        made.engine.optimizer_step = step
    return found, metrics


def prepared(made: LookingActor, step: Step, rows: Sequence[int] = WHOLE) -> TensorDict:
    """The rollouts with what the worker itself has read of the views, and advantages reshaped by it."""
    data = as_verl_has_it(step, rows)
    data.update(made.read_views(data))
    if step.method.reshape is not None:
        data["advantages"] = response_to_nested(reshaped(step.method, data), data["response_mask"])
    return data


def on_a_rank(rank: int, port: int, case: str, rows_of: Sequence[Sequence[int]], answer: Path) -> None:
    """One of several processes: its gradient, which FSDP has averaged over all, and its metrics."""
    torch.set_num_threads(1)
    one_of(rank, len(rows_of), port)
    made = worker(case, rows=1)
    data = prepared(made, wanted()[case], rows_of[rank])
    grads, metrics = trained(made, data)
    if rank == 0:
        torch.save((grads, metrics["loss"], [one.values for one in metrics["loss/perception"]]), answer)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
