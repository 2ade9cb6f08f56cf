"""verl's trainer, worker and agent loop with what stored views need. Importing this registers them as `vergence`.

Written against verl 0.9.1 and refused with any other version: the trainer overrides four methods that verl names with
an underscore, since it has no public place for a pass between its log-probabilities and its advantages.
"""

from __future__ import annotations

from typing import Any

import ray
import torch
import transfer_queue
import verl
from omegaconf import OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import register as register_loop
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.utils import tensordict_utils
from verl.utils.device import get_device_id
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.utils.padding import response_from_nested, response_to_nested

from vergence.integrations.verl_loss import TOTALS, Loss, reshaped, totals
from vergence.integrations.verl_methods import field_of, looking, refuse_others, settings, stored_views
from vergence.integrations.verl_views import VIEWS, instead, shown
from vergence.types import Method, UserError

TESTED = ("0.9.1",)
"""The versions of verl with which tests/integrations was run."""
if verl.__version__ not in TESTED:
    raise UserError(f"the plugin for verl was written against verl {', '.join(TESTED)}, and here is {verl.__version__}")


def asked_of(config: Any) -> tuple[str, dict[str, Any]]:
    """The method's name and options in verl's configuration: actor_rollout_ref.vergence.

    Raises:
        UserError: there is none.
    """
    given = config.get("vergence") if config is not None else None
    if not given or "method" not in given:
        raise UserError("say which method: +actor_rollout_ref.vergence.method=papo, and its options beside it")
    options = OmegaConf.to_container(given, resolve=True)
    return options.pop("method"), options


def method_of(config: Any) -> Method:
    """The method that verl's configuration names, from its part `actor_rollout_ref`.

    Raises:
        UserError: there is none, or verl cannot train it.
    """
    name, options = asked_of(config)
    return looking(name, **options)


class LookingActor(TrainingWorker):
    """verl's training worker: sums our denominators before an optimizer step, and reads the stored views."""

    def train_batch(self, data: TensorDict) -> TensorDict:
        """One optimizer step. The totals of our terms are summed over ranks first, from the whole of its rollouts."""
        method = self.loss_fn.method
        mine = totals(method, data)
        if mine:
            summed = torch.stack(list(mine.values())).to(get_device_id())
            torch.distributed.all_reduce(summed, group=self.engine.get_data_parallel_group())
            tensordict_utils.assign_non_tensor(data, **{TOTALS: dict(zip(mine, summed.tolist(), strict=True))})
        return super().train_batch(data)

    def read_views(self, data: TensorDict) -> TensorDict | None:
        """The log-probabilities of the responses under each stored view: a nested field for each. No gradient.

        None where verl collects no output (all but the first of the ranks that share a sequence).
        """
        nothing: list[Any] = [None] * len(data)
        clean = [one or {} for one in tensordict_utils.get(data, "multi_modal_inputs", nothing)]
        seen = tensordict_utils.get(data, VIEWS, nothing)
        found = {}
        for view in stored_views(self.loss_fn.method):
            shown_so = data.clone(recurse=False)
            tensordict_utils.assign_non_tensor(shown_so, multi_modal_inputs=instead(clean, seen, view))
            output = self.infer_batch(shown_so)
            if output is not None:
                found[field_of(view)] = response_from_nested(output["log_probs"], data["response_mask"])
        return tensordict_utils.get_tensordict(found) if found else None


class LookingWorker(ActorRolloutRefWorker):
    """verl's hybrid worker with `LookingActor` as its actor and `Loss` as the actor's loss."""

    actor_worker_cls = LookingActor

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """As verl's; then verl's loss is put into ours."""
        super().init_model()
        if self.actor is not None:
            self.set_loss_fn(Loss(self.loss_fn.keywords["config"], method_of(self.config)))

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_view_log_prob(self, data: TensorDict) -> TensorDict | None:
        """The log-probabilities of the responses under each stored view."""
        output = self.actor.read_views(data)
        return None if output is None else output.cpu()


@register_trainer("vergence")
class LookingTrainer(PPOTrainerSync):
    """verl's synchronous trainer, which also reads the stored views and reshapes the advantages by them.

    Raises:
        UserError: no method is named, verl cannot train it, or verl is set to minimise another base.
    """

    def __init__(self, config: Any) -> None:
        name, options = asked_of(config.actor_rollout_ref)
        self.looking = looking(name, **options)
        refuse_others(settings(name, **options), lambda setting: OmegaConf.select(config, setting))
        if config.actor_rollout_ref.actor.strategy not in ("fsdp", "fsdp2"):
            raise UserError("the plugin for verl is for actor_rollout_ref.actor.strategy=fsdp or fsdp2")
        if OmegaConf.select(config, "distillation.enabled"):
            raise UserError(
                "the plugin for verl puts its loss in the place of distillation's: give distillation.enabled=false"
            )
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        self.trainer_mode = "sync"  # the name in the configuration is ours, the way of training is verl's
        return super()._build_replay_buffer()

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(LookingWorker)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        if stored_views(self.looking):
            temperature = self.config.actor_rollout_ref.rollout.temperature
            batch.extra_info.update(calculate_entropy=False, compute_loss=False, temperature=temperature)
            self.actor_rollout_wg.compute_view_log_prob(batch)
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        if self.looking.reshape is None:
            return batch
        views = [field_of(view) for view in stored_views(self.looking)]
        fields = ["responses", "response_mask", "old_log_probs", "advantages", *views]
        where = {"keys": batch.keys, "partition_id": batch.partition_id}
        data = transfer_queue.kv_batch_get(**where, select_fields=fields)
        advantage_BT = reshaped(self.looking, data).to(data["advantages"].dtype)
        nested = {"advantages": response_to_nested(advantage_BT, data["response_mask"])}
        return transfer_queue.kv_batch_put(**where, fields=TensorDict(nested, batch_size=len(batch)))


class Seen(AgentLoopOutput):
    """An answer, and the pixels of the views of its images."""

    vergence_views: dict[str, Any]
    """view -> name -> tensor, as the model takes them."""


@register_loop("vergence")
class LookingLoop(SingleTurnAgentLoop):
    """verl's single-turn agent loop, which also shows the images as each stored view does."""

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        """One answer, as verl has it asked, with the views' pixels in the field `vergence_views`."""
        output = await super().run(sampling_params, priority, **kwargs)
        images = (output.multi_modal_data or {}).get("images")
        made = method_of(self.config.actor_rollout_ref)
        if not images or not stored_views(made):
            return output
        key = (int(kwargs.get("global_steps", 0)), str(kwargs.get("index", kwargs.get("uid", ""))))
        given = {name: getattr(output, name) for name in output.model_fields_set}
        return Seen(**given, **{VIEWS: shown(made, images, self._read, *key)})

    def _read(self, images: list[Any]) -> dict[str, torch.Tensor]:
        return dict(self.processor.image_processor(images=images, return_tensors="pt"))
