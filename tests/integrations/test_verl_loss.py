"""verl's own `ppo_loss` with our terms is our objective, in loss and gradient, however verl cuts and spreads a step."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("integrations.verl_cpu", reason="verl is not installed: docs/verl.md says how these tests are run")

from integrations.verl_batch import IMAGE, actor_config, as_verl_has_it, nested
from laws.cases import make, reshaped, step
from verl.utils import tensordict_utils

from vergence.integrations.verl_loss import TOTALS, Loss, batch_of, frozen_of, totals
from vergence.integrations.verl_loss import reshaped as verls_reshaped
from vergence.integrations.verl_methods import looking
from vergence.types import UserError

CASES = {
    "papo": ("papo", {"eta": 0.05}),
    "papo, sequence mean": ("papo", {"mean": "sequence", "eta": 0.03}),
    "papo, k2 and no reference": ("papo", {"estimator": "k2", "beta": 0.0}),
    "papo-dapo": ("papo-dapo", {}),
    "papo, reference by k1": ("papo", {"kl": "k1"}),
    "vppo": ("vppo", {}),
    "vppo-grpo, strongly": ("vppo-grpo", {"low": 0.0, "top": 0.2, "entropy": 0.06}),
    "grpo": ("grpo", {"kl_cap": 10.0, "mean": "token"}),
    "dapo": ("dapo", {}),
    "drgrpo": ("drgrpo", {"budget": 7}),
}


def case_of(name, options, seed, *, wild=True):
    """A case whose advantages have been reshaped by verl's way, as verl's trainer would have them by then."""
    made = looking(name, **options)
    case = make(made, seed, S=4, G=2, wild=wild)
    if made.reshape is not None:
        data, _ = as_verl_has_it(case)
        advantage_BT = torch.zeros_like(case.batch.advantage_BT)
        found_BT = verls_reshaped(made, data)
        advantage_BT[:, : found_BT.shape[1]] = found_BT
        case = case._replace(batch=replace(case.batch, advantage_BT=advantage_BT))
    return made, case


def by_verl(name, options, case, parts, *, ranks=1, total_of=None):
    """Loss and gradient as verl's engine has them: the sum over micro-batches, the mean over ranks."""
    made, config = looking(name, **options), actor_config(name, options)
    whole, _ = as_verl_has_it(case)
    summed = {key: value.item() for key, value in totals(made, whole).items()}
    leaf_BT = case.live.value[IMAGE]
    loss, grad_BT = 0.0, torch.zeros_like(leaf_BT)
    for part in parts:
        data, output = as_verl_has_it(case, part)
        tensordict_utils.assign_non_tensor(
            data,
            dp_size=ranks,
            batch_num_tokens=int(case.batch.mask_BT.sum()),
            global_batch_size=int(case.batch.mask_BT.any(-1).sum()),
            **{TOTALS: total_of(made, data) if total_of else summed},
        )
        here, metrics = Loss(config, made)(output, data)
        loss += here.item() / ranks
        grad_BT += torch.autograd.grad(here, leaf_BT)[0] / ranks
        assert all(f"loss/{key}" in metrics for key in summed)
    return loss, grad_BT


PARTS = [[slice(None)], [slice(0, 1), slice(1, 5), slice(5, 8)], [slice(i, i + 1) for i in range(8)]]


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("parts", PARTS, ids=len)
@pytest.mark.parametrize(("name", "options"), CASES.values(), ids=CASES)
def test_the_loss_and_its_gradient_are_ours(name, options, parts, seed):
    made, case = case_of(name, options, seed)
    ours = step(made._replace(reshape=None), case)
    loss, grad_BT = by_verl(name, options, case, parts)
    assert loss == pytest.approx(ours.loss, rel=1e-7, abs=1e-7)
    torch.testing.assert_close(grad_BT, ours.grads[IMAGE], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["papo", "vppo"])
def test_two_ranks_are_one(name):
    options = CASES[name][1]
    made, case = case_of(name, options, 1)
    ours = step(made._replace(reshape=None), case)
    loss, grad_BT = by_verl(name, options, case, [slice(0, 3), slice(3, 8)], ranks=2)
    assert loss == pytest.approx(ours.loss, rel=1e-7)
    torch.testing.assert_close(grad_BT, ours.grads[IMAGE], rtol=1e-6, atol=1e-9)


