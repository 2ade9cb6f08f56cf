"""Prompts read once for all responses: the same loss, statistics and gradient of every parameter as the definition."""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import pytest
import torch
from scoring import steps
from scoring.steps import HUGE, MIXED, Outcome, assert_same, counted, in_float64, naive, shared, take

from vergence.models.policy import Policy
from vergence.models.prefix import Prefix
from vergence.objectives import method
from vergence.scoring import shared as scorer
from vergence.train import step
from vergence.types import Batch, Method, Prompt, Stats, UserError, with_advantage

METHODS = {
    "KL and entropies over the vocabulary, with gradient": method("papo-grpo@full", eta=0.05, beta=0.01),
    "KL over the vocabulary to other weights": method("grpo", kl="full"),
    "gated KLs to two views": method("cppo-grpo@paper"),
    "gated, sampled": method("cppo-grpo@release-verl"),
    "captions": method("cappo-grpo", estimator="full", gradient="both", negatives="untouched"),
    "a view without gradient": method("papo-grpo@release", eta=0.05),
    "reshaped by what a view says": method("vppo-dapo"),
}
LENGTHS = [[4, 0, 7], [3, 9], [5, 5, 2], [1, 6]]
"""Of the responses, by scene: one of them has no trained token."""
WAYS = [("graph", 90), ("leaf", 90), ("recompute", 50)]
MORE_WAYS = [("graph", 250), ("graph", HUGE), ("leaf", 40), ("leaf", 250), ("leaf", HUGE), ("recompute", 250)]
MORE_WAYS += [("recompute", HUGE)]


class Case(NamedTuple):
    """A step, and what it comes to by definition."""

    policies: dict[str, Policy]
    method: Method
    batch: Batch
    prompts: dict[str, list[Prompt]]
    temperature: float
    want: Outcome

    def take(self, keep: str, budget: int, scored: Callable = shared) -> Outcome:
        """The same step with prompts that are read once."""
        made = scored(self.policies, self.method, temperature=self.temperature, keep=keep, budget=budget)
        return take(self.policies["now"], self.method, self.batch, self.prompts, made, budget=budget)


@cache
def policies(family: str, dtype: torch.dtype = torch.float64) -> dict[str, Policy]:
    policy = steps.policy_of(family, dtype)
    return {"now": policy, "reference": steps.moved(policy)}


def make(
    those: dict[str, Policy],
    method: Method,
    lengths=LENGTHS,
    *,
    kinds=MIXED,
    temperature: float = 0.8,
    change: Callable[[Batch], Batch] = lambda batch: batch,
) -> Case:
    """A step of rollouts as `those` would have sampled them, changed, and its definition's outcome."""
    prompts = steps.prompts_of(those["now"], method, steps.scenes(kinds))
    dtype = next(those["now"].model.parameters()).dtype
    batch = change(steps.as_sampled(those["now"], steps.batch_of(lengths, dtype), prompts, method))
    want = take(those["now"], method, batch, prompts, naive(those, method, temperature=temperature))
    return Case(those, method, batch, prompts, temperature, want)


@cache
def case(family: str, name: str) -> Case:
    with in_float64():
        return make(policies(family), METHODS[name])


@pytest.fixture(autouse=True)
def everything_in_float64(request):
    with nullcontext() if "float32" in request.node.name else in_float64():
        yield


# ---------------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize(("keep", "budget"), WAYS)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_the_one_of_the_definition(name, keep, budget):
    one = case("qwen3_vl", name)
    assert max(float(grad.norm()) for grad in one.want.grads.values()) > 1e-3
    assert_same(one.take(keep, budget), one.want, 1e-10)


@pytest.mark.parametrize(("keep", "budget"), MORE_WAYS)
def test_however_much_fits(keep, budget):
    one = case("qwen3_vl", "KL over the vocabulary to other weights")
    assert_same(one.take(keep, budget), one.want, 1e-10)


@pytest.mark.parametrize(("keep", "budget"), WAYS)
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("qwen2_5_vl", "gated KLs to two views"),
        ("qwen2_5_vl", "captions"),
        ("qwen2_vl", "KL over the vocabulary to other weights"),
    ],
)
def test_so_it_is_in_every_family(family, name, keep, budget):
    assert_same(case(family, name).take(keep, budget), case(family, name).want, 1e-10)


