"""What is logged of views, selections and gradients is what it is called: against plain Python on small numbers."""

import math
from dataclasses import replace
from statistics import fmean, median, pvariance

import pytest
import torch
from laws.cases import make

from vergence.objectives import method
from vergence.train import loop, rounds, watch
from vergence.train.ask import ask
from vergence.train.config import Config
from vergence.train.parts import assemble
from vergence.train.run import read_lines
from vergence.types import Stats

TINY = Config(steps=1, scenes_per_batch=4, siblings=4, token_budget=400, max_tokens=40, watch_every=1)


def table(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_of_a_view():
    mask_BT = torch.tensor([[True, True, True], [True, False, False]])
    l_BT, m_BT = table([[-0.1, -1.0, -5.0], [-0.5, 0.0, 0.0]]), table([[-0.1, -3.0, -0.1], [-0.7, -9.0, -9.0]])
    kl_BT, H_BT = table([[0.1, 0.2, 0.3], [0.8, 9.0, 9.0]]), table([[1.0, 2.0, 3.0], [4.0, 9.0, 9.0]])
    stats = Stats(
        {
            ("image", "logp", None): l_BT,
            ("masked", "logp", None): m_BT,
            ("image", "kl", "masked"): kl_BT,
            ("masked", "entropy", None): H_BT,
        }
    )
    pairs = [(-0.1, -0.1), (-1.0, -3.0), (-5.0, -0.1), (-0.5, -0.7)]
    k3 = [min(math.exp(there - here) - (there - here) - 1, 10.0) for here, there in pairs]
    want = {
        "kl": 0.35,
        "signed": fmean(here - there for here, there in pairs),
        "entropy": 2.5,
        "k3": fmean(k3),
        "k3_p50": median(k3),
        "k3_variance": pvariance(k3),
        "k3_at_bound": 0.25,
    }
    got = watch._of_view("masked", stats, mask_BT)
    assert {name: got[name] for name in want} == pytest.approx(want, abs=1e-12)
    low, high = sorted(k3)[-2:]
    assert got["k3_p99"] == pytest.approx(low + 0.97 * (high - low), abs=1e-9)
    assert watch._of_view("masked", stats, torch.zeros(2, 3, dtype=torch.bool)) == {}


def test_of_a_selection():
    """Two of five tokens are selected; one of them is among the two most uncertain of its response."""
    selected_BT = torch.tensor([[True, False, True, False], [False, False, False, False]])
    mask_BT = torch.tensor([[True, True, True, True], [True, False, False, False]])
    surrogate = method("grpo").objective["surrogate"]
    term = surrogate._replace(select=lambda batch, frozen: selected_BT)
    grpo = method("grpo")._replace(objective={"contrast": term})
    batch = replace(make(grpo, 0, S=1, G=2, T=4).batch, mask_BT=mask_BT)
    entropy_BT = table([[3.0, 2.0, 1.0, 0.5], [9.0, 9.0, 9.0, 9.0]])
    assert watch._of_selections(grpo, batch, Stats({}), entropy_BT) == {
        "perception/selected/contrast": pytest.approx(0.4),
        "perception/selected_uncertain/contrast": pytest.approx(1 / 3),
    }


def frozen_round(name, tmp_path, **options):
    parts = assemble(replace(TINY, method=name, options=options), tmp_path)
    asked = ask(parts, 0, 0)
    scenes = [rollout.scene for rollout in asked.rollouts[::4]]
    prompts = rounds.render_views(parts, scenes, 0, watch.watching(parts.config, 0))
    return parts, rounds.freeze_round(parts, asked.rollouts, prompts), prompts


def test_the_gradient_ratio_grows_with_the_coefficient_and_leaves_no_gradient(tmp_path):
    ratios = []
    for gamma in ("0.1", "0.3"):
        parts, pending, prompts = frozen_round("papo", tmp_path, gamma=gamma)
        ratios.append(watch.gradient_ratio(parts, pending.batch, pending.frozen, prompts)["perception/gradient_ratio"])
        assert all(weight.grad is None for weight in parts.policy.model.parameters())
    assert ratios[1] == pytest.approx(3 * ratios[0], rel=1e-4)


def test_the_same_masked_view_is_watched_for_every_method_and_none_for_a_blind_one(tmp_path):
    seen = []
    for name in ("grpo", "papo", "cppo"):
        parts, pending, prompts = frozen_round(name, tmp_path)
        stats = watch.looked(parts, pending.batch, prompts)
        seen.append(watch.watched(parts, pending.batch, pending.frozen, stats))
    assert seen[0]["perception/kl_masked"] > 0
    for other in seen[1:]:
        assert other["perception/k3_p99_masked"] == pytest.approx(seen[0]["perception/k3_p99_masked"], rel=1e-4)
    assert 0 < seen[2]["perception/gate_pass"] < 1
    parts, pending, prompts = frozen_round("grpo+blind", tmp_path)
    assert watch.watched(parts, pending.batch, pending.frozen, watch.looked(parts, pending.batch, prompts)) == {}


def test_a_method_whose_other_views_are_constants_can_be_watched(tmp_path):
    """PAPO without its perception term still has the masked view's entropy, a constant: there is no gradient of it."""
    loop.train(replace(TINY, method="papo", options={"gamma": "0", "eta": "0.05"}), tmp_path / "run")
    (line,) = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert "perception/gradient_ratio" not in line
    assert "perception/masked/k3" in line
