"""From hidden states to statistics: the definition, for any gates, any comparisons and two output layers."""

from itertools import product

import pytest
import torch
from torch import Tensor

from vergence.scoring import statistics as made
from vergence.scoring.statistics import State, compared, patterns, statistics
from vergence.types import Batch, Read, Stats

VIEWS = ("image", "kept", "removed", "reference")
LEARN = {"image": True, "kept": True, "removed": False, "reference": False}
READS = (
    Read("image", "logp", when="grad"),
    Read("image", "entropy", when="grad"),
    Read("image", "kl", "kept", when="grad"),
    Read("image", "kl", "removed", when="grad"),
    Read("kept", "kl", "image", when="grad"),
    Read("kept", "entropy"),
    Read("removed", "logp"),
    Read("removed", "kl", "kept", when="grad"),
    Read("kept", "js", "removed", when="grad"),
    Read("image", "js", "reference"),
    Read("image", "kl", "reference", when="grad"),
    Read("reference", "kl", "image", when="grad"),
    Read("reference", "logp"),
)
APART = (Read("image", "logp", when="grad"), Read("kept", "entropy", when="grad"), Read("removed", "logp"))


def case(seed: int, *, B: int = 6, T: int = 5, D: int = 4, V: int = 11) -> tuple[Batch, dict[str, State], list[Tensor]]:
    """Random hidden states behind random gates; two policies' output layers. Leaves: what can have gradient."""
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64)

    now_VD, then_VD = normal(V, D).requires_grad_(), normal(V, D).requires_grad_()
    length_B = torch.randint(0, T + 1, (B,), generator=chance)
    states, leaves = {}, [now_VD]
    for view in VIEWS:
        through_B = torch.rand(B, generator=chance) < (0.0 if seed % 7 == 6 and view == "kept" else 0.7)
        longest = int(length_B[through_B].max()) if through_B.any() else 0
        hidden_nTD = normal(int(through_B.sum()), longest, D).requires_grad_(LEARN[view])
        states[view] = State(through_B, hidden_nTD, then_VD if view == "reference" else now_VD, LEARN[view])
        leaves += [hidden_nTD] if LEARN[view] else []
    batch = Batch(
        key_B=torch.arange(B),
        scene_B=torch.arange(B),
        token_BT=torch.randint(V, (B, T), generator=chance),
        mask_BT=torch.arange(T) < length_B[:, None],
        sampled_logp_BT=normal(B, T),
        chance_BT=normal(B, T),
        correct_B=normal(B),
        advantage_B=normal(B),
        advantage_BT=normal(B, T),
    )
    return batch, states, leaves


def definition(reads, states, batch: Batch, *, temperature: float) -> Stats:
    """One token at a time, from log_softmax."""

    def look(view: str, b: int, t: int) -> Tensor:
        state = states[view]
        hidden_D = state.hidden_nTD[int(state.through_B[:b].sum()), t]
        logp_V = (hidden_D @ state.weight_VD.T / temperature).log_softmax(-1)
        return logp_V if state.grad else logp_V.detach()

    value = {}
    for read in reads:
        rows = []
        for b, t in product(*map(range, batch.mask_BT.shape)):
            views = [view for view in (read.view, read.against) if view]
            if not batch.mask_BT[b, t] or not all(states[view].through_B[b] for view in views):
                rows.append(torch.zeros((), dtype=torch.float64))
                continue
            p_V, *q_V = (look(view, b, t) for view in views)
            match read.quantity:
                case "logp":
                    found = p_V[batch.token_BT[b, t]]
                case "entropy":
                    found = -(p_V.exp() * p_V).sum()
                case "kl":
                    found = (p_V.exp() * (p_V - q_V[0])).sum()
                case "js":
                    r_V = ((p_V.exp() + q_V[0].exp()) / 2).log()
                    found = ((p_V.exp() * (p_V - r_V)).sum() + (q_V[0].exp() * (q_V[0] - r_V)).sum()) / 2
            rows.append(found if read.when == "grad" else found.detach())
        value[read[:3]] = torch.stack(rows).view(batch.mask_BT.shape)
    return Stats(value)


