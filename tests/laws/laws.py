"""What holds for every objective. A law takes a method and raises AssertionError; `step` may be a faulty trainer's."""

from collections.abc import Callable
from itertools import pairwise

import torch

from laws.cases import Case, assert_same, make, mapped, only, step
from vergence.objectives.objective import reads_of
from vergence.types import BT, Method, Stats


def cuts_do_not_matter(method: Method, step: Callable = step) -> None:
    """Micro-batches are memory, and nothing else."""
    for seed in range(2):
        case = make(method, seed)
        whole = step(method, case)
        for cuts in ([0, 1, 3, 6], [0, 1, 2, 3, 4, 5, 6]):
            parts = [slice(start, stop) for start, stop in pairwise(cuts)]
            assert_same(whole, step(method, case, parts))


def ranks_do_not_matter(method: Method, step: Callable = step) -> None:
    """Two ranks that add their totals and their gradients are one."""
    for seed in range(2):
        case = make(method, seed)
        ranks = [torch.tensor([0, 3, 4, 5]), torch.tensor([1, 2])]
        assert_same(step(method, case), step(method, case, ranks))


def padding_does_not_matter(method: Method, step: Callable = step) -> None:
    """More columns of padding change nothing."""

    def padded(value_BT: BT) -> BT:
        return torch.nn.functional.pad(value_BT, (0, 3))

    case = make(method, 0)
    more = mapped(case, padded, mask_BT=padded(case.batch.mask_BT), token_BT=padded(case.batch.token_BT))
    assert_same(step(method, case), step(method, more), padded)


def order_of_siblings_does_not_matter(method: Method, step: Callable = step) -> None:
    """Siblings exchanged, the gradients are exchanged with them."""
    case, order_B = make(method, 0, S=2, G=3), torch.tensor([2, 0, 1, 3, 5, 4])
    turned = mapped(case, lambda value_BT: value_BT[order_B])._replace(batch=case.batch.rows(order_B))
    assert_same(step(method, case), step(method, turned), lambda grad_BT: grad_BT[order_B])


def what_is_masked_does_not_matter(method: Method, step: Callable = step) -> None:
    """No gradient on a masked token; a NaN there changes no bit of the loss or of any gradient."""
    case = make(method, 0)
    clean = step(method, case)
    dirty = step(method, mapped(case, lambda value_BT: value_BT.where(case.batch.mask_BT, torch.nan)))
    assert clean.loss == dirty.loss
    for key, grad_BT in clean.grads.items():
        assert (grad_BT[~case.batch.mask_BT] == 0).all()
        assert torch.equal(grad_BT, dirty.grads[key])


def no_advantage_no_surrogate(method: Method, step: Callable = step) -> None:
    """Advantages of zero give the surrogate no gradient."""
    case = make(method, 0)
    outcome = step(
        only(method, "surrogate"), mapped(case, torch.clone, advantage_B=torch.zeros(6, dtype=torch.float64))
    )
    assert all((grad_BT == 0).all() for grad_BT in outcome.grads.values())


def on_policy_the_surrogate_is_reinforce(method: Method, step: Callable = step) -> None:
    """At ratio 1 its gradient is that of the mean of -A log p."""
    case, name = make(method, 0), ("image", "logp", None)
    case = mapped(case, torch.clone, sampled_logp_BT=case.live.logp("image").detach())
    surrogate = method.objective["surrogate"]
    w_BT = surrogate.weigh(case.batch, case.frozen, case.live)
    want_BT = -case.batch.advantage_B[:, None] * w_BT / surrogate.total(case.batch, case.frozen)
    torch.testing.assert_close(step(only(method, "surrogate"), case).grads[name], want_BT, rtol=1e-12, atol=0.0)


def nothing_selected_is_zero(method: Method, step: Callable = step) -> None:
    """A step without a trained token has loss 0 and gradient 0, and neither is NaN."""
    case = make(method, 0)
    outcome = step(method, mapped(case, torch.clone, mask_BT=torch.zeros(6, 7, dtype=torch.bool)))
    assert outcome.loss == 0.0
    assert all((grad_BT == 0).all() for grad_BT in outcome.grads.values())


