"""What a step costs, counted: images and tokens exactly, arithmetic to 5 % of the model, memory by its largest tensor.

The formulas, of each view, with S prompts of P tokens that have responses, B responses of T tokens (all padded):

    tower             each distinct image that the view shows, once in a read
    language model    S (P - 1) + B T          prompts twice where they are read again, once where nothing learns
    head              the trained tokens: 2 N D V forward; again that and twice as much for the gradient
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import NamedTuple

import pytest
import torch
from laws.cases import CASES
from laws.cases import make as rollouts
from scoring import steps
from scoring.steps import HUGE, MIXED, build, counted, in_float64, naive, shared, take
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vergence.models.images import Features, Images
from vergence.models.policy import Policy
from vergence.models.prefix import Prefix
from vergence.objectives import method
from vergence.objectives.objective import reads_of_method
from vergence.scoring import shared as scorer
from vergence.scoring.head import KEPT
from vergence.scoring.prompts import Reader
from vergence.train.backend import OneProcess
from vergence.train.packing import micro_batches
from vergence.train.step import accumulate, needed, reshaped
from vergence.types import Batch, Method, Prompt, Stats, with_advantage

LENGTHS = [[4, 2, 7], [3, 9], [5, 5, 2], [1, 6]]
CPPO, PAPO, GRPO = method("cppo-grpo@release-verl"), method("papo-grpo@full", beta=0.01), method("grpo", beta=0.0)


@cache
def policies() -> dict[str, Policy]:
    policy = build("qwen2_vl")
    return {"now": policy, "reference": steps.moved(policy)}


@cache
def round_of(name: str) -> tuple[Method, Batch, dict[str, list[Prompt]]]:
    one = {"cppo": CPPO, "papo": PAPO, "grpo": GRPO}[name]
    return one, steps.batch_of(LENGTHS, torch.float32), steps.prompts_of(policies()["now"], one, steps.scenes(MIXED))


# ---------------------------------------------------------------------------------------------------- tokens, images


class Spent(NamedTuple):
    """Of one policy, over frozen and live passes."""

    tokens: int
    patches: int


def expected(one: Method, batch: Batch, prompts: dict, whose: str, keep: str, budget: int, together: bool) -> Spent:
    """By the formulas above; `together` if all prompts of a view are read at once, else one by one."""
    tokens, seen = 0, 0
    for live in (False, True):
        reads = [read for read in reads_of_method(one) if (read.when != "frozen") == live]
        views = list(dict.fromkeys(view for read in reads for view in (read.view, read.against) if view))
        packing = "responses" if keep == "recompute" else "groups"
        pieces = (
            micro_batches(batch, {view: prompts[view] for view in views}, packing=packing, budget=budget)
            if views
            else []
        )
        for view in views:
            if one.views[view].policy != whose:
                continue
            learns = any(read.when == "grad" and view in (read.view, read.against) for read in reads)
            gate = one.views[view].gate
            through_B = torch.ones_like(batch.key_B, dtype=torch.bool) if gate is None else gate(batch.advantage_B)
            asked = [rows[through_B[rows]] for rows in pieces]
            for rows in asked:
                tokens += len(rows) * int(batch.mask_BT[rows].sum(-1).max()) if len(rows) else 0
            per_piece = [sorted(set(batch.scene_B[rows].tolist())) for rows in asked]
            if keep != "graph" or not learns:
                per_piece = [sorted({scene for scenes in per_piece for scene in scenes})]
            for scenes in per_piece:
                times = 2 if keep == "recompute" and learns else 1
                chunks = [scenes] if together else [[scene] for scene in scenes]
                for some in filter(None, chunks):
                    tokens += times * len(some) * (max(len(prompts[view][scene].tokens) for scene in some) - 1)
                    seen += times * patches([prompts[view][scene] for scene in some])
    return Spent(tokens, seen)


def patches(shown: list[Prompt]) -> int:
    """Of the distinct images."""
    images = {}
    for prompt in shown:
        for image in prompt.pixels.split(prompt.grid.prod(-1).tolist()) if prompt.pixels is not None else ():
            images[image.numpy().tobytes()] = len(image)
    return sum(images.values())


def spends_what_it_must(name: str, keep: str, budget: int, together: bool) -> None:
    one, batch, prompts = round_of(name)
    made = shared(policies(), one, keep=keep, budget=HUGE if together else 1)
    with counted(policies()["now"]) as work, counted(policies()["reference"]) as theirs:
        take(policies()["now"], one, batch, prompts, made, budget=budget)
    assert Spent(work.read, work.patches) == expected(one, batch, prompts, "now", keep, budget, together)
    seen = expected(one, batch, prompts, "reference", keep, budget, together)
    assert theirs.read == seen.tokens
    assert theirs.patches <= seen.patches  # it cannot learn: what it said of an image is kept


@pytest.mark.parametrize("keep", ["graph", "leaf", "recompute"])
@pytest.mark.parametrize("name", ["cppo", "papo", "grpo"])
def test_a_step_spends_what_it_must(name, keep):
    spends_what_it_must(name, keep, HUGE, True)


@pytest.mark.parametrize("keep", ["graph", "leaf", "recompute"])
def test_so_it_does_in_micro_batches(keep):
    spends_what_it_must("cppo", keep, 60, False)


def test_the_same_image_under_two_questions_is_looked_at_once():
    """The fourth scene has the image of the first."""
    one, batch, prompts = round_of("grpo")
    assert MIXED[3] == "again"
    with counted(policies()["now"]) as work:
        take(policies()["now"], one, batch, prompts, shared(policies(), one))
    apart = [patches([prompt]) for prompt in prompts["image"]]
    assert work.looks == [sum(apart) - apart[3]]


def closed_too_early(self, part):
    return True


def looked_at_for_each_prompt(self, prompts):
    parts = [self._look(self._images(prompt)) for prompt in prompts if prompt.pixels is not None]
    return Features(torch.cat([one.embedded for part in parts for one in part]), ())


def test_the_count_catches_a_prompt_that_is_closed_too_early(monkeypatch):
    monkeypatch.setattr(scorer.OpenPrompts, "_is_done", closed_too_early)
    with pytest.raises(AssertionError):
        spends_what_it_must("cppo", "leaf", 20, False)


def test_the_count_catches_an_image_that_is_looked_at_twice(monkeypatch):
    monkeypatch.setattr(Images, "features", looked_at_for_each_prompt)
    with pytest.raises(AssertionError):
        spends_what_it_must("grpo", "leaf", HUGE, True)


def test_the_count_catches_a_gate_that_is_ignored():
    one, batch, prompts = round_of("cppo")
    open_wide = one._replace(views={name: view._replace(gate=None) for name, view in one.views.items()})
    made = shared(policies(), open_wide)
    with counted(policies()["now"]) as work:
        take(policies()["now"], one, batch, prompts, made)
    assert work.read > expected(one, batch, prompts, "now", "leaf", HUGE, True).tokens


# ---------------------------------------------------------------------------------------------------- what is needed


def without_needs(one: Method) -> Method:
    """The method whose terms are about every rollout."""
    objective, metrics = (
        {name: term._replace(needs=None) for name, term in terms.items()} for terms in (one.objective, one.metrics)
    )
    return one._replace(objective=objective, metrics=metrics)


def some_without_advantage(batch: Batch, scene: int = 1) -> Batch:
    """A whole group without, and rollouts of others."""
    none_B = (batch.scene_B == scene) | (torch.arange(len(batch.key_B)) % 4 == 0)
    return with_advantage(batch, batch.advantage_B.where(~none_B, 0.0))


def test_rollouts_without_advantage_are_not_scored():
    one, batch, prompts = round_of("grpo")
    batch = some_without_advantage(batch)
    through_B = batch.advantage_B != 0
    assert 0 < int(through_B.sum()) < len(batch.key_B)
    with counted(policies()["now"]) as work:
        take(policies()["now"], one, batch, prompts, shared(policies(), one))
    asked = [len(prompts["image"][scene].tokens) for scene in set(batch.scene_B[through_B].tolist())]
    T = int(batch.mask_BT[through_B].sum(-1).max())
    assert len(asked) == 3
    assert work.tokens == [(len(asked), max(asked) - 1), (int(through_B.sum()), T)]
    assert work.read < expected(one, batch, prompts, "now", "leaf", HUGE, True).tokens


@pytest.mark.parametrize("scored", [naive, shared])
def test_what_is_not_scored_does_not_count(scored):
    """Loss, clip ratios and gradients are those with every rollout scored."""
    with in_float64():
        policy = steps.policy_of("qwen2_vl")
        prompts = steps.prompts_of(policy, GRPO, steps.scenes(MIXED))
        batch = some_without_advantage(steps.as_sampled(policy, steps.batch_of(LENGTHS), prompts, GRPO))
        every = without_needs(GRPO)
        want = take(policy, every, batch, prompts, scored({"now": policy}, every))
        got = take(policy, GRPO, batch, prompts, scored({"now": policy}, GRPO))
        steps.assert_same(got, want, 1e-12)
        assert want.told["clip_ratio/high"] > 0
        nobody = with_advantage(batch, 0 * batch.advantage_B)
        with counted(policy) as work:
            zero = take(policy, GRPO, nobody, prompts, scored({"now": policy}, GRPO))
        assert work.tokens == []
        assert set(zero.told.values()) == {0.0}
        assert not any(grad.any() for grad in zero.grads.values())


def scored_in(one: Method) -> list[bool]:
    """Which of rollouts with advantages -1, 0, 1 the method scores."""
    batch = with_advantage(steps.batch_of([[2, 2, 2]]), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    return needed([*one.objective.values(), *one.metrics.values()], batch).tolist()


@pytest.mark.parametrize(
    ("one", "scores"),
    [
        (method("grpo", beta=0.0), [True, False, True]),
        (method("dapo"), [True, False, True]),
        (method("grpo", beta=0.04), [True] * 3),
        (method("grpo", beta=0.0, entropy=0.01), [True] * 3),
        (method("grpo", beta=0.0, entropy=0.01, entropy_of="full"), [True] * 3),
        (method("papo", beta=0.0), [True] * 3),
        (method("papo@full", beta=0.0, gamma=0.0, eta=0.1), [True] * 3),
        (method("cppo", beta=0.0), [True, False, True]),
        (method("cppo", beta=0.0, gate="none"), [True] * 3),
    ],
)
def test_who_is_scored(one, scores):
    assert scored_in(one) == scores


class Told:
    """A scorer that has the answers of a case; it counts who is asked for."""

    packing = "responses"

    def __init__(self, case) -> None:
        self.case, self.asked = case, []

    def open(self, batch, prompts, reads):
        def score(rows) -> Stats:
            key_B = batch.key_B[rows]
            self.asked += key_B.tolist()
            return Stats({read[:3]: self.case.live.value[read[:3]][key_B] for read in reads})

        return nullcontext(score)


def step_of(one: Method, case) -> tuple[dict[str, float], dict, int]:
    """What is told, gradients of the leaves, and how many rollouts were scored."""
    for leaf in case.leaves.values():
        leaf.grad = None
    told, prompts = Told(case), {name: [Prompt((1, 2))] * 3 for name in one.views}
    batch = reshaped(one, case.batch, case.frozen, OneProcess())
    shares = accumulate(one, batch, case.frozen, told, prompts, backend=OneProcess(), budget=20)
    grads = {
        key: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone() for key, leaf in case.leaves.items()
    }
    return shares, grads, len(told.asked)


def needs_lose_nothing(one: Method) -> int:
    """How many rollouts were not scored."""
    spared = 0
    for seed in range(2):
        case = rollouts(one, seed, wild=seed == 1)
        none_B = torch.tensor([True, False, False, False, True, True])
        case = case._replace(batch=with_advantage(case.batch, case.batch.advantage_B.where(~none_B, 0.0)))
        told, grads, asked = step_of(one, case)
        want, others, every = step_of(without_needs(one), case)
        assert every == 6
        spared += every - asked
        assert told.keys() == want.keys()
        for name, share in want.items():
            assert abs(told[name] - share) <= 1e-12 * max(1.0, abs(share)), name
        for key, grad_BT in others.items():
            torch.testing.assert_close(grads[key], grad_BT, rtol=1e-12, atol=1e-12)
    return spared


@pytest.mark.parametrize("name", CASES)
def test_needs_lose_nothing(name):
    needs_lose_nothing(CASES[name])


@pytest.mark.parametrize("wrong", [lambda batch: batch.advantage_B > 0, lambda batch: batch.advantage_B > 9])
def test_needs_that_lose_something_are_caught(wrong):
    one = GRPO._replace(objective={"surrogate": GRPO.objective["surrogate"]._replace(needs=wrong)}, metrics={})
    with pytest.raises(AssertionError):
        needs_lose_nothing(one)
    assert needs_lose_nothing(GRPO) >= 6


# ---------------------------------------------------------------------------------------------------- arithmetic


class Shape(NamedTuple):
    """S prompts of P tokens, each with `image` patches; G responses of T tokens to each, all of the same length."""

    S: int
    G: int
    P: int
    T: int
    patches: int


def flops(policy: Policy, shape: Shape, *, apart: bool, learns: bool) -> float:
    """Of one view, by the cost model: a gradient costs twice the forward pass; attention is counted whole."""
    text, vision = policy.model.config.get_text_config(), policy.model.config.vision_config
    D, L, F, V = text.hidden_size, text.num_hidden_layers, text.intermediate_size, text.vocab_size
    d = D // text.num_attention_heads
    A, KV = D, d * text.num_key_value_heads
    S, G, P, T, n = shape
    B, E, m = S * G, vision.embed_dim, vision.spatial_merge_size**2
    embed = 2 * n * 3 * vision.temporal_patch_size * vision.patch_size**2 * E
    tower = vision.depth * (2 * n * (4 * E * E + 2 * E * int(vision.mlp_ratio * E)) + 4 * n * n * E)
    tower += 2 * (n // m) * ((m * E) ** 2 + m * E * D)

    def language(rows: int, new: int, keys: int) -> int:
        return rows * new * L * (2 * (2 * D * A + 2 * D * KV + 3 * D * F) + 4 * keys * A)

    unused = 0  # of the last layer, nothing but its keys and values is kept of a prompt: no gradient goes through it
    if apart:
        looks, read = B, language(B, P + T, P + T)
        head, of_head = 2 * B * (T + 1) * D * V, 3  # it makes the logits before the first token, and after the last
    else:
        looks, read = S, language(S, P - 1, P - 1) + language(B, T, P - 1 + T)
        head, of_head = 2 * B * T * D * V, 3 if V <= KEPT * D else 4  # the gradient makes many logits again
        unused = language(S, P - 1, P - 1) // L - 4 * S * (P - 1) * D * KV
    if not learns:
        return looks * (tower + embed) + read + head
    return looks * (3 * tower + 2 * embed) + 3 * read - 2 * unused + of_head * head  # pixels have no gradient


def rho(policy: Policy, shape: Shape) -> float:
    """The closed form: G (c + P + T) / (c + P + G T), with c what an image costs in tokens of the language model."""
    none = shape._replace(patches=0)
    token = flops(policy, none._replace(S=1, G=1, P=1, T=1), apart=False, learns=False)
    image, text = (flops(policy, of._replace(S=1, G=1), apart=False, learns=False) for of in (shape, none))
    c = (image - text) / token
    return shape.G * (c + shape.P + shape.T) / (c + shape.P + shape.G * shape.T)


def count(policy: Policy, one: Method, scored: Callable, shape: Shape, prompts: dict) -> int:
    """On policy, so that no token is clipped: those cost nothing on the way back."""
    batch = steps.batch_of([[shape.T] * shape.G] * shape.S, torch.float32)
    batch = steps.as_sampled(policy, batch, prompts, one, away=0.0)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        take(policy, one, batch, prompts, scored({"now": policy}, one))
    return counter.get_total_flops()


@cache
def shaped(vocab: int = 2048) -> tuple[Policy, Shape, dict[str, list[Prompt]]]:
    """Four distinct images of one size under prompts of one length; so many words that logits are made again."""
    policy = build("qwen2_vl", vocab=vocab)
    chance = torch.Generator().manual_seed(0)

    def prompt() -> Prompt:
        ids = [20] * 5 + [policy.reader.image_id] * 16 + [21] * 20
        return Prompt(tuple(ids), torch.randn(64, 3 * 2 * 64, generator=chance), torch.tensor([[1, 8, 8]]))

    prompts = {view: [prompt() for _ in range(4)] for view in ("image", "masked")}
    return policy, Shape(S=4, G=6, P=41, T=12, patches=64), prompts


PAPO_BARE = method("papo-grpo@full", beta=0.0)
PAPO_STALE = method("papo-grpo@release", beta=0.0)


@pytest.mark.parametrize(
    ("one", "learning", "constant", "vocab"),
    [(GRPO, 1, 0, 2048), (PAPO_BARE, 2, 0, 2048), (PAPO_STALE, 1, 1, 2048), (GRPO, 1, 0, 532)],
    ids=["GRPO", "PAPO with gradient", "PAPO as released", "GRPO with few words"],
)
def test_arithmetic_is_that_of_the_model(one, learning, constant, vocab):
    """Ours and the definition's, to 5 %; so one is as many times the other as the model says."""
    policy, shape, prompts = shaped(vocab)
    prompts = {view: prompts[view] for view in one.views}
    spent, said = {}, {}
    for scored, apart in ((shared, False), (naive, True)):
        spent[apart] = count(policy, one, scored, shape, prompts)
        said[apart] = learning * flops(policy, shape, apart=apart, learns=True)
        said[apart] += constant * flops(policy, shape, apart=apart, learns=False)
        assert spent[apart] == pytest.approx(said[apart], rel=0.05), apart
    assert spent[True] / spent[False] == pytest.approx(said[True] / said[False], rel=0.05)
    assert spent[True] > 2 * spent[False]


