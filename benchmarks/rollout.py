"""How fast responses are sampled: `rollout.decode.Decode` against Hugging Face's `generate`.

    taskset -c 0,1 python benchmarks/rollout.py --threads 2

Two peers, both `model.generate(do_sample=True, top_k=0, top_p=1, temperature=1)` on the same weights and prompts:
"generate" is given every prompt once for each sibling, as trainers do; "num_return_sequences" is given it once. Neither
says log-probabilities or entropies, which ours does. All rows write the same number of tokens (with `--ragged`, lengths
drawn from a lognormal, the same for all three). The three take turns, there and back, in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    StoppingCriteria,
    StoppingCriteriaList,
)

from vergence.models.policy import Policy, Reader, load
from vergence.rollout import decode
from vergence.rollout.render import render
from vergence.scenes import embedded
from vergence.types import Asked, Original, Prompt

END = 10
"""Stands for the end of a turn, and is said where a row is to end and nowhere else."""


def cpu_shape(prompts: int) -> tuple[Policy, list[Prompt]]:
    """A Qwen3-VL of random weights (4 layers of 256, 4096 tokens), prompts of 320 tokens, 256 of them an image's."""
    image, start, end, words = 5, 6, 7, 4096
    text = {"vocab_size": words, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4}
    text |= {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 4096}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}}
    text |= {"tie_word_embeddings": True, "pad_token_id": 0}
    vision = {"hidden_size": 128, "depth": 4, "intermediate_size": 256, "num_heads": 4, "patch_size": 16}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 256}
    vision |= {"num_position_embeddings": 1024, "deepstack_visual_indexes": [1]}
    ids = {"image_token_id": image, "vision_start_token_id": start, "vision_end_token_id": end}
    torch.manual_seed(0)
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    model = Qwen3VLForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    reader = SimpleNamespace(
        tokenizer=SimpleNamespace(pad_token_id=0), image_id=image, eos_id=END, banned=(image, image + 3)
    )
    made = []
    for _ in range(prompts):
        before, after = torch.randint(10, words, (20,)).tolist(), torch.randint(10, words, (42,)).tolist()
        tokens = (*before, start, *[image] * 256, end, *after)
        made.append(Prompt(tokens, torch.randn(1024, 3 * 2 * 16 * 16), torch.tensor([[1, 32, 32]])))
    return Policy(model, reader), made


class Endless(Reader):
    """A reader whose responses end where they are told to."""

    @property
    def eos_id(self) -> int:
        """See `END`."""
        return END


def seedling(prompts: int) -> tuple[Policy, list[Prompt]]:
    """The policy of the package, and questions about the images it was raised on (9 image tokens each)."""
    policy = load("seedling")
    scenes = embedded.draw_many(embedded.TRAINED, "tune", prompts)
    reader = Endless(policy.reader.tokenizer, policy.reader.image_processor)
    return Policy(policy.model, reader), [render(reader, scene, Original(), 0) for scene in scenes]


class AtLength(StoppingCriteria):
    """Ends each row at its own length."""

    def __init__(self, first: int, length_B: torch.Tensor) -> None:
        self.first, self.length_B = first, length_B

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """(B, prefix) -> which rows have ended."""
        return input_ids.shape[1] - self.first >= self.length_B


def peer(policy: Policy, prompts: Sequence[Prompt], siblings: int, length_B: torch.Tensor) -> None:
    """Hugging Face's own sampling, with `siblings` as num_return_sequences."""
    inputs = policy.inputs(prompts)
    out = policy.model.generate(
        **inputs,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        max_new_tokens=int(length_B.max()),
        num_return_sequences=siblings,
        stopping_criteria=StoppingCriteriaList([AtLength(inputs["input_ids"].shape[1], length_B)]),
    )
    assert out.shape[1] == inputs["input_ids"].shape[1] + int(length_B.max())


