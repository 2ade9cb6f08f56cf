"""The estimate is what is counted; what is said when memory runs out names the option; what is finished is kept."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vergence import objectives
from vergence.models.adapters import adapt
from vergence.models.policy import Policy, load
from vergence.models.prefix import Prefix
from vergence.models.sizes import Sizes, sizes
from vergence.rollout.render import render
from vergence.scenes import embedded
from vergence.train import checkpoint, loop, rounds
from vergence.train.config import Config
from vergence.train.loop import train
from vergence.train.masters import adamw
from vergence.train.memory import HalfUpdated, Longest, Memory, OutOfMemory, during, is_out_of_memory
from vergence.types import ORIGINAL, Prompt, UserError


def qwen25(reader) -> Policy:
    """A Qwen2.5-VL of random weights, of sizes that share no ratio with the seedling's."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {"vocab_size": len(reader.tokenizer), "hidden_size": 96, "intermediate_size": 112, "num_hidden_layers": 4}
    text |= {"num_attention_heads": 6, "num_key_value_heads": 1, "max_position_embeddings": 512}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3]}}
    vision = {"depth": 3, "hidden_size": 48, "intermediate_size": 40, "num_heads": 2, "patch_size": 8}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 96, "window_size": 32}
    vision |= {"fullatt_block_indexes": [1]}
    ids = {"image_token_id": reader.image_id, "video_token_id": reader.banned[1]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Policy(Qwen2_5_VLForConditionalGeneration(config).eval(), reader)


@pytest.fixture(scope="module", params=["qwen3_vl float32", "qwen3_vl bfloat16", "qwen2_5_vl float32"])
def policy(request) -> Policy:
    family, dtype = request.param.split()
    seedling = load("seedling", dtype=getattr(torch, dtype))
    return seedling if family == "qwen3_vl" else qwen25(seedling.reader)


@pytest.fixture(scope="module")
def prompts(policy) -> list[Prompt]:
    scenes = embedded.draw_many(("shapes",), "tune", 6)
    return [render(policy.reader, scene, ORIGINAL, 0) for scene in scenes]


def kept(policy: Policy, run: Callable[[], object]) -> tuple[int, object]:
    """Bytes of the distinct storages that are kept for a backward pass, weights left out; and the outcome."""
    own = {weight.untyped_storage().data_ptr() for weight in policy.model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor  # so it lives on, and no other storage comes to stand where it is

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outcome = run()
    return sum(held.values()), outcome


def test_what_is_kept_of_prompts_is_the_estimate(policy, prompts):
    size, prefix = sizes(policy.model), Prefix(policy)
    patches, P = sum(len(prompt.pixels) for prompt in prompts), max(len(prompt.tokens) for prompt in prompts) - 1
    seen, _ = kept(policy, lambda: prefix.images.features(prompts))
    assert size.tower(patches) == pytest.approx(seen, rel=0.03)
    read, stored = kept(policy, lambda: prefix.read(prompts))
    assert size.tower(patches) + size.language(len(prompts), P, P) == pytest.approx(read, rel=0.03)
    assert size.cached(len(prompts) * P) == sum(x.nbytes for x in (*stored.keys, *stored.values))


@pytest.mark.parametrize(("B", "T"), [(16, 20), (3, 160)])
def test_what_is_kept_of_responses_is_the_estimate(policy, prompts, B, T):
    size, prefix, P = sizes(policy.model), Prefix(policy), max(len(prompt.tokens) for prompt in prompts) - 1
    token_BT, mask_BT, row_B = torch.full((B, T), 20), torch.ones(B, T, dtype=torch.bool), torch.arange(B) % 6
    stored = prefix.read(prompts).map(lambda x: x.detach().requires_grad_())
    shared, _ = kept(policy, lambda: prefix.respond(stored, row_B, token_BT, mask_BT))
    assert size.language(B, T, P + T) == pytest.approx(shared, rel=0.03)
    again = [prompts[row] for row in row_B.tolist()]
    whole, _ = kept(policy, lambda: policy.logits(again, token_BT, mask_BT))
    patches = sum(len(prompt.pixels) for prompt in again)
    assert size.tower(patches) + size.language(B, P + 1 + T, P + 1 + T) == pytest.approx(whole, rel=0.05)


def test_the_comparison_can_fail(policy, prompts):
    """Without the float32 of the norms, the products of the gate, or the repeated keys it would not hold."""
    size, prefix, P = sizes(policy.model), Prefix(policy), max(len(prompt.tokens) for prompt in prompts) - 1
    read, _ = kept(policy, lambda: prefix.read(prompts))
    for wrong in ({"inner": 0}, {"layers": size.layers - 1}, {"number": 6 - size.number}, {"width": size.width // 2}):
        other = size._replace(**wrong)
        assert other.tower(216) + other.language(6, P, P) != pytest.approx(read, rel=0.05), wrong


# ------------------------------------------------------------------------------------------------------- the plan


def memory(keep: str = "leaf", method: str = "papo", there: int | None = None, **fields) -> Memory:
    """Of a 3B model that is trained whole in float32, with prompts of 1000 tokens, 800 of them of images."""
    size = Sizes(4, 36, 2048, 16, 2, 128, 11008, False, 151936, 32, 1280, 16, 3420, True, 1176, 1, 2**34, 2**34, True)
    config = Config(**{"method": method, "max_tokens": 500, "token_budget": 2**14, "device": "cuda", **fields})
    chosen = objectives.method(config.method, **config.options)
    return Memory(size, config, chosen, Longest(1000, 3200), keep, there)


def test_what_stays_is_weights_gradients_and_two_moments():
    plan = memory(options={"beta": "0.01"}).plan()
    assert (plan.weights, plan.reference, plan.trained) == (2**34, 2**34, 3 * 2**34)
    assert plan.total == 5 * 2**34 + max(plan.scoring, plan.sampling)
    assert memory(options={"beta": "0"}).plan().reference == 0


@pytest.mark.parametrize(
    "fields",
    [{}, {"dtype": "bfloat16"}, {"adapter": "lora", "dtype": "bfloat16"}, {"tower": "frozen", "dtype": "bfloat16"}],
    ids=lambda fields: " ".join(fields.values()) or "float32",
)
def test_what_stays_is_what_weights_gradients_and_the_optimizer_hold(fields):
    config = Config(**fields, method="papo", options={"beta": "0.01"})
    policy = load("seedling", dtype=getattr(torch, config.dtype))
    adapt(policy, adapter=config.adapter, tower=config.tower)
    plan = Memory(sizes(policy.model), config, objectives.method("papo", beta=0.01), Longest(50, 36), "leaf").plan()
    learning = [weight for weight in policy.model.parameters() if weight.requires_grad]
    optimizer = adamw(learning, lr=1e-3, betas=config.betas, weight_decay=0.0)
    for weight in learning:
        weight.grad = torch.ones_like(weight)
    gradients = sum(weight.grad.nbytes for weight in learning)
    optimizer.step()
    state = [x for entry in optimizer.state_dict()["state"].values() for x in entry.values() if x.numel() > 1]
    assert plan.weights == sum(weight.nbytes for weight in policy.model.parameters())
    assert plan.trained == pytest.approx(gradients + sum(x.nbytes for x in state), rel=0.001)
    assert plan.reference == (0 if config.adapter == "lora" else plan.weights)


def test_checkpointing_is_named_as_a_way_out_and_takes_less():
    assert "--gradient-checkpointing (about " in memory().remedy("scoring")
    assert "--gradient-checkpointing" not in memory(gradient_checkpointing=True).remedy("scoring")
    assert "--adapter lora" in memory().remedy("updating the weights")


def test_every_option_moves_its_line():
    one, half = memory(token_budget=16000).plan(), memory(token_budget=8000).plan()  # 4 or 2 prompts of 1000 tokens
    assert half.responses == pytest.approx(one.responses / 2, rel=0.001)
    assert half.prompts == pytest.approx(one.prompts / 2, rel=0.001)
    assert half.sampling == one.sampling
    one = memory().plan()
    fewer = memory(sample_batch=32).plan()
    assert fewer.sampling < one.sampling / 4
    assert fewer.scoring == one.scoring
    assert memory("naive").plan().prompts > memory("leaf").plan().prompts
    assert memory("recompute", scenes_per_batch=4).plan().scoring < memory("leaf", scenes_per_batch=4).plan().scoring


def test_views_with_gradient_are_alive_at_once():
    plans = [memory(method=name, options={"beta": "0"}).plan() for name in ("papo@release", "papo@full", "cppo")]
    layer = plans[0].responses / 37  # the gradients of one are added
    assert [plan.responses / layer for plan in plans] == pytest.approx([37, 73, 109], abs=0.01)


def test_the_plan_is_a_few_lines_and_warns_only_if_there_is_less():
    told = memory(there=2**50).told().splitlines()
    assert told[0] == "memory, GiB (estimated)"
    assert len({line.index(".") for line in told[1:]}) == 1  # aligned
    assert any("--token-budget 16384, --scorer leaf" in line for line in told)
    assert any("--sample-batch 256" in line for line in told)
    assert told[-1].endswith("of 1048576.00 GiB")
    least = memory(token_budget=1500).plan()
    warned = memory(there=least.total + 2**30).told().splitlines()
    assert warned[-1].startswith("warning: there may be too little memory for this; take --token-budget ")
    assert "a smaller model" in memory(there=2**33).told().splitlines()[-1]
    assert "warning" not in memory(there=None).told()


def test_the_remedy_is_halved_until_it_helps_and_says_to_which_estimate():
    ample = memory(token_budget=2**20, scenes_per_batch=2, siblings=2)  # all four responses are far below it
    assert "--token-budget 4096 " in ample.remedy("scoring")
    assert "--token-budget 8192 " in memory().remedy("scoring")
    then = memory(token_budget=2**13).plan()
    assert f"--token-budget 8192 (about {(then.stays + then.scoring) / 2**30:.2f} GiB)" in memory().remedy("scoring")
    assert "--scorer recompute" in memory(scenes_per_batch=4).remedy("scoring")
    assert "--scorer recompute" not in memory("recompute").remedy("scoring")
    assert "--sample-batch 128 " in memory().remedy("sampling")
    assert "smaller images" in memory(sample_batch=1).remedy("sampling")
    assert "no option" in memory().remedy("updating the weights")


# ---------------------------------------------------------------------------------------------- when it runs out


class Held:
    """Something that fills the memory."""


def test_what_ran_out_is_told_with_its_phase_and_what_was_held_is_let_go():
    import weakref

    seen = []

    def fill() -> None:
        graph = Held()
        seen.append(weakref.ref(graph))
        torch.empty(2**60)

    with pytest.raises(OutOfMemory) as caught, memory().explaining(), during("scoring"):
        fill()
    assert seen[0]() is None
    told = str(caught.value)
    assert told.startswith("out of memory while scoring, with 4611686018427387904 bytes more; the estimate was ")
    assert "To go on, take --token-budget 8192" in told


def test_other_errors_are_themselves():
    with pytest.raises(RuntimeError, match="shapes"), memory().explaining(), during("scoring"):
        raise RuntimeError("shapes do not match")
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))


TINY = Config(
    method="papo",
    options={"gamma": "0.05", "beta": "0", "cell": "8"},
    steps=3,
    scenes_per_batch=2,
    siblings=2,
    max_tokens=12,
    token_budget=2000,
    watch_every=0,
)


def failing(monkeypatch, name: str, time: int) -> None:
    """Memory runs out when the loop, or its round, calls this for so many times."""
    module = loop if name == "accumulate" else rounds
    own, calls = getattr(module, name), []

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == time:
            torch.empty(2**60)
        return own(*args, **kwargs)

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize(("name", "phase"), [("ask", "sampling"), ("freeze", "scoring"), ("accumulate", "scoring")])
def test_the_steps_that_were_taken_are_saved_and_the_run_goes_on(tmp_path, monkeypatch, name, phase):
    train(TINY, tmp_path / "whole")
    with monkeypatch.context() as patch:
        failing(patch, name, 3)
        with pytest.raises(UserError, match=f"out of memory while {phase}, with .* the estimate was .* take --"):
            train(TINY, tmp_path / "run")
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "step-000002"
    train(replace(TINY, token_budget=1000, sample_batch=2), tmp_path / "run", resume=True)
    one, other = ([json.loads(line) for line in (tmp_path / run / "metrics.jsonl").open()] for run in ("whole", "run"))
    assert [line["step"] for line in other] == [1, 2, 3]
    assert other[2]["loss"] == pytest.approx(one[2]["loss"], abs=1e-4)


def test_half_an_update_is_not_saved(tmp_path, monkeypatch):
    step, calls = torch.optim.AdamW.step, []

    def some(self, *args):
        calls.append(1)
        if len(calls) == 3:
            self.param_groups[0]["params"][0].data.zero_()
            torch.empty(2**60)
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", some)
    with pytest.raises(HalfUpdated, match="out of memory while updating the weights"):
        train(replace(TINY, save_every=1), tmp_path / "run", until=3)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "step-000002"
    calls.clear()
    with pytest.raises(HalfUpdated):
        train(TINY, tmp_path / "other")
    assert checkpoint.latest(tmp_path / "other" / "checkpoints") is None


def test_the_plan_is_told_once_before_the_first_step(tmp_path):
    seen: list[str] = []
    train(TINY, tmp_path / "run", watch=lambda step, *_: seen.append(f"step {step}"), tell=seen.append)
    told = [line.split("\n")[0] for line in seen if not line.startswith("warning")]  # no answer can be read in these
    assert told == ["memory, GiB (estimated)", "step 1", "step 2", "step 3"]
    seen.clear()
    train(TINY, tmp_path / "run", resume=True, tell=seen.append)
    assert not seen  # there is no step left
