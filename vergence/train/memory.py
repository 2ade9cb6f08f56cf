"""How much memory a run will take, by what, and which option moves it; said again when memory runs out.

An estimate from the sizes of the model (`train.plan`): every response as long as it may be, every prompt as the longest
of some; of several processes, what each of them needs. Not counted are a saliency encoder, what a reasoner needs beside
its weights, and what the framework itself takes.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vergence.models.reasoner import EMBEDDED
from vergence.models.sizes import Sizes
from vergence.train.config import Config
from vergence.train.layout import layout_of
from vergence.train.plan import Keep, Longest, Phase, Plan, plan
from vergence.types import Method, UserError

__all__ = [
    "HalfUpdated",
    "Keep",
    "Longest",
    "Memory",
    "OutOfMemory",
    "Phase",
    "Plan",
    "Unheard",
    "during",
    "gib",
    "numbers_in",
    "reasoner_bytes",
    "there_is",
]


class OutOfMemory(UserError):
    """Memory has run out; see `during`."""

    def __init__(self, told: str, phase: Phase) -> None:
        super().__init__(told)
        self.phase = phase


class HalfUpdated(OutOfMemory):
    """It has in the middle of an update: the weights are of no step, and must not be saved. Or while processes sent
    each other weights or gradients: the others wait for that, and for no saving."""


class Unheard(MemoryError):
    """Memory has run out in one process while others wait for what it was to send."""


@dataclass(frozen=True)
class Memory:
    """What a run needs, and what there is."""

    sizes: Sizes
    config: Config
    method: Method
    longest: Longest
    keep: Keep
    """How responses are scored, "auto" decided."""
    there: int | None = None
    """Bytes that there are for this process; None if nobody knows."""
    processes: int = 1
    """How many train together; what is counted here is one of them."""
    beside: int = 0
    """Bytes of other models in this process: `reasoner_bytes`."""
    device: int | None = None
    """Bytes of the whole device, of which an engine in this process takes its part; None: `there`."""

    def plan(self) -> Plan:
        """What the run needs, in this process."""
        return plan(
            self.sizes,
            self.config,
            self.method,
            self.longest,
            self.keep,
            layout=layout_of(self.config, self.processes),
            beside=self.beside,
            device=self.there or 0 if self.device is None else self.device,
        )

    def told(self) -> str:
        """The plan in a few lines, with the option that moves each; and a warning if it is above what there is."""
        plan, config, layout = self.plan(), self.config, layout_of(self.config, self.processes)
        knob, part = f"--token-budget {config.token_budget}, --scorer {self.keep}", f"1/{layout.shards} of them, "
        rows = [("weights", plan.weights, f"{part if layout.several else ''}--dtype {config.dtype}")]
        rows += [("reference policy", plan.reference, "")] if plan.reference else []
        rows += [("gradients, AdamW", plan.trained, "" if config.adapter == "none" else f"--adapter {config.adapter}")]
        rows += [("reasoner", plan.beside, f"--reasoner {config.reasoner}")] if plan.beside else []
        rows += [("vLLM", plan.awake, f"--sampler-memory {config.sampler_memory}")] if plan.awake else []
        rows += [("scoring", plan.during("scoring"), knob)]
        if layout.several:
            rows += [("  whole weights", plan.gathered, ""), ("  and gradients", plan.gradients, "")]
        rows += [("  prompts", plan.prompts, ""), ("  responses", plan.responses, ""), ("  head", plan.head, "")]
        rows += [("  or passing", plan.passing, "gradients of one backward pass")] if plan.passing else []
        rows += [("  or verifying", plan.verifying, "--no-verify-scorer")] if plan.verifying else []
        rows += [("or sampling", plan.during("sampling"), f"--sample-batch {config.sample_batch}")]
        rows += [("  vLLM", plan.engine, f"--sampler-memory {config.sampler_memory}")] if plan.engine else []
        rows += [("or updating", plan.updating, "")]
        rows += [("at most", plan.total, "" if self.there is None else f"of {gib(self.there)}")]
        of = f", each of {layout.processes} processes" if layout.several else ""
        lines = [f"memory{of}, GiB (estimated)"]
        lines += [f"  {name:<16}{number / 2**30:>8.2f}  {knob}".rstrip() for name, number, knob in rows]
        if self.there is not None and plan.total > self.there:
            lines.append(f"warning: there may be too little memory for this; {self.advice()}")
        return "\n".join(lines)

    def remedy(self, phase: Phase) -> str:
        """Which option to change, to what, and the estimate that this leads to."""
        ways: list[tuple[str, Memory]] = []
        if phase == "scoring":
            a_row = self.config.max_tokens + (0 if self.keep == "recompute" else self.longest.tokens)
            ways += self._smaller(phase, "token_budget", a_row)
            if not self.config.gradient_checkpointing:
                ways.append(("--gradient-checkpointing", self._checkpointed()))
            again = replace(self, keep="recompute")
            if self.keep in ("graph", "leaf") and again.plan().scoring < 0.95 * self.plan().scoring:
                ways.append(("--scorer recompute", again))
        elif phase == "sampling":
            ways += self._smaller(phase, "sample_batch", 1)
        ways += self._spread()
        if ways:
            told = (f"{way} (about {gib(other.plan().stays + other.plan().during(phase))})" for way, other in ways)
            return f"take {' or '.join(told)}: memory only, the result does not change"
        if phase not in ("scoring", "sampling", "evaluating"):
            least = "" if self.config.adapter != "none" else "--adapter lora, "
            return f"no option takes less with the same result: take {least}a smaller model or another device"
        return "take smaller images (--max-pixels; see `vergence data pixels`) or a smaller --max-tokens"

    def advice(self) -> str:
        """What to do where the plan is above what there is."""
        plan = self.plan()
        phase: Phase = max(("updating the weights", "sampling", "scoring"), key=plan.during)
        return self.remedy("updating the weights" if self.there is not None and plan.stays > self.there else phase)

    def _checkpointed(self) -> Memory:
        """The same with layers computed again."""
        config = replace(self.config, gradient_checkpointing=True)
        return replace(self, config=config, sizes=self.sizes._replace(recomputed=True))

    def _spread(self) -> list[tuple[str, Memory]]:
        """Several processes: the shares smaller, or elsewhere, where that makes a difference."""
        changes = {"--shards 0": {"shards": 0}, "--offload": {"offload": True}} if self.processes > 1 else {}
        others = [(way, replace(self, config=replace(self.config, **change))) for way, change in changes.items()]
        return [(way, other) for way, other in others if other.plan().stays < 0.9 * self.plan().stays]

    def _smaller(self, phase: Phase, name: str, least: int) -> list[tuple[str, Memory]]:
        """The field halved, until that makes a difference and as long as there is too little; [] if it cannot be."""
        value, found = getattr(self.config, name), []
        while value > least:
            value = max(least, value // 2)
            other = replace(self, config=replace(self.config, **{name: value}))
            if other.plan().during(phase) < 0.9 * self.plan().during(phase):
                found = [(f"--{name.replace('_', '-')} {value}", other)]
                if self.there is None or other.plan().stays + other.plan().during(phase) <= self.there:
                    break
        return found

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """To what was said of memory that ran out, add what was expected and what to do.

        Raises:
            OutOfMemory: it has run out in here, and `during` has said where.
        """
        try:
            yield
        except OutOfMemory as error:
            plan, phase = self.plan(), error.phase
            told = f"{error}; the estimate was {gib(plan.stays + plan.during(phase))}. To go on, {self.remedy(phase)}"
            raise type(error)(told, phase) from None


@contextmanager
def during(phase: Phase) -> Iterator[None]:
    """Say where memory ran out, if it does in here.

    Raises:
        OutOfMemory: it has; what was held in here is let go, so that there is room to save what is finished.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        piece = re.search(r"ried to allocate ([\d.]+ \w+)", str(error))
        told = f"out of memory while {phase}" + (f", with {piece[1]} more" if piece else "")
        _let_go(error)
        half = phase == "updating the weights" or isinstance(error, Unheard)
        raise (HalfUpdated if half else OutOfMemory)(told, phase) from None