def test_so_many_times_less_is_the_closed_form():
    """Where the head is small: rho leaves it out."""
    policy, shape, prompts = shaped(532)
    spent = [count(policy, GRPO, scored, shape, {"image": prompts["image"]}) for scored in (naive, shared)]
    assert spent[0] / spent[1] == pytest.approx(rho(policy, shape), rel=0.05)


def test_the_model_is_not_that_of_prompts_read_for_each_response():
    policy, shape, _ = shaped()
    assert flops(policy, shape, apart=True, learns=True) > 2 * flops(policy, shape, apart=False, learns=True)
    again = count(policy, GRPO, lambda *given: shared(*given, keep="recompute"), shape, {"image": shaped()[2]["image"]})
    assert again > 1.05 * flops(policy, shape, apart=False, learns=True)


# ---------------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that is made, but for those shaped like a parameter."""

    def __init__(self, parameters) -> None:
        super().__init__()
        self.known = {frozenset(enumerate(sorted(weight.shape))) for weight in parameters}
        self.shape: tuple[int, ...] = (0,)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, torch.Tensor) and frozenset(enumerate(sorted(made.shape))) not in self.known:
                self.shape = max(self.shape, tuple(made.shape), key=lambda shape: torch.Size(shape).numel())
        return out


VOCABULARY = 151_936


