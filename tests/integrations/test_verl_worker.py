"""verl's own worker (FSDP2, over gloo on a CPU) with our parts takes our optimizer step, on the seedling."""

import pytest
import torch

pytest.importorskip("integrations.verl_cpu", reason="verl is not installed: docs/verl.md says how these tests are run")

from integrations.verl_worker import (
    STEPS,
    WHOLE,
    as_verl_has_it,
    free_port,
    on_a_rank,
    one_of,
    prepared,
    trained,
    wanted,
    worker,
)
from scoring.steps import assert_same
from verl.utils import tensordict_utils

from vergence.integrations.verl_loss import TOTALS
from vergence.integrations.verl_plugin import LookingActor
from vergence.integrations.verl_views import VIEWS
from vergence.types import UserError

NEAR = 2e-5
"""Relative, in float32: verl packs and multiplies in another order."""


@pytest.fixture(scope="module", autouse=True)
def _process():
    wanted()
    if not torch.distributed.is_initialized():
        one_of(0, 1, free_port())


def share(metrics, name):
    """A metric that verl adds up over micro-batches."""
    return sum(metrics[f"loss/{name}"][0].values)


@pytest.mark.parametrize("cut", [{"rows": 8}, {"rows": 2}, {"dynamic": True}], ids=["whole", "by rows", "by tokens"])
@pytest.mark.parametrize("case", ["papo", "vppo"])
def test_verls_step_is_ours(case, cut):
    step, made = wanted()[case], worker(case, **cut)
    data = prepared(made, step)
    grads, metrics = trained(made, data)
    told = step.outcome.told
    own = [name for name in told if name.startswith("loss/") and name not in ("loss/surrogate", "loss/reference_kl")]
    assert own
    found = {"loss": metrics["loss"]} | {name: share(metrics, name.removeprefix("loss/")) for name in own}
    mask_BT = step.batch.mask_BT
    seen = {key: value for key, value in step.outcome.frozen.value.items() if key[0] != "reference"}
    fields = {key: data[f"{key[0]}_log_probs" if key[0] != "image" else "old_log_probs"] for key in seen}
    stats = {key: field.to_padded_tensor(0).where(mask_BT, 0.0) for key, field in fields.items() if key[0] != "image"}
    assert stats
    want = step.outcome._replace(
        told={name: told[name] for name in found},
        frozen=type(step.outcome.frozen)({key: seen[key] for key in stats}),
    )
    assert_same(want._replace(told=found, grads=grads, frozen=type(want.frozen)(stats)), want, NEAR)


def test_a_view_that_is_the_image_is_seen_by_this_test():
    """The wrong variant: verl reads the image where it should read the view."""
    step, made = wanted()["papo"], worker("papo")
    data = as_verl_has_it(step, WHOLE)
    right = made.read_views(data)["masked_log_probs"].to_padded_tensor(0)
    same = [{"masked": {"pixel_values": one["pixel_values"]}} if one else {} for one in data["multi_modal_inputs"]]
    tensordict_utils.assign_non_tensor(data, **{VIEWS: same})
    wrong = made.read_views(data)["masked_log_probs"].to_padded_tensor(0)
    different_B = (right - wrong).abs().amax(-1) > 0.1
    has_images_B = torch.tensor([bool(one) for one in data["multi_modal_inputs"]])
    assert (different_B == has_images_B).all()


def test_verl_itself_would_refuse_a_batch_without_totals():
    step, made = wanted()["papo"], worker("papo")
    data = prepared(made, step)
    assert TOTALS not in data
    with pytest.raises(UserError, match=TOTALS):
        super(LookingActor, made).train_batch(data)


def test_two_processes_are_one(tmp_path):
    """Each holds the tokens of other scenes, of other lengths; one holds no scene without an image."""
    step, rows_of = wanted()["papo"], ((0, 1, 2, 6), (3, 4, 5, 7))
    arguments = (free_port(), "papo", rows_of, tmp_path / "answer.pt")
    torch.multiprocessing.spawn(on_a_rank, args=arguments, nprocs=2)
    grads, loss, parts = torch.load(tmp_path / "answer.pt")
    told = step.outcome.told
    want = step.outcome._replace(told={"loss": told["loss"], "perception": told["loss/perception"]})
    # over ranks verl takes the mean of the sums: each share was multiplied by the number of ranks
    got = want._replace(told={"loss": loss, "perception": sum(map(sum, parts)) / 2}, grads=grads)
    assert_same(got, want, NEAR)


def test_the_steps_are_about_something():
    for case in STEPS:
        assert wanted()[case].outcome.told["loss"] != 0
