"""TRL's real trainer with the adapter: steps, evaluation, adapters, checkpoints; and, slow, that it learns."""

import pytest
import torch

pytest.importorskip("trl")

from integrations.trl_case import (
    Noting,
    Watching,
    dataset_of,
    logged,
    one_of_one_mind,
    policy_of,
    scenes,
    trainer_of,
)

from vergence.integrations.trl_rewards import format_reward, verifier_reward
from vergence.models.policy import load
from vergence.recipes.demo import OPTIONS
from vergence.scenes import embedded
from vergence.types import UserError


@pytest.mark.parametrize("name", ["papo", "cppo"])
def test_the_real_trainer_takes_steps(name, tmp_path):
    policy, drawn = policy_of(torch.float32), dataset_of(scenes(4))
    before = {key: weight.detach().clone() for key, weight in policy.model.named_parameters()}
    trainer = trainer_of(
        tmp_path, name, OPTIONS[name], policy=policy, data=drawn, max_steps=2, max_completion_length=32,
        reward_funcs=[verifier_reward(), format_reward()], reward_weights=[0.9, 0.1],
        eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=4, save_strategy="steps", save_steps=2,
        log_completions=False, more={"eval_dataset": dataset_of(scenes(1))},
    )  # fmt: skip
    trainer.train()
    lines = logged(trainer)
    own = {"papo": "loss/perception", "cppo": "loss/contrast"}[name]
    for line in lines:
        assert {"reward", "reward_std", "entropy", "clip_ratio/high", "loss/surrogate", own} <= set(line)
        assert line["loss"] == pytest.approx(line["loss/surrogate"] + line[own], abs=1e-6)
    assert lines[0]["rewards/format/mean"] > 0.5  # completions are judged as they are written
    assert any(not weight.equal(before[key]) for key, weight in policy.model.named_parameters())
    told = [line for line in trainer.state.log_history if "eval_loss" in line]
    assert len(told) == 1
    assert f"eval_{own}" in told[0]
    saved = load(tmp_path / "checkpoint-2")
    weights = dict(saved.model.named_parameters())
    assert all(weights[key].equal(weight) for key, weight in policy.model.named_parameters())


