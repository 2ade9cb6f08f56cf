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
from dataclasses import dataclass, field, fields, replace
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


Kind = Literal["choice", "choices", "integer", "number", "expression", "tuple", "set", "interval", "relation", "word"]
"""What an answer is, which picks how two are compared: `rewards.kinds`."""


class Gold(NamedTuple):
    """The right answer and its kind."""

    text: str
    kind: Kind
    choices: tuple[str, ...] = ()
    """For `choice` and `choices`: what A, B, C, ... stand for. Empty when only the letter counts."""
    tolerance: float = 0.0
    """For `integer` and `number`: relative; 0 is exact."""


IMAGE = "\ufffc"
"""Stands in a question where an image is shown (Unicode's character for an embedded object)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A question about images, with everything known about it."""

    key: str
    """Names the scene within its source, the same in every run; the seed of anything random about it."""
    world: str
    """The kind of scene: what per-kind results are grouped by."""
    images: tuple[Image, ...]
    question: str
    """With one `IMAGE` for each image, in order; or without any, and then the images come first."""
    gold: Gold
    facts: tuple[Fact, ...] = ()
    """What is visible. Empty where nobody knows it, as in most real data."""
    caption: str = ""
    """The facts that the question needs, in words."""
    counterfactual: Scene | None = None
    """The same question about the same image with one fact changed, and another answer."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What else the data says about it, for reward functions of the user's."""


class Prompt(NamedTuple):
    """A question as the policy reads it: token ids, and the patches of its images."""

    tokens: tuple[int, ...]
    pixels: Float[Tensor, "patches features"] | None = None
    grid: Int[Tensor, "images 3"] | None = None
    """(frames, patch rows, patch columns) of each image."""
    more: Mapping[str, Tensor] = MappingProxyType({})
    """What a model of another family takes in their place, by the name of its argument."""


