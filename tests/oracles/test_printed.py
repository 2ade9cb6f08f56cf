"""The worked examples, by number, to 1e-6 (their means carry +1e-8 in the denominator)."""

import pytest
import torch
from laws.cases import Case, only, step

from vergence.objectives import method
from vergence.objectives.credit import mixed, standardised
from vergence.objectives.objective import reduce
from vergence.objectives.terms import clip_fraction, k1, k2, k3, k3_printed, surprise, surrogate
from vergence.objectives.weighting import PER_SEQUENCE, PER_TOKEN
from vergence.types import Batch, Stats


def table(rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(got, want, tolerance=1e-6):
    torch.testing.assert_close(got, table(want).reshape(got.shape), rtol=0.0, atol=tolerance)


P, Q = table([[0.5, 0.9, 0.1, 0.01, 0.6, 0.6]]).log(), table([[0.25, 0.3, 0.4, 0.5, 0.6, 1e-9]]).log()


def test_o1_estimators():
    close(k1(P, Q), [0.6931471806, 1.0986122887, -1.3862943611, -3.9120230054, 0, 20.2124402132])
    close(k2(P, Q), [0.240226507, 0.6034744804, 0.9609060278, 7.6519619975, 0, 204.2713696857])
    close(k3(P, Q, limit=10.0), [0.1931471806, 0.431945622, 1.6137056389, 10, 0, 10])
    unclamped = k3(P, Q, reach=torch.inf)
    close(unclamped[:, [3, 5]], [45.0879769946, 19.2124402148])


def test_o1_gradient_and_where_it_ends():
    p = P.clone().requires_grad_()
    (grad,) = torch.autograd.grad(k3(p, Q, limit=10.0).sum(), p)
    close(grad, [0.5, 0.6666666667, -3, 0, 0, 0])
    for edge, quotient in ((2.61086863815, 13.6108686381), (-10.999983298, 1.6701979744e-05)):
        x = table([[edge * 0.999999, edge * 1.000001]]).requires_grad_()
        (grad,) = torch.autograd.grad(k3(torch.zeros_like(x), x, limit=10.0).sum(), x)
        assert grad[0, 0] != 0
        assert grad[0, 1] == 0
        assert table([edge]).exp().item() == pytest.approx(quotient, rel=1e-6)


@pytest.mark.parametrize(
    ("rewards", "ddof", "want"),
    [
        ([1, 0.1, 0.1, 0.9, 0], 1, [1.1913871963, -0.6573170738, -0.6573170738, 0.9859756107, -0.8627286594]),
        ([1, 0.1, 0.1, 0.9, 0], 0, [1.3320110562, -0.7349026517, -0.7349026517, 1.1023539776, -0.9645597304]),
        ([1, 1, 1, 1, 1], 1, [0, 0, 0, 0, 0]),
        ([1, 1, 1, 1, 0], 1, [0.4472125955] * 4 + [-1.788850382]),
        ([0.1, 0.1, 0.1, 1, 0.1], 1, [-0.4472124844] * 3 + [1.7888499376, -0.4472124844]),
        ([1, 0, 0, 1], 1, [0.8660239038, -0.8660239038, -0.8660239038, 0.8660239038]),
        ([0, 0, 0, 1], 1, [-0.499999] * 3 + [1.499997]),
    ],
)
def test_o2_advantages(rewards, ddof, want):
    close(standardised(table([rewards]), ddof=ddof), want)


RATIOS = table([[0.5, 0.9, 1, 1.1, 1.25, 1.5, 4]]).log()


@pytest.mark.parametrize(
    ("advantage", "high", "want"),
    [
        (1.0, 0.3, [-0.5, -0.9, -1, -1.1, -1.25, -1.3, -1.3]),
        (1.0, 0.28, [-0.5, -0.9, -1, -1.1, -1.25, -1.28, -1.28]),
        (-1.0, 0.3, [0.8, 0.9, 1, 1.1, 1.25, 1.5, 3]),
        (-1.0, 0.28, [0.8, 0.9, 1, 1.1, 1.25, 1.5, 3]),
    ],
)
def test_o3_surrogate(advantage, high, want):
    got = surrogate(RATIOS, torch.zeros_like(RATIOS), table([[advantage] * 7]), clip=(0.2, high), dual=3.0)
    close(got, want)
    low_BT, high_BT = clip_fraction(RATIOS, torch.zeros_like(RATIOS), table([[advantage] * 7]), clip=(0.2, high))
    assert (low_BT.sum().item(), high_BT.sum().item()) == ((0, 2) if advantage > 0 else (1, 0))


def test_o3_means_and_the_mean_of_means_that_must_not_happen():
    value, mask = (
        table([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0]]),
        table([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]) > 0,
    )

    def mean(over, total):
        cut = [slice(0, 2), slice(2, 3)]
        return sum(reduce({"v": value[i]}, {"v": over.weigh(mask[i])}, {"v": total(mask[i])}).item() for i in cut)

    assert mean(PER_TOKEN, lambda _: PER_TOKEN.total(mask)) == pytest.approx(3.5, abs=1e-12)
    assert mean(PER_SEQUENCE, lambda _: PER_SEQUENCE.total(mask)) == pytest.approx(3.8333333333, abs=1e-9)
    assert mean(PER_TOKEN, lambda part: 2 * PER_TOKEN.total(part)) == pytest.approx(4.0, abs=1e-12)


