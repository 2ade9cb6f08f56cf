"""Our reconstruction of CapPO against plain Python, the worked example by number, and what each of them catches."""

import pytest
import torch
from laws import laws as law
from laws.cases import Case, assert_same, make, mapped, only, reshaped, step

from oracles.compare import agrees_with
from vergence.objectives import method
from vergence.objectives.agreement import signed, weights
from vergence.objectives.credit import standardised
from vergence.objectives.terms import CAPPED, ESTIMATORS
from vergence.types import Batch, Caption, Method, Reshape, Stats, View

OPTIONS = [
    ("cappo-grpo", {}),
    ("cappo-grpo", {"gradient": "both", "coefficient": 0.3, "mean": "token"}),
    ("cappo-grpo", {"weight": "inverse", "negatives": "untouched"}),
    ("cappo-grpo", {"weight": "softmax", "negatives": "mirrored", "spread": 2.0}),
    ("cappo-grpo", {"weight": "sigmoid", "negatives": "mirrored", "recentre": "yes"}),
    ("cappo-grpo", {"weight": "exp", "recentre": "yes", "estimator": "k2"}),
    ("cappo-grpo", {"weight": "none", "estimator": "k1", "gradient": "both"}),
    ("cappo-grpo", {"weight": "exp", "estimator": "k1"}),
    ("cappo-grpo", {"estimator": "full", "gradient": "both", "weight": "softmax"}),
    ("cappo-grpo", {"coefficient": 0.0, "estimator": "full", "weight": "inverse"}),
    ("cappo-grpo", {"coefficient": 0.0, "weight": "none", "beta": 0.0}),
    ("cappo-dapo", {}),
    ("cappo-dapo", {"weight": "sigmoid", "gradient": "both", "beta": 0.01}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_loss_and_gradients_are_those_of_the_definition(name, options):
    agrees_with(name, **options)


# ------------------------------------------------------------------------------------------------ worked examples


def table(rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(got, want, tolerance=1e-6):
    torch.testing.assert_close(got, table(want).reshape(got.shape), rtol=0.0, atol=tolerance)


K_B, ONE_SCENE = table([0.05, 0.2, 0.8, 0.1]), torch.zeros(4, dtype=torch.long)
A_B = standardised(table([[1, 0, 1, 0]]))[0]

WEIGHTS = [
    ("exp", [0.904837418, 0.670320046, 0.201896518, 0.8187307531], -0.3311),
    ("inverse", [0.9523809524, 0.8333333333, 0.5555555556, 0.9090909091], -0.2031),
    ("softmax", [1.3943181124, 1.0329362631, 0.3111144237, 1.2616312008], -0.5102),
    ("sigmoid", [1.3291828306, 1.1253053211, 0.3721804019, 1.2635598195], -0.5954),
]


@pytest.mark.parametrize(("name", "want", "drift"), WEIGHTS)
def test_o9_weights(name, want, drift):
    close(A_B, [0.8660239038, -0.8660239038, 0.8660239038, -0.8660239038])
    w_B = weights(K_B, ONE_SCENE, name, 0.5)
    close(w_B, want)
    assert (w_B * A_B).sum().item() == pytest.approx(drift, abs=5e-5)
    # The same next to another scene, and in another order.
    far_B = torch.cat([K_B, table([9.0, 3.0])])[[4, 0, 3, 1, 5, 2]]
    close(weights(far_B, torch.tensor([1, 0, 0, 0, 1, 0]), name, 0.5)[[1, 3, 5, 2]], want)


def test_o9_the_advantages_of_the_first():
    close(weights(K_B, ONE_SCENE, "exp", 0.5) * A_B, [0.7836108331, -0.5805131831, 0.1748472107, -0.7090404029])


def test_o9_where_negatives_are_treated_otherwise():
    w_B = weights(K_B, ONE_SCENE, "softmax", 0.5)
    close(signed(w_B, A_B, "untouched"), [1.3943181124, 1, 0.3111144237, 1])
    close(signed(w_B, A_B, "mirrored"), [1.3943181124, 2 - 1.0329362631, 0.3111144237, 2 - 1.2616312008])
    assert signed(table([2.5]), table([-1.0]), "mirrored").item() == 0.0
    assert signed(table([2.5]), table([0.0]), "mirrored").item() == 2.5


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("K", [0.0, 0.1, 700.0, 1e6])
def test_o9_siblings_that_agree_alike_keep_their_advantages(name, K):
    close(weights(torch.full((4,), K).double(), ONE_SCENE, name, 0.5), [1.0] * 4, 1e-12)
    close(weights(table([K]), ONE_SCENE[:1], name, 0.5), [1.0], 1e-12)


def worked(subject: Method) -> Case:
    """One rollout of three tokens: p = .8, .5, .4; under the caption .6, .55, .1."""
    logs = {"image": table([[0.8, 0.5, 0.4]]).log(), "caption": table([[0.6, 0.55, 0.1]]).log()}
    batch = Batch(
        key_B=torch.arange(1), scene_B=ONE_SCENE[:1], token_BT=torch.zeros(1, 3, dtype=torch.long),
        mask_BT=torch.ones(1, 3, dtype=torch.bool), sampled_logp_BT=logs["image"], correct_B=table([1]),
        chance_BT=torch.zeros(1, 3).double(), advantage_B=table([1]), advantage_BT=torch.ones(1, 3).double(),
    )  # fmt: skip
    stats = {(name, "logp", None): value_BT for name, value_BT in logs.items()}
    leaves = {key: value_BT.clone().requires_grad_() for key, value_BT in stats.items()}
    return Case(batch, Stats(stats), Stats(leaves), leaves)


def test_o9_the_loss():
    both = only(method("cappo", gradient="both", coefficient=1.0, weight="none"), "consistency")
    case = worked(both)
    close(
        both.objective["consistency"].value(case.batch, case.frozen, case.live).detach(),
        [0.0376820725, 0.0046898202, 0.6362943611],
    )
    outcome = step(both, case)
    assert outcome.loss == pytest.approx(0.226222084589, abs=1e-9)
    close(3 * outcome.grads["image", "logp", None], [0.25, -0.1, 0.75])
    close(3 * outcome.grads["caption", "logp", None], [-0.25, 0.1, -0.75])
    image = step(only(method("cappo", coefficient=1.0), "consistency"), case)
    close(3 * image.grads["image", "logp", None], [0.25, -0.1, 0.75])
    close(image.grads["caption", "logp", None], [0.0] * 3)
    k1 = step(only(method("cappo", coefficient=1.0, estimator="k1"), "consistency"), case)
    assert k1.loss == pytest.approx(0.526222084589, abs=1e-9)


def test_o9_the_weight_is_that_of_the_mean_of_the_loss_under_the_weights_that_sampled():
    cappo = method("cappo")
    seen_BT = reshaped(cappo, worked(cappo), [slice(None)]).batch.advantage_BT
    close(seen_BT, (-table([[0.226222084589] * 3]) / 0.5).exp().tolist())


# ------------------------------------------------------------------------------------------------ what holds


def siblings_stay_together(subject: Method) -> None:
    """Two ranks are one, where no scene is divided between them: weights may compare siblings."""
    for seed in range(2):
        case = make(subject, seed)
        assert_same(step(subject, case), step(subject, case, ranks=[torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3])]))


COMPARING = [{"weight": "softmax"}, {"weight": "sigmoid", "negatives": "mirrored"}, {"recentre": "yes"}]


@pytest.mark.parametrize("options", COMPARING, ids=str)
@pytest.mark.parametrize("a_law", [*law.LAWS, siblings_stay_together], ids=lambda one: one.__name__)
def test_laws_hold_where_siblings_are_compared(options, a_law):
    if a_law is not law.ranks_do_not_matter:
        a_law(method("cappo", **options))


@pytest.mark.parametrize("options", [{}, {"weight": "softmax"}, {"recentre": "yes"}], ids=str)
def test_what_is_masked_does_not_reach_a_weight(options):
    cappo = method("cappo", **options)
    case = make(cappo, 0)
    dirty = mapped(case, lambda value_BT: value_BT.where(case.batch.mask_BT, torch.nan))
    clean_BT, dirty_BT = (reshaped(cappo, one, [slice(None)]).batch.advantage_BT for one in (case, dirty))
    assert torch.equal(clean_BT, dirty_BT)


def test_recentred_advantages_of_siblings_add_up_to_nothing():
    for options, want in (({"recentre": "yes"}, 0.0), ({}, None)):
        cappo = method("cappo", **options)
        case = make(cappo, 1)
        sums = reshaped(cappo, case, [slice(None)]).batch.advantage_BT[:, 0].reshape(3, 2).sum(-1)
        assert (sums.abs().max().item() < 1e-12) == (want == 0.0)


def test_a_caption_that_says_what_the_image_says_teaches_nothing():
    for estimator, gradient in (("k3", "image"), ("k2", "both"), ("full", "both")):
        cappo = only(method("cappo", estimator=estimator, gradient=gradient), "surrogate", "consistency")
        case = law._scored(cappo, same=True)
        outcome = step(only(cappo, "consistency")._replace(reshape=None), case)
        assert outcome.loss == pytest.approx(0.0, abs=1e-12)
        for grad_BTV in outcome.grads.values():
            torch.testing.assert_close(grad_BTV, torch.zeros_like(grad_BTV), rtol=0.0, atol=1e-12)


def test_it_opposes_papo():
    """On the same statistics, its loss and PAPO's have opposite gradients."""
    papo = only(method("papo", gamma=0.05, mean="sequence"), "perception")
    cappo = only(method("cappo"), "consistency")
    case = make(papo, 0)
    other = Stats({("caption", "logp", None): case.frozen.logp("masked")})
    ours = step(cappo._replace(reshape=None), case._replace(frozen=other))
    assert_same(step(papo, case), ours._replace(loss=-ours.loss), lambda grad_BT: -grad_BT)


def test_what_is_looked_at():
    assert method("cappo").views["caption"] == View(Caption())
    assert "caption" in method("cappo", coefficient=0.0).views
    assert "caption" in method("cappo", weight="none").views
    off = method("cappo", coefficient=0.0, weight="none")
    assert list(off.views) == ["image", "reference"]
    assert off.reshape is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"estimator": "full"}, 'needs gradient="both"'), ({"spread": 0}, "spread must be above 0")],
)
def test_a_refusal_says_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        method("cappo", **options)