@cache
def of_many_words() -> tuple[Policy, dict[str, list[Prompt]]]:
    policy = build("qwen2_vl", vocab=VOCABULARY, wide=16, layers=2)
    return policy, steps.prompts_of(policy, PAPO_BARE, steps.scenes(["image", "image"]))


def stays_small(scored: Callable, G: int = 4, T: int = 25) -> None:
    """No tensor has T V / 20 elements, T being all trained tokens of the step."""
    policy, prompts = of_many_words()
    batch = steps.batch_of([[T] * G] * 2, torch.float32)
    with Largest(policy.model.parameters()) as largest:
        take(policy, PAPO_BARE, batch, prompts, scored({"now": policy}, PAPO_BARE))
    assert torch.Size(largest.shape).numel() < int(batch.mask_BT.sum()) * VOCABULARY / 20, largest.shape


@pytest.mark.parametrize("keep", ["leaf", "recompute"])
def test_nothing_of_vocabulary_size_is_made(keep):
    stays_small(lambda *given: shared(*given, keep=keep))


def test_the_definition_makes_it():
    with pytest.raises(AssertionError):
        stays_small(naive, G=1, T=8)


def test_a_reader_is_what_the_scorer_wants():
    assert isinstance(Prefix(policies()["now"]), Reader)
