"""verl's own trainer with our parts takes a round from rewards to weights: Hydra, Ray, TransferQueue, no rollout."""

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

pytest.importorskip("integrations.verl_cpu", reason="verl is not installed: docs/verl.md says how these tests are run")

import ray
import transfer_queue
import verl
from hydra import compose, initialize_config_dir
from integrations.verl_worker import REWARDS, SEEDLING, STEPS, WHOLE, as_verl_has_it, free_port, jagged, one_of, wanted
from omegaconf import OmegaConf
from PIL import Image
from tensordict import NonTensorStack
from verl.experimental.agent_loop import agent_loop
from verl.trainer.ppo.utils import Role, need_critic, need_reference_policy
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils import tensordict_utils
from verl.utils.config import validate_config

from vergence.integrations import verl_plugin
from vergence.integrations.verl_methods import settings
from vergence.integrations.verl_views import VIEWS, shown
from vergence.types import UserError

ON_A_CPU = (
    f"actor_rollout_ref.model.path={SEEDLING}",
    "actor_rollout_ref.model.use_remove_padding=false",
    "actor_rollout_ref.model.enable_gradient_checkpointing=false",
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "actor_rollout_ref.actor.fsdp_config.model_dtype=fp32",
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile=false",
    "actor_rollout_ref.actor.use_dynamic_bsz=false",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.rollout.name=vllm",
    "data.train_batch_size=4",
    "trainer.n_gpus_per_node=1",
    "actor_rollout_ref.actor.optim.total_training_steps=10",
)
ENABLED = (
    "trainer.v1.trainer_mode=vergence",
    "actor_rollout_ref.rollout.agent.default_agent_loop=vergence",
)


def config(name, options, *more):
    """verl's own configuration with the overrides that docs/verl.md gives."""
    ours = [f"+actor_rollout_ref.vergence.{one}={value}" for one, value in {"method": name, **options}.items()]
    base = [f"{one}={str(value).lower()}" for one, value in settings(name, **options).items()]
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        made = compose("ppo_trainer", overrides=[*base, *ours, *ENABLED, *ON_A_CPU, *more])
    validate_config(config=made, use_reference_policy=need_reference_policy(made), use_critic=need_critic(made))
    return made


@pytest.fixture(scope="module")
def queue():
    """Ray on this machine alone, and verl's queue in it."""
    wanted()
    if not torch.distributed.is_initialized():
        one_of(0, 1, free_port())
    # the storage units each want a processor, which need not be there; too few, and verl waits for ever
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    transfer_queue.init(config("papo", {}).transfer_queue)
    yield transfer_queue
    transfer_queue.close()
    ray.shutdown()


@pytest.mark.parametrize("case", ["papo, a round", "vppo, a round"])
def test_a_round_from_rewards_to_weights_is_ours(case, queue):
    name, options = STEPS[case]
    step = wanted()[case]
    made = config(name, options)
    trainer = get_trainer_cls("vergence")(made)
    worker = verl_plugin.LookingWorker(made.actor_rollout_ref, role="actor")
    worker.init_model()
    trainer.actor_rollout_wg = worker

    data = as_verl_has_it(step, WHOLE).exclude(
        "old_log_probs", "advantages", "temperature", "global_batch_size", "compute_loss"
    )
    lengths = data["responses"].offsets().diff().tolist()
    data["rm_scores"] = jagged([torch.tensor([0.0] * (n - 1) + [r]) for n, r in zip(lengths, REWARDS, strict=True)])
    sampled = zip(step.batch.sampled_logp_BT, lengths, strict=True)
    data["rollout_log_probs"] = jagged([row[:n] for row, n in sampled])
    data["uid"] = NonTensorStack(*[f"question {row // 2}" for row in WHOLE])
    keys = [f"question {row // 2}_{row % 2}_0" for row in WHOLE]
    where = {"keys": keys, "partition_id": name}
    batch = queue.kv_batch_put(**where, fields=data, tags=[{"status": "success"} for _ in keys])
    batch.extra_info["temperature"] = 1.0
    metrics = {}
    for stage in (trainer._compute_old_log_prob, trainer._compute_advantage, trainer._update_actor):
        batch = stage(batch, metrics)

    stored = queue.kv_batch_get(**where, select_fields=["masked_log_probs", "advantages"])
    masked_BT = step.outcome.frozen.logp("masked")
    torch.testing.assert_close(stored["masked_log_probs"].to_padded_tensor(0), masked_BT, rtol=2e-5, atol=2e-5)
    advantage_BT = stored["advantages"].to_padded_tensor(0)
    if step.method.reshape is None:
        expected_BT = step.batch.advantage_BT.where(step.batch.mask_BT, 0.0)
        torch.testing.assert_close(advantage_BT, expected_BT, rtol=1e-5, atol=1e-5)
    else:
        assert not torch.allclose(advantage_BT, step.batch.advantage_BT.where(step.batch.mask_BT, 0.0), atol=0.1)
    told = step.outcome.told
    assert metrics["actor/loss"] == pytest.approx(told["loss"], rel=2e-5, abs=1e-6)
    for own in told:
        if own.startswith("loss/") and own not in ("loss/surrogate", "loss/reference_kl"):
            assert metrics[f"actor/{own}"] == pytest.approx(told[own], rel=2e-5, abs=1e-6)
    length = torch.stack([grad.norm() for grad in step.outcome.grads.values()]).norm()
    assert metrics["actor/grad_norm"] == pytest.approx(float(length), rel=2e-5)


