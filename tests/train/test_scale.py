"""The cost model: its arithmetic is what is counted, and its bytes and seconds follow by hand."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from scoring import steps
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vergence import objectives
from vergence.models.adapters import adapt
from vergence.models.policy import Policy
from vergence.models.published import config_of
from vergence.models.sizes import Sizes, sizes
from vergence.recipes import recipe
from vergence.scoring.head import KEPT
from vergence.train import scale
from vergence.train.config import Config
from vergence.train.layout import Layout
from vergence.train.memory import Memory
from vergence.train.pixels import room_of
from vergence.train.scale import Machine, Passes, Work, fitting, forward, on_the_wires, passes, seconds, with_gradient
from vergence.types import Prompt

S, G, P, T, PATCHES = 3, 4, 41, 12, 64
GRPO, FULL = objectives.method("grpo", beta=0.0), objectives.method("papo-grpo@full", beta=0.0)
GIB = 2**30

# ---------------------------------------------------------------------------------------------------- arithmetic


def prompts(policy: Policy, views: tuple[str, ...]) -> dict[str, list[Prompt]]:
    """Distinct images of one size under prompts of one length."""
    chance = torch.Generator().manual_seed(0)

    def prompt() -> Prompt:
        ids = [20] * 5 + [policy.reader.image_id] * 16 + [21] * 20
        return Prompt(tuple(ids), torch.randn(PATCHES, 384, generator=chance), torch.tensor([[1, 8, 8]]))

    return {view: [prompt() for _ in range(S)] for view in views}


def counted(policy: Policy, method, keep: str = "leaf") -> int:
    """Floating-point operations of an optimizer step's scoring."""
    scored = steps.naive if keep == "naive" else lambda *given: steps.shared(*given, keep=keep)
    asked = prompts(policy, tuple(method.views))
    batch = steps.batch_of([[T] * G] * S, torch.float32)
    batch = steps.as_sampled(policy, batch, asked, method, away=0.0)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        steps.take(policy, method, batch, asked, scored({"now": policy}, method))
    return counter.get_total_flops()


@cache
def tiny() -> Policy:
    """Of so many words that logits are made again, and so many layers that the last one hardly counts."""
    return steps.build("qwen2_5_vl", vocab=2048, layers=14)


@cache
def whole() -> int:
    """Counted of that policy, all of which learns, by GRPO."""
    return counted(tiny(), GRPO)


def said(policy: Policy, method, keep: str = "leaf") -> float:
    size, work = sizes(policy.model), Work(P, PATCHES, T, scale.patches_seen(policy.model.config, PATCHES))
    one = forward(size, work, S, G, naive=keep == "naive")
    return passes(method).learning * with_gradient(size, one, keep)


def test_arithmetic_is_what_is_counted():
    assert said(tiny(), GRPO) == pytest.approx(whole(), rel=0.06)


@pytest.mark.parametrize("keep", ["graph", "recompute", "naive"])
def test_so_it_is_however_responses_are_scored(keep):
    assert said(tiny(), GRPO, keep) == pytest.approx(counted(tiny(), GRPO, keep), rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["leaf", "graph", "recompute", "naive"])
def test_so_it_is_of_two_views_that_learn(keep):
    assert said(tiny(), FULL, keep) == pytest.approx(counted(tiny(), FULL, keep), rel=0.06)


@pytest.mark.parametrize(
    "changed", [{"adapter": "lora"}, {"tower": "frozen"}, {"gradient_checkpointing": True}], ids=str
)
def test_so_it_is_of_frozen_and_of_recomputed_layers(changed):
    policy = adapt(steps.build("qwen2_5_vl", vocab=2048, layers=14), **{"rank": 1, "alpha": 1, **changed})
    found = counted(policy, GRPO)
    assert said(policy, GRPO) == pytest.approx(found, rel=0.06)
    assert said(policy, GRPO) - said(tiny(), GRPO) == pytest.approx(found - whole(), rel=0.2)


