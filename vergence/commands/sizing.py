"""Commands that say what fits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vergence.report.table import print_json, print_table
from vergence.types import UserError


@dataclass(frozen=True)
class Changed:
    """Settings in place of the recipe's."""

    adapter: Literal["none", "lora", "qlora"] | None = None
    """In place of the recipe's; so are these:"""
    tower: Literal["trained", "frozen"] | None = None
    """Whether the vision tower learns."""
    gradient_checkpointing: bool | None = None
    """Whether layers are computed again in the backward pass."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the weights."""
    max_tokens: int | None = None
    """Longest response."""
    token_budget: int | None = None
    """Tokens in one forward pass."""
    sample_batch: int | None = None
    """Responses that are sampled at once."""
    scorer: Literal["auto", "naive", "graph", "leaf", "recompute"] | None = None
    """How responses are scored."""


def data_pixels(
    memory: str,
    model: str = "",
    recipe: str = "qwen2.5-vl-3b",
    method: str = "papo",
    config: Path | None = None,
    changed: Annotated[Changed, tyro.conf.arg(name="")] = Changed(),
    text_tokens: int = 256,
    images: int = 1,
    spare: float = 0.1,
    json: bool = False,
) -> None:
    """Say how large images may be: the largest --max-pixels with which a run fits into this much memory.

    Example: vergence data pixels --memory 24GiB --recipe qwen2.5-vl-3b-lora --model path/to/Qwen2.5-VL-3B-Instruct

    Args:
        memory: Of the device: 24GiB, 24GB, or 24 for GiB.
        model: A folder that holds the model's config.json, or a Hub name. Its weights are not read.
        recipe: Where the run's settings come from.
        method: An entry of `vergence methods`: what it looks at costs memory.
        config: A config.yaml to take the settings from instead of a recipe.
        text_tokens: Of a prompt besides its images.
        images: To a prompt.
        spare: The share of memory left to what no plan counts: the framework, fragmentation.
        json: Print one line of JSON.
    """
    from vergence.recipes import recipe as of_recipe
    from vergence.train.config_file import load_config
    from vergence.train.memory import gib
    from vergence.train.pixels import FEWEST, bytes_of, largest, room_of

    if not 0 <= spare < 1:
        raise UserError(f"--spare is a share of the memory, in [0, 1), got {spare}")
    start = load_config(config) if config else of_recipe(recipe, method)
    given = {name: value for name, value in asdict(changed).items() if value is not None}
    chosen = replace(start, model=model or start.model, **given)
    there = int(bytes_of(memory) * (1 - spare))
    room = room_of(chosen, text=text_tokens, images=images)
    most = largest(room, there)
    if json:
        print_json(
            {"max_pixels": room.pixels(most), "image_tokens": most, "bytes": there, "side": room.side}
            | {"plan": room.with_images(most or FEWEST).plan()._asdict()}
        )
    else:
        _tell(room, most, there)
    if not most:
        least = replace(room.with_images(FEWEST), there=there)
        if room.trouble(FEWEST, there) == "context":
            raise UserError(
                f"the model attends to {room.context:,} tokens, and {text_tokens:,} of text, a response of up to "
                f"{chosen.max_tokens:,} and {images} image(s) of {FEWEST} are {room.reach(FEWEST):,}: no memory helps. "
                f"Take a smaller --max-tokens or --text-tokens, or a model with a longer context"
            )
        raise UserError(
            f"even images of {FEWEST} tokens take {gib(least.plan().total)}, and there are {gib(there)} "
            f"({spare:.0%} of {memory} are left spare): {least.advice()}"
        )


def _tell(room: Any, most: int, there: int) -> None:
    """Print the table, and the line that answers."""
    from vergence.train.memory import gib
    from vergence.train.pixels import table

    rows = []
    for tokens, memory in table(room, most):
        plan = memory.plan()
        cells = (plan.prompts, plan.responses + plan.head, plan.sampling, plan.total)
        fits = {"": "yes", "memory": "no", "context": "above the context"}[room.trouble(tokens, there)]
        rows.append([f"{tokens}", f"{room.pixels(tokens)}", *(f"{cell / 2**30:.2f}" for cell in cells), fits])
    columns = ["image tokens", "pixels", "prompts, GiB", "responses", "or sampling", "in all", f"in {gib(there)}"]
    print_table(f"memory by the size of {room.images} image(s) to a prompt", columns, rows)
    if most:
        side = int(room.pixels(most) ** 0.5)
        print(f"--max-pixels {room.pixels(most)}: {most} image tokens, such as {side} x {side} pixels")
        if room.trouble(most + 1, there) == "context":
            print(f"the limit is the model's context of {room.context:,} tokens, not memory")