def ours(policy: Policy, prompts: Sequence[Prompt], siblings: int, length_B: torch.Tensor) -> None:
    """`Decode`; a row's key says which it is, and by that where it ends."""
    asked = [Asked(prompt, row * siblings + one) for row, prompt in enumerate(prompts) for one in range(siblings)]
    free = decode.draw

    def to_length(logits_BV: torch.Tensor, key_B: torch.Tensor, position: int, *more: Any) -> tuple[Any, ...]:
        token_B, logp_B, entropy_B = free(logits_BV, key_B, position, *more)
        return token_B.where(token_B != END, END + 1).where(length_B[key_B] != position + 1, END), logp_B, entropy_B

    decode.draw = to_length
    try:
        drawn = decode.Decode(policy)(asked, temperature=1.0, max_tokens=int(length_B.max()))
    finally:
        decode.draw = free
    assert [len(one.tokens) for one in drawn] == length_B.tolist()


def turns(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, there and back (A B C, C B A, ...), after one of each that does not count."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name in list(runs) if repeat % 2 == 0 else reversed(runs):
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(shape: str, prompts: int, siblings: int, tokens: int, *, ragged: bool, repeats: int) -> dict[str, float]:
    """Prints one table; returns the tokens per second of each, at its median."""
    policy, asked = (cpu_shape if shape == "cpu" else seedling)(prompts)
    policy.model.generation_config = GenerationConfig(
        eos_token_id=None, pad_token_id=policy.reader.tokenizer.pad_token_id
    )
    length_B = torch.full((prompts * siblings,), tokens)
    if ragged:
        drawn = np.random.default_rng(0).lognormal(np.log(tokens * 0.4), 0.6, len(length_B))
        length_B = torch.from_numpy(drawn.round().clip(1, tokens).astype(np.int64))
    repeated = [prompt for prompt in asked for _ in range(siblings)]
    runs = {
        "ours": lambda: ours(policy, asked, siblings, length_B),
        "generate": lambda: peer(policy, repeated, 1, length_B),
        "num_return_sequences": lambda: peer(policy, asked, siblings, length_B),
    }
    with torch.no_grad():
        seconds = turns(runs, repeats)
    total = int(length_B.sum())
    print(f"\n{shape}, {prompts} prompts x {siblings} siblings, {total} tokens in all, longest {int(length_B.max())}")
    print(f"  {'':22}{'seconds':>9}{'quartiles':>18}{'tokens/s':>10}{'ours is':>10}")
    middle = {name: statistics.median(several) for name, several in seconds.items()}
    for name, several in seconds.items():
        low, high = np.percentile(several, [25, 75])
        ratio = f"{middle[name] / middle['ours']:.2f} x"
        print(f"  {name:22}{middle[name]:9.3f}{f'{low:.3f} .. {high:.3f}':>18}{total / middle[name]:10.0f}{ratio:>10}")
    return {name: total / second for name, second in middle.items()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("cpu", "seedling", "both"), default="both")
    parser.add_argument("--prompts", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--siblings", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96, help="tokens of a response")
    parser.add_argument("--ragged", action="store_true", help="lengths from a lognormal, `--tokens` at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="8 prompts, 32 tokens, 3 repeats")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    given = parser.parse_args()
    if given.quick:
        given.prompts, given.tokens, given.repeats = [8], 32, 3
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {given.threads} threads, {given.repeats} repeats")
    said: dict[str, dict[str, Any]] = {"tokens_per_s": {}, "ratio_to_generate": {}, "ratio_to_num_return_sequences": {}}
    for shape in ("cpu", "seedling") if given.shape == "both" else (given.shape,):
        for prompts in given.prompts:
            speed = measure(shape, prompts, given.siblings, given.tokens, ragged=given.ragged, repeats=given.repeats)
            name = f"{shape} {prompts}x{given.siblings}{' ragged' if given.ragged else ''}"
            said["tokens_per_s"][name] = {who: round(value, 1) for who, value in speed.items()}
            for who in ("generate", "num_return_sequences"):
                said[f"ratio_to_{who}"][name] = round(speed["ours"] / speed[who], 3)
    if given.json:
        print(json.dumps(said))


if __name__ == "__main__":
    main()
