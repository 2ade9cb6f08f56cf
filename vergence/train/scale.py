"""How long an optimizer step takes on so many devices, and what travels between them: a model, not a measurement.

Of one view, with S scenes, G responses of R tokens to each, prompts of P tokens and s patches, a forward pass computes

    tower       S [2 s (q E + t (4E^2 + 2 or 3 E F')) + 4 t s n E + 2 m (s/4) (16E^2 + 4ED)]
    prompts     S P [2 l (2DA + 2DK + 3DF) + 4 l A P]
    responses   S G R [2 l (2DA + 2DK + 3DF) + 4 l A (P + R)]
    head        2 S G R D V

(l and t layers of the language model and the tower, of widths D and E, inside F and F', queries A and keys K wide, q
numbers to a patch, n patches that a patch attends to, m mergers; attention is counted whole). With gradient it costs 3,
of frozen weights 2 and in their attention 3, of layers that are computed again one more but for their last product, and
of a large vocabulary's head one more (`scoring.head`). A token is sampled in the time in which the weights, and the
keys and values of all that are sampled at once, are read once. On the wires, per process and step, with the letters of
`train.plan`:

    weights     bn (k - 1)/k        those that learn are gathered
    gradients   4n (k - 1)/k        added and shared out
                8n/k (r - 1)/r      added over the r = W/k copies
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from vergence.models.sizes import Sizes
from vergence.objectives.objective import reads_of_method
from vergence.rollout.vllm_server import IN_FLIGHT
from vergence.scoring.head import KEPT
from vergence.train.config import Config
from vergence.train.gap import is_read
from vergence.train.layout import Layout
from vergence.train.memory import Memory
from vergence.train.plan import Keep, learning
from vergence.types import Method

ENGINE = 1024
"""Responses that vLLM writes at once by itself, on a GPU of 70 GiB and more (an A100: 256)."""


class Machine(NamedTuple):
    """What is assumed of the devices; none of it is measured here. Per device, and per second."""

    flops: float = 400e12
    """Floating-point operations that are achieved (an H100's data sheet: 989e12 in bfloat16)."""
    bandwidth: float = 2e12
    """Bytes of its memory that are read while it samples and updates (data sheet: 3.35e12)."""
    wires: float = 200e9
    """Bytes that it sends to others of its node."""
    between: float = 25e9
    """Bytes that it sends to other nodes."""
    host: float = 20e9
    """Bytes that go to and from the CPU's memory, where the optimizer's state is kept there."""
    node: int = 8
    """Devices of a node."""
    sampled: float = 0.0
    """Tokens that one device samples, where that has been measured; 0 is the time to read weights, keys and values."""


class Work(NamedTuple):
    """What a scene is, in tokens."""

    prompt: int
    """P, the image's among them."""
    patches: int
    """s."""
    response: int
    """R, on average: `config.max_tokens` is the longest."""
    seen: float
    """n: patches that a patch attends to, on average over the tower's layers."""


class Flops(NamedTuple):
    """Floating-point operations of a forward pass, and of those the share that is attention."""

    tower: float
    prompts: float
    responses: float
    head: float
    attention: float
    """Of prompts and responses together; counted in these."""
    last: float
    """Of these, the last product of every layer, which nobody computes again."""


class Passes(NamedTuple):
    """How often everything is read: views, by what is asked of them."""

    frozen: int
    """Once a round, or once a step where the method reads them anew."""
    live: int
    """Once a step, without gradient."""
    learning: int
    """Once a step, with gradient."""


class Seconds(NamedTuple):
    """Of an optimizer step, on average over a round."""

    sampling: float
    reading: float
    """What is read without gradient."""
    updating: float
    """Forward and backward passes, and AdamW."""
    wires: float

    @property
    def total(self) -> float:
        """One after the other."""
        return sum(self)


def patches_seen(found: Any, patches: int) -> float:
    """How many patches of an image a patch attends to, on average over the layers of a model's tower.

    Args:
        found: the model's Hugging Face config.
    """
    vision = found.vision_config
    whole = getattr(vision, "fullatt_block_indexes", None)
    if not whole:
        return float(patches)
    window = min(patches, (vision.window_size // vision.patch_size) ** 2)
    return (len(whole) * patches + (vision.depth - len(whole)) * window) / vision.depth


def passes(method: Method, *, gap: bool = False) -> Passes:
    """The views of a method; where the gap to another sampler is looked at, what was sampled is read for that as well.

    >>> from vergence import objectives
    >>> passes(objectives.method("papo", beta=0.0)), passes(objectives.method("papo@full", beta=0.0)).learning
    (Passes(frozen=1, live=0, learning=1), 2)
    """
    own = {method.sample_view}
    when: dict[str, set[str]] = {"frozen": own if gap else set(), "live": set(), "grad": {*own}}
    for read in reads_of_method(method):
        when[read.when].update(name for name in (read.view, read.against) if name)
    return Passes(len(when["frozen"]), len(when["live"] - when["grad"]), len(when["grad"]))


def forward(size: Sizes, work: Work, scenes: int, siblings: int, *, naive: bool = False) -> Flops:
    """One forward pass through all responses of so many scenes; `naive` reads the prompt again for each."""
    D, A, K, E, t = size.width, size.heads * size.head, size.key_heads * size.head, size.tower_width, size.tower_layers
    s, P, R, rows = work.patches, work.prompt, work.response, scenes * siblings
    products = 2 * size.layers * (2 * D * (A + K) + 3 * D * size.inner)
    attention = 4 * size.layers * A
    inside = (3 if size.tower_gated else 2) * E * size.tower_inner
    tower = 2 * s * (size.patch * E + t * (4 * E * E + inside)) + 4 * t * s * work.seen * E
    tower += 2 * size.mergers * (s / 4) * (16 * E * E + 4 * E * D)
    images = rows if naive else scenes
    attended = attention * (images * P * P + rows * R * (P + R))
    return Flops(
        images * tower,
        images * P * (products + attention * P),
        rows * R * (products + attention * (P + R)),
        2 * rows * R * D * size.vocabulary,
        attended,
        2 * size.layers * D * size.inner * (images * P + rows * R),
    )


def with_gradient(size: Sizes, one: Flops, keep: Keep) -> float:
    """Floating-point operations of a forward and a backward pass, of one forward pass's."""
    again, frozen = int(size.recomputed), bool(size.rank)
    tower = one.tower * (3 + again if size.tower_learns else 1)
    language = one.prompts + one.responses
    spent = tower + language * (3 + again) - frozen * (language - one.attention)
    spent -= again * one.last
    spent += one.head * (3 - frozen + (keep != "naive" and size.vocabulary > KEPT * size.width))
    return spent + (one.tower * size.tower_learns + one.prompts if keep == "recompute" else 0.0)


def sampled_per_second(size: Sizes, work: Work, machine: Machine, rows: int) -> float:
    """Tokens that one device samples, so many responses together, in the middle of a response."""
    if machine.sampled:
        return machine.sampled
    D, A, K = size.width, size.heads * size.head, size.key_heads * size.head
    read = size.number * (size.layers * (2 * D * (A + K) + 3 * D * size.inner) + size.vocabulary * D)
    kept = size.cached(rows) * (work.prompt + work.response / 2)
    computed = rows * (2 * read / size.number + 4 * size.layers * A * (work.prompt + work.response / 2))
    return rows / max((read + kept) / machine.bandwidth, computed / machine.flops)


def on_the_wires(size: Sizes, layout: Layout) -> tuple[float, float]:
    """Bytes that one process sends in a step: among those that share a copy of what learns, and between copies."""
    n, k, copies = learning(size), layout.shards, layout.processes // layout.shards
    return (size.learning + 4 * n) * (k - 1) / k, 8 * n / k * (copies - 1) / copies


def at_once(size: Sizes, config: Config, work: Work, rows: int, engine: int) -> int:
    """How many of so many responses are sampled together: by an engine of so many bytes, as many as it has keys and
    values for; 0 if it does not even hold the weights and one of the longest. A server is asked for so many at most."""
    if config.sampler == "own":
        return min(rows, config.sample_batch)
    most = ENGINE if config.sampler == "vllm" else min(ENGINE, IN_FLIGHT * config.siblings)
    if "://" in config.sampler:  # nobody knows its memory
        return min(rows, most)
    room = engine - size.weights
    if room < size.cached(work.prompt + config.max_tokens):
        return 0
    return min(rows, most, room // size.cached(work.prompt + work.response))


def seconds(
    size: Sizes,
    config: Config,
    method: Method,
    work: Work,
    keep: Keep,
    layout: Layout,
    machine: Machine,
    engine: int = 0,
) -> Seconds:
    """Of an optimizer step. Everybody waits for whoever has the most scenes; nothing is done at the same time. One vLLM
    engine, on one device, samples for all processes.

    Every response is counted as scored under every view: gates, and rollouts without advantage, take less; dynamic
    sampling draws more.

    Args:
        engine: bytes of a vLLM engine that samples.
    """
    scenes, steps = layout.scenes(config.scenes_per_batch), config.steps_per_batch
    read, some = passes(method, gap=is_read(config)), layout.scenes(config.scenes_per_batch // config.parts)
    asked = scenes if config.sampler == "own" else config.scenes_per_batch
    rows = asked * config.siblings
    whole, part = (forward(size, work, one, config.siblings, naive=keep == "naive") for one in (scenes, some))
    rounds = sum(part[:4]) if method.fresh else sum(whole[:4]) / steps
    prompts = forward(size, work, asked, config.siblings)
    rate = sampled_per_second(size, work, machine, max(1, at_once(size, config, work, rows, engine)))
    sampling = (prompts.tower + prompts.prompts) / machine.flops + rows * work.response / rate
    moved = 7 * 4 * learning(size) / layout.shards  # weight, gradient and moments are read, all but one written
    away = layout.offload and layout.several
    adamw = (moved + 8 * learning(size) / layout.shards) / machine.host if away else moved / machine.bandwidth
    inside, copies = on_the_wires(size, layout)
    near = machine.wires if layout.shards <= machine.node else machine.between
    far = machine.wires if layout.processes <= machine.node else machine.between
    return Seconds(
        sampling / steps,
        (read.frozen * rounds + read.live * sum(part[:4])) / machine.flops,
        read.learning * with_gradient(size, part, keep) / machine.flops + adamw,
        inside / near + copies / far,
    )


def fitting(memory: Memory, there: int) -> Memory:
    """The run with so small micro-batches, of scoring and of sampling, that it fits; or, if none do, as it was.

    Both are memory only. A token budget is halved to one prompt and response, a sample batch to one response.
    """
    made, least = memory, memory.longest.tokens + memory.config.max_tokens
    while (plan := made.plan()).total > there:
        config = made.config
        if plan.stays + plan.during("scoring") > there and config.token_budget > least:
            config = replace(config, token_budget=max(least, config.token_budget // 2))
        elif plan.stays + plan.during("sampling") > there and config.sample_batch > 1:
            config = replace(config, sample_batch=config.sample_batch // 2)
        else:
            return memory
        made = replace(made, config=config)
    return made