def test_our_worker_stands_where_the_actor_would():
    trainer = get_trainer_cls("vergence")(config("papo", {}))
    assert type(trainer.replay_buffer) is type(get_trainer_cls("sync")(config("papo", {}, *SYNC)).replay_buffer)
    trainer._init_resource_pool_mgr()
    (role,) = trainer.role_worker_mapping
    assert role == Role.ActorRolloutRef
    assert trainer.role_worker_mapping[role].__ray_metadata__.modified_class.__mro__[1] is verl_plugin.LookingWorker


SYNC = ("trainer.v1.trainer_mode=sync",)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["actor_rollout_ref.actor.clip_ratio_high=0.2"], r"give actor_rollout_ref\.actor\.clip_ratio_high=0\.3"),
        (["algorithm.adv_estimator=gae"], r"give algorithm\.adv_estimator=grpo"),
        (["algorithm.rollout_correction.bypass_mode=true"], "bypass_mode=false"),
        (["actor_rollout_ref.vergence.method=cppo"], "cannot train 'cppo'"),
        (["~actor_rollout_ref.vergence"], "say which method"),
        (["actor_rollout_ref.actor.strategy=megatron"], "fsdp or fsdp2"),
        (["distillation.enabled=true"], "distillation.enabled=false"),
    ],
)
def test_a_run_that_would_train_something_else_does_not_begin(more, why):
    made = config("papo", {})
    for override in more:
        if override.startswith("~"):
            OmegaConf.set_struct(made, False)
            del made.actor_rollout_ref["vergence"]
        else:
            OmegaConf.update(made, *override.split("="))
    with pytest.raises(UserError, match=why):
        get_trainer_cls("vergence")(made)


# ---------------------------------------------------------------------------------------------------- the agent loop


def answered(monkeypatch, images, processor):
    """What our agent loop makes of an answer of verl's own."""

    async def run(self, sampling_params, priority=0, **kwargs):
        return agent_loop.AgentLoopOutput(
            prompt_ids=[1, 2],
            response_ids=[3, 4],
            response_mask=[1, 1],
            metrics={},
            multi_modal_data={"images": images},
        )

    monkeypatch.setattr(verl_plugin.SingleTurnAgentLoop, "run", run)
    loop = object.__new__(verl_plugin.LookingLoop)
    loop.config, loop.processor = config("papo", {}), processor
    return asyncio.run(loop.run({}, global_steps=3, index=17, uid="drawn anew"))


class Processor:
    """The seedling's image processor, where verl has the family's: that one needs torchvision."""

    image_processor = staticmethod(lambda **given: wanted()["papo"].policy.reader.image_processor(**given))


def test_the_agent_loop_shows_the_views(monkeypatch):
    images = [Image.effect_noise((48, 32), 90).convert("RGB"), Image.new("RGB", (32, 32), "white")]
    output = answered(monkeypatch, images, Processor())
    read = wanted()["papo"].policy.reader.image_processor
    expected = shown(wanted()["papo"].method, images, lambda them: read(images=them, return_tensors="pt"), 3, "17")
    field = output.as_dict()  # what verl puts into its queue
    assert field[VIEWS].keys() == {"masked"}
    assert torch.equal(field[VIEWS]["masked"]["pixel_values"], expected["masked"]["pixel_values"])
    data = tensordict_utils.list_of_dict_to_tensordict([{VIEWS: field[VIEWS], "responses": field["responses"]}] * 2)
    stored = tensordict_utils.get(data, VIEWS)
    assert torch.equal(stored[1]["masked"]["pixel_values"], expected["masked"]["pixel_values"])


def test_an_answer_without_an_image_is_verls_own(monkeypatch):
    assert VIEWS not in answered(monkeypatch, None, None).as_dict()


def test_the_names_are_registered():
    assert get_trainer_cls("vergence") is verl_plugin.LookingTrainer
    assert agent_loop._agent_loop_registry["vergence"]["_target_"] == "vergence.integrations.verl_plugin.LookingLoop"


# ---------------------------------------------------------------------------------------------------- the entry point


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(None, "False False"), ("vergence", "True True")],
)
def test_verl_loads_the_plugin_when_it_is_asked_and_only_then(policy, expected, tmp_path):
    root = Path(__file__).parents[2]
    points = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["verl.plugins"]
    info = tmp_path / "vergence-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vergence\nVersion: 0.0.0\n")
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    (info / "entry_points.txt").write_text(f"[verl.plugins]\n{lines}")
    script = (
        "import sys, verl; loaded = 'vergence.integrations.verl_plugin' in sys.modules\n"
        "from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY\n"
        "print('!', loaded, 'vergence' in TRAINER_REGISTRY)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "VERL_USE_EXTERNAL_PLUGINS"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    environment |= {} if policy is None else {"VERL_USE_EXTERNAL_PLUGINS": policy}
    # not in the checkout: what setuptools leaves there is found first, and need not have this entry point
    told = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True, "check": True}
    run = subprocess.run([sys.executable, "-c", script], **told)
    assert re.search(r"^! (.*)$", run.stdout, re.M).group(1) == expected, run.stderr
