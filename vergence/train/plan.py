"""What memory a run takes, in bytes, by what: arithmetic on the sizes of its model and the fields of its config.

With N numbers of which n learn, b bytes to a number, and 4 to one of float32, a single process keeps bN of weights, bn
of gradients and 8n of AdamW's moments, and where b is not 4 the float32 masters, 4n. Of W processes, k of which share
one copy of what learns (`config.shards`; 0 is all), each keeps

    all the time         b(N - n) of what does not learn; 4n/k of what learns, in float32, and 8n/k of moments
    sampling, scoring    bn besides: the whole of what learns, in the type in which the model computes
    scoring              4n besides: the gradients of the whole, in float32, until they are added over processes;
                         where b is not 4, bn for those of one backward pass, which come when what it kept goes
    updating             4n/k instead: this process's share of them

and the frozen reference whole. With `config.offload` shares and moments are in the CPU's memory, on a GPU. An update
takes besides, on a GPU, one number of float32 for each that is updated at a time, where AdamW works on all weights at
once; of masters, `masters.AT_ONCE` at a time, and their gradients in float32. A vLLM engine on the same GPU takes its
share of it (`config.sampler_memory`), and sleeps but for sampling, unless it samples ahead; on a CPU it never sleeps.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from vergence.models.sizes import Sizes
from vergence.objectives.objective import reads_of
from vergence.rollout.vllm_arguments import CPU_CACHE
from vergence.scoring.head import TILE
from vergence.train.config import Config
from vergence.train.layout import ALONE, Layout
from vergence.train.masters import AT_ONCE
from vergence.train.packing import OPEN
from vergence.train.parts import shows_captions
from vergence.train.verify import VERIFIED
from vergence.types import Method

Keep = Literal["naive", "graph", "leaf", "recompute"]
Phase = Literal["sampling", "evaluating", "scoring", "updating the weights", "saving"]
NOISE = 40
"""Bytes that the sampler holds for each row and word: noise, noisy and plain log-probabilities, in float64 and 32."""


class Longest(NamedTuple):
    """Of the prompts: tokens, and patches of images."""

    tokens: int
    patches: int


class Plan(NamedTuple):
    """Bytes on the device of one process, at most."""

    weights: int
    """Of several processes: what does not learn, and its share of what does."""
    reference: int
    """The weights that training starts from, where a view looks with them or they write captions; never shared."""
    trained: int
    """Gradients, AdamW's two moments, and the float32 masters of narrower weights; of several processes: its share of
    the moments."""
    prompts: int
    """While scoring: what is kept of prompts and their images."""
    responses: int
    head: int
    sampling: int
    """Without whole weights and the engine."""
    gathered: int = 0
    """Of several processes: the whole of the weights that learn, while they sample and score."""
    gradients: int = 0
    """Of several processes: the whole gradients, while they score."""
    passing: int = 0
    """Of several processes: those of one backward pass, where they are narrower."""
    sending: int = 0
    """Of several processes: a copy of the most gradients that are sent at once, when all else of scoring is over."""
    updating: int = 0
    """What AdamW holds for a moment; of several processes: its share of the gradients among it."""
    verifying: int = 0
    """Before the first step, where the scorer is compared with the naive one."""
    beside: int = 0
    """Other models in the process: the reasoner."""
    engine: int = 0
    """vLLM's share of the device, while it samples."""
    awake: int = 0
    """The same where it never sleeps."""

    @property
    def scoring(self) -> int:
        """What scoring adds to what stays."""
        pieces = self.prompts + max(self.responses + self.head, self.passing)
        return self.gathered + self.gradients + max(pieces, self.sending)

    def during(self, phase: Phase) -> int:
        """What a phase adds to what stays."""
        sampling = self.gathered + max(self.engine, self.sampling)
        scoring = max(self.scoring, self.verifying)
        adds = {"scoring": scoring, "updating the weights": self.updating}
        return {**adds, "sampling": sampling, "evaluating": sampling}.get(phase, 0)

    @property
    def stays(self) -> int:
        """What is there all the time, from the first update on."""
        return self.weights + self.reference + self.trained + self.beside + self.awake

    @property
    def total(self) -> int:
        """What stays, and the phase that takes the most."""
        return self.stays + max(self.during(phase) for phase in ("sampling", "scoring", "updating the weights"))