def outcome(measured, reads, seed: int) -> tuple[dict, list[Tensor | None]]:
    batch, states, leaves = case(seed)
    stats = measured(reads, states, batch, temperature=0.7)
    up = torch.Generator().manual_seed(seed + 1)
    total = sum(
        (value_BT * torch.randn(value_BT.shape, generator=up, dtype=torch.float64)).sum()
        for value_BT in stats.value.values()
    )
    found = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(leaves)
    return stats.value, [
        torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)
    ]


def is_the_definition(reads, seed: int) -> None:
    got, want = outcome(statistics, reads, seed), outcome(definition, reads, seed)
    assert got[0].keys() == want[0].keys()
    for key, value_BT in want[0].items():
        torch.testing.assert_close(got[0][key], value_BT, rtol=1e-10, atol=1e-10, check_dtype=False, msg=str(key))
        assert got[0][key].requires_grad <= value_BT.requires_grad
    for grad, other in zip(got[1], want[1], strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("reads", [READS, READS[:9], APART], ids=["two heads", "three views", "apart"])
def test_statistics_and_gradients_are_their_definition(reads, seed):
    is_the_definition(reads, seed)


def test_no_rollout_and_no_trained_token_are_zero():
    batch, states, _ = case(0)
    silent = statistics(READS, states, batch.rows(slice(0, 6)), temperature=1.0)
    none = {
        view: state._replace(through_B=torch.zeros(6, dtype=torch.bool), hidden_nTD=state.hidden_nTD[:0])
        for view, state in states.items()
    }
    nobody = statistics(READS, none, batch, temperature=1.0)
    assert all(value_BT.shape == batch.mask_BT.shape for value_BT in (*silent.value.values(), *nobody.value.values()))
    assert not any(value_BT.any() for value_BT in nobody.value.values())


@pytest.mark.parametrize(
    ("reads", "groups"),
    [
        ([], []),
        ([Read("a", "logp"), Read("a", "entropy")], [["a"]]),
        ([Read("a", "logp"), Read("b", "logp")], [["a"], ["b"]]),
        ([Read("a", "kl", "b"), Read("c", "kl", "d")], [["a", "b"], ["c", "d"]]),
        ([Read("a", "kl", "b"), Read("c", "kl", "d"), Read("d", "kl", "a")], [["a", "b", "c", "d"]]),
        ([Read("a", "logp"), Read("b", "logp"), Read("c", "kl", "b")], [["a"], ["b", "c"]]),
    ],
)
def test_views_are_put_together_that_are_compared(reads, groups):
    assert sorted(sorted(group) for group in compared(reads)) == groups


@pytest.mark.parametrize("seed", range(5))
def test_patterns_part_the_rows(seed):
    """Every row that a view was spent on once, with exactly the views that were."""
    chance = torch.Generator().manual_seed(seed)
    through = [(name, torch.rand(9, generator=chance) < 0.5) for name in "abc"]
    seen = torch.zeros(9, dtype=torch.long)
    for views, rows_B in patterns(through):
        seen += rows_B
        assert views
        for name, through_B in through:
            assert (through_B[rows_B] == (name in views)).all()
    assert torch.equal(seen, torch.stack([through_B for _, through_B in through]).any(0).long())


def test_no_rows_have_no_pattern():
    assert list(patterns([("a", torch.zeros(3, dtype=torch.bool))])) == []


def as_if_all_were_let_through(state: State, where: tuple[Tensor, Tensor]) -> Tensor:
    return state.hidden_nTD[where[0].clamp(max=len(state.hidden_nTD) - 1), where[1]]


def by_the_first_head(hidden, states) -> tuple[Tensor, Tensor]:
    return torch.stack(list(hidden)), states[0].weight_VD


def all_or_nothing(through):
    yield [view for view, _ in through], torch.stack([through_B for _, through_B in through]).all(0)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("_at", as_if_all_were_let_through), ("_one_head", by_the_first_head), ("patterns", all_or_nothing)],
)
def test_the_definition_catches(name, wrong, monkeypatch):
    monkeypatch.setattr(made, name, wrong)
    with pytest.raises(AssertionError):
        is_the_definition(READS, 0)


def test_the_definition_catches_a_gradient_that_stops(monkeypatch):
    fused = made.fused
    monkeypatch.setattr(
        made,
        "fused",
        lambda *given, grad, **told: fused(*given, grad=[on and not k for k, on in enumerate(grad)], **told),
    )
    with pytest.raises(AssertionError):
        is_the_definition(READS, 0)
