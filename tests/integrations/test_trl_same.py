"""The same batch inside TRL's trainer and in ours: the same loss, and the same gradient of every weight."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

from integrations.trl_case import (
    SIBLINGS,
    Noting,
    Said,
    Step,
    Watching,
    logged,
    one_of_one_mind,
    parity,
    policy_of,
    scenes,
    trainer_of,
)
from scoring.steps import in_float64

from vergence import objectives
from vergence.integrations.trl_scoring import Whole
from vergence.models.policy import Policy
from vergence.rewards.overlong import overlong
from vergence.rollout.render import render
from vergence.scoring.naive import Naive
from vergence.scoring.shared import Shared
from vergence.train.ask import view_key
from vergence.train.backend import OneProcess
from vergence.train.step import accumulate, freeze, measure, reshaped
from vergence.types import Batch, Method, Read, with_advantage

METHODS = {
    "papo": {"beta": 0.1},
    "cppo": {},
    "dapo": {},
}
MORE = {
    "grpo": {},
    "drgrpo": {},
    "papo@paper": {},
    "papo@full": {},
    "papo-dapo@release": {},
    "papo-dapo@paper": {},
    "cppo": {"fresh": "yes"},
    "cppo@paper": {},
    "cppo@release-areal": {},
    "cappo": {},
    "cappo-dapo": {},
    "vppo": {},
    "vppo-grpo": {},
}
HUGE = 2**20
LONGEST = 28


def ours(method: Method, said: Said, before: Policy, now: Policy, *, seed: int, temperature: float) -> dict[str, float]:
    """An optimizer step of our own trainer on what TRL sampled: its gradient is left in `now`."""
    by_key = {scene.key: scene for scene in scenes(4)}
    shown = [by_key[key] for key in said.key[::SIBLINGS]]
    prompts = {
        name: [render(now.reader, s, view.show, view_key(seed, view.show, 0, s.key), others=shown) for s in shown]
        for name, view in method.views.items()
    }
    reward_B, lengths = torch.tensor(said.reward), [len(ids) for ids in said.completion_ids]
    if method.reward.overlong:
        reward_B = reward_B + torch.tensor(
            [overlong(length, LONGEST, max(1, round(method.reward.overlong * LONGEST))) for length in lengths]
        )
    reward_SG, correct_SG = reward_B.view(-1, SIBLINGS), torch.tensor(said.reward).view(-1, SIBLINGS)
    kept_S = torch.ones(len(shown), dtype=torch.bool) if method.keep is None else method.keep(correct_SG)
    rows = [row for row in range(len(lengths)) if kept_S[row // SIBLINGS]]
    token_BT = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for at, row in enumerate(rows):
        token_BT[at, : lengths[row]] = torch.tensor(said.completion_ids[row])
    zeros_BT = torch.zeros(token_BT.shape)
    batch = Batch(
        key_B=torch.arange(len(rows)),
        scene_B=torch.tensor(rows) // SIBLINGS,
        token_BT=token_BT,
        mask_BT=torch.arange(max(lengths)) < torch.tensor(lengths)[rows][:, None],
        sampled_logp_BT=zeros_BT,
        chance_BT=zeros_BT,
        correct_B=correct_SG.flatten()[rows],
        advantage_B=torch.zeros(len(rows)),
        advantage_BT=zeros_BT,
    )
    batch = with_advantage(batch, method.credit(reward_SG).flatten()[rows])
    then = Naive({"now": before.logits, "reference": before.logits}, method.views, temperature=temperature)
    sampled = measure(batch, then, prompts, [Read("image", "logp")], budget=HUGE)
    batch = Batch(**{**{f: getattr(batch, f) for f in batch.__slots__}, "sampled_logp_BT": sampled.logp("image")})
    scorer = Naive({"now": now.logits, "reference": before.logits}, method.views, temperature=temperature)
    frozen = freeze(method, batch, scorer if method.fresh else then, prompts, budget=HUGE)
    batch = reshaped(method, batch, frozen, OneProcess())
    return accumulate(method, batch, frozen, scorer, prompts, backend=OneProcess(), budget=HUGE)


def at(step: Step) -> Policy:
    """A policy with these weights."""
    policy = policy_of()
    policy.model.load_state_dict(step.weights)
    return policy


def assert_close(got: dict, want: dict, tolerance: float) -> None:
    """The same gradients: relative to each, or to a thousandth of the longest."""
    longest = max(float(grad.norm()) for grad in want.values())
    assert longest > 0
    assert got.keys() == want.keys()
    for name, grad in want.items():
        away = float((got[name] - grad).norm()) / max(float(grad.norm()), 1e-3 * longest)
        assert away <= tolerance, f"{name} is {away:.1e} away"


def check(folder: Path, name: str, options: dict, **changed: Any) -> Any:
    """Two optimizer steps of one generation inside TRL, and the same two in our trainer.

    Of a method that leaves groups out, one is.
    """
    method = objectives.method(name, **options)
    noting, watching = Noting(one_of_one_mind if method.keep else parity), Watching()
    usual = {
        "max_steps": 2,
        "num_iterations": 2,
        "max_completion_length": LONGEST,
        **changed,
    }
    trainer = trainer_of(folder, name, options, reward_funcs=noting, callbacks=[watching], **usual)
    if trainer.ref_model is not None:
        trainer.ref_model.double()  # which TRL 1.15 makes in float32
    with in_float64():
        trainer.train()
    assert len({len(ids) for ids in noting.said[0].completion_ids}) > 1  # there is padding
    assert len(noting.said) == 1  # so the second step has ratios other than 1, and a reference elsewhere
    for number, step in enumerate(watching.steps):
        now = at(step)
        with in_float64():
            told = ours(method, noting.said[0], policy_of(), now, seed=3, temperature=trainer.temperature)
        line = logged(trainer)[number]
        for term in told:
            assert line[term] == pytest.approx(told[term], rel=1e-6, abs=1e-7), term
        assert_close(step.grads, {n: w.grad for n, w in now.model.named_parameters() if w.requires_grad}, 1e-7)
    return trainer


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_that_of_our_trainer(name, tmp_path):
    trainer = check(tmp_path, name, METHODS[name])
    assert isinstance(trainer._scoring(), Shared)


def test_with_gradient_checkpointing_rows_are_read_whole_and_the_step_is_the_same(tmp_path):
    """And at another temperature, which is that of sampling and of every log-probability."""
    trainer = check(tmp_path, "papo@full", {}, gradient_checkpointing=True, temperature=0.8)
    assert isinstance(trainer._scoring(), Whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_a_step_of_the_other_methods_is_that_of_our_trainer(name, tmp_path):
    check(tmp_path, name, MORE[name])
