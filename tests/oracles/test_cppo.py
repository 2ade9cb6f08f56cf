"""CPPO: loss and gradients against plain Python, what is looked at, and what the oracle catches."""

from functools import partial

import pytest
import torch
from laws import laws as law
from laws.cases import only, step

from oracles.compare import agrees_with
from vergence.objectives import method
from vergence.objectives.contrast import softplus_margin
from vergence.objectives.objective import reads_of_method
from vergence.objectives.selecting import at_least_top_share, positive, rises_areal, rises_paper, rises_verl
from vergence.objectives.terms import k1, k3
from vergence.objectives.weighting import PER_SEQUENCE, PER_TOKEN
from vergence.types import Erase, Method, OneOf, Zoom

VERL, AREAL, PAPER = "cppo-grpo@release-verl", "cppo-grpo@release-areal", "cppo-grpo@paper"

OPTIONS = [
    (VERL, {}),
    (VERL, {"coefficient": 0.3, "tau": 1.0, "top": 0.3}),
    (VERL, {"estimator": "k1", "top": 1.0, "coefficient": 0.1}),
    (VERL, {"estimator": "full", "coefficient": 0.1}),
    (VERL, {"select": "all", "coefficient": 0.1}),
    (VERL, {"gate": "none", "coefficient": 0.1}),
    (VERL, {"select": "all", "gate": "none", "coefficient": 0.1, "beta": 0.0}),
    (VERL, {"coefficient": 0.0}),
    (AREAL, {}),
    (AREAL, {"coefficient": 0.3, "tau": 1.0, "top": 0.3}),
    (AREAL, {"estimator": "k3", "gate": "none", "coefficient": 0.1}),
    (AREAL, {"estimator": "full", "select": "all"}),
    (PAPER, {}),
    (PAPER, {"coefficient": 0.3, "tau": 1.0, "top": 0.3}),
    (PAPER, {"estimator": "k3", "gate": "none", "coefficient": 0.1}),
    (PAPER, {"select": "all", "coefficient": 0.1, "mean": "token"}),
    ("cppo-dapo@release-verl", {}),
    ("cppo-dapo@release-verl", {"coefficient": 0.1, "beta": 0.01}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_loss_and_gradients_are_those_of_the_definition(name, options):
    agrees_with(name, **options)


# ------------------------------------------------------------------------------------------------ what is looked at


def test_the_views_are_spent_on_the_rollouts_that_the_gate_lets_through():
    cppo = method("cppo")
    assert cppo.views["kept"].gate is cppo.views["removed"].gate is positive
    assert cppo.views["image"].gate is None
    assert all(view.gate is None for view in method("cppo", gate="none").views.values())


def test_what_is_dropped_is_not_looked_at():
    assert list(method("cppo", coefficient=0.0, beta=0.0).views) == ["image"]
    assert not any(read.quantity == "entropy" for read in reads_of_method(method("cppo", select="all")))
    assert not method("cppo").fresh
    assert method("cppo", fresh="yes").fresh
    assert not method("cppo", fresh="yes", coefficient=0.0).fresh


def test_views_by_where_they_come_from():
    kinds = {
        name: [[type(one).__name__ for one in method(name).views[view].show.choices] for view in ("kept", "removed")]
        for name in (VERL, AREAL, PAPER)
    }
    assert kinds == {
        VERL: [["Jitter", "Perspective", "Rotate"], ["Occlude", "Zoom"]],
        AREAL: [["Jitter", "Perspective", "Rotate", "Blur"], ["Occlude", "Zoom"]],
        PAPER: [["Jitter", "OneOf", "Noise"], ["Erase", "Zoom"]],
    }
    removed = method(VERL, views="paper").views["removed"].show
    assert removed == OneOf((Erase(0.8, 14), Zoom(0.3**0.5, 0.3**0.5)))


@pytest.mark.parametrize(
    ("options", "message"), [({"tau": 0}, "tau is a temperature"), ({"top": 0}, "top is a share"), ({"top": 2}, "top")]
)
def test_a_refusal_says_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        method("cppo", **options)


@pytest.mark.parametrize("name", [VERL, AREAL, PAPER])
def test_views_that_look_the_same_have_no_gradient_and_a_contrast_of_log_2(name):
    cppo = only(method(name, select="all", gate="none", coefficient=1.0), "surrogate", "contrast")
    case = law._scored(cppo, same=True)
    outcome = step(only(cppo, "contrast"), case)
    assert outcome.loss == pytest.approx(0.69314718056, abs=1e-9)
    for grad_BTV in outcome.grads.values():
        torch.testing.assert_close(grad_BTV, torch.zeros_like(grad_BTV), rtol=0.0, atol=1e-12)
    published = only(method(name, gate="none"), "surrogate", "contrast")
    if name != PAPER:  # which ranks all tokens, whether or not entropy rises
        assert step(only(published, "contrast"), law._scored(published, same=True)).loss == 0.0


# ------------------------------------------------------------------------------------------------ what is caught


def swap(base: Method, **parts) -> Method:
    return base._replace(objective={**base.objective, "contrast": base.objective["contrast"]._replace(**parts)})


def selecting_by(rule, mean=PER_TOKEN, base=VERL, gated=True, counts="selected", **options) -> Method:
    """CPPO with another rule, gate or mean."""

    def chosen(batch, frozen):
        among_BT = batch.mask_BT & (positive(batch.advantage_B)[:, None] if gated else True)
        return rule(frozen.entropy("anchor"), frozen.entropy("removed"), among_BT, 0.5)

    def total(batch, frozen):
        return mean.total(chosen(batch, frozen) if counts == "selected" else batch.mask_BT)

    return swap(
        method(base, **options), total=total, weigh=lambda batch, frozen, live: mean.weigh(chosen(batch, frozen))
    )


def contrasted(distance, stop=lambda logp_BT: logp_BT, sign=1, base=VERL, **options) -> Method:
    """CPPO with another divergence, or a gradient that is stopped somewhere."""

    def value(batch, frozen, live):
        l_BT, kept_BT, removed_BT = live.logp("image"), live.logp("kept"), stop(live.logp("removed"))
        margin = sign * distance(l_BT, kept_BT), sign * distance(l_BT, removed_BT)
        return 0.1 * softplus_margin(*margin, tau=0.1)

    return swap(method(base, **options), value=value)


def everywhere(H_BT, removed_BT, mask_BT, share):
    return rises_verl(H_BT, removed_BT, mask_BT, 1.0)


def raw(H_BT, removed_BT, mask_BT, share):
    return at_least_top_share(removed_BT - H_BT, mask_BT & (removed_BT > H_BT), share)


CAPPED = partial(k3, limit=10.0)
MORE = {"coefficient": 0.1}
EVERY = {"coefficient": 0.1, "select": "all", "gate": "none"}

IMPOSTORS = [
    ("rounded up", VERL, selecting_by(rises_areal, **MORE), MORE),
    ("rounded down", AREAL, selecting_by(rises_verl, base=AREAL, **MORE), MORE),
    ("by the raw rise", VERL, selecting_by(raw, **MORE), MORE),
    ("all that rise", VERL, selecting_by(everywhere, **MORE), MORE),
    ("relative rise", PAPER, selecting_by(rises_areal, PER_SEQUENCE, PAPER, counts="all", **MORE), MORE),
    ("no gate", VERL, selecting_by(rises_verl, gated=False, **MORE), MORE),
    ("no gate", PAPER, selecting_by(rises_paper, PER_SEQUENCE, PAPER, gated=False, counts="all", **MORE), MORE),
    ("over all tokens", VERL, selecting_by(rises_verl, counts="all", **MORE), MORE),
    ("over gated rollouts", PAPER, selecting_by(rises_paper, PER_SEQUENCE, PAPER, **MORE), MORE),
    ("by rollouts", VERL, selecting_by(rises_verl, PER_SEQUENCE, **MORE), MORE),
    ("negative constant", VERL, contrasted(CAPPED, torch.detach, **MORE), MORE),
    ("negative constant", AREAL, contrasted(k1, torch.detach, base=AREAL, **MORE), MORE),
    ("k1", VERL, contrasted(k1, **MORE), MORE),
    ("not held", VERL, contrasted(k3, **MORE), MORE),
    ("not held", AREAL, contrasted(k1, base=AREAL, **EVERY), EVERY),
    ("other direction", VERL, contrasted(lambda p, q: CAPPED(q, p), **MORE), MORE),
    ("margin turned", VERL, contrasted(CAPPED, sign=-1, **MORE), MORE),
    ("maximised", PAPER, method(PAPER, coefficient=-0.1), MORE),
    ("half as strong", "cppo-dapo@release-verl", method("cppo-dapo@release-verl", coefficient=0.05), MORE),
]


@pytest.mark.parametrize(
    ("what", "name", "impostor", "options"), IMPOSTORS, ids=lambda one: one if isinstance(one, str) else ""
)
def test_an_oracle_catches(what, name, impostor, options):
    with pytest.raises(AssertionError):
        agrees_with(name, impostor, **options)


def test_what_impostors_are_made_of_is_right():
    agrees_with(VERL, selecting_by(rises_verl, **MORE), **MORE)
    agrees_with(AREAL, selecting_by(rises_areal, base=AREAL, **MORE), **MORE)
    agrees_with(PAPER, selecting_by(rises_paper, PER_SEQUENCE, PAPER, counts="all", **MORE), **MORE)
    agrees_with(VERL, contrasted(CAPPED, **MORE), **MORE)