def test_o4_the_two_perception_estimators():
    p, q = table([[0.9, 0.5, 0.2, 0.6, 0.05]]).log().requires_grad_(), table([[0.3, 0.5, 0.6, 0.1, 0.5]]).log()
    code, printed = k3(p, q, limit=10.0), k3_printed(p, q, limit=10.0)
    close(code.detach(), [0.431945622, 0, 0.9013877113, 0.9584261359, 6.697414907])
    close(printed.detach(), [0.9013877113, 0, 0.431945622, 3.2082405308, 1.402585093])
    assert code.mean().item() == pytest.approx(1.79783487525, abs=1e-9)
    assert printed.mean().item() == pytest.approx(1.18883179142, abs=1e-9)
    close(torch.autograd.grad(-code.sum(), p)[0], [-0.6666666667, 0, 2, -0.8333333333, 9])
    close(torch.autograd.grad(-printed.sum(), p)[0], [-2, 0, 0.6666666667, -5, 0.9])


Z, OTHER = table([[0.7, 0.2, 0.1]]).log(), table([[0.4, 0.4, 0.2]]).log()


def in_the_mean(function, weight=None):
    """The expectation over the sampled token of a value, and of its gradient in the logits."""
    z = Z.clone().requires_grad_()
    logp = z.log_softmax(-1)
    weight = logp.detach().exp() if weight is None else weight
    expected = (weight * function(logp)).sum()
    return expected.item(), torch.autograd.grad(expected, z)[0]


@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    [
        (k1, 0.183786897387, [0, 0, 0]),
        (k2, 0.181677392625, [0.2630802234, -0.1753868156, -0.0876934078]),
        (k3, 0.183786897387, [0.3, -0.2, -0.1]),
        (k3_printed, 0.191213102613, [0.2625, -0.175, -0.0875]),
    ],
)
def test_o5_what_the_estimators_estimate_and_what_their_gradient_follows(estimator, value, gradient):
    got, grad = in_the_mean(lambda logp: estimator(logp, OTHER))
    assert got == pytest.approx(value, abs=1e-9)
    close(grad, gradient, 1e-9)


def test_o5_the_divergences_themselves():
    """What the gradients above are to be compared with: of the whole sums, by autograd."""

    def whole(divergence):
        return in_the_mean(lambda logp: divergence(logp) / logp.detach().exp())

    (forward, forward_grad) = whole(lambda logp: logp.exp() * (logp - OTHER))
    assert forward == pytest.approx(0.183786897387, abs=1e-9)
    close(forward_grad, [0.2630802234, -0.1753868156, -0.0876934078], 1e-9)
    (backward, backward_grad) = whole(lambda logp: OTHER.exp() * (OTHER - logp))
    assert backward == pytest.approx(0.192041993162, abs=1e-9)
    close(backward_grad, [0.3, -0.2, -0.1], 1e-9)
    (squares, squares_grad) = whole(lambda logp: (2 * logp - OTHER).exp() / 2)
    assert 2 * squares - 1 == pytest.approx(0.375, abs=1e-9)
    close(squares_grad, [0.2625, -0.175, -0.0875], 1e-9)


def test_o6_the_entropy_surrogate_has_no_gradient_on_policy():
    value, grad = in_the_mean(surprise)
    assert value == pytest.approx(0.801818552543, abs=1e-9)
    close(grad, [0, 0, 0], 1e-12)
    _, grad = in_the_mean(surprise, weight=table([[7 / 9, 2 / 9, 0]]))
    close(grad, [-0.0777777778, -0.0222222222, 0.1], 1e-9)


def test_o6_the_entropy_of_the_vocabulary_has():
    value, grad = in_the_mean(surprise)
    whole, whole_grad = in_the_mean(lambda logp: -logp.exp() * logp / logp.detach().exp())
    assert whole == pytest.approx(value, abs=1e-12)
    close(whole_grad, [-0.311600526, 0.161523872, 0.150076654], 1e-9)
    assert not torch.allclose(whole_grad, grad)


