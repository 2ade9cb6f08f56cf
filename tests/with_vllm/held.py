"""What these tests ask, and what the trainer says of the answers."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image

from vergence.models.policy import Policy, load
from vergence.rollout.render import put
from vergence.scenes.embedded import draw_many
from vergence.types import IMAGE, Asked, Prompt, Sampled

CLOSE = 1e-4
"""Nats, float32: ten times what was seen."""
FAR = 1e-2
"""What other weights or pictures make of the same tokens is further off than this."""


@cache
def prompts() -> tuple[Prompt, ...]:
    """One image; one that was resized to a wide one; three in one question, in its middle; none."""
    reader = load("seedling").reader
    digits, bars = (draw_many([world], "tune", 1)[0] for world in ("digits", "bars"))
    level = np.random.default_rng(0).integers(0, 256, (37, 91, 3), dtype=np.uint8)
    wide = Image.fromarray(level).resize((291, 117), Image.Resampling.BICUBIC)
    three = f"Is {IMAGE} in {IMAGE} or {IMAGE}? {bars.question}"
    return (
        reader.prompt(put(digits.question), digits.images),
        reader.prompt(put(f"Look at the picture with care. {bars.question}"), (wide,)),
        reader.prompt(put(three), (digits.images[0], bars.images[0], wide)),
        reader.prompt(put("What is 2+3?"), ()),
    )


def asked(siblings: int = 5, seed: int = 0, of: Sequence[Prompt] | None = None) -> list[Asked]:
    """So many of each prompt, the prompts in turns."""
    one_each = of or prompts()
    return [Asked(prompt, 2**40 + 1000 * seed + 7 * row) for row in range(siblings) for prompt in one_each]


@torch.no_grad()
def trainer(policy: Policy, one: Asked, drawn: Sampled, temperature: float = 1.0) -> torch.Tensor:
    """The policy's own log-probabilities of the tokens, by a plain forward pass."""
    token_BT = torch.tensor([drawn.tokens])
    logits_TV = policy.logits([one.prompt], token_BT, torch.ones_like(token_BT, dtype=torch.bool))[0] / temperature
    return logits_TV.log_softmax(-1).gather(1, token_BT.T)[:, 0]


def gaps(policy: Policy, rows: Sequence[Asked], drawn: Sequence[Sampled], temperature: float = 1.0) -> list[float]:
    """The largest difference in each response, nats."""
    pairs = zip(rows, drawn, strict=True)
    return [
        (trainer(policy, one, said, temperature) - torch.tensor(said.logp)).abs().max().item() for one, said in pairs
    ]


@torch.no_grad()
def moved(policy: Policy, seed: int, by: float = 0.05) -> Policy:
    """The policy with every weight changed, in place."""
    generator = torch.Generator().manual_seed(seed)
    for weight in policy.model.parameters():
        spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
        weight.add_(torch.randn(weight.shape, generator=generator) * by * (spread + 0.01))
    return policy
