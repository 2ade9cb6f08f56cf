"""Everything that decides a run, as data: every field with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any, Literal, get_args

import tyro

from vergence.rewards.wire import base_url
from vergence.scenes.embedded import TRAINED
from vergence.types import UserError, Wording

ScorerName = Literal["auto", "naive", "graph", "leaf", "recompute"]
SCORERS = get_args(ScorerName)
SAMPLERS = ("own", "vllm", "vllm-server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A complete run. Recipes return one, the command line replaces fields, a run's `config.yaml` reads back."""

    # what is trained, and how
    model: str = "seedling"
    """A folder in Hugging Face layout, or "seedling", the tiny policy in the package."""
    method: str = "papo"
    """An entry of the catalogue: see `vergence methods`."""
    options: Annotated[dict[str, str], tyro.conf.Suppress] = field(default_factory=dict)
    """The method's own settings that differ from its defaults, e.g. gamma 0.02; the method checks them."""
    seed: int = 0
    """Of everything that is drawn: scenes, sampling noise, masks."""
    steps: int = 100
    """Optimizer steps."""

    # what it is asked
    scenes: str = "embedded"
    """"embedded"; a .jsonl, .parquet or .csv file; a folder; or a Hub data set: see docs/data.md."""
    columns: Annotated[dict[str, str], tyro.conf.Suppress] = field(default_factory=dict)
    """Ours -> the data's, where the names of its columns are not known, e.g. question: prompt_text."""
    skip_refused: bool = False
    """Train without the rows that cannot be used; `vergence data check` lists them. Else one of them is an error."""
    tolerance: float = 0.0
    """Of numbers among the answers, relative; 0 is exact."""
    pictures: str = ""
    """A folder besides the data's own that its pictures may be read from; paths count from it too."""
    min_pixels: int = 0
    """Smaller images are enlarged to so many pixels. 0: as the model's own processor says."""
    max_pixels: int = 0
    """Larger images are shrunk to so many pixels; `vergence data pixels` says what memory holds. 0: as above."""
    worlds: tuple[str, ...] = TRAINED
    """Which embedded worlds take turns. `mosaic` and `novel` are left for out-of-domain evaluation."""
    wording: Wording = "short"
    """How a question is put, and what a well-formed answer is: "short" for the seedling; "think" (PAPO), "first"
    (EasyR1, verl), "boxed" (models that think unasked) and "answer" (R1-V) for instruction-tuned models."""
    rewards: tuple[str, ...] = ()
    """Functions of yours, as module:function or file.py:function, whose sum is the reward in place of the method's;
    what is right the verifier still says."""
    scenes_per_batch: int = 24
    """S: scenes that are asked between two rounds of updates."""
    captions: str = "scene"
    """For methods that read a caption: "scene" (its own: of the facts, or the data's column `caption`), "initial" (the
    policy that training starts from writes them), or the url of an OpenAI-compatible server."""
    reasoner: str = "weak"
    """For RACRO: who answers from captions: "weak" or "strong" (tiny, in the package), a folder with a causal LM, or
    the url of an OpenAI-compatible server."""
    reasoner_tokens: int = 64
    """Longest answer of the reasoner, tokens."""
    reasoner_temperature: float = 1.0
    """Of the reasoner's answers in training (RACRO: 1)."""
    server_model: str = ""
    """The model that a server is asked for. Empty: the one it has. Keys come from the environment alone."""
    server_tokens: int = 0
    """Tokens that servers may read and write for this run, from its start or --resume on; 0: no bound."""
    server_seconds: float = 0.0
    """Seconds in which servers may be asked, likewise."""
    siblings: int = 8
    """G: responses to each scene, compared with each other."""
    temperature: float = 1.0
    """Of sampling, and of the log-probabilities that are trained. 1 keeps both the model's own."""
    max_tokens: int = 64
    """Longest response, tokens."""

    # which weights are trained
    adapter: Literal["none", "lora", "qlora"] = "none"
    """All weights; or small matrices beside those of the language model's layers (LoRA), which are kept in 4 bits
    ("qlora": needs the extra and a GPU)."""
    lora_rank: int = 16
    """Width of these matrices."""
    lora_alpha: int = 32
    """Their outcome is multiplied by alpha / rank."""
    tower: Literal["trained", "frozen"] = "trained"
    """Whether the vision tower and its merger learn; with an adapter they never do."""
    gradient_checkpointing: bool = False
    """Keep a layer's input alone, and compute the layer again in the backward pass: less memory, a third more time."""
    trust_remote_code: bool = False
    """Whether Python code that lies beside a model's weights may be run."""

    # how it is updated
    parts: int = 1
    """Optimizer steps on one batch of rollouts, each on its share of the scenes (PAPO: 3)."""
    passes: int = 1
    """Times that a batch of rollouts is gone through."""
    scorer: ScorerName = "auto"
    """How responses are scored. "naive" reads the prompt and its images again for each; the others read them once for
    all responses of a scene, and differ in what they keep of a prompt for its backward pass: its "graph", best if all
    its responses fit at once; its keys and values as a "leaf", beside the graph; or those alone ("recompute": the
    least memory, one more pass through the prompt). "auto" is "leaf" where the model allows it, else "naive"."""
    verify_scorer: bool = False
    """Before the first step, compare the scorer's statistics and gradient with the naive one's; stop if they differ."""
    token_budget: int = 2**14
    """Tokens of one view in one forward pass, padding included. Memory only: the gradient does not depend on it."""
    sample_batch: int = 256
    """Responses that are sampled at once. Memory only: nobody's noise depends on it."""
    sampler: str = "own"
    """Who samples: "own" (the policy as it is trained), "vllm" (an engine beside it), "vllm-server" (one in a process
    of its own), or the url of a vLLM server: see docs/sampling.md."""
    sampler_memory: float = 0.4
    """Share of the GPU's memory for the engine, where "vllm" samples beside the training."""
    ahead: int = 0
    """1: the next batch is sampled while this one trains, by weights that are one batch older; for samplers with
    weights of their own ("vllm" and servers)."""
    correction: Literal["none", "truncate", "mask"] = "none"
    """Of the gap between sampler and trainer, by the ratio of a token's probabilities: its advantage is weighed by
    min(ratio, correction_cap) ("truncate"), or by the ratio, and by 0 outside [1/cap, cap] ("mask")."""
    correction_cap: float = 2.0
    """See `correction`; 2 is usual."""
    most_gap: float = 0.0
    """Stop where the log-probabilities of sampler and trainer differ by more than so many nats, in the mean over a
    batch's tokens. 0: never."""
    lr: float = 1.5e-4
    """Peak learning rate of AdamW. Right for the seedling; 1e-6 is usual at 3B to 7B."""
    warmup: int = 10
    """Steps of linear warm-up: the first gradients are the noisiest."""
    decay: Literal["constant", "linear"] = "constant"
    """After the warm-up: constant, or linearly to a tenth at the last step."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of AdamW."""
    weight_decay: float = 0.0
    """Of AdamW. 0: the runs are short."""
    clip_norm: float = 1.0
    """The gradient is scaled down to this norm when it is longer."""

    # what is watched and kept
    watch_every: int = 5
    """Rounds (batches of rollouts) between measurements of the KL to the masked view, for all methods. 0: never."""
    eval_every: int = 0
    """Steps between evaluations on the tune split. 0: never."""
    eval_scenes: int = 96
    """Scenes of such an evaluation."""
    eval_samples: int = 2
    """Responses to each of them."""
    save_every: int = 0
    """Steps between checkpoints; there is always one at the end. 0: only there."""
    keep_last: int = 0
    """Keep so many of the last checkpoints, and of all of them the best on the tune split; take others away. 0: keep
    all."""
    grace: float = 25.0
    """Seconds from SIGTERM to the end: a step that is not done when saving needs the rest is given up."""

    # what is done when something goes wrong
    guards: Annotated[dict[str, str], tyro.conf.Suppress] = field(default_factory=dict)
    """Guard -> "warn", "stop" or "back" (to the last good checkpoint, with a lower coefficient): see docs/watching.md.
    All others warn; "not finite" stops."""
    back_factor: float = 0.5
    """What the coefficient of the method's own term is multiplied by when the run goes back."""
    most_backs: int = 3
    """Times that a guard may send the run back; then it stops."""

    # where it runs
    device: str = "cpu"
    """"cpu", "cuda", "cuda:1", ..."""
    shards: int = 0
    """Of several processes, how many share one copy of the weights: 0 is all of them, 1 is plain data parallelism."""
    offload: bool = False
    """Keep the weights' shares and the optimizer's state in the CPU's memory between steps; several processes only."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights as the model computes with them. Updates are made, and kept, in float32 (`train.masters`)."""

    def __post_init__(self) -> None:
        for name in ("options", "columns", "guards"):
            object.__setattr__(self, name, {key: str(value) for key, value in getattr(self, name).items()})
        for name in (
            "steps",
            "scenes_per_batch",
            "max_tokens",
            "reasoner_tokens",
            "parts",
            "passes",
            "token_budget",
            "sample_batch",
            "eval_scenes",
            "eval_samples",
            "lora_rank",
            "lora_alpha",
        ):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("warmup", "watch_every", "eval_every", "save_every", "keep_last", "most_backs"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("min_pixels", "max_pixels"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        _require(0 < self.back_factor < 1, "back_factor", "between 0 and 1", self.back_factor)
        _require(0 <= self.grace < inf, "grace", "0 or more, and finite", self.grace)
        _require(self.siblings >= 2, "siblings", "at least 2 (advantages compare siblings)", self.siblings)
        _require(0 < self.temperature < inf, "temperature", "above 0 and finite", self.temperature)
        _require(0 <= self.reasoner_temperature < inf, "reasoner_temperature", "0 or above", self.reasoner_temperature)
        for name in ("captions", "reasoner", "sampler"):
            if "://" in getattr(self, name):
                base_url(getattr(self, name))  # before it is written anywhere: it must not hold a key
        _require(self.server_tokens >= 0, "server_tokens", "0 or more", self.server_tokens)
        _require(0 <= self.server_seconds < inf, "server_seconds", "0 or more", self.server_seconds)
        _require(0 <= self.tolerance < 1, "tolerance", "in [0, 1)", self.tolerance)
        if self.max_pixels:
            _require(
                self.min_pixels <= self.max_pixels,
                "min_pixels",
                f"at most max_pixels={self.max_pixels}",
                self.min_pixels,
            )
        _require(0 < self.lr < 1, "lr", "between 0 and 1", self.lr)
        _check_sampling(self)
        _require(self.shards >= 0, "shards", "0 or more", self.shards)
        _require(self.clip_norm > 0, "clip_norm", "above 0", self.clip_norm)
        _require(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        _require(all(0 <= beta < 1 for beta in self.betas), "betas", "in [0, 1)", self.betas)
        _require(
            self.scenes_per_batch % self.parts == 0,
            "scenes_per_batch",
            f"a multiple of parts={self.parts}",
            self.scenes_per_batch,
        )
        _require(self.wording in get_args(Wording), "wording", f"one of {', '.join(get_args(Wording))}", self.wording)
        _require(self.scorer in SCORERS, "scorer", f"one of {', '.join(SCORERS)}", self.scorer)
        _require(len(self.worlds) > 0, "worlds", "at least one world", self.worlds)

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps that one batch of rollouts serves."""
        return self.parts * self.passes


def _check_sampling(config: Config) -> None:
    _require(0 < config.sampler_memory < 1, "sampler_memory", "between 0 and 1", config.sampler_memory)
    _require(
        config.sampler in SAMPLERS or "://" in config.sampler,
        "sampler",
        f"{', '.join(SAMPLERS)} or a url",
        config.sampler,
    )
    _require(config.ahead in (0, 1), "ahead", "0 or 1", config.ahead)
    _require(
        not config.ahead or config.sampler != "own",
        "ahead",
        '0 with the sampler "own", whose weights are those that train (take --sampler vllm-server)',
        config.ahead,
    )
    _require(1 <= config.correction_cap < inf, "correction_cap", "at least 1 and finite", config.correction_cap)
    _require(
        config.correction != "mask" or config.correction_cap > 1,
        "correction_cap",
        'above 1 with the correction "mask", which leaves no token else',
        config.correction_cap,
    )
    _require(0 <= config.most_gap < inf, "most_gap", "0 or more", config.most_gap)


def _require(holds: bool, name: str, contract: str, value: Any) -> None:
    if not holds:
        raise UserError(f"{name} must be {contract}, got {str(value)[:200]}")
