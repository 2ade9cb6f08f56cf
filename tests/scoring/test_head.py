"""The fused head against its definition: the full log_softmax, differentiated by autograd."""

import inspect
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vergence.scoring.head import FusedOut, fused

ALL = {"entropies": (0, 1), "kls": ((0, 1), (1, 0)), "js": ((0, 1),)}


def definition(hidden_KND, weight_VD, token_N, *, temperature=1.0, entropies=(), kls=(), js=(), grad=None, **tile):
    """Every statistic as it is written in a textbook."""
    grad = (True,) * len(hidden_KND) if grad is None else grad
    logits_KNV = hidden_KND @ weight_VD.T / temperature
    logp = [(x if on else x.detach()).log_softmax(-1) for x, on in zip(logits_KNV, grad, strict=True)]

    def kl(p_NV, q_NV):
        return (p_NV.exp() * (p_NV - q_NV)).sum(-1)

    def jensen_shannon(p_NV, q_NV):
        middle_NV = torch.logaddexp(p_NV, q_NV) - math.log(2)
        return (kl(p_NV, middle_NV) + kl(q_NV, middle_NV)) / 2

    return FusedOut(
        torch.stack([x.gather(-1, token_N[:, None])[:, 0] for x in logp]),
        {k: -(logp[k].exp() * logp[k]).sum(-1) for k in entropies},
        {(p, q): kl(logp[p], logp[q]) for p, q in kls},
        {(p, q): jensen_shannon(logp[p], logp[q]) for p, q in js},
    )


def flat(out: FusedOut) -> torch.Tensor:
    """All outputs as rows."""
    return torch.stack([*out.logp_KN, *out.entropy.values(), *out.kl.values(), *out.js.values()])


def case(K=2, N=7, D=5, V=23, seed=0, dtype=torch.float64, scale=1.0):
    chance = torch.Generator().manual_seed(seed)
    hidden_KND = torch.randn(K, N, D, generator=chance, dtype=torch.float64) * scale
    weight_VD = torch.randn(V, D, generator=chance, dtype=torch.float64)
    token_N = torch.randint(V, (N,), generator=chance)
    return hidden_KND.to(dtype).requires_grad_(), weight_VD.to(dtype).requires_grad_(), token_N


def everything(K: int) -> dict:
    """Every output that K views can have."""
    pairs = tuple((p, q) for p in range(K) for q in range(K) if p != q)
    return {"entropies": tuple(range(K)), "kls": pairs, "js": tuple((p, q) for p, q in pairs if p < q)}


