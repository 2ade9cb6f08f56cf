"""The plan of one process of several, and what the plan of one process once left out."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vergence import objectives
from vergence.models.policy import load
from vergence.models.reasoner import EMBEDDED
from vergence.models.sizes import Sizes, sizes
from vergence.rollout.decode import Decode
from vergence.rollout.reason import load_reasoner
from vergence.rollout.render import render
from vergence.rollout.vllm_arguments import CPU_CACHE
from vergence.scenes import embedded
from vergence.train.config import Config
from vergence.train.layout import ALONE, Layout, layout_of
from vergence.train.masters import adamw
from vergence.train.memory import Longest, Memory, numbers_in, reasoner_bytes, there_is
from vergence.train.plan import plan
from vergence.types import ORIGINAL, Asked

GIB = 2**30
N = 2**32
"""Numbers of the model below, all of which learn."""


def memory(method: str = "grpo", processes: int = 8, there: int | None = None, rank: int = 0, **fields) -> Memory:
    """Of a 3B model in bfloat16 on GPUs, or of one in float32; 1000 tokens to a prompt."""
    fields = {"dtype": "bfloat16", "device": "cuda", "max_tokens": 500, "options": {"beta": "0"}, **fields}
    config = Config(method=method, **fields)
    b = 2 if config.dtype == "bfloat16" else 4
    learning = 4 * 2**26 if rank else b * N
    tower = (32, 1280, 16, 3420, True, 1176, 1)
    size = Sizes(b, 36, 2048, 16, 2, 128, 11008, False, 151936, *tower, b * N, learning, True, False, rank)
    chosen = objectives.method(method, **config.options)
    return Memory(size, config, chosen, Longest(1000, 3200), "leaf", there, processes)


@pytest.mark.parametrize(("dtype", "b"), [("bfloat16", 2), ("float32", 4)])
@pytest.mark.parametrize(("shards", "k"), [(0, 8), (2, 2), (1, 1)])
def test_a_process_keeps_its_share_and_holds_the_whole_while_it_works(dtype, b, shards, k):
    plan = memory(dtype=dtype, shards=shards).plan()
    assert (plan.weights, plan.trained) == (4 * N // k, 8 * N // k)
    assert (plan.gathered, plan.gradients) == (b * N, 4 * N)
    assert plan.updating == (4 + 4) * N // k  # its share of the gradients, and AdamW's square roots
    assert plan.passing == (2 * N if b == 2 else 0)  # above what is kept for them here
    pieces = plan.prompts + max(plan.responses + plan.head, plan.passing)
    assert plan.during("scoring") == b * N + 4 * N + pieces
    assert plan.sending == 4 * 2 * 151936 * 2048
    assert plan.during("sampling") == b * N + plan.sampling


def test_with_offload_the_shares_are_not_on_the_gpu():
    plan = memory(offload=True).plan()
    assert (plan.weights, plan.trained, plan.updating) == (0, 0, 4 * N // 8)
    assert memory(offload=True, device="cpu").plan().stays == memory(device="cpu").plan().stays
    assert memory(offload=True, processes=1).plan() == memory(processes=1).plan()


def test_what_does_not_learn_and_the_reference_are_whole_everywhere():
    frozen, n = 2 * N - 4 * 2**26, 2**26
    plan = memory(rank=16, adapter="lora").plan()
    assert (plan.weights, plan.trained) == (frozen + 4 * n // 8, 8 * n // 8)
    assert memory(options={"beta": "0.01"}).plan().reference == 2 * N
    assert memory(rank=16, adapter="lora", options={"beta": "0.01"}).plan().reference == 0


def test_more_processes_take_less_each_and_never_less_than_the_whole_while_scoring():
    plans = [memory(processes=number).plan() for number in (2, 4, 16, 64)]
    assert [plan.total for plan in plans] == sorted((plan.total for plan in plans), reverse=True)
    assert all(plan.total > (2 + 4) * N for plan in plans)


def test_one_process_is_what_it_was():
    """Shards and offload are of several processes."""
    one = memory(processes=1).plan()
    assert one == memory(processes=1, shards=2, offload=True).plan()
    assert (one.weights, one.trained, one.gathered, one.gradients) == (2 * N, 2 * N + 3 * 4 * N, 0, 0)


def test_a_share_is_of_processes_that_are_there():
    assert layout_of(Config(shards=8), 2) == Layout(2, 2)
    assert not layout_of(Config(offload=True), 1).offload
    assert [ALONE.scenes(5), Layout(4, 4).scenes(5), Layout(8, 8).scenes(5)] == [5, 2, 1]


def test_the_plan_says_of_which_process_it_is_and_what_helps():
    told = memory(there=60 * GIB, options={"beta": "0.01"}).told()
    assert told.splitlines()[0] == "memory, each of 8 processes, GiB (estimated)"
    assert "1/8 of them, --dtype bfloat16" in told
    assert "  8.00" in next(line for line in told.splitlines() if "whole weights" in line)
    one = memory(there=20 * GIB, shards=1)
    assert "--shards 0 (about " in one.advice()
    assert "--offload (about " in memory(there=20 * GIB).advice()
    assert "--offload" not in memory(there=20 * GIB, processes=1).advice()


# ---------------------------------------------------------------------------------------- what was once left out


def most(run: Callable[[], object]) -> int:
    """The most bytes of tensors that were held at a time beyond those that were there."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gpu", [True, False])
