"""Hands the same step to the library and to plain Python, and asserts that they agree."""

import torch
from laws.cases import make, step

from oracles import plain
from vergence.objectives import method
from vergence.types import Method

KEYS = {
    "image": ("image", "logp", None),
    "reference": ("reference", "logp", None),
    "masked": ("masked", "logp", None),
    "kl": ("image", "kl", "masked"),
    "H": ("image", "entropy", None),
    "H_masked": ("masked", "entropy", None),
}

ORACLES = {
    "grpo": plain.grpo,
    "papo-grpo@release": plain.release,
    "papo-grpo@paper": plain.paper,
    "papo-grpo@full": plain.full,
}


def agrees_with(name: str, subject: Method | None = None, **options) -> None:
    """That the method of this name and options, or one that claims to be it, is its definition.

    Loss, and gradient in every input that has one, to 1e-9, on tame steps and on wild ones.
    """
    genuine = method(name, **options)
    for seed in range(8):
        case = make(genuine, seed, S=2, G=3, wild=seed % 2 == 1)
        batch, stats = case.batch, {**case.frozen.value, **case.live.value}
        data = {name: stats[key].tolist() for name, key in KEYS.items() if key in stats}
        data["mask"], data["A"] = batch.mask_BT.tolist(), batch.advantage_B.tolist()
        data["sampled"] = batch.sampled_logp_BT.tolist()
        loss, slopes = ORACLES[name](data, **options)
        outcome = step(subject or genuine, case)
        # Ratios of a wild step reach e^20, so that the tolerance is relative to the loss.
        assert abs(outcome.loss - loss) <= 1e-9 * max(1.0, abs(loss)), (seed, outcome.loss, loss)
        for which, key in KEYS.items():
            if key in outcome.grads:
                want_BT = torch.tensor(slopes[which], dtype=torch.float64)
                torch.testing.assert_close(outcome.grads[key], want_BT, rtol=1e-9, atol=1e-9)
