"""The worked examples of CPPO, by number, to 1e-6."""

import pytest
import torch
from laws.cases import Case, only, step

from vergence.objectives import method, selecting
from vergence.objectives.contrast import softplus_margin
from vergence.objectives.objective import reads_of_method
from vergence.objectives.selecting import rises_areal, rises_paper, rises_verl
from vergence.types import Batch, Method, Stats

VERL, AREAL, PAPER = "cppo-grpo@release-verl", "cppo-grpo@release-areal", "cppo-grpo@paper"


def table(rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(got, want, tolerance=1e-6):
    torch.testing.assert_close(got, table(want).reshape(got.shape), rtol=0.0, atol=tolerance)


IMAGE = [[4, 1, 0, 0], [1, 1, 0.5, 0], [3, 0, 0, 2], [0, 0, 5, 0], [2, 2, 0, 0], [2, 0, 0, 0]]
KEPT = [[3.5, 1, 0, 0.2], [1, 1.2, 0.5, 0], [2.5, 0, 0.3, 2], [0, 0, 4.5, 0.5], [2, 1.8, 0, 0], [2, 0, 0, 0]]
REMOVED = [[1, 1, 0.5, 0.5], [1, 0.9, 0.5, 0.1], [1, 0.5, 0.2, 2.5], [0, 0.2, 4.8, 0], [3, 0.5, 0, 0], [1.5, 0, 0, 0]]
SAMPLED = torch.tensor([0, 1, 3, 2, 0, 0])


def scored(method: Method, advantages: list[float]) -> Case:
    """O8's six tokens, once for each advantage, with everything that the method reads."""
    log_p = {"image": table(IMAGE), "anchor": table(IMAGE), "kept": table(KEPT), "removed": table(REMOVED)}
    log_p = {view: logits.log_softmax(-1) for view, logits in log_p.items()}
    B, quantities = len(advantages), {}
    for view, logp in log_p.items():
        quantities[view, "logp", None] = logp[torch.arange(6), SAMPLED]
        quantities[view, "entropy", None] = -(logp.exp() * logp).sum(-1)
        quantities["image", "kl", view] = (log_p["image"].exp() * (log_p["image"] - logp)).sum(-1)
    quantities = {key: value.expand(B, 6).clone() for key, value in quantities.items()}
    advantage_B = table(advantages)
    batch = Batch(
        key_B=torch.arange(B), scene_B=torch.zeros(B, dtype=torch.long), token_BT=SAMPLED.expand(B, 6),
        mask_BT=torch.ones(B, 6, dtype=torch.bool), sampled_logp_BT=quantities["image", "logp", None],
        chance_BT=torch.zeros(B, 6).double(), correct_B=(advantage_B > 0).double(), advantage_B=advantage_B,
        advantage_BT=advantage_B[:, None].expand(B, 6).clone(),
    )  # fmt: skip
    grads = {read[:3] for read in reads_of_method(method) if read.when == "grad"}
    leaves = {key: quantities[key].clone().requires_grad_() for key in grads}
    return Case(batch, Stats(quantities), Stats({**quantities, **leaves}), leaves)


def test_o8_entropies():
    got = scored(method(VERL), [1.0]).frozen
    close(got.entropy("anchor"), [0.3552366222, 1.315685356, 0.8377861781, 0.1190789401, 1.0584810356, 0.9182837655])
    close(got.entropy("removed"), [1.3559944991, 1.331219119, 0.9506391468, 0.1481753798, 0.59338335, 1.1139270376])
    close(got.logp("kept"), [-0.1390360698, -0.9618414714, -1.0874637332, -0.0397336892, -0.736877575, -0.3407529539])
    rise_BT = selecting._relative_rise(got.entropy("anchor"), got.entropy("removed"))
    close(rise_BT, [0.7380244828, 0.0116688163, 0.1187126055, 0.1963635483, 0, 0.1756336725])


@pytest.mark.parametrize(
    ("rule", "want"),
    [(rises_verl, [1, 0, 0, 1, 0, 0]), (rises_areal, [1, 0, 0, 1, 0, 1]), (rises_paper, [1, 0, 1, 0, 0, 1])],
)
def test_o8_masks(rule, want):
    frozen, mask_BT = scored(method(VERL), [1.0]).frozen, torch.ones(1, 6, dtype=torch.bool)
    assert rule(frozen.entropy("anchor"), frozen.entropy("removed"), mask_BT, 0.5).int().tolist() == [want]


@pytest.mark.parametrize(
    ("H", "removed", "verl", "areal"),
    [
        ([1, 1, 1], [0.5, 0.2, 1], [0, 0, 0], [0, 0, 0]),
        ([1, 1, 1], [1.5, 0.2, 1], [1, 0, 0], [1, 0, 0]),
        ([1, 1, 1, 1], [1.5, 1.5, 1.5, 1.2], [1, 1, 1, 0], [1, 1, 0, 0]),
        ([1, 1, 1], [2, 1.5, 1.2], [1, 0, 0], [1, 1, 0]),
    ],
    ids=["none rises", "one rises", "ties", "three rise"],
)
def test_o8_edges(H, removed, verl, areal):
    mask_BT = torch.ones(1, len(H), dtype=torch.bool)
    assert rises_verl(table([H]), table([removed]), mask_BT, 0.5).int().tolist() == [verl]
    assert rises_areal(table([H]), table([removed]), mask_BT, 0.5).int().tolist() == [areal]


CPL = {
    "k3": [0.014749516, 0.720513353, 0.0011121581, 0.6940190599, 0.0683459009, 0.6259082587],
    "k1": [0.0000342475, 0.116576139, 7.0998401311, 0.7632849192, 5.7029225498, 0.1651703556],
    "full": [0.0002862779, 0.7055844321, 0.0011895304, 0.7217568781, 0.0036122605, 0.565835466],
}


@pytest.mark.parametrize("estimator", CPL)
@pytest.mark.parametrize("name", [VERL, AREAL, PAPER])
def test_o8_contrast_of_each_token(name, estimator):
    cppo = method(name, estimator=estimator, coefficient=1.0)
    case = scored(cppo, [1.0])
    close(cppo.objective["contrast"].value(case.batch, case.frozen, case.live).detach(), CPL[estimator])


@pytest.mark.parametrize(
    ("name", "estimator", "want"),
    [
        (VERL, "k3", 0.354384286156),
        (AREAL, "k3", 0.444892276691),
        (VERL, "k1", 0.381659581429),
        (AREAL, "k1", 0.309496506403),
        (VERL, "full", 0.361021576176),
        (AREAL, "full", 0.429292872554),
        (PAPER, "full", (0.0002862779 + 0.0011895304 + 0.565835466) / 3),
    ],
)
def test_o8_reduced(name, estimator, want):
    cppo = only(method(name, estimator=estimator, coefficient=1.0), "contrast")
    assert step(cppo, scored(cppo, [1.0])).loss == pytest.approx(want, abs=1e-6)


def test_o8_the_gate():
    cppo = only(method("cppo"), "contrast")
    assert step(cppo, scored(cppo, [0.8660239038, -0.8660239038])).loss == pytest.approx(0.00354384286156, abs=1e-8)
    assert step(cppo, scored(cppo, [-0.8660239038, -0.8660239038])).loss == 0.0
    assert step(cppo, scored(cppo, [0.0, 0.0])).loss == 0.0
    # By our reading of the text a rollout that the gate keeps out counts 0; in the code it is not counted.
    read = only(method("cppo@paper", coefficient=1.0), "contrast")
    alone, gated = (step(read, scored(read, advantages)).loss for advantages in ([1.0], [1.0, -1.0]))
    assert gated == pytest.approx(alone / 2, abs=1e-12)


def test_o8_it_is_infonce():
    plus, minus, tau = 0.03, 0.5, 0.1
    as_softplus = softplus_margin(table([[plus]]), table([[minus]]), tau=tau).item()
    assert as_softplus == pytest.approx(0.00905416416989, abs=1e-9)
    near, far = table([-plus / tau]).exp(), table([-minus / tau]).exp()
    assert as_softplus == pytest.approx(-(near / (near + far)).log().item(), abs=1e-12)
    assert softplus_margin(table([[0.2]]), table([[0.2]]), tau=tau).item() == pytest.approx(0.69314718056, abs=1e-9)
    assert softplus_margin(table([[10.0]]), table([[-10.0]]), tau=tau).item() == pytest.approx(200.0, abs=1e-9)


def gradients(name, estimator):
    """Of the contrast of each of O8's tokens, before selection and mean."""
    cppo = only(method(name, estimator=estimator, select="all", coefficient=6.0), "contrast")
    return step(cppo, scored(cppo, [1.0])).grads


def test_o8_and_o15_gradients():
    grads = gradients(VERL, "k3")
    close(
        grads["image", "logp", None],
        [-0.0889123581, -1.1011234919, 0.0154503058, 0.0670253343, 0.5515164112, -0.7339983444],
    )
    close(grads["kept", "logp", None], [-0.0079944882, 0.7023885637, 0.0038298932, -0.0977262965, 0.0573136594, 0])
    close(
        grads["removed", "logp", None],
        [0.0969068462, 0.3987349282, -0.019280199, 0.0307009622, -0.6088300706, 0.7339983444],
    )
    grads = gradients(AREAL, "k1")
    want = [0.0003424688, 1.1003766647, 9.9917476316, 5.3386729896, 9.9666379902, 1.5225072707]
    close(grads["image", "logp", None], [0.0] * 6)
    close(grads["removed", "logp", None], want)
    close(-grads["kept", "logp", None], want)


def test_o15_gradients_are_finite_differences():
    cppo = only(method("cppo", select="all", coefficient=6.0), "contrast")
    grads = gradients(VERL, "k3")

    def moved(key, by):
        case = scored(cppo, [1.0])
        live = Stats({**case.live.value, key: case.live.value[key].detach() + by})
        return cppo.objective["contrast"].value(case.batch, case.frozen, live).detach() / 6

    for key, grad_BT in grads.items():
        close((moved(key, 1e-6) - moved(key, -1e-6)) / 2e-6, grad_BT[0].tolist())
