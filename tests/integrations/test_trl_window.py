"""What the adapter refuses, and with which words: another TRL, and settings with which the loss would be another."""

import tomllib
from pathlib import Path

import pytest

pytest.importorskip("trl")

from integrations.trl_case import config, dataset_of, parity, policy_of, processor_of, scenes, trainer_of

from vergence import objectives
from vergence.integrations import trl_window as window
from vergence.types import UserError


@pytest.mark.parametrize("found", ["0.24.0", "1.14.3", "1.17.0", "1.17.0.dev0", "2.0.0"])
def test_another_version_is_refused_with_both_named_and_a_remedy(found):
    with pytest.raises(UserError) as error:
        window.refuse_other_versions(found)
    for part in (found, window.LEAST, window.BELOW, "pip install 'trl>=1.15,<1.17'", "vergence train"):
        assert part in str(error.value)


def test_versions_within_the_window_are_not_refused():
    for found in ("1.15.0", "1.15.7", "1.16.0", "1.16.3"):
        window.refuse_other_versions(found)


def test_the_window_is_what_the_package_asks_for():
    told = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert told["project"]["optional-dependencies"]["trl"] == [f"trl>={window.LEAST},<{window.BELOW}"]


def test_a_trl_that_is_not_what_its_version_says_is_refused():
    class Renamed:
        def _prepare_inputs(self, batch): ...

    with pytest.raises(UserError, match=r"_prepare_inputs takes \('self', 'batch'\)"):
        window.refuse_other_versions("1.16.0", Renamed)
    with pytest.raises(UserError, match="takes None"):
        window.refuse_other_versions("1.16.0", type("Empty", (), {}))


REFUSED = {
    "loss_type": "grpo",
    "beta": 0.04,
    "epsilon": 0.1,
    "epsilon_high": 0.28,
    "delta": 2.0,
    "importance_sampling_level": "sequence",
    "scale_rewards": "none",
    "multi_objective_aggregation": "normalize_then_sum",
    "top_entropy_quantile": 0.2,
    "off_policy_mask_threshold": 0.5,
    "use_bias_correction_kl": False,
}


@pytest.mark.parametrize("setting", REFUSED)
def test_a_setting_of_what_the_method_decides_is_refused(setting, tmp_path):
    with pytest.raises(UserError, match=f"{setting}=.*contradicts the method"):
        trainer_of(tmp_path, "papo", **{setting: REFUSED[setting]})


def test_every_such_setting_is_one_of_trl():
    from trl import GRPOConfig

    known = GRPOConfig.__dataclass_fields__
    assert set(REFUSED) <= set(window.DECIDED)
    assert [name for name in window.DECIDED if name not in known and name not in NEWER] == []


NEWER = ("entropy_coef", "use_adaptive_entropy")
"""Settings that not every version of the window has."""


@pytest.mark.parametrize(
    ("changed", "more", "words"),
    [
        ({"use_liger_kernel": True}, {}, "use_liger_kernel"),
        ({"torch_compile": True}, {}, "torch_compile"),
        ({"ddp_find_unused_parameters": False}, {}, "ddp_find_unused_parameters"),
        ({"sync_ref_model": True}, {}, "sync_ref_model"),
        ({"neftune_noise_alpha": 5.0}, {}, "neftune_noise_alpha"),
        ({"generation_kwargs": {"temperature": 0.5}}, {}, "temperature=0.5"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, {}, "use_reentrant"),
        ({"steps_per_generation": 3, "per_device_train_batch_size": 4}, {}, "multiple of gradient_accumulation_steps"),
        ({}, {"tools": [parity]}, "tools"),
        ({}, {"rollout_func": parity}, "rollout_func"),
        ({}, {"environment_factory": object}, "environment_factory"),
    ],
)
def test_what_cannot_be_right_is_refused(changed, more, words, tmp_path):
    with pytest.raises(UserError, match=words):
        trainer_of(tmp_path, "papo", more=more, **changed)


@pytest.mark.parametrize(("kind", "stage"), [("FSDP", 0), ("MEGATRON_LM", 0), ("DEEPSPEED", 3)])
def test_sharded_weights_are_refused(kind, stage):
    with pytest.raises(UserError, match="gathered layer by layer"):
        window.refuse_machines(kind, stage)
    window.refuse_machines("DEEPSPEED", 2)


def test_tensor_parallelism_is_refused(tmp_path):
    from accelerate.parallelism_config import ParallelismConfig

    args = config(tmp_path)
    window.refuse_settings(args, {}, objectives.method("papo"))
    for changed in ({"tp_size": 2}, {"dp_shard_size": 2}):
        args.parallelism_config = ParallelismConfig(**changed)
        with pytest.raises(UserError, match="gathered layer by layer"):
            window.refuse_settings(args, {}, objectives.method("papo"))


def test_dropout_is_refused_and_switched_off_is_not(tmp_path):
    """Two readings of the same image would differ, and the ratio of weights that never moved would not be 1."""
    from peft import LoraConfig

    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], lora_dropout=0.1)
    with pytest.raises(UserError, match="disable_dropout=True"):
        trainer_of(tmp_path, "papo", more={"peft_config": lora})
    trainer_of(tmp_path, "papo", more={"peft_config": lora}, disable_dropout=True)


def test_a_method_that_keeps_groups_is_told_by_which_function(tmp_path):
    def length(completion_ids, **_):
        return [float(len(ids)) for ids in completion_ids]

    with pytest.raises(UserError, match="parity, length"):
        trainer_of(tmp_path, "dapo", reward_funcs=[parity, length])
    with pytest.raises(UserError, match="'exact' is none of the reward functions"):
        trainer_of(tmp_path, "dapo", reward_funcs=[parity, length], more={"correct": "exact"})
    assert trainer_of(tmp_path, "dapo", reward_funcs=[length, parity], more={"correct": "parity"}).correct == 1


def test_racro_without_a_reasoner_is_refused(tmp_path):
    with pytest.raises(UserError, match="racro_reward"):
        trainer_of(tmp_path, "racro")


def test_a_method_that_does_not_exist_and_options_beside_a_method_are_refused(tmp_path):
    with pytest.raises(UserError, match="papi"):
        trainer_of(tmp_path, "papi")
    with pytest.raises(UserError, match="already has its own"):
        trainer_of(tmp_path, objectives.method("papo"), {"gamma": 0.1})
    assert trainer_of(tmp_path, objectives.method("papo")).method.about.variant == "release"


def test_a_processor_without_images_is_refused(tmp_path):
    policy = policy_of()
    with pytest.raises(UserError, match="reads no images"):
        trainer_of(tmp_path, "grpo", policy=policy, more={"processing_class": policy.reader.tokenizer})
    assert processor_of(policy).tokenizer is policy.reader.tokenizer


def test_adapters_of_tokens_are_refused(tmp_path):
    from peft import PromptTuningConfig

    with pytest.raises(UserError, match="tokens before the prompt"):
        trainer_of(
            tmp_path, "grpo", more={"peft_config": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)}
        )


def test_groups_that_were_torn_apart_are_refused():
    from vergence.integrations.trl_round import refuse_mixed_groups

    rows = list(dataset_of(scenes(2)))
    refuse_mixed_groups([rows[0]] * 4 + [rows[1]] * 4, 4)
    with pytest.raises(UserError, match="rows 0 to 3"):
        refuse_mixed_groups([rows[0]] * 3 + [rows[1]] * 5, 4)