def gradients_are_those_of_the_values(method: Method, step: Callable = step) -> None:
    """Every term's gradient is that of finite differences, in everything it reads with gradient."""
    case = make(method, 0, S=1, T=4)
    for name, term in method.objective.items():
        keys = [key for key in case.leaves if key in {(r.view, r.quantity, r.against) for r in term.reads}]

        def value(*leaves: BT, term=term, keys=keys) -> BT:
            live = Stats({**case.live.value, **dict(zip(keys, leaves, strict=True))})
            return term.value(case.batch, case.frozen, live)

        inputs = [case.leaves[key] for key in keys]
        if inputs:
            assert value(*inputs).requires_grad, f"{name} is read with gradient and has none"
            assert torch.autograd.gradcheck(value, inputs, raise_exception=False), name


def what_is_read_is_declared(method: Method, step: Callable = step) -> None:
    """Each term makes do with its own reads, and no view is paid for that nothing reads."""
    for term in method.objective.values():
        case = make(method._replace(objective={"alone": term}), 0)
        try:
            term.value(case.batch, case.frozen, case.live)
            term.weigh(case.batch, case.frozen, case.live)
        except KeyError as error:
            raise AssertionError(f"read without having been declared: {error}") from error
    looked_at = {name for read in reads_of(method.objective) for name in (read.view, read.against)} - {None}
    assert looked_at == set(method.views)


def _scored(method: Method, same: bool) -> Case:
    """A case whose statistics come from logits over five tokens; `same` gives every view those of the image."""
    case, generator = make(method, 0), torch.Generator().manual_seed(1)
    logits_BTV = torch.randn(6, 7, 5, generator=generator, dtype=torch.float64).requires_grad_()
    token_BT = torch.randint(0, 5, (6, 7), generator=generator)

    def read(view: str, quantity: str, against: str | None, live: bool) -> BT:
        def log_p(view: str) -> torch.Tensor:
            moved_BTV = logits_BTV * 1.0 if same or view == "image" else logits_BTV.flip(-1) * 0.5
            return (moved_BTV if live else moved_BTV.detach()).log_softmax(-1)

        logp_BTV = log_p(view)
        if quantity == "logp":
            return logp_BTV.gather(-1, token_BT[..., None])[..., 0]
        other_BTV = log_p(against) if quantity == "kl" else torch.zeros_like(logp_BTV)
        value_BT = (logp_BTV.exp() * (logp_BTV - other_BTV)).sum(-1)
        return value_BT if quantity == "kl" else -value_BT

    frozen = Stats({key: read(*key, live=False) for key in case.frozen.value})
    live = Stats({key: read(*key, live=True) for key in case.live.value})
    return Case(case.batch, frozen, live, {("all", "logits", None): logits_BTV})


def views_that_look_the_same_teach_nothing(method: Method, step: Callable = step) -> None:
    """Where every view says what the image says, no divergence has a gradient (at the first step on a batch)."""
    divergences = only(method, "perception", "reference_kl")
    for name in divergences.objective:
        case = _scored(only(method, "surrogate", name), same=True)
        (grad_BTV,) = step(only(method, name), case).grads.values()
        torch.testing.assert_close(grad_BTV, torch.zeros_like(grad_BTV), rtol=0.0, atol=1e-12)


def each_term_pulls_its_way(method: Method, step: Callable = step) -> None:
    """Divergence from the masked view lowers the loss; divergence from the reference and entropy raise it."""
    signs = {"perception": -1, "reference_kl": +1, "entropy": +1, "masked_entropy": +1}
    for name in method.objective.keys() & signs.keys():
        case = _scored(only(method, "surrogate", name), same=False)
        assert step(only(method, name), case).loss * signs[name] > 0, name


LAWS = (
    cuts_do_not_matter,
    ranks_do_not_matter,
    padding_does_not_matter,
    order_of_siblings_does_not_matter,
    what_is_masked_does_not_matter,
    no_advantage_no_surrogate,
    on_policy_the_surrogate_is_reinforce,
    nothing_selected_is_zero,
    gradients_are_those_of_the_values,
    what_is_read_is_declared,
    views_that_look_the_same_teach_nothing,
    each_term_pulls_its_way,
)