NARROW_FLOOR = 0.1
"""In float32 the definition itself is 1e-5 away from the truth in parameters whose gradient is 0.01 of the longest one:
there, an error is measured against a tenth of the longest."""


@pytest.mark.parametrize(("family", "keep", "budget"), [(f, *way) for f, way in zip(steps.FAMILIES, WAYS, strict=True)])
def test_in_float32_it_is_so_to_1e_5(family, keep, budget, monkeypatch):
    monkeypatch.setattr(steps, "FLOOR", NARROW_FLOOR)
    one = narrow_case(family)
    assert_same(one.take(keep, budget), one.want, 1e-5)


@cache
def narrow_case(family: str) -> Case:
    return make(policies(family, torch.float32), METHODS["gated, sampled"])


@pytest.mark.parametrize("keep", ["leaf", "recompute"])
@pytest.mark.parametrize("kinds", ["text", "three images"])
def test_prompts_without_an_image_and_with_several(kinds, keep):
    one = shown_case(kinds)
    assert_same(one.take(keep, 250), one.want, 1e-10)
    tower = sum(float(grad.norm()) for name, grad in one.want.grads.items() if "visual" in name)
    assert (tower > 0) == (kinds != "text")


@cache
def shown_case(kinds: str) -> Case:
    return make(policies("qwen3_vl"), METHODS["gated, sampled"], [[3, 5], [2, 4], [6]], kinds=(kinds,) * 3)


def nobody_is_better(batch: Batch) -> Batch:
    return with_advantage(batch, -batch.advantage_B.abs())


def only_the_last_is_better(batch: Batch) -> Batch:
    sign_B = torch.arange(len(batch.key_B)) == len(batch.key_B) - 1
    return with_advantage(batch, batch.advantage_B.abs().where(sign_B, -batch.advantage_B.abs()))


@pytest.mark.parametrize("keep", ["graph", "leaf", "recompute"])
@pytest.mark.parametrize("change", [nobody_is_better, only_the_last_is_better])
def test_a_gate_that_lets_through_nobody_or_one(change, keep):
    one = gated_case(change)
    assert_same(one.take(keep, 100), one.want, 1e-10)
    through = one.want.frozen.entropy("anchor").any(-1)
    assert int(through.sum()) == (change is only_the_last_is_better)


@cache
def gated_case(change: Callable) -> Case:
    return make(policies("qwen3_vl"), METHODS["gated KLs to two views"], change=change)


@pytest.mark.parametrize("keep", ["graph", "leaf", "recompute"])
def test_a_micro_batch_without_a_trained_token(keep):
    """The prompt of a rollout that says nothing is done with all the same."""
    one, packing = silent_case(), "responses" if keep == "recompute" else "groups"
    pieces = step.micro_batches(one.batch, one.prompts, packing=packing, budget=18)
    assert any(not one.batch.mask_BT[rows].any() for rows in pieces)
    assert_same(one.take(keep, 18), one.want, 1e-10)


@cache
def silent_case() -> Case:
    return make(policies("qwen3_vl"), METHODS["gated, sampled"], [[4, 0, 9], [0]], kinds=("image", "image"))


def test_a_step_in_which_nothing_trains_is_zero():
    silent = make(
        policies("qwen3_vl"), METHODS["gated, sampled"], change=lambda b: replace(b, mask_BT=b.mask_BT & False)
    )
    for keep in ("graph", "leaf", "recompute"):
        got = silent.take(keep, HUGE)
        assert_same(got, silent.want, 1e-10)
        assert got.told["loss"] == 0
        assert not any(grad.any() for grad in got.grads.values())


def test_one_prompt_object_for_two_scenes_and_a_scene_without_a_rollout():
    one = case("qwen3_vl", "gated, sampled")
    prompts = {view: [made[0], made[1], made[0], made[3]] for view, made in one.prompts.items()}
    batch = one.batch.rows(one.batch.scene_B != 1)
    want = take(one.policies["now"], one.method, batch, prompts, naive(one.policies, one.method))
    for keep in ("graph", "leaf", "recompute"):
        made = shared(one.policies, one.method, keep=keep, budget=60)
        assert_same(take(one.policies["now"], one.method, batch, prompts, made, budget=60), want, 1e-10)


