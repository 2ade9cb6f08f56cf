"""Does a method learn inside TRL's trainer? The seedling, 16 questions of 8 answers a step; then `vergence eval`.

python -m benchmarks.trl_learning papo runs/trl-papo --steps 40
vergence eval runs/trl-papo --against seedling --number 240 --samples 4
"""

import argparse

from trl import GRPOConfig

from vergence.integrations.trl import VergenceGRPOTrainer
from vergence.integrations.trl_data import dataset_of, processor_of
from vergence.integrations.trl_rewards import format_reward, verifier_reward
from vergence.models.policy import load
from vergence.recipes.demo import OPTIONS
from vergence.scenes.embedded import TRAINED, draw_many


def main() -> None:
    """Train, print accuracy by step, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    policy = load("seedling")
    trainer = VergenceGRPOTrainer(
        policy.model,
        [verifier_reward(), format_reward()],
        GRPOConfig(
            asked.out, per_device_train_batch_size=32, gradient_accumulation_steps=4, num_generations=8,
            max_completion_length=64, learning_rate=3e-4, lr_scheduler_type="constant_with_warmup", warmup_steps=10,
            max_steps=asked.steps, logging_steps=1, reward_weights=[0.9, 0.1], bf16=False, gradient_checkpointing=False,
            save_strategy="no", report_to="none", disable_tqdm=True,
        ),
        dataset_of(draw_many(TRAINED, "train", 2048)),
        processing_class=processor_of(policy),
        method=asked.method,
        options=OPTIONS[asked.method.split("@")[0]],
    )  # fmt: skip
    trainer.train()
    print([round(line["rewards/accuracy/mean"], 3) for line in trainer.state.log_history if "reward" in line])
    trainer.save_model(asked.out)


if __name__ == "__main__":
    main()