# ------------------------------------------------------------------------------------------------ what is caught


def with_term(value, **options) -> Method:
    cappo = method("cappo", **options)
    term = cappo.objective["consistency"]._replace(value=value)
    return cappo._replace(objective={**cappo.objective, "consistency": term})


def consistency(estimate, stop=lambda logp_BT: logp_BT, **options) -> Method:
    """CapPO with another divergence, or a gradient that is stopped somewhere."""

    def value(batch, frozen, live):
        caption_BT = stop((live if options.get("gradient") == "both" else frozen).logp("caption"))
        return 0.05 * estimate(live.logp("image"), caption_BT)

    return with_term(value, **options)


def weighted(weigh, **options) -> Method:
    """CapPO whose advantages are what `weigh` makes of (batch, K of each token)."""

    def advantage(batch, frozen, everywhere):
        K_BT = CAPPED["k3"](batch.sampled_logp_BT, frozen.logp("caption")).where(batch.mask_BT, 0.0)
        return weigh(batch, K_BT)

    cappo = method("cappo", **options)
    return cappo._replace(reshape=Reshape(cappo.reshape.reads, advantage))


def genuinely(batch, K_BT):
    K_B = K_BT.sum(-1) / batch.mask_BT.sum(-1).clamp(min=1)
    return ((-K_B / 0.5).exp() * batch.advantage_B)[:, None].expand(batch.mask_BT.shape)


