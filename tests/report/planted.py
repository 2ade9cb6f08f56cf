"""Run folders as training and evaluation leave them, planted."""

import json
from html.parser import HTMLParser

from vergence.scenes.embedded import TRAINED, of_key
from vergence.train.config import Config
from vergence.train.config_file import to_yaml

HOSTILE = "<script>alert(1)</script></style><img src=https://evil.example/x onerror=alert(2)>{{ 7 * 7 }}"
WORLDS = ("bars", "mosaic")
MEASURES = [
    {"name": "blind gap", "about": "image less blank", "mean": 0.31, "low": 0.251, "high": 0.369, "n": 240},
    {"name": "robustness", "about": "turned less not", "mean": -0.02, "low": -0.052, "high": 0.013, "n": 240},
]
AUDIT = {
    "model": "/home/me/runs/mine",
    "questions": 240,
    "samples": 2,
    "against": "/home/me/runs/grpo",
    "wording": "short",
    "verdict": "It looks, and misreads.",
    "measures": MEASURES,
    "errors": [
        {"name": "perception", "mean": 0.3, "low": 0.26, "high": 0.34, "n": 240}
        | {"of_wrong": {"mean": 0.655, "low": 0.6, "high": 0.7, "n": 99}}
    ],
    "reduction": {"points": {"mean": 0.125, "low": 0.05, "high": 0.2, "n": 240}, "picked_fewer": None},
    "probes": [
        {"position": at, "mean": at / 2, "low": at / 2 - 0.1, "high": at / 2 + 0.1, "n": 90} for at in (0.25, 1.0)
    ],
    "left_out": [{"what": "shortcut", "why": "nobody wrote captions"}],
}


class Elements(HTMLParser):
    """The tags of a page with their attributes, its headings, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.pieces.append(data)

    @property
    def text(self):
        """All text, as it stands."""
        return "".join(self.pieces)

    @property
    def words(self):
        """All text, with one blank between words and between elements."""
        return " ".join(" ".join(self.pieces).split())


def lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def measured(step):
    return {
        "step": step,
        "reward": step / 20,
        "rewards/accuracy": step / 10,
        "entropy": 1 / step,
        "grad_norm": float("nan") if step == 2 else 0.5,
        "completions/mean_length": 30.0,
        "clip_ratio/high": 0.01,
        "clip_ratio/low": 0.0,
        "perception/kl_masked": 0.2 * step,
        "perception/k3_masked": 0.3 * step,
    }


def said(step, scene, sibling, response, status="wrong"):
    return {
        "step": step,
        "scene": scene.key,
        "world": scene.world,
        "sibling": sibling,
        "question": scene.question,
        "gold": scene.gold.text,
        "response": response,
        "extracted": None,
        "status": status,
        "reward": float(status == "right"),
        "advantage": -0.5,
        "finish": "stop",
        "tokens": 9,
    }


def answered(world, index, right, false, **more):
    scene = f"{world}/report/0/{index}"
    status = "right" if right else "wrong"
    return {"scene": scene, "world": world, "sample": 0, "status": status, "false_facts": false, **more}


def plant(run, *, steps=4, **config):
    """Some steps of a run, two scenes of each world a step. A run of one step has no curves, which take time."""
    run.mkdir(parents=True, exist_ok=True)
    scenes = [of_key(f"{world}/train/0/{index}") for index in (0, 1) for world in TRAINED]
    (run / "config.yaml").write_text(to_yaml(Config(**{"steps": steps, "seed": 5} | config)))
    lines(run / "metrics.jsonl", map(measured, range(1, steps + 1)))
    lines(
        run / "rollouts.jsonl",
        [said(step, one, 0, f"step {step} only") for step in range(1, steps + 1) for one in scenes],
    )
    return run


def evaluate(run, *names, right=None, each=4, **more):
    """Answers in two worlds: of each world's questions the first `right[name]` are right."""
    right = {"before": 0, "after": 3, "after-blind": 1} | (right or {})
    for name in names:
        asked = [answered(world, index, index < right[name], 1, **more) for world in WORLDS for index in range(each)]
        lines(run / "evaluation" / f"{name}.jsonl", asked)