def _let_go(error: BaseException | None) -> None:
    """Of what is held by the frames through which an error came: a graph, above all."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, of a machine or a device.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes do not match"))
    (True, False)
    """
    words = ("out of memory", "can't allocate memory", "DefaultCPUAllocator", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(some in str(error) for some in words)


def there_is(device: torch.device) -> int | None:
    """Bytes that this process can have on a device, what it has already among them; None if nobody knows.

    Of a CPU's memory, the part of each process that `torchrun` has started on this machine.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type == "cpu" and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        told = os.environ.get("LOCAL_WORLD_SIZE", "")
        sharing = max(1, int(told)) if told.isdecimal() else 1
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // sharing
    return None


def gib(number: int) -> str:
    """Bytes in words.

    >>> gib(3 * 2**29)
    '1.50 GiB'
    """
    return f"{number / 2**30:.2f} GiB"


def reasoner_bytes(config: Config, method: Method) -> int:
    """Bytes of the reasoner's weights, in float32, where one answers in this process; of no other model.

    >>> from vergence import objectives
    >>> reasoner_bytes(Config(reasoner="weak"), objectives.method("grpo"))
    0
    """
    if method.reward.judge != "reasoner" or "://" in config.reasoner:
        return 0
    files = EMBEDDED.get(config.reasoner, Path(config.reasoner)).glob("*.safetensors")
    return 4 * sum(numbers_in(file) for file in files)


def numbers_in(file: Path) -> int:
    """How many numbers a safetensors file holds, by its head; 0 if it is none."""
    try:
        with safe_open(file, "pt") as opened:
            return sum(prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return 0
