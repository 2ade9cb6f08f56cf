"""Hands the same step to the library and to plain Python, and asserts that they agree."""

from collections.abc import Callable

import torch
from laws.cases import make, step

from oracles import plain, plain_cappo, plain_cppo
from vergence.objectives import method
from vergence.types import Method

KEYS = {
    "image": ("image", "logp", None),
    "reference": ("reference", "logp", None),
    "masked": ("masked", "logp", None),
    "kl": ("image", "kl", "masked"),
    "kl_reference": ("image", "kl", "reference"),
    "H": ("image", "entropy", None),
    "H_masked": ("masked", "entropy", None),
    "kept": ("kept", "logp", None),
    "removed": ("removed", "logp", None),
    "H_anchor": ("anchor", "entropy", None),
    "H_removed": ("removed", "entropy", None),
    "kl_kept": ("image", "kl", "kept"),
    "kl_removed": ("image", "kl", "removed"),
    "caption": ("caption", "logp", None),
    "kl_caption": ("image", "kl", "caption"),
}

Oracle = Callable[..., tuple[float, dict[str, list[list[float]]]]]


def given(oracle: Oracle, published: dict) -> Oracle:
    """The oracle with these options, unless others are given."""
    return lambda data, **options: oracle(data, **{**published, **options})


ORACLES: dict[str, Oracle] = {
    "grpo": plain.grpo,
    "dapo": plain.dapo,
    "drgrpo": plain.dr_grpo,
    "papo-grpo@release": given(plain.release, plain.ON_GRPO),
    "papo-grpo@paper": given(plain.paper, plain.ON_GRPO),
    "papo-grpo@full": given(plain.full, plain.ON_GRPO),
    "papo-dapo@release": given(plain.release, plain.ON_DAPO),
    "papo-dapo@paper": given(plain.paper, {**plain.ON_DAPO, "mean": "token"}),
    "papo-dapo@full": given(plain.full, plain.ON_DAPO),
    "vppo-dapo": given(plain.vppo, {"clip_high": 0.28, "beta": 0.0}),
    "vppo-grpo": given(plain.vppo, {"clip_high": 0.3, "beta": 0.01}),
    "cppo-grpo@release-verl": plain_cppo.release_verl,
    "cppo-grpo@release-areal": plain_cppo.release_areal,
    "cppo-grpo@paper": plain_cppo.text,
    "cppo-dapo@release-verl": plain_cppo.release_verl_dapo,
    "cappo-grpo": plain_cappo.cappo,
    "cappo-dapo": plain_cappo.cappo_dapo,
    "racro-grpo": plain_cappo.racro,
    "racro-dapo": plain_cappo.racro_dapo,
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
        data["scene"] = batch.scene_B.tolist()
        # What was read under the weights that sampled: the same statistic may be read today as well.
        data["then"] = {name: case.frozen.value[key].tolist() for name, key in KEYS.items() if key in case.frozen.value}
        loss, slopes = ORACLES[name](data, **options)
        outcome = step(subject or genuine, case)
        # Ratios of a wild step reach e^20, so that the tolerance is relative to the loss.
        assert abs(outcome.loss - loss) <= 1e-9 * max(1.0, abs(loss)), (seed, outcome.loss, loss)
        for which, key in KEYS.items():
            if key in outcome.grads:
                want_BT = torch.tensor(slopes[which], dtype=torch.float64)
                torch.testing.assert_close(outcome.grads[key], want_BT, rtol=1e-9, atol=1e-9)
