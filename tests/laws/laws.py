"""What holds for every objective. A law takes a method and raises AssertionError; `step` may be a faulty trainer's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch

from laws.cases import Case, assert_same, make, mapped, only, reshaped, step
from vergence.objectives.objective import reads_of, reads_of_method
from vergence.types import BT, Method, Stats, with_advantage


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
        assert_same(step(method, case), step(method, case, ranks=ranks))


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
    none = with_advantage(case.batch, torch.zeros(6, dtype=torch.float64))
    outcome = step(only(method, "surrogate"), case._replace(batch=none))
    assert all((grad_BT == 0).all() for grad_BT in outcome.grads.values())


def on_policy_the_surrogate_is_reinforce(method: Method, step: Callable = step) -> None:
    """At ratio 1 its gradient is that of the mean of -A log p."""
    case, name = make(method, 0), ("image", "logp", None)
    case = mapped(case, torch.clone, sampled_logp_BT=case.live.logp("image").detach())
    surrogate = method.objective["surrogate"]
    w_BT = surrogate.weigh(case.batch, case.frozen, case.live)
    seen_BT = reshaped(method, case, [slice(None)]).batch.advantage_BT
    want_BT = -seen_BT * w_BT / surrogate.total(case.batch, case.frozen)
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
    for term in {**method.objective, **method.metrics}.values():
        case = make(method._replace(objective={"alone": term}, reshape=None), 0)
        with _everything_declared():
            term.value(case.batch, case.frozen, case.live)
            term.weigh(case.batch, case.frozen, case.live)
            term.total(case.batch, case.frozen)
    assert set(reads_of(method.metrics)) <= set(reads_of_method(method)), "a metric reads more than the rest"
    if method.reshape:
        assert all(read.when == "frozen" for read in method.reshape.reads)
        with _everything_declared():
            reshaped(method, make(method._replace(objective={}), 0), [slice(None)])
    looked_at = {name for read in reads_of_method(method) for name in (read.view, read.against)} - {None}
    assert looked_at | {method.sample_view} == set(method.views)


@contextmanager
def _everything_declared() -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise AssertionError(f"read without having been declared: {error}") from error


def _selections(method: Method, case: Case) -> Iterator[torch.Tensor]:
    """The tokens that each term, each metric and the reshape selects."""
    for selecting in (*method.objective.values(), *method.metrics.values(), method.reshape):
        if selecting is not None and selecting.select is not None:
            yield selecting.select(case.batch, case.frozen)


def only_response_tokens_are_selected(method: Method, step: Callable = step) -> None:
    """No selection has a masked token, nor looks at one: a NaN there selects the same."""
    for seed in range(3):
        case = make(method, seed, wild=seed == 1)
        dirty = mapped(case, lambda value_BT, mask_BT=case.batch.mask_BT: value_BT.where(mask_BT, torch.nan))
        for clean_BT, dirty_BT in zip(_selections(method, case), _selections(method, dirty), strict=True):
            assert not (clean_BT & ~case.batch.mask_BT).any()
            assert torch.equal(clean_BT, dirty_BT)


def what_a_gate_keeps_out_does_not_count(method: Method, step: Callable = step) -> None:
    """No term weighs a rollout for which a view that it reads has not been looked at."""
    for seed in range(3):
        case = make(method, seed)
        for name, term in {**method.objective, **method.metrics}.items():
            w_BT = term.weigh(case.batch, case.frozen, case.live.detach())
            for view in {view for read in term.reads for view in (read.view, read.against)} - {None}:
                if (gate := method.views[view].gate) is not None:
                    assert (w_BT[~gate(case.batch.advantage_B)] == 0).all(), f"{name} weighs what {view} left out"


def what_is_kept_depends_on_correctness_alone(method: Method, step: Callable = step) -> None:
    """A group trains if its siblings differ in correctness: whatever their order, and whatever the other groups."""
    if method.keep is None:
        return
    correct_SG = torch.tensor([[float(sibling < right) for sibling in range(4)] for right in range(5)])
    keep_S = method.keep(correct_SG)
    assert keep_S.tolist() == [False, True, True, True, False]
    assert torch.equal(method.keep(correct_SG.flip(-1)), keep_S)
    assert torch.equal(torch.cat([method.keep(correct_SG[s : s + 1]) for s in range(5)]), keep_S)


def _scored(method: Method, same: bool) -> Case:
    """A case whose statistics come from logits over five tokens; `same` gives every view those of the image."""
    case, generator = make(method, 0), torch.Generator().manual_seed(1)
    logits_BTV = torch.randn(6, 7, 5, generator=generator, dtype=torch.float64).requires_grad_()
    token_BT = torch.randint(0, 5, (6, 7), generator=generator)

    def read(view: str, quantity: str, against: str | None, live: bool) -> BT:
        def log_p(view: str) -> torch.Tensor:
            moved_BTV = logits_BTV * 1.0 if same or view in ("image", "anchor") else logits_BTV.flip(-1) * 0.5
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
    divergences = only(method, "perception", "reference_kl", "contrast", "consistency")
    for name in divergences.objective:
        case = _scored(only(method, "surrogate", name), same=True)
        (grad_BTV,) = step(only(method, name), case).grads.values()
        torch.testing.assert_close(grad_BTV, torch.zeros_like(grad_BTV), rtol=0.0, atol=1e-12)


def each_term_pulls_its_way(method: Method, step: Callable = step) -> None:
    """Divergence from the masked view lowers the loss; divergence from the reference and entropy raise it."""
    signs = {"perception": -1, "reference_kl": +1, "consistency": +1, "contrast": +1}
    signs |= {"entropy": +1, "masked_entropy": +1, "policy_entropy": +1}
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
    only_response_tokens_are_selected,
    what_a_gate_keeps_out_does_not_count,
    what_is_kept_depends_on_correctness_alone,
    views_that_look_the_same_teach_nothing,
    each_term_pulls_its_way,
)