# ---------------------------------------------------------------------------------------------------- wrong variants


def read_anew_from_the_first(self, stored, row_B, token_BT, mask_BT, respond=Prefix.respond):
    return respond(self, stored, torch.zeros_like(row_B), token_BT, mask_BT)


def positions_start_anew(self, stored, row_B, token_BT, mask_BT, respond=Prefix.respond):
    return respond(self, stored._replace(position_S=stored.position_S * 0), row_B, token_BT, mask_BT)


def a_position_late(self, stored, row_B, token_BT, mask_BT, respond=Prefix.respond):
    return respond(self, stored._replace(position_S=stored.position_S + 1), row_B, token_BT, mask_BT)


def padding_is_seen(self, stored, row_B, token_BT, mask_BT, respond=Prefix.respond):
    return respond(self, stored._replace(seen_SP=torch.ones_like(stored.seen_SP)), row_B, token_BT, mask_BT)


def never_done(self, part):
    return False


def passed_on_in_part(graph, leaves, pass_on=scorer.pass_on):
    pass_on(graph._replace(values=()), leaves._replace(values=()))


def left_in_the_order_of_scoring(batch, some, prompts, reads, *, budget, backend):
    if not reads:
        return Stats({})
    pieces = step.micro_batches(batch, step.read_in(prompts, reads), packing=some.packing, budget=budget)
    with torch.no_grad(), some.open(batch, prompts, reads) as scores:
        parts = [scores(rows).value for rows in pieces]
    return Stats({key: torch.cat([part[key] for part in parts]) for key in parts[0]})


def open_gates(*given, scored=shared, **options):
    made = scored(*given, **options)
    made.views = {name: view._replace(gate=None) for name, view in made.views.items()}
    return made


GATED, FULL = "gated KLs to two views", "KL and entropies over the vocabulary, with gradient"
MUTANTS = [
    ("leaf", GATED, scorer.OpenPrompts, "settle", lambda self: None),
    ("recompute", GATED, scorer.OpenPrompts, "settle", lambda self: None),
    ("leaf", FULL, scorer.OpenPrompts, "_is_done", never_done),
    ("recompute", FULL, scorer.OpenPrompts, "_is_done", never_done),
    ("leaf", FULL, scorer, "pass_on", passed_on_in_part),
    ("graph", FULL, Prefix, "respond", read_anew_from_the_first),
    ("graph", FULL, Prefix, "respond", positions_start_anew),
    ("graph", FULL, Prefix, "respond", a_position_late),
    ("graph", FULL, Prefix, "respond", padding_is_seen),
    ("leaf", GATED, step, "measure", left_in_the_order_of_scoring),
]


@pytest.mark.parametrize(("keep", "name", "where", "what", "wrong"), MUTANTS)
def test_the_comparison_catches(keep, name, where, what, wrong, monkeypatch):
    one = case("qwen3_vl", name)
    monkeypatch.setattr(where, what, wrong)
    with pytest.raises(AssertionError):
        assert_same(one.take(keep, 90), one.want, 1e-10)


def test_the_comparison_catches_a_gate_that_is_ignored():
    one = case("qwen3_vl", GATED)
    with pytest.raises(AssertionError):
        assert_same(one.take("leaf", 90, open_gates), one.want, 1e-10)


# ---------------------------------------------------------------------------------------------------- what learns


def of_the_language_model(name: str, weight: torch.Tensor) -> bool:
    return "visual" not in name


def no_adapter(policy: Policy) -> Policy:
    policy.model.model.visual.requires_grad_(False)
    return policy


def added(policy: Policy, **options) -> Policy:
    """By transformers' own integration."""
    peft = pytest.importorskip("peft")
    policy.model.add_adapter(peft.LoraConfig(**LORA, **options))
    policy.model.double()
    return policy


def wrapped(policy: Policy, **options) -> Policy:
    """By peft's own function."""
    peft = pytest.importorskip("peft")
    return Policy(peft.get_peft_model(policy.model, peft.LoraConfig(**LORA, **options)).double(), policy.reader)


LORA = {"r": 4, "lora_dropout": 0.0, "init_lora_weights": False}
TEXT = {"target_modules": ["q_proj", "v_proj", "o_proj"]}
FROZEN_TOWER = {
    "a frozen tower": no_adapter,
    "adapters added": partial(added, **TEXT),
    "adapters wrapped around": partial(wrapped, **TEXT),
}