def summed(batch, K_BT):
    return ((-K_BT.sum(-1) / 0.5).exp() * batch.advantage_B)[:, None].expand(batch.mask_BT.shape)


def by_token(batch, K_BT):
    return (-K_BT / 0.5).exp() * batch.advantage_B[:, None]


def growing(batch, K_BT):
    K_B = K_BT.sum(-1) / batch.mask_BT.sum(-1).clamp(min=1)
    return ((K_B / 0.5).exp() * batch.advantage_B)[:, None].expand(batch.mask_BT.shape)


BOTH = {"gradient": "both"}

IMPOSTORS = [
    ("maximised", "cappo-grpo", method("cappo", coefficient=-0.05), {}),
    ("not held", "cappo-grpo", consistency(ESTIMATORS["k3"]), {}),
    ("other direction", "cappo-grpo", consistency(lambda p, q: CAPPED["k3"](q, p)), {}),
    ("k2", "cappo-grpo", method("cappo", estimator="k2"), {}),
    ("caption constant", "cappo-grpo", consistency(CAPPED["k3"], torch.detach, **BOTH), BOTH),
    ("image constant", "cappo-grpo", consistency(lambda p, q: CAPPED["k3"](p.detach(), q), **BOTH), BOTH),
    ("unweighted", "cappo-grpo", method("cappo", weight="none"), {}),
    ("sum for mean", "cappo-grpo", weighted(summed), {}),
    ("by token", "cappo-grpo", weighted(by_token), {}),
    ("rising weight", "cappo-grpo", weighted(growing), {}),
    ("mirrored", "cappo-grpo", method("cappo", negatives="mirrored"), {}),
    ("not mirrored", "cappo-grpo", method("cappo"), {"negatives": "mirrored"}),
    ("touched", "cappo-grpo", method("cappo"), {"negatives": "untouched"}),
    ("not recentred", "cappo-grpo", method("cappo"), {"recentre": "yes"}),
    ("not among siblings", "cappo-grpo", method("cappo"), {"weight": "softmax"}),
    ("token mean", "cappo-grpo", method("cappo", mean="token"), {}),
    ("sequence mean", "cappo-dapo", method("cappo-dapo", mean="sequence"), {}),
]


@pytest.mark.parametrize(
    ("what", "name", "impostor", "options"), IMPOSTORS, ids=lambda one: one if isinstance(one, str) else ""
)
def test_an_oracle_catches(what, name, impostor, options):
    with pytest.raises(AssertionError):
        agrees_with(name, impostor, **options)


def test_what_impostors_are_made_of_is_right():
    agrees_with("cappo-grpo", consistency(CAPPED["k3"]))
    agrees_with("cappo-grpo", consistency(CAPPED["k3"], **BOTH), **BOTH)
    agrees_with("cappo-grpo", weighted(genuinely))
