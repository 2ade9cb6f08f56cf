"""The demo: the seedling, four embedded worlds, PAPO without reference KL; minutes on two CPU cores."""

from vergence.train.config import Config

OPTIONS = {
    "grpo": {"mean": "token", "clip_high": "0.28", "beta": "0"},
    "papo": {"gamma": "0.02", "eta": "0.0", "beta": "0", "cell": "8"},
}
"""By base name: no reference KL, as the seedling starts far from where it should end. Cells of 8 pixels, its patch
size: PAPO's 14 would nearly be one cell of the 3 x 3 grid."""


def demo(method: str = "papo") -> Config:
    """The config of the demo."""
    base = method.split("@")[0].split("-")[0]
    return Config(
        model="seedling",
        method=method,
        options=dict(OPTIONS.get(base, {})),
        steps=80,
        scenes_per_batch=32,
        siblings=8,
        micro_batch=64,
        lr=3e-4,
        warmup=10,
        max_tokens=64,
        eval_every=20,
        eval_scenes=96,
        eval_samples=2,
        watch_every=5,
    )