def test_the_count_can_fail():
    for wrong in ("width", "inner", "layers", "vocabulary"):
        size = sizes(tiny().model)
        size = size._replace(**{wrong: getattr(size, wrong) // 4})
        one = forward(size, Work(P, PATCHES, T, PATCHES), S, G)
        assert with_gradient(size, one, "leaf") != pytest.approx(whole(), rel=0.06), wrong


@cache
def three_billion(**fields) -> Memory:
    config = replace(recipe("qwen2.5-vl-3b"), **fields)
    found = config_of("Qwen/Qwen2.5-VL-3B-Instruct")
    return room_of(config, text=200, images=1, found=found).with_images(800)


def test_a_published_model_takes_what_was_reckoned_by_hand():
    """2 x 2.77e9 of the language model for each of 1000 + 8 x 500 tokens, their attention, an image, and the head."""
    size = three_billion().sizes
    seen = scale.patches_seen(config_of("Qwen/Qwen2.5-VL-3B-Instruct"), 3200)
    assert seen == (4 * 3200 + 28 * 64) / 32
    one = forward(size, Work(1000, 3200, 500, seen), 1, 8)
    layers = 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008)
    attention = 4 * 36 * 2048 * (1000 * 1000 + 8 * 500 * 1500)
    assert one.prompts + one.responses == pytest.approx(2 * layers * 5000 + attention)
    assert one.head == 2 * 4000 * 2048 * 151936
    assert one.tower == pytest.approx(3200 * (8 * 1280**2 + 6 * 1280 * 3420) * 32, rel=0.3)  # without attention
    assert one.attention == pytest.approx(attention)


def test_views_are_those_that_the_method_reads():
    assert passes(GRPO) == Passes(0, 0, 1)
    assert passes(FULL).learning == 2
    assert passes(objectives.method("papo", beta=0.0)).frozen == 1
    assert passes(objectives.method("cppo", beta=0.0)).learning == 3
    assert passes(GRPO, gap=True) == Passes(1, 0, 1)
    assert passes(objectives.method("papo"), gap=True).frozen == passes(objectives.method("papo")).frozen + 1


# ---------------------------------------------------------------------------------------------------- seconds


def spent(machine: Machine = Machine(), layout: Layout = Layout(8, 8), engine: int = 0, **fields) -> scale.Seconds:  # noqa: B008
    memory = three_billion(**fields)
    work = Work(1000, 3200, 500, 456.0)
    return seconds(memory.sizes, memory.config, memory.method, work, "leaf", layout, machine, engine)


def test_time_is_shared_among_processes():
    one, eight = spent(layout=Layout()), spent()
    assert one.wires == 0
    assert eight.reading == pytest.approx(one.reading / 8)
    assert eight.sampling == pytest.approx(one.sampling / 8, rel=0.01)
    assert eight.updating == pytest.approx(one.updating / 8, rel=0.01)
    assert eight.total == pytest.approx(sum(eight))
    assert spent(layout=Layout(5, 5)).reading > one.reading / 5  # 384 scenes are 77 for one of them


def test_each_part_has_its_rate():
    fast = Machine()
    compute, memory, wires = (
        spent(fast._replace(**{name: getattr(fast, name) / 2})) for name in ("flops", "bandwidth", "wires")
    )
    one = spent()
    assert compute.reading == pytest.approx(2 * one.reading)
    assert memory.sampling == pytest.approx(2 * one.sampling, rel=0.05)
    assert wires.wires == pytest.approx(2 * one.wires)
    assert wires[:3] == one[:3]
    measured = spent(fast._replace(sampled=1000.0))
    rows = 384 // 8 * 5
    assert measured.sampling == pytest.approx(rows * 500 / 1000 / 3, rel=0.05)


def test_between_nodes_it_is_slower():
    inside, across = spent(layout=Layout(8, 8)), spent(layout=Layout(16, 16))
    assert across.wires > 8 * inside.wires
    copies = spent(layout=Layout(16, 8))  # a copy to a node: the large part stays inside
    assert inside.wires < copies.wires < across.wires


def test_what_a_sampler_holds_at_once_makes_it_fast():
    assert spent(sample_batch=64).sampling < spent(sample_batch=32).sampling
    own, engine = spent(layout=Layout()), spent(layout=Layout(), engine=32 * GIB, sampler="vllm")
    assert engine.sampling < own.sampling
    size, work = three_billion().sizes, Work(1000, 3200, 500, 456.0)
    config = Config(sampler="vllm", max_tokens=2048)
    assert scale.at_once(size, config, work, 240, 5 * GIB) == 0  # not even the weights
    room = 100 * size.cached(1500)
    assert scale.at_once(size, config, work, 240, size.weights + room) == 100
    server = Config(sampler="http://localhost:1", siblings=4)
    assert scale.at_once(size, server, work, 5000, 0) == scale.IN_FLIGHT * 4
    assert scale.at_once(size, replace(server, siblings=64), work, 5000, 0) == scale.ENGINE


def test_one_engine_samples_for_all_processes():
    one, eight = (spent(layout=layout, engine=32 * GIB, sampler="vllm-server") for layout in (Layout(), Layout(8, 8)))
    assert eight.sampling == pytest.approx(one.sampling)
    assert eight.updating < one.updating / 7
    own = spent(layout=Layout())
    assert one.reading == pytest.approx(own.reading * 3 / 2)  # the gap, beside the masked view and the reference


def test_offload_goes_through_the_cpu():
    layout = Layout(8, 8, offload=True)
    assert spent(layout=layout).updating > spent().updating + 0.5


def test_what_travels_is_gathered_weights_and_shared_out_gradients():
    """A ring of k: each process sends k - 1 of k parts of what is gathered, and of what is added and shared out."""
    size = three_billion().sizes
    n = size.weights / 2
    assert on_the_wires(size, Layout(8, 8)) == pytest.approx(((2 + 4) * n * 7 / 8, 0))
    assert on_the_wires(size, Layout(8, 1)) == pytest.approx((0, 2 * 4 * n * 7 / 8))  # an all-reduce: twice
    assert on_the_wires(size, Layout(8, 2)) == pytest.approx((6 * n / 2, 2 * 4 * n / 2 * 3 / 4))
    assert on_the_wires(size, Layout()) == (0, 0)


def test_few_words_have_their_logits_kept():
    size: Sizes = three_billion().sizes
    few = size._replace(vocabulary=KEPT * size.width)
    one = forward(few, Work(1000, 3200, 500, 456.0), 1, 8)
    many = with_gradient(few._replace(vocabulary=few.vocabulary + 1), one, "leaf")
    assert many - with_gradient(few, one, "leaf") == pytest.approx(one.head)


# ---------------------------------------------------------------------------------------------------- what fits


def test_smaller_pieces_are_taken_until_it_fits():
    memory = three_billion(token_budget=2**17, sample_batch=512)
    there = memory.plan().stays + 12 * GIB
    made = fitting(memory, there)
    assert made.plan().total <= there < memory.plan().total
    assert made.config.token_budget < memory.config.token_budget
    assert made.config.sample_batch < memory.config.sample_batch
    same = replace(made.config, token_budget=2**17, sample_batch=512)
    assert same == memory.config  # nothing else is another


def test_what_does_not_fit_is_left_as_it_is():
    memory = three_billion()
    assert fitting(memory, memory.plan().stays) == memory
    assert fitting(memory, 2**50) == memory