def o7(subject):
    logs = {
        "image": [[0.8, 0.5, 0.4, 1], [0.6, 0.3, 1, 1]],
        "sampled": [[0.7, 0.5, 0.45, 1], [0.6, 0.4, 1, 1]],
        "reference": [[0.75, 0.4, 0.5, 1], [0.5, 0.5, 1, 1]],
        "masked": [[0.2, 0.45, 0.5, 1], [0.55, 0.1, 1, 1]],
    }
    logs = {name: table(rows).log() for name, rows in logs.items()}
    batch = Batch(
        key_B=torch.arange(2), scene_B=torch.zeros(2, dtype=torch.long), token_BT=torch.zeros(2, 4, dtype=torch.long),
        mask_BT=table([[1, 1, 1, 0], [1, 1, 0, 0]]) > 0, sampled_logp_BT=logs["sampled"],
        chance_BT=torch.zeros(2, 4).double(), correct_B=table([1, 0]), advantage_B=table([1, -1]),
        advantage_BT=table([[1] * 4, [-1] * 4]),
    )  # fmt: skip
    stats = {(name, "logp", None): logs[name] for name in ("image", "reference", "masked")}
    leaves = {key: stats[key].clone().requires_grad_() for key in stats if key[0] != "reference"}
    return step(subject, Case(batch, Stats(stats), Stats({**stats, **leaves}), leaves))


PAPO_G, PAPO_D = {"eta": 0.05}, {"beta": 0, "gamma": 0.01, "eta": 0.03, "clip_high": 0.28}


@pytest.mark.parametrize(
    ("options", "mean", "total"),
    [
        (PAPO_G, "token", -0.154829729348),
        (PAPO_G, "sequence", 0.0363069230042),
        (PAPO_D, "token", -0.1912641073),
        (PAPO_D, "sequence", -0.000200882019903),
    ],
)
def test_o7_totals(options, mean, total):
    assert o7(method("papo", mean=mean, **options)).loss == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(("mean", "total"), [("token", -0.1912641073), ("sequence", -0.000200882019903)])
def test_o7_totals_on_dapo(mean, total):
    assert o7(method("papo-dapo", mean=mean)).loss == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(
    ("term", "coefficient", "token", "sequence"),
    [
        ("surrogate", 1.0, -0.246349205857, -0.0552910058567),
        ("reference_kl", 0.01, 0.0447068907437, 0.05154706987),
        ("perception", -0.02, 0.220826997783, 0.220324469742),
        ("entropy", 0.05, 0.709475976949, 0.709475976949),
        ("masked_entropy", 0.05, 1.20030297419, 1.20030297419),
    ],
)
def test_o7_pieces(term, coefficient, token, sequence):
    for mean, want in (("token", token), ("sequence", sequence)):
        got = o7(only(method("papo", mean=mean, **PAPO_G), term)).loss / coefficient
        assert got == pytest.approx(want, abs=1e-6)


def test_o7_gradients_and_o16_those_of_the_masked_branch():
    grads = o7(method("papo", **PAPO_G)).grads
    want = [[-0.2414464286, -0.21, -0.1872777778, 0], [0.19, -0.014, 0, 0]]
    close(grads["image", "logp", None], want)
    close(grads["masked", "logp", None], [[0.0] * 4] * 2)
    # O16: what is added where the gradient flows through the masked branch as well.
    fresh = o7(method("papo@paper", mean="token", **PAPO_G)).grads
    close(fresh["image", "logp", None], want)
    perception = [[0.003, 0.0004, -0.001, 0], [0.0003333333, 0.0026666667, 0, 0]]
    entropy = [[-0.01, -0.01, -0.01, 0], [-0.01, -0.01, 0, 0]]
    close(fresh["masked", "logp", None], (table(perception) + table(entropy)).tolist())


OVERALL = [0.1, 0.1, 0.1, 0.1, 0.0]
"""All wrong, one of them ill-formed: 0.9 accuracy + 0.1 format."""


@pytest.mark.parametrize(
    ("correct", "kept"),
    [
        ([0, 0, 0, 0, 0], False),
        ([1, 1, 1, 1, 1], False),
        ([1, 0, 0, 0, 0], True),
        ([1, 1, 1, 1, 0], True),
    ],
)
def test_o12_dynamic_sampling(correct, kept):
    assert method("dapo").keep(table([correct])).tolist() == [kept]
    # PAPO's rule by the mean, verl's by the standard deviation
    assert (0.01 < sum(correct) / 5 < 0.99) is kept
    assert bool(table(correct).std() > 0) is kept


def test_o12_the_pitfall_of_the_combined_reward():
    """Had it the reward to go by, a group without one right answer would pass: it is shown correctness alone."""
    assert 0.01 < sum(OVERALL) / 5 < 0.99
    assert mixed(table([OVERALL])).tolist() == [True]
    assert mixed(table([[0, 0, 0, 0, 0]])).tolist() == [False]
