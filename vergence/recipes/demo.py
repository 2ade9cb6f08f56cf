"""The demo: the seedling, four embedded worlds, PAPO without reference KL; minutes on two CPU cores."""

from vergence.train.config import Config

CLOSER = {"coefficient": "0.2", "estimator": "full", "gradient": "both"}
"""CapPO as it draws the seedling's answers nearer to its captions' and lets it learn: by k3 into the image branch alone
it does neither at 0.1 and stops learning at 0.5 (experiments/LOG.md)."""

OPTIONS = {
    "grpo": {"mean": "token", "clip_high": "0.28", "beta": "0"},
    "dapo": {},
    "drgrpo": {"clip_high": "0.28"},
    "papo": {"gamma": "0.02", "eta": "0.0", "beta": "0", "cell": "8"},
    "cppo": {"beta": "0"},
    "cappo": {"mean": "token", "clip_high": "0.28", "beta": "0", **CLOSER},
    "racro": {"beta": "0"},
    "vppo": {"entropy": "0.0", "beta": "0", "cell": "8"},
}
"""By paper: no reference KL, as the seedling starts far from where it should end. Cells of 8 pixels, its patch size:
PAPO's 14 would nearly be one cell of the 3 x 3 grid."""

REWORDED = "1.8"
"""How much weaker a disturbed question is than PAPO's masked image, on the seedling: the ratio that
`experiments/calibrate_reworded.py` prints."""


def demo(method: str = "papo") -> Config:
    """The config of the demo."""
    entry, _, control = method.partition("+")
    options = dict(OPTIONS.get(entry.split("@")[0].split("-")[0], {}))
    if control == "reworded" and entry.startswith("papo"):
        options["strength"] = REWORDED
    return Config(
        model="seedling",
        method=method,
        options=options,
        steps=80,
        scenes_per_batch=32,
        siblings=8,
        token_budget=4096,
        lr=3e-4,
        warmup=10,
        max_tokens=64,
        eval_every=20,
        eval_scenes=96,
        eval_samples=2,
        watch_every=5,
    )
