"""The command that says how many devices a run needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vergence.commands.given import settings
from vergence.commands.sizing import Changed
from vergence.report.table import print_json, print_table
from vergence.types import UserError

COLUMNS = (
    "model", "adapter", "devices", "rest", "sample", "score", "most", "fits by", "sample", "read", "update", "wires",
    "step",
)  # fmt: skip
"""Of one device: GiB at rest, while it samples and scores, and at most; by which --token-budget and --sample-batch it
fits; seconds of an optimizer step, by what."""


@dataclass(frozen=True)
class Shape:
    """What a batch is."""

    scenes_per_batch: int | None = None
    """In place of the recipe's; so is:"""
    siblings: int | None = None
    """Responses to a scene."""
    text_tokens: int = 200
    """Of a prompt besides its image."""
    image_tokens: int = 800
    """Of a prompt's image."""
    response_tokens: int = 500
    """On average. Memory is planned for the longest, --max-tokens."""


@dataclass(frozen=True)
class Assumed:
    """What is assumed of the devices."""

    tflops: float = 400.0
    """Assumed: 1e12 floating-point operations that a device achieves in a second."""
    bandwidth: float = 2000.0
    """Assumed: 1e9 bytes of its memory that a device reads in a second."""
    wires: float = 200.0
    """Assumed: 1e9 bytes that a device sends within its node in a second; and"""
    between: float = 25.0
    """between nodes; and"""
    host: float = 20.0
    """to and from the CPU's memory."""
    node: int = 8
    """Devices of a node."""
    sampled: float = 0.0
    """Tokens that one device samples in a second, if you have measured it."""


def scale(
    models: tuple[str, ...] = ("3b", "7b", "32b", "72b"),
    devices: tuple[int, ...] = (1, 8, 16, 64),
    memory: str = "80GiB",
    recipe: str = "qwen2.5-vl-7b",
    method: str = "papo",
    set: tuple[str, ...] = (),
    config: Path | None = None,
    changed: Annotated[Changed, tyro.conf.arg(name="")] = Changed(),  # noqa: B008 (frozen)
    shape: Annotated[Shape, tyro.conf.arg(name="")] = Shape(),
    shards: int | None = None,
    offload: bool = False,
    sampler: Literal["own", "vllm", "vllm-server"] | None = None,
    assumed: Annotated[Assumed, tyro.conf.arg(name="")] = Assumed(),
    spare: float = 0.1,
    json: bool = False,
) -> None:
    """Say what a run takes on so many devices: memory of each, and seconds of a step. Both are models.

    Without --adapter, once with all weights ("none") and once with LoRA.

    Example: vergence scale --models 7b --devices 1 8 --adapter lora

    Args:
        models: Published ones (3b, 7b, 32b, 72b, qwen3-vl-8b, ...), or folders that hold a model's config.json.
        devices: How many, each with a process of its own.
        memory: Of a device.
        recipe: Where the run's settings come from.
        method: An entry of `vergence methods`: what it looks at costs memory and time.
        set: Settings of the method, as NAME=VALUE: beta=0 needs no second copy of the weights.
        config: A config.yaml to take the settings from instead of a recipe.
        shards: How many share one copy of the weights (0: all), in place of the recipe's; so are:
        offload: Keep shares and the optimizer's state in the CPU's memory between steps.
        sampler: Who samples: the policy itself, or vLLM beside it ("vllm-server": for several processes too).
        spare: The share of memory left to what no plan counts.
        json: Print one line of JSON.
    """
    from vergence.recipes import recipe as of_recipe
    from vergence.train.config_file import load_config
    from vergence.train.pixels import bytes_of

    _check(devices, assumed, spare)
    start = load_config(config) if config else of_recipe(recipe, method)
    given = asdict(changed) | {name: getattr(shape, name) for name in ("scenes_per_batch", "siblings")}
    given |= {"shards": shards, "offload": offload or None, "sampler": sampler}
    options = {**start.options, **settings(set, "--set", "beta=0")}
    start = replace(start, options=options, **{name: value for name, value in given.items() if value is not None})
    whole = bytes_of(memory)
    there = int(whole * (1 - spare))
    made = partial(_rows, devices=devices, shape=shape, assumed=assumed, whole=whole, there=there)
    adapters = (changed.adapter,) if changed.adapter else ("none", "lora")
    rows = [row for model in models for adapter in adapters for row in made(replace(start, adapter=adapter), model)]
    if json:
        print_json({"assumed": asdict(assumed), "shape": asdict(shape), "bytes": there, "rows": rows})
        return
    batch = (
        f"{start.method}, {start.scenes_per_batch} scenes x {start.siblings} responses in {start.steps_per_batch} steps"
    )
    title = f"{batch}: GiB of {there / 2**30:.0f} to a device, seconds of a step; a model, not measured"
    print_table(title, COLUMNS, [cells(row) for row in rows])