def test_an_update_holds_what_is_said(dtype, gpu):
    """On a GPU AdamW goes through all weights at once (`foreach`), which can be had on a CPU too."""
    policy = load("seedling", dtype=dtype)
    weights = list(policy.model.parameters())
    optimizer = adamw(weights, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    for group in optimizer.param_groups:
        group["foreach"] = gpu

    def gradients() -> None:
        for weight in weights:
            weight.grad = torch.ones_like(weight)

    gradients()
    optimizer.step()  # now its moments are there
    gradients()
    config = Config(dtype=str(dtype).removeprefix("torch."), device="cuda" if gpu else "cpu")
    size, method = sizes(policy.model), objectives.method("grpo")
    said = plan(size, config, method, Longest(50, 36), "leaf").updating
    assert most(optimizer.step) == pytest.approx(said, rel=0.01)


def test_verifying_is_planned_only_where_it_is_done():
    without, asked = memory(processes=1), memory(processes=1, verify_scorer=True)
    assert without.plan().verifying == 0
    verifying = asked.plan().verifying
    rows = min(32, asked.config.token_budget // 1500)
    assert verifying > 4 * rows * 500 * 151936 + 2 * 2 * N  # words of the naive scorer, and two gradients
    assert asked.plan().during("scoring") == max(verifying, asked.plan().scoring)
    naive = replace(asked, keep="naive")
    assert naive.plan().verifying == 0
    assert "--no-verify-scorer" in asked.told()


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_a_reasoner_in_the_process_is_counted(name):
    racro = objectives.method("racro")
    weights = {id(one): one for one in load_reasoner(name).model.parameters()}
    assert reasoner_bytes(Config(reasoner=name), racro) == sum(one.nbytes for one in weights.values())
    assert reasoner_bytes(Config(reasoner="http://localhost:1"), racro) == 0
    assert reasoner_bytes(Config(reasoner=name), objectives.method("grpo")) == 0
    counted = memory("racro", processes=1, options={})
    assert replace(counted, beside=GIB).plan().stays == counted.plan().stays + GIB
    assert "reasoner" in replace(counted, beside=GIB).told()


def test_a_file_that_is_no_safetensors_counts_nothing(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    assert numbers_in(tmp_path / "model.safetensors") == numbers_in(tmp_path / "none.safetensors") == 0


def test_an_engine_takes_its_share_of_the_device_while_it_samples():
    device = 80 * GIB
    beside = replace(memory(sampler="vllm"), device=device)
    plan = beside.plan()
    assert (plan.engine, plan.awake, plan.sampling) == (int(0.4 * device), 0, 0)
    assert plan.during("sampling") == plan.gathered + plan.engine
    assert replace(memory(sampler="vllm-server"), device=device).plan() == plan
    ahead = replace(memory(sampler="vllm", ahead=1), device=device).plan()
    assert ahead.stays == plan.stays + plan.engine
    assert memory(sampler="http://localhost:1", processes=1).plan().during("sampling") == 0
    evaluated = memory(sampler="http://localhost:1", processes=1, eval_every=5).plan()
    assert evaluated.during("sampling") > 0
    assert f"--sampler-memory {beside.config.sampler_memory}" in beside.told()
    on_a_cpu = replace(memory(sampler="vllm", device="cpu"), device=device).plan()
    assert (on_a_cpu.engine, on_a_cpu.awake) == (0, 2 * N + CPU_CACHE)  # its weights, and it never sleeps


def test_the_first_process_evaluates_alone():
    fields = {"scenes_per_batch": 8, "siblings": 2, "eval_scenes": 64, "eval_samples": 2}
    without, with_ = memory(**fields).plan(), memory(**fields, eval_every=5).plan()
    assert with_.sampling > 10 * without.sampling  # 128 rows at once, and not 2
    assert memory(**fields, eval_every=5, sample_batch=2).plan().sampling == without.sampling


@pytest.mark.parametrize("tokens", [16, 200])
def test_sampling_holds_no_more_than_is_said(tokens):
    policy = load("seedling")
    scenes = embedded.draw_many(("shapes",), "tune", 12)
    prompts = [render(policy.reader, scene, ORIGINAL, 0) for scene in scenes]
    longest = Longest(max(len(one.tokens) for one in prompts), max(len(one.pixels) for one in prompts))
    config = Config(scenes_per_batch=12, siblings=8, max_tokens=tokens)
    asked = [Asked(prompts[row // 8], row) for row in range(96)]
    taken = most(lambda: Decode(policy)(asked, temperature=1.0, max_tokens=tokens))
    said = plan(sizes(policy.model), config, objectives.method("grpo"), longest, "leaf").sampling
    assert 0.25 * said < taken <= said


def test_processes_on_one_machine_share_its_memory(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    whole = there_is(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert there_is(torch.device("cpu")) == whole // 4