def plan(
    size: Sizes,
    config: Config,
    method: Method,
    longest: Longest,
    keep: Keep,
    *,
    layout: Layout = ALONE,
    beside: int = 0,
    device: int = 0,
) -> Plan:
    """What a run takes on the device of one of its processes.

    Args:
        longest: of the prompts.
        keep: how responses are scored, "auto" decided.
        beside: bytes of other models in the process.
        device: bytes of it, of which an engine in the process takes its part; 0: nobody knows.
    """
    prompts, responses, head = _scoring(size, config, method, longest, keep, layout)
    verifying = _verifying(size, config, method, longest, layout) if config.verify_scorer and keep != "naive" else 0
    engine, gpu = _engine(size, config, device), config.device.startswith("cuda")
    rests = _shared(size, layout, gpu) if layout.several else {}
    rests = {"weights": size.weights, "trained": _trained(size), "gathered": 0, "gradients": 0} | rests
    return Plan(
        reference=size.weights * _looks_back(size, config, method),
        prompts=prompts,
        responses=responses,
        head=head,
        sampling=max((_sampling(size, config, longest, *asked) for asked in _asked(config, method, layout)), default=0),
        updating=_updating(size, gpu, layout),
        verifying=verifying + rests["gathered"] + rests["gradients"] if verifying else 0,
        beside=beside,
        engine=engine if gpu and not config.ahead else 0,
        awake=engine if config.ahead or not gpu else 0,
        **rests,
    )


def learning(size: Sizes) -> int:
    """n: how many numbers learn; adapters are of float32 whatever the model is."""
    return size.learning // (4 if size.rank else size.number)


def _trained(size: Sizes) -> int:
    """Gradients as wide as the weights; moments, and copies of weights that are narrower, in float32."""
    narrow = size.number < 4 and not size.rank
    return size.learning + (3 if narrow else 2) * 4 * learning(size)


