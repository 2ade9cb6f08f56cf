"""Every value that crosses a folder. Read this file first.

A tensor's name ends in its axes, everywhere in this package:

    S  scenes in a step           B  rollouts, B = S * G, scene-major      V  vocabulary
    G  rollouts per scene         T  response tokens, padded on the right

Log-probabilities and entropies are nats, angles degrees, image sizes pixels, times seconds.

The way of the data: a `Scene` is asked, which gives `Rollout`s; a verifier gives each a `Verdict`; both are collated
into a `Batch`. A `Method` says which `View`s of the scene are scored, which statistics (`Read`) of them are needed, and
what its `Term`s make of these `Stats`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor

B = Float[Tensor, " B"]
BT = Float[Tensor, "B T"]
SG = Float[Tensor, "S G"]
Mask = Bool[Tensor, "B T"]
Scalar = Float[Tensor, ""]


class UserError(ValueError):
    """Bad input. The message says what was wrong, where, and what to do; the command line prints no traceback."""


# ---------------------------------------------------------------------------------------------------- scenes


class Fact(NamedTuple):
    """One thing that is visible: what it is about, and what is to be seen there.

    >>> str(Fact("red bar", "7"))
    'red bar: 7'
    """

    about: str
    value: str

    def __str__(self) -> str:
        return f"{self.about}: {self.value}"


class Gold(NamedTuple):
    """The right answer and its type, which picks the verifier."""

    text: str
    type: Literal["integer", "number", "word", "choice"]
    choices: tuple[str, ...] = ()
    """For `choice`: what A, B, C, ... stand for. Empty when only the letter counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A question about images, with everything known about it."""

    key: str
    """Names the scene within its source, the same in every run; the seed of anything random about it."""
    world: str
    """The kind of scene: what per-kind results are grouped by."""
    images: tuple[Image, ...]
    question: str
    gold: Gold
    facts: tuple[Fact, ...] = ()
    """What is visible. Empty where nobody knows it, as in most real data."""
    caption: str = ""
    """The facts that the question needs, in words."""
    counterfactual: Scene | None = None
    """The same question about the same image with one fact changed, and another answer."""


class Prompt(NamedTuple):
    """A question as the policy reads it: token ids, and the patches of its images."""

    tokens: tuple[int, ...]
    pixels: Float[Tensor, "patches features"] | None = None
    grid: Int[Tensor, "images 3"] | None = None
    """(frames, patch rows, patch columns) of each image."""


# ---------------------------------------------------------------------------------------------------- rollouts


class Asked(NamedTuple):
    """One sample to draw: the prompt, and the key of its noise (from the run's seed, the scene and the sibling)."""

    prompt: Prompt
    key: int


class Sampled(NamedTuple):
    """What a sampler returns for one `Asked`."""

    tokens: tuple[int, ...]
    """The end-of-turn token included, if it was reached."""
    logp: tuple[float, ...]
    """Raw log-probability of each token, before any token was banned, nats."""
    entropy: tuple[float, ...]
    """Entropy of the raw next-token distribution, nats."""
    finish: Literal["stop", "length"]


class Verdict(NamedTuple):
    """Was it right? `wrong` and `unparsed` both score zero and mean different things."""

    status: Literal["right", "wrong", "unparsed"]
    extracted: str | None
    """The answer that was found in the response; None if there was none."""
    accuracy: float
    format: float
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One response to one scene."""

    scene: Scene
    sibling: int
    """0 .. G-1, its number among the rollouts of its scene."""
    key: int
    """The seed of anything random about it."""
    sampled: Sampled
    text: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The rollouts of one step as tensors. Rows are rollouts; siblings are adjacent."""

    key_B: Int[Tensor, " B"]
    """Names the rollout; the seed of anything random about it."""
    scene_B: Int[Tensor, " B"]
    """Which scene of the step each rollout belongs to."""
    token_BT: Int[Tensor, "B T"]
    mask_BT: Mask
    """True on the response tokens that train."""
    sampled_logp_BT: BT
    """Log-probability (nats) of each token under the weights that sampled it."""
    correct_B: B
    """1.0 where the answer was right."""
    advantage_B: B
    """In units of reward, or of its standard deviation: the method's `credit` decides."""

    def rows(self, index: slice | Tensor) -> Batch:
        """Some of the rollouts."""
        return Batch(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


# ---------------------------------------------------------------------------------------------------- views


@dataclass(frozen=True, slots=True)
class Original:
    """The scene as it is."""


@dataclass(frozen=True, slots=True)
class Erase:
    """Each `cell` x `cell` square of the raw image black with probability `fraction` (PAPO, App. G.1)."""

    fraction: float = 0.6
    """Probability that a cell is black. PAPO uses 0.6."""
    cell: int = 14
    """Side of a cell, pixels of the raw image."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction <= 1.0:
            raise UserError(f"Erase.fraction must lie in [0, 1], got {self.fraction}")
        if self.cell < 1:
            raise UserError(f"Erase.cell must be at least 1 pixel, got {self.cell}")


@dataclass(frozen=True, slots=True)
class Blank:
    """An image of the same size in one grey."""

    level: int = 128
    """0 is black, 255 is white."""

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 255:
            raise UserError(f"Blank.level must lie in [0, 255], got {self.level}")


ORIGINAL = Original()

ViewSpec = Original | Erase | Blank
"""How a scene is shown, as plain data. `views.show` carries it out."""


class View(NamedTuple):
    """One way to look at a scene while scoring."""

    show: ViewSpec
    policy: Literal["now", "reference"] = "now"
    """Whose weights look: those being trained, or those that training started from (the reference KL is a view too)."""


class Read(NamedTuple):
    """One thing the scorer must compute for every response token."""

    view: str
    quantity: Literal["logp", "entropy", "kl"]
    """Log-probability of the sampled token; entropy of its distribution; divergence over the vocabulary."""
    against: str | None = None
    """For a divergence: KL(`view` || `against`)."""
    when: Literal["frozen", "live", "grad"] = "live"
    """Under the weights that sampled; under today's weights without gradient; with gradient."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What the views say about each response token. Zero where the mask is false; nothing is of vocabulary size.

    >>> stats = Stats({("image", "logp", None): torch.tensor([[-1.0, -2.0]])})
    >>> stats.logp("image")
    tensor([[-1., -2.]])
    >>> stats.entropy("masked")
    Traceback (most recent call last):
    KeyError: "('masked', 'entropy', None) is not among a term's reads, which are [('image', 'logp', None)]"
    """

    value: Mapping[tuple[str, str, str | None], BT]

    def _get(self, view: str, quantity: str, against: str | None = None) -> BT:
        key = (view, quantity, against)
        if key not in self.value:
            raise KeyError(f"{key} is not among a term's reads, which are {sorted(self.value, key=str)}")
        return self.value[key]

    def logp(self, view: str) -> BT:
        """Log-probability of the sampled tokens, nats."""
        return self._get(view, "logp")

    def entropy(self, view: str) -> BT:
        """Entropy of the next-token distributions, nats."""
        return self._get(view, "entropy")

    def kl(self, view: str, against: str) -> BT:
        """KL(`view` || `against`) over the vocabulary, nats."""
        return self._get(view, "kl", against)

    def read(self, read: Read) -> BT:
        """Whatever was declared."""
        return self._get(*read[:3])

    def rows(self, index: slice | Tensor) -> Stats:
        """Those of some of the rollouts."""
        return Stats({key: value_BT[index] for key, value_BT in self.value.items()})

    def detach(self) -> Stats:
        """The same numbers without gradient."""
        return Stats({key: value_BT.detach() for key, value_BT in self.value.items()})


# ---------------------------------------------------------------------------------------------------- methods


class Term(NamedTuple):
    """One term of an objective: three pure functions, and what they need to be computed.

    Its contribution to the loss is sum(weigh * value) / total, the total summed over the whole optimizer step and all
    ranks before the first gradient. `objectives.objective.reduce` divides, and nothing else does.
    """

    reads: tuple[Read, ...]
    total: Callable[[Batch, Stats], Scalar]
    """(batch, frozen) -> this batch's share of the denominator; additive over rollouts."""
    weigh: Callable[[Batch, Stats, Stats], BT]
    """(batch, frozen, live without gradient) -> how much each token counts."""
    value: Callable[[Batch, Stats, Stats], BT]
    """(batch, frozen, live) -> what to minimise at each token. Never reduced in here."""


Objective = Mapping[str, Term]
"""What a method minimises: the sum of its terms. The name is the metric's key."""


class About(NamedTuple):
    """Where a method comes from, for `vergence methods` and docs/papers.md."""

    title: str
    paper: str
    """arXiv number."""
    variant: str
    deviations: tuple[str, ...] = ()
    """Each place in which this differs from the source it names."""
    reconstructed: tuple[str, ...] = ()
    """Each formula that is ours because the source does not print it."""


class RewardSpec(NamedTuple):
    """reward = accuracy * right + format * well-formed."""

    accuracy: float = 0.9
    format: float = 0.1


class Method(NamedTuple):
    """What a paper proposes. The trainer reads these fields and knows no method by name."""

    about: About
    credit: Callable[[SG], SG]
    """Rewards -> advantages."""
    objective: Objective
    views: Mapping[str, View]
    reward: RewardSpec = RewardSpec()
    ask: Literal["answer", "caption"] = "answer"
    sample_view: str = "image"
    """What the policy sees when it samples."""
    metrics: Objective = MappingProxyType({})
    """Terms that are averaged for the log and never minimised. They read what the objective reads."""


def with_advantage(batch: Batch, advantage_B: B) -> Batch:
    """The same rollouts with these advantages."""
    return replace(batch, advantage_B=advantage_B)


Metrics = dict[str, Any]
"""One line of metrics.jsonl."""