def test_evaluation_is_repeatable_and_moves_nothing(tmp_path):
    trainer = trainer_of(tmp_path, "papo", {"beta": 0}, per_device_eval_batch_size=8, max_completion_length=6,
                         temperature=1e-4, more={"eval_dataset": dataset_of(scenes(2))})  # fmt: skip
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    one, two = trainer.evaluate(), trainer.evaluate()
    for name in ("eval_loss", "eval_loss/perception", "eval_entropy"):
        assert one[name] == pytest.approx(two[name], abs=1e-9)
    assert all(a.equal(b) for a, b in zip(before, trainer.model.parameters(), strict=True))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_learn_alone_and_the_reference_is_the_model_without_them(checkpointing, tmp_path):
    from peft import LoraConfig

    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    watching, policy = Watching(), policy_of(torch.float32)
    before = {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}
    trainer = trainer_of(
        tmp_path, "papo@full", {"beta": 0.5}, policy=policy, callbacks=[watching],
        max_steps=2, more={"peft_config": lora}, optim="sgd", learning_rate=20.0,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    assert trainer.ref_model is None
    trainer.train()
    assert logged(trainer)[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert logged(trainer)[1]["kl"] > 1e-4  # a generation of weights that moved, read without them
    assert all("lora" in name for name in watching.steps[0].grads)
    assert any(grad.any() for grad in watching.steps[0].grads.values())
    for name, weight in trainer.model.get_base_model().named_parameters():
        if "lora" not in name:
            assert weight.equal(before[name.replace(".base_layer", "")])


def test_a_run_that_is_resumed_goes_on_as_if_it_had_not_stopped(tmp_path):
    def run(**given):
        policy = policy_of()
        trainer = trainer_of(
            tmp_path, "papo", {"beta": 0.1}, policy=policy, max_steps=2, max_completion_length=4,
            save_strategy="steps", save_steps=1,
        )  # fmt: skip
        trainer.train(**given)
        return logged(trainer)[1], list(policy.model.parameters())

    told, weights = run()
    again, same = run(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    for name in ("loss", "loss/perception", "kl", "reward"):
        assert again[name] == told[name]
    assert told["kl"] > 0
    assert all(one.equal(other) for one, other in zip(weights, same, strict=True))


def test_trl_s_table_of_completions_has_the_advantages_that_trained(tmp_path):
    noting = Noting(lambda completion_ids, **_: [float(at % 3 == 0) for at in range(len(completion_ids))])
    trainer = trainer_of(tmp_path, "drgrpo", {"clip_high": 0.2}, reward_funcs=noting)
    trainer.train()
    want = trainer.method.credit(torch.tensor(noting.said[0].reward).view(2, 4)).flatten()
    assert list(trainer._logs["advantages"]) == pytest.approx(want.tolist())


def test_a_completion_without_a_reward_gets_no_credit_and_takes_none_away(tmp_path):
    def some(completion_ids, **_):
        return [None, 1.0, 0.0, 1.0] * (len(completion_ids) // 4)

    trainer = trainer_of(tmp_path, "grpo", {"beta": 0}, reward_funcs=some)
    trainer.train()
    advantage_B = trainer._held["train"].batch.advantage_B
    assert advantage_B[0] == 0
    assert advantage_B[1:4].tolist() == pytest.approx([0.57735, -1.1547, 0.57735], abs=1e-4)


def test_dapo_leaves_groups_of_one_mind_out_of_its_means(tmp_path):
    trainer = trainer_of(tmp_path, "dapo", {}, reward_funcs=one_of_one_mind)
    trainer.train()
    held = trainer._held["train"]
    assert not held.batch.mask_BT[:4].any()
    assert held.batch.mask_BT[4:].any(-1).all()
    assert float(held.totals[0]["surrogate"]) == float(held.batch.mask_BT[4:].sum())
    assert logged(trainer)[0]["sampling/kept"] == 0.5


def test_an_importance_ratio_of_the_sampler_multiplies_the_surrogate_and_nothing_else(tmp_path):
    """What TRL corrects for vLLM: by token, or by response."""
    from vergence.integrations.trl_round import taken

    trainer = trainer_of(tmp_path, "papo", {"beta": 0})
    trainer.train()
    held = trainer._held["train"]
    for ratio_BT in (torch.rand(held.batch.mask_BT.shape), torch.rand(len(held.batch.key_B), 1)):
        again = taken(trainer.method, held.batch, held.prompts, trainer._measure, trainer.backend, ratio_BT=ratio_BT)
        want_BT = held.batch.advantage_BT * ratio_BT
        torch.testing.assert_close(again.batch.advantage_BT, want_BT, check_dtype=False)
        assert again.batch.advantage_B.equal(held.batch.advantage_B)


def test_a_step_that_is_cut_short_is_refused_not_rescaled(tmp_path):
    trainer = trainer_of(tmp_path, "papo", {"beta": 0})
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    with pytest.raises(UserError, match="counted as one of 2"):
        trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


# ------------------------------------------------------------------------------------------------ learning


@pytest.mark.slow
@pytest.mark.parametrize("name", ["papo", "cppo"])
def test_reward_rises(name, tmp_path):
    """40 steps of 32 questions: the mean of the last ten steps against that of the first five, before the warm-up ends.

    Four to five minutes on one core.
    """
    policy = load("seedling")
    data = dataset_of(embedded.draw_many(embedded.TRAINED, "train", 1280))
    trainer = trainer_of(
        tmp_path, name, OPTIONS[name], policy=policy, data=data, reward_funcs=[verifier_reward(), format_reward()],
        reward_weights=[0.9, 0.1], per_device_train_batch_size=32, gradient_accumulation_steps=8, num_generations=8,
        max_completion_length=64, max_steps=40, learning_rate=3e-4, lr_scheduler_type="constant_with_warmup",
        warmup_steps=10, max_grad_norm=1.0, seed=42,
    )  # fmt: skip
    trainer.train()
    rewards = [line["rewards/accuracy/mean"] for line in logged(trainer)]
    assert sum(rewards[-10:]) / 10 > sum(rewards[:5]) / 5 + 0.05
