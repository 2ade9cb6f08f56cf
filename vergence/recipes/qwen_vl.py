"""Qwen2.5-VL on your own questions, with PAPO's published settings (arXiv:2507.06448, Table 6, released scripts)."""

from vergence.objectives.papo import PUBLISHED
from vergence.train.config import Config

LONGEST = 2048
"""Of a response, tokens."""


def qwen_vl_3b(method: str = "papo") -> Config:
    """The config of PAPO's 3B runs: 384 questions x 5 responses, three updates each, lr 1e-6, reference KL 0.01.

    Point `--scenes` at a .jsonl file of yours and `--model` at a folder with the weights. It needs a GPU, and has not
    been run at this size by us.
    """
    return _papo_run("3b", method)


def qwen_vl_7b(method: str = "papo") -> Config:
    """The config of PAPO's 7B runs, which differ in the coefficients; see `qwen_vl_3b`.

    >>> qwen_vl_7b("papo").options
    {'gamma': '0.02', 'eta': '0.05'}
    """
    return _papo_run("7b", method)


def _papo_run(size: str, method: str) -> Config:
    paper, _, base = method.partition("+")[0].partition("@")[0].partition("-")
    options = dict(PUBLISHED[f"{base or 'grpo'}-{size}"]) if paper == "papo" else {}
    if paper == "drgrpo":
        options["budget"] = LONGEST
    return Config(
        model=f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct",
        method=method,
        options={name: str(value) for name, value in options.items()},
        scenes="train.jsonl",
        wording="think",
        steps=606,
        scenes_per_batch=384,
        siblings=5,
        parts=3,
        token_budget=8192,
        sample_batch=32,
        max_tokens=LONGEST,
        reasoner="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        reasoner_tokens=8192,
        lr=1e-6,
        warmup=0,
        betas=(0.9, 0.999),
        weight_decay=1e-2,
        watch_every=0,
        eval_every=60,
        save_every=60,
        device="cuda",
    )
