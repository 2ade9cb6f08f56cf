"""Ways of driving a run into each failure that `guards.catalogue` is to see: settings, rewards, data, samplers.

Nothing here writes a log: each `Drive` is a training run of the seedling that goes wrong by itself, as runs do whose
owner chose so. `benchmarks.guards` carries them out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.spoilt import blank_pictures, long_comparisons, stale_sampler, starved_verifier, telling_captions
from vergence.recipes import recipe
from vergence.train.config import Config

HERE = "benchmarks.failures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """Runs that fail in one way, at several seeds."""

    name: str
    """Of the folder."""
    guards: tuple[str, ...]
    """Those that are to be raised, first the one that names the cause; none of healthy runs."""
    how: str
    """By what, for the table."""
    config: Config
    seeds: tuple[int, ...] = (0, 1)
    data: Callable[[Path, int], None] | None = None
    """(folder, seed) -> writes `rows.jsonl` and its pictures there: the scenes of the run."""
    around: Callable[[], Any] | None = None
    """A context in which the run is carried out: what is broken around it."""

    def configured(self, seed: int, folder: Path) -> Config:
        """The config of one run; data that the drive writes lies in `folder`."""
        scenes = f"{folder / 'rows.jsonl'}#train" if self.data else self.config.scenes
        return replace(self.config, seed=seed, scenes=scenes)


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


def small(method: str = "grpo", **changed: Any) -> Config:
    """The demo's recipe with a quarter of its scenes and no evaluation; `options` are added to the recipe's."""
    demo = recipe("demo", method)
    options = {**demo.options, **changed.pop("options", {})}
    return replace(demo, **{"scenes_per_batch": 8, "eval_every": 0, "options": options, **changed})


def whole(method: str = "papo", **changed: Any) -> Config:
    """The demo's recipe as it is, but for its evaluations, which change nothing."""
    return small(method, scenes_per_batch=32, **changed)


def _pays(function: Callable[..., Any], method: str = "grpo", **changed: Any) -> Config:
    return small(method, rewards=(f"{HERE}:{function.__name__}",), **changed)


HEALTHY = (
    Drive(name="healthy-papo", guards=(), how="papo", config=whole(), seeds=tuple(range(10))),
    *(
        Drive(
            name=f"healthy-{method}",
            guards=(),
            how=f"{method}, 8 scenes",
            config=small(method, steps=60),
            seeds=(0,),
        )
        for method in ("grpo", "dapo", "cppo", "cappo", "racro", "vppo")
    ),
)

FAILURES = (
    Drive(
        name="gamma",
        guards=("KL hacking",),
        how="papo, gamma 0.2",
        config=small("papo", options={"gamma": "0.2"}, steps=100),
        seeds=(0, 1, 2),
    ),
    Drive(
        name="gamma-more",
        guards=("KL hacking", "collapse", "disavowal", "repetition", "gradient"),
        how="papo, gamma 0.5 (the recipe: 0.02), no reference KL, no entropy term",
        config=small("papo", options={"gamma": "0.5"}),
        seeds=(0, 1, 2),
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
        guards=("entropy collapse", "view entropy collapse"),
        how="grpo, a penalty on entropy of 2 (option entropy=2)",
        config=small(options={"entropy": "2", "entropy_of": "full"}, steps=100),
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
        name="no-room",
        guards=("all unparsed",),
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
        guards=("unparsed",),
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
