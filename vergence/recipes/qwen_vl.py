"""Qwen2.5-VL at 3B and 7B with each paper's published settings, and with LoRA on one GPU.

Not run at this size by us. Where a source says nothing, the number is PAPO's, whose released code is complete.
"""

from __future__ import annotations

from dataclasses import replace

from vergence.objectives.papo import PUBLISHED
from vergence.train.config import Config

LONGEST = 2048
"""Of a response, tokens (PAPO)."""
TOKEN = 28 * 28
"""Pixels of an image token of Qwen2.5-VL."""

BASES = {
    "grpo": {"mean": "token", "clip_high": 0.3, "dual": 3.0, "beta": 0.01, "kl_cap": 10.0},
    "dapo": {"mean": "token", "dual": 3.0, "overlong": 0.0},
    "drgrpo": {"budget": LONGEST},
}
"""The options of what PAPO is compared with, as its code runs them (arXiv:2507.06448, Table 6, released scripts)."""


def qwen_vl_3b(method: str = "papo") -> Config:
    """Qwen2.5-VL-3B with the settings of the method's paper: PAPO's, CPPO's or RACRO's; GRPO and DAPO as in PAPO.

    All weights learn, in bfloat16 with float32 masters: a GPU of 80 GiB, by the plan. CapPO's settings are not
    published, and PAPO's here.
    """
    return _run("3b", method)


def qwen_vl_7b(method: str = "papo") -> Config:
    """Qwen2.5-VL-7B with the settings of the method's paper, whose coefficients may differ from those at 3B.

    All weights learn: 145 GiB and more on one device, by the plan.

    >>> qwen_vl_7b("papo").options
    {'gamma': '0.02', 'eta': '0.05'}
    """
    return _run("7b", method)


def qwen_vl_3b_lora(method: str = "papo") -> Config:
    """Qwen2.5-VL-3B with LoRA and a frozen tower on one GPU of 24 GiB: the paper's settings, in smaller batches.

    Ours: rank 64, a learning rate ten times that of full training, batches of 32 questions x 8 responses in two
    updates, images of up to 1,003,520 pixels and responses of up to 2048 tokens.
    """
    return _lora("3b", method)


def qwen_vl_7b_lora(method: str = "papo") -> Config:
    """Qwen2.5-VL-7B with LoRA on one GPU of 40 GiB; otherwise as at 3B."""
    return _lora("7b", method)


def paper_of(method: str) -> str:
    """The catalogue's entry without its base, variant and control.

    >>> paper_of("papo-dapo@release+shuffled"), paper_of("grpo")
    ('papo', 'grpo')
    """
    return method.partition("+")[0].partition("@")[0].partition("-")[0]


def _run(size: str, method: str) -> Config:
    papo = _papo(size, method)
    return {"cppo": _cppo, "racro": _racro}.get(paper_of(method), lambda config: config)(papo)


def _papo(size: str, method: str) -> Config:
    """PAPO's run (arXiv:2507.06448, Table 6 and App. C): 202 batches of 384 x 5, three updates each, two epochs.

    For methods that show a caption, the initial policy writes it: the data has none.
    """
    paper, base = paper_of(method), method.partition("+")[0].partition("@")[0].partition("-")[2]
    options = dict(PUBLISHED[f"{base or 'grpo'}-{size}"]) if paper == "papo" else BASES.get(paper, {})
    return Config(
        model=f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct",
        method=method,
        options={name: str(value) for name, value in options.items()},
        scenes="PAPOGalaxy/PAPO_ViRL39K_train",
        wording="think",
        min_pixels=256 * TOKEN,
        max_pixels=1280 * TOKEN,
        steps=606,
        scenes_per_batch=384,
        siblings=5,
        parts=3,
        token_budget=8192,
        sample_batch=32,
        max_tokens=LONGEST,
        captions="initial",
        reasoner="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        reasoner_tokens=8192,
        lr=1e-6,
        warmup=0,
        betas=(0.9, 0.999),
        weight_decay=1e-2,
        gradient_checkpointing=True,
        watch_every=0,
        eval_every=60,
        save_every=60,
        device="cuda",
        dtype="bfloat16",
    )


def _cppo(config: Config) -> Config:
    """CPPO's run (released scripts): 512 x 5, eight updates each, two epochs of ViRL39K, responses of 4096 tokens.

    It drops prompts of more than 512 tokens, images included; here images are shrunk to 384 tokens (ours).
    """
    return replace(
        config,
        scenes="TIGER-Lab/ViRL39K",
        wording="first",
        min_pixels=4 * TOKEN,
        max_pixels=384 * TOKEN,
        steps=1200,
        scenes_per_batch=512,
        parts=8,
        max_tokens=4096,
        eval_every=80,
        save_every=80,
    )


def _racro(config: Config) -> Config:
    """RACRO's run (arXiv:2506.04559, captioner3b_7b.sh): 256 x 4, two updates each, captions of up to 8192 tokens.

    Its 20 epochs; at which step the released checkpoint was taken is not known. The limit on pixels is ours: it leaves
    out prompts of more than 8192 tokens instead.
    """
    return replace(
        config,
        scenes="TIGER-Lab/ViRL39K",
        min_pixels=0,
        max_pixels=4096 * TOKEN,
        steps=6040,
        scenes_per_batch=256,
        siblings=4,
        parts=2,
        token_budget=2**14,
        max_tokens=8192,
        eval_every=100,
        save_every=100,
    )


def _lora(size: str, method: str) -> Config:
    return replace(
        _run(size, method),
        adapter="lora",
        lora_rank=64,
        lora_alpha=64,
        tower="frozen",
        lr=1e-5,
        weight_decay=0.0,
        min_pixels=4 * TOKEN,
        max_pixels=1280 * TOKEN,
        steps=400,
        scenes_per_batch=32,
        siblings=8,
        parts=2,
        token_budget=8192,
        sample_batch=48,  # an evaluation reads half as many prompts at once: see `train.plan`
        max_tokens=LONGEST,
        reasoner_tokens=2048,
        eval_every=40,
        save_every=40,
    )
