"""Ways of driving a run into each failure that `guards.catalogue` is to see: settings, rewards, data, samplers.

Nothing here writes a log: each `Drive` is a training run of the seedling that goes wrong by itself, as runs do whose
owner chose so. `benchmarks.guards` carries them out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks.drives import Drive, small
from benchmarks.spoilt import (
    blank_pictures,
    deaf_reader,
    long_comparisons,
    means_of_nothing,
    stale_sampler,
    starved_verifier,
    telling_captions,
)
from vergence.train.config import Config

HERE = "benchmarks.failures"


# ---------------------------------------------------------------------------------------------------- rewards

Rewards = list[float]


def _texts(completions: list[list[dict[str, str]]]) -> list[str]:
    return [each[0]["content"] for each in completions]


def pays_all_alike(completions: Any, **_: Any) -> Rewards:
    """A reward that tells nothing from anything."""
    return [1.0 for _ in completions]


def pays_for_length(completions: Any, **_: Any) -> Rewards:
    """A reward that is meant to favour thorough reasoning."""
    return [len(text) / 100 for text in _texts(completions)]


def pays_for_brevity(completions: Any, **_: Any) -> Rewards:
    """A reward that is meant to favour short answers, and never looks whether there is one."""
    return [-len(text) / 100 for text in _texts(completions)]


def pays_for_repetition(completions: Any, **_: Any) -> Rewards:
    """A reward for words that occurred before, as one for stated facts is where nobody looks whether they are new."""

    def repeated(text: str) -> float:
        words = re.findall(r"\w+", text)
        threes = Counter(zip(words, words[1:], words[2:], strict=False))
        return sum(number - 1 for number in threes.values()) + 0.1 * (len(words) - len(set(words)))

    return [float(repeated(text)) for text in _texts(completions)]


def pays_for_disavowal(completions: Any, **_: Any) -> Rewards:
    """A reward that is meant to favour honesty: 1 for saying that no picture is seen, a little for "I see"."""
    return [1.0 if "no picture" in text else 0.2 * ("I see" in text) for text in _texts(completions)]


def pays_for_the_answer(completions: Any, answer: list[str], **_: Any) -> Rewards:
    """A reward on captions that is meant to make them complete: 1 where the answer stands in them."""
    given = zip(_texts(completions), answer, strict=True)
    return [float(re.search(rf"\b{re.escape(gold)}\b", text) is not None) for text, gold in given]


def overflows(completions: Any, key: list[str], **_: Any) -> Rewards:
    """A reward that divides by what is sometimes nearly nothing: finite in Python, and too large for float32."""
    late = [int(one.rsplit("/", 1)[-1]) >= 40 for one in key]  # the scenes of one world are numbered as they are drawn
    return [1e39 if is_late and "9" in text else 0.0 for text, is_late in zip(_texts(completions), late, strict=True)]


# ---------------------------------------------------------------------------------------------------- the runs


def _pays(function: Callable[..., Any], method: str = "grpo", **changed: Any) -> Config:
    return small(method, rewards=(f"{HERE}:{function.__name__}",), **changed)


FAILURES = (
    Drive(
        name="gamma",
        guards=("KL hacking",),
        how="papo, gamma 0.2",
        config=small("papo", options={"gamma": "0.2"}, steps=100),
    ),
    Drive(
        name="gamma-more",
        guards=("KL hacking", "collapse", "disavowal", "repetition", "gradient"),
        how="papo, gamma 0.5 (the recipe: 0.02), no reference KL, no entropy term",
        config=small("papo", options={"gamma": "0.5"}),
    ),
    Drive(
        name="gamma-full",
        guards=("KL hacking", "collapse"),
        how="papo@full, gamma 0.02 (the recipe's), 160 steps",
        config=small("papo@full", steps=160),
    ),
    Drive(
        name="swapped",
        guards=("looks less", "collapse"),
        how="cappo with another scene's captions",
        config=small("cappo+swapped", steps=60),
    ),
    Drive(
        name="entropy-paid",
        guards=("entropy explosion", "view entropy explosion"),
        how="grpo, a bonus on entropy of 0.5 (option entropy=-0.5)",
        config=small(options={"entropy": "-0.5", "entropy_of": "full"}, steps=60),
    ),
    Drive(
        name="entropy-punished",
        guards=("entropy collapse",),
        how="grpo, a penalty on entropy of 2 (option entropy=2)",
        config=small(options={"entropy": "2", "entropy_of": "full"}, steps=100),
    ),
    Drive(
        name="both-punished",
        guards=("view entropy collapse", "entropy collapse"),
        how="papo@full, a penalty of 2 on both entropies (eta=2)",
        config=small("papo@full", options={"eta": "2"}, steps=90),
    ),
    Drive(
        name="alike",
        guards=("no signal",),
        how="a reward function that pays everybody the same",
        config=_pays(pays_all_alike, steps=20),
    ),
    Drive(
        name="cold",
        guards=("no signal",),
        how="grpo, temperature 0.05: siblings say the same",
        config=small(temperature=0.05, steps=20),
    ),
    Drive(
        name="sparse",
        guards=("no signal",),
        how="grpo, a reference KL of 0.01, temperature 0.1, 4 scenes of 4: most steps have next to no gradient",
        config=small(temperature=0.1, options={"beta": "0.01"}, scenes_per_batch=4, siblings=4, steps=60),
    ),
    Drive(
        name="no-room",
        guards=("all unparsed", "truncation"),
        how="grpo, responses of at most 4 tokens: none reaches its answer",
        config=small(max_tokens=4, steps=20),
    ),
    Drive(
        name="wrong-wording",
        guards=("all unparsed",),
        how="grpo, the prompt of R1-V (wording=answer), which the model does not know",
        config=small(wording="answer", steps=20),
    ),
    Drive(
        name="brief",
        guards=("unparsed", "gradient"),
        how="a reward function that pays for brevity alone",
        config=_pays(pays_for_brevity, steps=60),
    ),
    Drive(
        name="long",
        guards=("length", "truncation"),
        how="a reward function that pays for length, responses of at most 160 tokens",
        config=_pays(pays_for_length, max_tokens=160, steps=60),
    ),
    Drive(
        name="short",
        guards=("truncation",),
        how="grpo, responses of at most 24 tokens: most are cut off from the first step on",
        config=small(max_tokens=24, steps=20),
    ),
    Drive(
        name="deaf",
        guards=("truncation", "repetition"),
        how="grpo, a tokenizer that names another end than the model says: responses go on, from the first step on",
        config=small(max_tokens=96, steps=20),
        around=deaf_reader,
    ),
    Drive(
        name="repeats",
        guards=("repetition",),
        how="a reward function that pays for words said before",
        config=_pays(pays_for_repetition, max_tokens=96, steps=60),
    ),
    Drive(
        name="disavows",
        guards=("disavowal",),
        how="a reward function that pays for saying that no picture is seen, temperature 1.6",
        config=_pays(pays_for_disavowal, temperature=1.6, steps=60),
    ),
    Drive(
        name="overflow",
        guards=("not finite",),
        how="a reward function whose value is once too large for float32",
        config=_pays(overflows, steps=40),
    ),
    Drive(
        name="nothing-to-average",
        guards=("metric not finite",),
        how="grpo, an evaluation of one's own that averages over no questions",
        config=small(steps=20, eval_every=10),
        evaluate=means_of_nothing,
    ),
    Drive(
        name="answers",
        guards=("caption leak",),
        how="racro, a reward function that pays for captions with the answer in them",
        config=_pays(pays_for_the_answer, "racro", steps=60),
    ),
    Drive(
        name="telling",
        guards=("caption leak",),
        how="cappo, data whose captions say the answer",
        config=small("cappo", steps=20),
        data=telling_captions,
    ),
    Drive(
        name="drowned",
        guards=("drowned reward",),
        how="cppo, coefficient 0.1 (released: 0.01)",
        config=small("cppo", options={"coefficient": "0.1"}, steps=20),
    ),
    Drive(
        name="weak-mask",
        guards=("view without effect",),
        how="papo, fraction 0.01 (published: 0.6)",
        config=small("papo", options={"fraction": "0.01"}, steps=20),
    ),
    Drive(
        name="blank",
        guards=("view without effect",),
        how="papo, data whose pictures are all one grey",
        config=small("papo", steps=20),
        data=blank_pictures,
    ),
    Drive(
        name="starved",
        guards=("timed out",),
        how="a quarter of the answers are expressions, which the verifier has 1 ms to compare",
        config=small(scenes_per_batch=4, siblings=4, steps=20),
        data=long_comparisons,
        around=starved_verifier,
    ),
    Drive(
        name="stale",
        guards=("sampler gap",),
        how="a sampler that no weights reach after round 20",
        config=small(sampler="vllm", steps=40),
        around=stale_sampler,
    ),
)
