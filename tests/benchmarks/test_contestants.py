"""What the benchmarks compare is the same thing: on a small replay, everyone's gradient is the definition's."""

from dataclasses import replace

import pytest
import torch

from benchmarks import emulation, ours
from benchmarks.replay import draw
from benchmarks.shapes import SHAPES, build
from benchmarks.timing import ratio, spread
from benchmarks.training_passes import gradient, relative_error

SMALL = replace(SHAPES["cpu"], image_tokens=16, response=6, siblings=4, groups=2)


@pytest.fixture(scope="module", params=["equal", "lognormal"])
def replayed(request):
    policy = build(SMALL)
    return policy, draw(SMALL, policy, lengths=request.param)


def found(replayed, run) -> list[torch.Tensor]:
    policy, _ = replayed
    return gradient(policy.model, policy.model.zero_grad, run)


@pytest.mark.parametrize("name", ours.METHODS)
def test_ours_is_the_definition_and_so_is_the_peer(replayed, name):
    policy, replay = replayed
    method = ours.METHODS[name]
    right = found(replayed, ours.training_passes(method, ours.naive(policy, method), replay))
    mine = found(replayed, ours.training_passes(method, ours.shared(policy, method), replay))
    peer = found(replayed, emulation.training_passes(policy, replay, name, "trl", rows=SMALL.siblings))
    assert max(float(one.norm()) for one in right) > 1e-4
    assert relative_error(mine, right) < 1e-3
    # a peer's means are over micro-batches, so a term's weight may differ where lengths or gates do
    if name == "grpo":
        assert relative_error(peer, right) < 1e-3


def test_a_replay_is_what_it_says(replayed):
    policy, replay = replayed
    assert replay.positive == 0.25
    assert replay.idle == 0.5
    assert {len(of_view) for of_view in replay.prompts.values()} == {2}
    one, again = (draw(SMALL, policy, lengths="equal", seed=1).batch.token_BT for _ in range(2))
    assert torch.equal(one, again)


def test_a_ratio_is_of_medians_with_its_spread():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]).relative == pytest.approx(2 / 3)
    assert ratio([2.0, 2.0, 9.0], [4.0, 4.0, 4.0]).median == 0.5