def cells(row: Any) -> list[str]:
    """A row of the table in words, by `COLUMNS`; of what does not fit, no time.

    >>> phases = {"sampling": 2**30, "scoring": 2**31, "updating the weights": 0}
    >>> cells({"model": "Qwen/Qwen2.5-VL-3B-Instruct", "adapter": "none", "devices": 8, "fits": False,
    ...        "plan": {"stays": 2**29, "total": 2**31}, "phases": phases})[:8]
    ['qwen2.5-vl-3b', 'none', '8', '0.5', '1.0', '2.0', '2.0', 'no']
    """
    plan, phases = row["plan"], row["phases"]
    taken = (plan["stays"], phases["sampling"], phases["scoring"], plan["total"])
    name = row["model"].removeprefix("Qwen/").removesuffix("-Instruct").lower()
    head = [name, row["adapter"], f"{row['devices']}", *(_short(number / 2**30) for number in taken)]
    if not row["fits"]:
        return [*head, "no", *[""] * (len(COLUMNS) - len(head) - 1)]
    return [*head, f"{row['token_budget']}, {row['sample_batch']}", *map(_short, row["seconds"].values())]


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def _check(devices: tuple[int, ...], assumed: Assumed, spare: float) -> None:
    if not devices or min(devices) < 1:
        raise UserError(f"--devices are at least 1 each, got {' '.join(map(str, devices)) or 'none'}")
    for name, number in asdict(assumed).items():
        if not (number > 0 or (name == "sampled" and number == 0)) or number == float("inf"):
            raise UserError(f"--{name} must be above 0 and finite, got {number}")
    if not 0 <= spare < 1:
        raise UserError(f"--spare is a share of the memory, in [0, 1), got {spare}")


def _rows(
    config: Any, model: str, *, devices: tuple[int, ...], shape: Shape, assumed: Assumed, whole: int, there: int
) -> Iterator[Any]:
    """The rows of one model, as data."""
    from vergence.models.published import SHORT, config_of, published
    from vergence.train.pixels import config_found, room_of
    from vergence.train.processes import refuse_alone

    for number in devices:
        if number > 1:
            refuse_alone(config, number)
    known = model.lower() in SHORT or not Path(model).exists()
    config = replace(config, model=published(model) if known else model)
    found = config_of(config.model) if known else config_found(config)
    memory = room_of(config, text=shape.text_tokens, images=1, found=found).with_images(shape.image_tokens)
    for number in devices:
        yield _row(replace(memory, processes=number, device=whole), there, found, shape.response_tokens, assumed)


def _row(memory: Any, there: int, found: Any, response: int, assumed: Assumed) -> Any:
    from vergence.train.layout import layout_of
    from vergence.train.scale import Machine, Work, at_once, fitting, on_the_wires, patches_seen, seconds

    fits = fitting(memory, there)
    plan, layout, longest = fits.plan(), layout_of(fits.config, fits.processes), fits.longest
    work = Work(longest.tokens, longest.patches, response, patches_seen(found, longest.patches))
    machine = Machine(
        assumed.tflops * 1e12,
        *(number * 1e9 for number in (assumed.bandwidth, assumed.wires, assumed.between, assumed.host)),
        node=assumed.node,
        sampled=assumed.sampled,
    )
    engine = plan.engine or plan.awake
    times = seconds(fits.sizes, fits.config, fits.method, work, fits.keep, layout, machine, engine=engine)
    inside, copies = on_the_wires(fits.sizes, layout)
    samples = at_once(fits.sizes, fits.config, work, fits.config.sample_batch, engine)
    fit, remedy = plan.total <= there and samples > 0, ""
    if plan.total > there:
        remedy = replace(fits, there=there).advice()
    elif not samples:
        part = f"--sampler-memory {fits.config.sampler_memory}"
        remedy = f"{part} of a device does not hold the weights and one response: give it more, or a server elsewhere"
    return {
        "model": fits.config.model,
        "adapter": fits.config.adapter,
        "devices": fits.processes,
        "fits": fit,
        "remedy": remedy,
        "token_budget": fits.config.token_budget,
        "sample_batch": fits.config.sample_batch,
        "plan": plan._asdict() | {"stays": plan.stays, "total": plan.total},
        "phases": {phase: plan.stays + plan.during(phase) for phase in ("sampling", "scoring", "updating the weights")},
        "seconds": times._asdict() | {"total": times.total},
        "sent": {"inside": int(inside), "copies": int(copies)},
    }