def test_dividing_by_the_micro_batch_is_seen():
    """The wrong variant: each micro-batch divided by its own tokens."""
    name, options = CASES["papo"]
    made, case = case_of(name, options, 0)

    def own(made, data):
        return {key: value.item() for key, value in totals(made, data).items()}

    _, grad_BT = by_verl(name, options, case, PARTS[1], total_of=own)
    assert not torch.allclose(grad_BT, step(made, case).grads[IMAGE], rtol=1e-3)


@pytest.mark.parametrize("name", ["vppo", "vppo-grpo, strongly"])
def test_advantages_are_reshaped_as_ours_are(name):
    name, options = CASES[name]
    made = looking(name, **options)
    case = make(made, 5, S=4, G=2, wild=True)
    data, _ = as_verl_has_it(case)
    ours_BT = reshaped(made, case, [slice(None)]).batch.advantage_BT
    found_BT = verls_reshaped(made, data)
    torch.testing.assert_close(found_BT, ours_BT[:, : found_BT.shape[1]], rtol=1e-12, atol=0)
    assert (found_BT != 0).any()
    assert not ours_BT[:, found_BT.shape[1] :].any()


def test_an_advantage_that_differs_within_a_response_is_refused():
    made = looking("vppo")
    data, _ = as_verl_has_it(make(made, 0))
    row = data["response_mask"].offsets().diff().argmax()
    start = data["advantages"].offsets()[row]
    data["advantages"].values()[start] += 1.0
    with pytest.raises(UserError, match="differs within a response"):
        verls_reshaped(made, data)


def test_what_the_mask_leaves_out_changes_nothing():
    name, options = CASES["papo"]
    _, case = case_of(name, options, 0)
    expected = by_verl(name, options, case, PARTS[1])
    poisoned = {key: value_BT.where(case.batch.mask_BT, torch.nan) for key, value_BT in case.frozen.value.items()}
    poisoned = {key: value_BT for key, value_BT in poisoned.items() if key[0] == "masked"}
    case = case._replace(frozen=replace(case.frozen, value={**case.frozen.value, **poisoned}))
    assert any(value_BT.isnan().any() for value_BT in poisoned.values())
    found = by_verl(name, options, case, PARTS[1])
    assert found[0] == expected[0]
    assert (found[1] == expected[1]).all()


def test_the_batch_is_the_one_that_verl_has():
    made, case = case_of("papo", {}, 2)
    data, _ = as_verl_has_it(case)
    batch, T = batch_of(data), data["response_mask"].offsets().diff().max()
    assert (batch.mask_BT == case.batch.mask_BT[:, :T]).all()
    assert not case.batch.mask_BT[:, T:].any()
    assert (batch.sampled_logp_BT == case.batch.sampled_logp_BT[:, :T])[batch.mask_BT].all()
    assert batch.correct_B.isnan().all()
    assert batch.chance_BT.isnan().all()
    padded = data.to_padded_tensor()  # as verl's driver has it
    assert (batch_of(padded).mask_BT == batch.mask_BT).all()
    assert (frozen_of(made, padded).logp("masked") == frozen_of(made, data).logp("masked")).all()


def test_what_is_missing_is_named():
    made, case = case_of("papo", {}, 0)
    data, output = as_verl_has_it(case)
    tensordict_utils.assign_non_tensor(data, dp_size=1, batch_num_tokens=9, global_batch_size=8)
    loss = Loss(actor_config("papo", {}), made)
    with pytest.raises(UserError, match=TOTALS):
        loss(output, data)
    with pytest.raises(UserError, match="no masked_log_probs"):
        totals(made, data.exclude("masked_log_probs"))


def test_nested_rows_are_what_they_were():
    value_BT = torch.arange(6.0).view(2, 3)
    assert [row.tolist() for row in nested(value_BT, [1, 3]).unbind()] == [[0.0], [3.0, 4.0, 5.0]]