def run(head, hidden_KND, weight_VD, token_N, *, up_ON=None, **wanted):
    """Outputs, and the gradients of their sum weighted by `up_ON` (random unless given)."""
    value_ON = flat(head(hidden_KND, weight_VD, token_N, **wanted))
    if up_ON is None:
        up_ON = torch.randn(value_ON.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    total = (value_ON * up_ON.to(value_ON.dtype)).sum()
    return value_ON.detach(), *torch.autograd.grad(total, (hidden_KND, weight_VD))


def is_its_definition(head, *tensors, atol=1e-10, rtol=1e-10, **wanted):
    for got, want in zip(run(head, *tensors, **wanted), run(definition, *tensors, **wanted), strict=True):
        torch.testing.assert_close(got, want, atol=atol, rtol=rtol)


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


# -------------------------------------------------------------------------------------------------- definition


@pytest.mark.parametrize("seed", range(30))
def test_values_and_gradients_are_their_definition(seed):
    draw = torch.Generator().manual_seed(seed)
    K, N, D, V, rows, columns = (int(torch.randint(1, most, (), generator=draw)) for most in (4, 9, 7, 40, 9, 15))
    temperature = 0.3 + 2 * float(torch.rand((), generator=draw))
    tile = {"rows": rows, "columns": columns}
    is_its_definition(fused, *case(K, N, D, V, seed, scale=3.0), temperature=temperature, **tile, **everything(K))


def test_a_tile_may_be_larger_than_everything_and_a_row_alone():
    is_its_definition(fused, *case(N=1), **ALL)
    is_its_definition(fused, *case(N=1, V=1), **ALL)
    is_its_definition(fused, *case(), rows=1, columns=1, **ALL)


def without_temperature(*tensors, temperature=1.0, **wanted):
    """Wrong: the logits are not divided."""
    return fused(*tensors, **wanted)


def wrong_way_round(*tensors, kls=(), **wanted):
    """Wrong: KL(q || p)."""
    out = fused(*tensors, kls=[(q, p) for p, q in kls], **wanted)
    return out._replace(kl={(p, q): out.kl[q, p] for p, q in kls})


def last_tile_forgotten(hidden_KND, weight_VD, token_N, **wanted):
    """Wrong: the columns of an incomplete last tile do not count."""
    return fused(hidden_KND, weight_VD[: len(weight_VD) // 4 * 4], token_N.clamp(max=19), **wanted)


def blind_to_the_other(hidden_KND, *tensors, grad=None, **wanted):
    """Wrong: no gradient to the second view."""
    return fused(hidden_KND, *tensors, grad=(True, False), **wanted)


@pytest.mark.parametrize("wrong", [without_temperature, wrong_way_round, last_tile_forgotten, blind_to_the_other])
def test_the_definition_catches_wrong_heads(wrong):
    wanted = ALL | {"temperature": 0.7, "columns": 4}
    is_its_definition(fused, *case(), **wanted)
    with pytest.raises(AssertionError):
        is_its_definition(wrong, *case(), **wanted)


@pytest.mark.parametrize("output", range(7))
def test_gradcheck_of_every_output(output):
    hidden_KND, weight_VD, token_N = case(N=3, D=3, V=7)

    def one(hidden_KND, weight_VD):
        return flat(fused(hidden_KND, weight_VD, token_N, temperature=0.8, rows=4, columns=3, **ALL))[output]

    assert torch.autograd.gradcheck(one, (hidden_KND, weight_VD))


def test_no_tokens_is_no_gradient():
    value_ON, d_hidden_KND, d_weight_VD = run(fused, *case(N=0), **ALL)
    assert value_ON.shape == (7, 0)
    assert d_hidden_KND.shape == (2, 0, 5)
    assert not d_weight_VD.any()


@pytest.mark.parametrize("order", ["rising", "falling", "negative"])
def test_extreme_logits_neither_overflow_nor_lose_what_is_small(order):
    """Logits of 1e4 in tiles of which each is far above, or below, the one before."""
    hidden_KND, weight_VD, token_N = case(V=24, D=2)
    with torch.no_grad():
        weight_VD[:, 0] = torch.linspace(-1, 1, 24) * (-1 if order == "falling" else 1) - 2 * (order == "negative")
        hidden_KND[..., 0] = 1e4
        if order != "negative":
            hidden_KND[1, :3, 0] = -1e4
    for got, want in zip(
        run(fused, hidden_KND, weight_VD, token_N, columns=5, **ALL),
        run(definition, hidden_KND, weight_VD, token_N, **ALL),
        strict=True,
    ):
        assert got.isfinite().all()
        assert relative(got, want) < 1e-10
    tiny = run(
        fused, hidden_KND.detach().float().requires_grad_(), weight_VD.detach().float().requires_grad_(), token_N
    )
    assert all(x.isfinite().all() for x in tiny)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_views_do_not_diverge(dtype):
    """Nor does their divergence have a gradient; in units in which each view's entropy is about 1."""
    hidden_KND, weight_VD, token_N = case(dtype=dtype, scale=2.0)
    hidden_KND = hidden_KND[:1].detach().expand(2, -1, -1).clone().requires_grad_()
    up_ON = torch.zeros(7, 7)
    up_ON[4:] = 1.0
    value_ON, *grads = run(fused, hidden_KND, weight_VD, token_N, up_ON=up_ON, columns=6, **ALL)
    small = 100 * torch.finfo(dtype).eps
    assert value_ON[4:].abs().max() < small
    assert all(grad.abs().max() < small for grad in grads)
    assert run(fused, hidden_KND, weight_VD, token_N, columns=6, **ALL)[1].abs().max() > 0.01


# -------------------------------------------------------------------------------------------------- detaching


@pytest.mark.parametrize("grad", [(True, False), (False, True), (False, False)])
def test_a_detached_view_is_a_constant(grad):
    hidden_KND, weight_VD, token_N = case()
    if any(grad):
        is_its_definition(fused, hidden_KND, weight_VD, token_N, grad=grad, columns=6, **ALL)
        d_hidden_KND = run(fused, hidden_KND, weight_VD, token_N, grad=grad, **ALL)[1]
        assert [bool(grad_ND.any()) for grad_ND in d_hidden_KND] == list(grad)
    out = fused(hidden_KND, weight_VD, token_N, grad=grad, **ALL)
    assert [out.entropy[k].requires_grad for k in (0, 1)] == list(grad)
    assert out.kl[0, 1].requires_grad == out.js[0, 1].requires_grad == any(grad)


def test_only_what_needs_a_gradient_gets_one():
    hidden_KND, weight_VD, token_N = case()
    want = run(fused, hidden_KND, weight_VD, token_N, **ALL)
    up_ON = torch.randn(7, 7, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    frozen = flat(fused(hidden_KND, weight_VD.detach(), token_N, **ALL))
    assert torch.equal(torch.autograd.grad(frozen, hidden_KND, up_ON)[0], want[1])
    head_alone = flat(fused(hidden_KND.detach(), weight_VD, token_N, **ALL))
    assert torch.equal(torch.autograd.grad(head_alone, weight_VD, up_ON)[0], want[2])
    with torch.no_grad():
        assert not flat(fused(hidden_KND, weight_VD, token_N, **ALL)).requires_grad


# -------------------------------------------------------------------------------------------------- precision


def test_float32_is_the_float64_definition_to_1e_5():
    tensors = case(K=3, N=65, D=32, V=1500, scale=0.5)
    single = [x.detach().float().requires_grad_() for x in tensors[:2]]
    wanted = everything(3) | {"rows": 40, "columns": 200}
    want = run(definition, *(x.detach().double().requires_grad_() for x in single), tensors[2], **wanted)
    for got, right in zip(run(fused, *single, tensors[2], **wanted), want, strict=True):
        assert got.dtype == torch.float32
        assert relative(got, right) < 1e-5


def low_precision_error(head) -> list[float]:
    """Of values and gradients in bfloat16, against float64 at the same inputs."""
    hidden_KND, weight_VD, token_N = case(N=33, D=64, V=500, dtype=torch.bfloat16, scale=0.3)
    want = run(
        definition,
        *(x.detach().double().requires_grad_() for x in (hidden_KND, weight_VD)),
        token_N,
        rows=8,
        columns=90,
        **ALL,
    )
    got = run(head, hidden_KND, weight_VD, token_N, rows=8, columns=90, **ALL)
    return [relative(here, there) for here, there in zip(got, want, strict=True)]


def test_bfloat16_is_summed_in_float32_and_its_gradients_rounded_once():
    error = low_precision_error(fused)
    assert error[0] < 1e-6
    assert max(error[1:]) < 2**-9
    assert low_precision_error(definition)[0] > 1e-4, "plain bfloat16 would pass too"


def test_autocast_does_not_reach_inside():
    tensors = case(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(fused, *tensors, **ALL)
    assert all(torch.equal(a, b) for a, b in zip(inside, run(fused, *tensors, **ALL), strict=True))


# -------------------------------------------------------------------------------------------------- work and memory


class Watched(TorchDispatchMode):
    """Counts the multiplications of every matrix product, and keeps the shapes of what is made."""

    def __init__(self):
        super().__init__()
        self.multiplications, self.shapes = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default:
            self.multiplications += args[0].numel() * args[1].shape[1]
        self.shapes |= {tuple(x.shape) for x in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(x)}
        return out


def products(up_ON: torch.Tensor, **wanted) -> tuple[float, list[torch.Tensor]]:
    """The backward pass's products, in rows: one is D x V multiplications; and its gradients."""
    hidden_KND, weight_VD, token_N = case(N=12)
    value_ON = flat(fused(hidden_KND, weight_VD, token_N, rows=4, columns=6, **wanted))
    with Watched() as watched:
        grads = torch.autograd.grad(value_ON, (hidden_KND, weight_VD), up_ON.double())
    return watched.multiplications / weight_VD.numel(), list(grads)


def test_rows_without_upstream_gradient_cost_nothing_and_change_nothing():
    up_ON = torch.zeros(7, 12)
    up_ON[0, [1, 4, 5, 10]] = torch.tensor([0.5, -1.0, 2.0, 1e-30])  # the sampled tokens of view 0
    up_ON[4, [5, 11]] = 3.0  # KL(0 || 1)
    rows, grads = products(up_ON, **ALL)
    assert rows == 3 * 3 + 3 * 2 * 2, "three tokens of one view, two of two: again, and once for either gradient"
    want = run(definition, *case(N=12), up_ON=up_ON, **ALL)[1:]
    torch.testing.assert_close(grads, list(want), atol=1e-12, rtol=1e-12)
    assert not grads[0][:, [0, 2, 3, 6, 7, 8, 9]].any()
    assert products(up_ON, grad=(True, False), **ALL)[0] == 3 * 3 + 2 * (2 + 1 + 1)
    assert products(up_ON, grad=(False, True), **ALL)[0] == 2 * (2 + 1 + 1), "a constant's own outputs are skipped"
    assert products(torch.zeros(7, 12), **ALL)[0] == 0
    assert products(torch.full((7, 12), 1e-30), **ALL)[0] == 3 * 12 * 2, "whatever is not zero counts"


def largest(N: int, V: int, D: int, **tile) -> int:
    """Elements of the largest tensor made, forward and backward, apart from those shaped like the parameter."""
    hidden_KND, weight_VD, token_N = case(N=N, V=V, D=D, dtype=torch.float32)
    with Watched() as watched:
        run(fused, hidden_KND, weight_VD, token_N, kls=((0, 1),), **tile)
    return max(math.prod(shape) for shape in watched.shapes if sorted(shape) != sorted((V, D)))


def test_nothing_of_tokens_by_vocabulary_is_ever_made():
    assert largest(512, 151_936, 8) < 512 * 151_936 / 20
    assert largest(64, 2_000, 8, rows=32, columns=100) == 32 * 100
    assert largest(64, 2_000, 8, rows=128, columns=2_000) > 64 * 2_000 / 20, "a tile of everything is seen"


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"token_N": torch.tensor([0, 23, 0])}, r"\[0, 23\), got 0 to 23"),
        ({"token_N": torch.tensor([0, -100, 0])}, "got -100 to 0"),
        ({"token_N": torch.zeros(4, dtype=torch.long)}, "do not match"),
        ({"weight_VD": torch.zeros(23, 4)}, "do not match"),
        ({"weight_VD": torch.zeros(0, 5)}, "do not match"),
        ({"entropies": (2,)}, r"entropy of \(2,\), but the views are 0 to 1"),
        ({"kls": ((0, -1),)}, r"kl of \(0, -1\)"),
        ({"js": ((0,),)}, r"js of \(0,\)"),
        ({"grad": (True,)}, r"grad \(True,\) do not match"),
        ({"temperature": 0.0}, "must be positive"),
        ({"rows": 0}, "must be positive"),
        ({"columns": -1}, "must be positive"),
    ],
)
def test_bad_input_is_named(wrong, says):
    good = {"hidden_KND": torch.zeros(2, 3, 5), "weight_VD": torch.zeros(23, 5), "token_N": torch.zeros(3).long()}
    with pytest.raises(ValueError, match=says):
        inspect.unwrap(fused)(**(good | wrong))  # without the checks of annotations that some test runs add


def test_logits_are_kept_for_a_backward_pass_alone():
    """And only of a small vocabulary; what is computed does not depend on it."""
    held = []

    def kept(hidden, **options) -> bool:
        held.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x.shape) or x, lambda x: x):
            fused(hidden, weight_VD, torch.arange(5), **options)
        return (1, 5, 40) in [tuple(shape) for shape in held]

    hidden_KND, weight_VD = torch.randn(1, 5, 4), torch.randn(40, 4)
    learning = hidden_KND.clone().requires_grad_()
    assert kept(learning)
    assert not kept(learning, rows=2)
    assert not kept(learning, grad=[False])
    with torch.no_grad():
        assert not kept(learning)
    weight_VD = torch.randn(65, 4)
    assert not kept(learning)