Wording = Literal["short", "think", "first", "boxed", "answer"]
"""How a question is put (`rollout.render.WORDINGS`), and with it what a well-formed answer is (`rewards.form`)."""


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
    """Was it right? All but `right` score zero, and mean different things."""

    status: Literal["right", "wrong", "unparsed", "timed out"]
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
    chance_BT: BT
    """Uniform in (0, 1), keyed by rollout and position: the only chance that an objective may use."""
    correct_B: B
    """1.0 where the answer was right; with several reasoner samples, the share that was."""
    advantage_B: B
    """In units of reward, or of its standard deviation: the method's `credit` decides."""
    advantage_BT: BT
    """What the surrogate sees: `advantage_B` at every token, or what the method's `reshape` made of it."""

    def rows(self, index: slice | Tensor) -> Batch:
        """Some of the rollouts."""
        return Batch(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


# ---------------------------------------------------------------------------------------------------- views


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{name} must lie in [{low:g}, {high:g}], got {value}")


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
    aligned: bool = False
    """A cell is one image token of the model instead: the image is resized as the model will see it, then erased."""

    def __post_init__(self) -> None:
        _within("Erase.fraction", self.fraction, 0.0, 1.0)
        if self.cell < 1:
            raise UserError(f"Erase.cell must be at least 1 pixel, got {self.cell}")


@dataclass(frozen=True, slots=True)
class Salient:
    """The most salient patches black, by a vision encoder that the user names (PAPO, App. G.2)."""

    encoder: str
    """A folder (or Hub name) with a Hugging Face vision encoder, such as DINOv2."""
    fraction: float = 0.6
    """Share of the patches that is black."""

    def __post_init__(self) -> None:
        _within("Salient.fraction", self.fraction, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Occlude:
    """Rectangles of uniform noise over the image (CPPO, released code, `RandomOcclusion`)."""

    boxes: int = 50
    smallest: float = 0.05
    """Shortest side of a rectangle, as a share of the image's."""
    largest: float = 0.15

    def __post_init__(self) -> None:
        _within("Occlude.smallest", self.smallest, 0.0, self.largest)
        _within("Occlude.largest", self.largest, 0.0, 1.0)
        if self.boxes < 0:
            raise UserError(f"Occlude.boxes must be 0 or more, got {self.boxes}")


@dataclass(frozen=True, slots=True)
class Zoom:
    """A crop of each side to a share of it, resized back (CPPO, released code, `RandomZoomCrop`)."""

    smallest: float = 0.6
    """Least share of each side that is kept."""
    largest: float = 0.7

    def __post_init__(self) -> None:
        _within("Zoom.smallest", self.smallest, 0.01, self.largest)
        _within("Zoom.largest", self.largest, 0.01, 1.0)


@dataclass(frozen=True, slots=True)
class Jitter:
    """Brightness, contrast and saturation times factors drawn from these ranges (CPPO, released code)."""

    brightness: tuple[float, float] = (0.2, 1.3)
    contrast: tuple[float, float] = (0.2, 1.8)
    saturation: tuple[float, float] = (0.2, 1.8)

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            low, high = getattr(self, name)
            _within(f"Jitter.{name}, its lower end,", low, 0.0, high)


@dataclass(frozen=True, slots=True)
class Perspective:
    """The four corners moved inwards by up to half of `distortion` of each side, with probability `chance`."""

    distortion: float = 0.2
    chance: float = 0.5

    def __post_init__(self) -> None:
        _within("Perspective.distortion", self.distortion, 0.0, 1.0)
        _within("Perspective.chance", self.chance, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Rotate:
    """Turned by an angle drawn from [-degrees, degrees]; corners black."""

    degrees: float = 10.0

    def __post_init__(self) -> None:
        _within("Rotate.degrees", self.degrees, 0.0, 180.0)


@dataclass(frozen=True, slots=True)
class Blur:
    """Gaussian blur."""

    sigma: float = 1.0
    """Pixels."""

    def __post_init__(self) -> None:
        _within("Blur.sigma", self.sigma, 0.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian noise on every channel of every pixel."""

    sd: float = 0.05
    """Standard deviation, as a share of the range from black to white."""

    def __post_init__(self) -> None:
        _within("Noise.sd", self.sd, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these, drawn anew for every image."""

    choices: tuple[ImageSpec, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise UserError("OneOf needs at least one view to choose from")


@dataclass(frozen=True, slots=True)
class Blank:
    """An image of the same size in one grey."""

    level: int = 128
    """0 is black, 255 is white."""

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 255:
            raise UserError(f"Blank.level must lie in [0, 255], got {self.level}")


@dataclass(frozen=True, slots=True)
class Caption:
    """The scene's caption in the place of its images."""


@dataclass(frozen=True, slots=True)
class Swap:
    """What another scene shows, its images in the size of this one's. A control: content exchanged, nothing spoilt."""

    of: Original | Caption = Original()


@dataclass(frozen=True, slots=True)
class Reword:
    """The images as they are, each word of the question left out with probability `fraction`."""

    fraction: float = 0.3

    def __post_init__(self) -> None:
        _within("Reword.fraction", self.fraction, 0.0, 1.0)


ORIGINAL = Original()

ImageSpec = Original | Erase | Salient | Occlude | Zoom | Jitter | Perspective | Rotate | Blur | Noise | OneOf | Blank
"""How an image is shown, as plain data. `views.show` carries it out."""

ViewSpec = ImageSpec | Caption | Swap | Reword
"""How a scene is shown, as plain data. `rollout.render` carries it out."""


class View(NamedTuple):
    """One way to look at a scene while scoring."""

    show: ViewSpec
    policy: Literal["now", "reference"] = "now"
    """Whose weights look: those being trained, or those that training started from (the reference KL is a view too)."""
    gate: Callable[[B], Bool[Tensor, " B"]] | None = None
    """advantage_B -> the rollouts that it is spent on; None is all. The others' statistics are zero."""

    def through(self, batch: Batch) -> Bool[Tensor, " B"]:
        """The rollouts that the gate lets through."""
        return torch.ones_like(batch.mask_BT[:, 0]) if self.gate is None else self.gate(batch.advantage_B)


class Read(NamedTuple):
    """One thing the scorer must compute for every response token."""

    view: str
    quantity: Literal["logp", "entropy", "kl", "js"]
    """Log-probability of the sampled token; entropy of its distribution; divergence over the vocabulary."""
    against: str | None = None
    """For a divergence: KL(`view` || `against`), or JS(`view`, `against`)."""
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

    def js(self, view: str, against: str) -> BT:
        """Jensen-Shannon divergence of the two over the vocabulary, nats."""
        return self._get(view, "js", against)

    def read(self, read: Read) -> BT:
        """Whatever was declared."""
        return self._get(*read[:3])

    def rows(self, index: slice | Tensor) -> Stats:
        """Those of some of the rollouts."""
        return Stats({key: value_BT[index] for key, value_BT in self.value.items()})

    def to(self, device: torch.device) -> Stats:
        """The same on another device."""
        return Stats({key: value_BT.to(device) for key, value_BT in self.value.items()})

    def detach(self) -> Stats:
        """The same numbers without gradient."""
        return Stats({key: value_BT.detach() for key, value_BT in self.value.items()})


# ---------------------------------------------------------------------------------------------------- methods


Select = Callable[["Batch", "Stats"], Mask]
"""(batch, frozen) -> the tokens that are selected."""


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
    select: Select | None = None
    """The tokens it is about, if not all: what `total` and `weigh` count, and what is logged of the selection."""
    needs: Callable[[Batch], Bool[Tensor, " B"]] | None = None
    """The rollouts at which it can be other than 0, if not all: the others need not be scored for it."""


Objective = Mapping[str, Term]
"""What a method minimises: the sum of its terms. The name is the metric's key."""


class About(NamedTuple):
    """Where a method comes from, for `vergence methods` and docs/papers.md."""

    title: str
    paper: str
    """arXiv number."""
    variant: str
    base: str = ""
    """The method that is left when every coefficient of the paper's own is 0; empty for a base."""
    deviations: tuple[str, ...] = ()
    """Each place in which this differs from the source it names."""
    reconstructed: tuple[str, ...] = ()
    """Each formula that is ours because the source does not print it."""
    coefficient: str = ""
    """The option that is the coefficient of the paper's own term; empty where there is no such term."""


class Reshape(NamedTuple):
    """From one advantage per rollout to one per token, by what the views say under the weights that sampled."""

    reads: tuple[Read, ...]
    """All of them `frozen`."""
    advantage: Callable[[Batch, Stats, Callable[[B], B]], BT]
    """(batch, frozen, everywhere) -> advantage_BT. `everywhere` gives a per-rollout number of the whole round, on all
    ranks, from this rank's: whatever is normalised over rollouts is normalised over those."""
    select: Select | None = None
    """The tokens whose advantage is not set to zero, if not all."""


class RewardSpec(NamedTuple):
    """reward = accuracy * right + format * well-formed - penalties."""

    accuracy: float = 0.9
    format: float = 0.1
    overlong: float = 0.0
    """Soft penalty on the last share of the longest response (DAPO): 0 at its start, 1 at the limit. 0 is off."""
    judge: Literal["verifier", "reasoner"] = "verifier"
    """Who says what is right: the verifier, of the response; or of what a reasoner answers from it, as a caption."""
    samples: int = 1
    """Answers of the reasoner to each caption; their mean counts."""
    leak: float = 0.0
    """Penalty on a caption that gives the answer away."""


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
    keep: Callable[[SG], Bool[Tensor, " S"]] | None = None
    """Correctness -> the groups that train (dynamic sampling); None is all. Never from the combined reward."""
    reshape: Reshape | None = None
    """What becomes of the advantages before the surrogate sees them; None is nothing."""
    fresh: bool = False
    """Whether frozen statistics are read anew before every optimizer step, instead of once per round."""


def with_advantage(batch: Batch, advantage_B: B) -> Batch:
    """The same rollouts with these advantages, the same at all their tokens."""
    return replace(
        batch, advantage_B=advantage_B, advantage_BT=advantage_B[:, None].expand(batch.mask_BT.shape).clone()
    )


Metrics = dict[str, Any]
"""One line of metrics.jsonl."""
