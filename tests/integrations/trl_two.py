"""What `test_trl_two.py` starts with torchrun: a few optimizer steps in as many processes as there are.

python trl_two.py FOLDER METHOD: writes the weights and TRL's log to FOLDER/outcome.pt.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import torch  # noqa: E402

torch.set_num_threads(1)

from integrations.trl_case import dataset_of, logged, policy_of, scenes, trainer_of  # noqa: E402

ROWS = 16
"""Of an optimizer step, over all processes."""


def told(self: Any, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
    """Completions of uneven lengths that depend on the question and the sibling alone, not on who is asked."""
    seen: Counter[tuple[int, ...]] = Counter()
    made = []
    for ids in prompt_ids:
        sibling = seen[tuple(ids)]
        seen[tuple(ids)] += 1
        chance = torch.Generator().manual_seed(1000 * (sum(ids) % 997) + sibling)
        length = int(torch.randint(3, 14, (), generator=chance))
        made.append(torch.randint(20, 300, (length,), generator=chance).tolist())
    return made, None


def reward(completion_ids: list[list[int]], key: list[str], **_: Any) -> list[float]:
    """Siblings of half of the questions are all worth the same: a process may have nothing to learn from."""
    worlds = sorted({scene.key for scene in scenes(4)})
    return [float(sum(ids) % 2) * (worlds.index(one) % 2) for ids, one in zip(completion_ids, key, strict=True)]


if __name__ == "__main__":
    import os

    folder, method = Path(sys.argv[1]), sys.argv[2]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    options = {"beta": 0} if method != "dapo" else {}
    policy = policy_of()
    trainer = trainer_of(
        folder, method, options, policy=policy, reward_funcs=reward, data=dataset_of(scenes(4)), max_steps=3,
        per_device_train_batch_size=ROWS // 2 // processes, optim="sgd", learning_rate=0.3, num_iterations=2,
    )  # fmt: skip
    type(trainer)._generate_single_turn = told
    trainer.train()
    assert trainer.accelerator.num_processes == processes
    if trainer.accelerator.is_main_process:
        weights = {name: weight.detach() for name, weight in policy.model.named_parameters()}
        torch.save({"weights": weights, "log": logged(trainer)}, folder / "outcome.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()