@cache
def partly(family: str, how: str) -> Case:
    """A step of one of them; who samples is the policy without adapters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = (FROZEN_TOWER | EVERYWHERE)[how](steps.policy_of(family))
    return make({**policies(family), "now": learner}, METHODS["gated, sampled"])


EVERYWHERE = {"adapters in the tower too": partial(wrapped, target_modules="all-linear")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "how", "keep"),
    [
        ("qwen3_vl", "a frozen tower", "graph"),
        ("qwen3_vl", "a frozen tower", "recompute"),
        ("qwen3_vl", "adapters added", "leaf"),
        ("qwen3_vl", "adapters wrapped around", "recompute"),
        ("qwen2_5_vl", "a frozen tower", "leaf"),
        ("qwen2_5_vl", "adapters added", "recompute"),
        ("qwen2_5_vl", "adapters wrapped around", "leaf"),
    ],
)
def test_with_a_frozen_tower_every_image_is_looked_at_once(family, how, keep):
    """Over the frozen and the live passes, and over views that show the same."""
    one = partly(family, how)
    assert one.want.grads
    assert not any("visual" in name for name in one.want.grads)
    with counted(one.policies["now"]) as work, counted(one.policies["reference"]) as theirs:
        got = one.take(keep, 90)
    assert_same(got, one.want, 1e-10)
    assert work.patches == patches(one, [view for view in one.prompts if view != "reference"])
    assert theirs.patches == patches(one, ["reference"])


def patches(one: Case, views: list[str]) -> int:
    """Those of the distinct images that these views show to rollouts that their gates let through."""
    images = {}
    for view in views:
        gate = one.method.views[view].gate or (lambda advantage_B: torch.ones_like(advantage_B, dtype=torch.bool))
        for scene in one.batch.scene_B[gate(one.batch.advantage_B)].tolist():
            if (prompt := one.prompts[view][scene]).pixels is not None:
                for image in prompt.pixels.split(prompt.grid.prod(-1).tolist()):
                    images[image.numpy().tobytes()] = len(image)
    return sum(images.values())


@pytest.mark.parametrize("keep", ["leaf", "recompute"])
def test_adapters_in_the_tower_learn_too(keep):
    one = partly("qwen3_vl", "adapters in the tower too")
    assert any("visual" in name for name in one.want.grads)
    assert_same(one.take(keep, 90), one.want, 1e-10)


def test_an_adapter_of_the_output_layer_is_not_passed_over():
    """Either it is refused, or it is in the numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = wrapped(steps.policy_of("qwen2_5_vl"), target_modules=["lm_head", "q_proj"])
    one = make({**policies("qwen2_5_vl"), "now": learner}, METHODS["gated, sampled"])
    try:
        got = one.take("leaf", HUGE)
    except UserError:
        return
    assert_same(got, one.want, 1e-10)


def test_what_is_done_with_counts_per_prompt_object():
    """The counter that decides when a prompt is closed comes out even."""
    one = case("qwen3_vl", "gated, sampled")
    held = scorer.OpenPrompts(
        Prefix(one.policies["now"]), one.prompts["image"], one.batch.scene_B.tolist(), True, "leaf", HUGE
    )
    assert sum(held.waiting.values()) == len(one.batch.key_B)
    held.respond(one.batch.scene_B.tolist(), one.batch.token_BT, one.batch.mask_BT)
    assert held.waiting == Counter()
    held.settle()
    assert not held.parts


def test_no_gradient_is_sent_into_a_policy_that_does_not_learn():
    """The reference of a KL over the vocabulary: nothing of it is kept for a backward pass, nothing is read again."""
    frozen = steps.policy_of("qwen3_vl")
    frozen.model.requires_grad_(False)
    one = make({**policies("qwen3_vl"), "reference": frozen}, METHODS["KL over the vocabulary to other weights"])
    read, counted = Prefix.read, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Prefix, "read", lambda self, prompts: counted.append(self.policy is frozen) or read(self, prompts)
        )
        got = one.take("recompute", HUGE)
    assert counted.count(True) == 1
    assert counted.count(False) == 2
    assert_same(got, one.want, 1e-10)