def _shared(size: Sizes, layout: Layout, gpu: bool) -> dict[str, int]:
    """Weights and what is trained, of one process of several."""
    n, k, away = learning(size), layout.shards, layout.offload and gpu
    return {
        "weights": size.weights - size.learning + (0 if away else 4 * n // k),
        "trained": 0 if away else 8 * n // k,
        "gathered": size.learning,
        "gradients": 4 * n,
        "passing": 0 if size.learning == 4 * n else size.learning,
        "sending": 4 * min(n, 2 * size.vocabulary * size.width),  # at most the embedding and the output layer
    }


def _looks_back(size: Sizes, config: Config, method: Method) -> bool:
    """Whether there is a second copy of the weights; that without adapters is none."""
    looks = any(view.policy == "reference" for view in method.views.values())
    return not size.rank and (looks or _captions(config, method))


def _captions(config: Config, method: Method) -> bool:
    """Whether the weights that training starts from write captions."""
    return config.captions == "initial" and any(map(shows_captions, method.views.values()))


def _asked(config: Config, method: Method, layout: Layout) -> list[tuple[int, int]]:
    """(scenes, responses to each) of whatever is sampled in this process, and not by an engine."""
    scenes = layout.scenes(config.scenes_per_batch)
    found = [(scenes, config.siblings)] if config.sampler == "own" else []
    if config.eval_every:  # by the first process alone
        found.append((config.eval_scenes, config.eval_samples))
    return [*found, (scenes, 1)] if _captions(config, method) else found


def _engine(size: Sizes, config: Config, device: int) -> int:
    """What a vLLM engine that is started here takes of the device: on a CPU its weights, keys and values."""
    if config.sampler not in ("vllm", "vllm-server"):
        return 0
    return int(config.sampler_memory * device) if config.device.startswith("cuda") else size.weights + CPU_CACHE


def _updating(size: Sizes, gpu: bool, layout: Layout) -> int:
    """What AdamW holds for a moment: on a GPU one number for each it updates at a time, on a CPU two of one matrix."""
    n = learning(size)
    largest = min(n, size.rank * max(size.inner, size.width) if size.rank else size.vocabulary * size.width)
    if layout.several:  # the share of the gradients besides
        return (4 * n if gpu and layout.offload else 4 * n + (4 * n if gpu else 8 * largest)) // layout.shards
    masters = size.number < 4 and not size.rank
    piece = min(n, max(AT_ONCE, largest)) if masters else 0
    return 4 * piece + (4 * (piece or n) if gpu else 8 * largest)


def _sampling(size: Sizes, config: Config, longest: Longest, scenes: int, siblings: int) -> int:
    """Without gradient a layer at a time; the words' noise comes when the prompts have been read.

    When rows have ended, or their room is full, keys and values of those that are left are copied, all layers before
    the first is let go; what was read of the prompts at the beginning is held to the end.
    """
    rows = min(config.sample_batch, scenes * siblings)
    prompts = -(-rows // siblings)  # siblings share theirs
    tokens, patches = prompts * longest.tokens, prompts * longest.patches
    reading = size.language(prompts, longest.tokens, longest.tokens) // size.layers
    seeing = size.tower(patches) // size.tower_layers
    copied = 2 * size.cached(tokens + rows * config.max_tokens)
    return size.cached(tokens) + max(reading, seeing, copied + NOISE * rows * size.vocabulary)


def _views(method: Method) -> tuple[int, int]:
    """Views that are alive in an update, and those of them that carry gradient."""
    reads = [read for read in reads_of({**method.objective, **method.metrics}) if read.when != "frozen"]
    views = len({name for read in reads for name in (read.view, read.against) if name})
    return views, len({name for read in reads if read.when == "grad" for name in (read.view, read.against) if name})


def _naive(size: Sizes, method: Method, longest: Longest, rows: int, T: int) -> tuple[int, int, int]:
    """Prompts, responses and head of so many rows, each read whole."""
    views, learns = _views(method)
    seen = size.tower(rows * longest.patches * size.tower_learns)
    said = size.language(rows, longest.tokens + T, longest.tokens + T)
    words = 4 * (views + 2) * rows * T * size.vocabulary  # log-probabilities, and two more of that size
    return learns * seen, int((learns + 1 / size.layers) * said), words  # the gradients of one layer besides


def _verifying(size: Sizes, config: Config, method: Method, longest: Longest, layout: Layout) -> int:
    """The naive scorer on a few rollouts, and the two gradients that are compared."""
    groups = min(max(1, VERIFIED // config.siblings), layout.scenes(config.scenes_per_batch))
    rows = min(groups * config.siblings, max(1, config.token_budget // (longest.tokens + config.max_tokens)))
    return sum(_naive(size, method, longest, rows, config.max_tokens)) + 2 * size.learning


def _scoring(
    size: Sizes, config: Config, method: Method, longest: Longest, keep: Keep, layout: Layout
) -> tuple[int, int, int]:
    """Of one micro-batch: prompts, responses, head."""
    P, T = longest.tokens, config.max_tokens
    views, learns = _views(method)
    rows, opened = _pieces(config, P, keep, layout)
    if keep == "naive":
        return _naive(size, method, longest, rows, T)
    patches = longest.patches * size.tower_learns
    kept = (views + learns) * size.cached(opened * P)  # where a view learns, its gradient too
    responses = int((learns + 1 / size.layers) * size.language(rows, T, P + T))  # and the gradients of one layer
    if keep == "recompute":  # some prompts' graph again, when those of responses are gone
        again = min(opened, rows, max(1, config.token_budget // P))
        back = size.language(again, P, P) + size.tower(again * patches)
        prompts = kept + max(0, back - responses)
    else:
        prompts = kept + learns * (size.language(opened, P, P) + size.tower(opened * patches))
    tile = TILE["cuda" if config.device.startswith("cuda") else "cpu"]
    states = 2 * views * rows * T * size.width * (size.number + 4)  # with their gradient, in float32
    return prompts, responses, states + 4 * 4 * tile[0] * tile[1] + size.number * size.vocabulary * size.width


def _pieces(config: Config, P: int, keep: Keep, layout: Layout) -> tuple[int, int]:
    """Responses of a micro-batch, and prompts that are open at once: as `train.packing` makes them."""
    T, scenes, group = config.max_tokens, layout.scenes(config.scenes_per_batch // config.parts), config.siblings
    if keep in ("recompute", "naive"):
        a_row = T if keep == "recompute" else P + T
        return min(scenes * group, max(1, config.token_budget // a_row)), scenes
    if keep == "leaf":
        opened = min(scenes, max(1, config.token_budget // OPEN // P))
        return min(opened * group, max(1, (config.token_budget - opened * P) // T)), opened
    whole = min(scenes, config.token_budget // (P + group * T))
    return (whole * group, whole) if whole else (min(group, max(1, (config.token_budget - P) // T)), 1)
