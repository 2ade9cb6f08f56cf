"""--verify-scorer: a scorer that is right says by how little it differs, and one that is wrong ends the run."""

from dataclasses import replace

import pytest

from vergence.models import prefix
from vergence.models.policy import load
from vergence.rollout.generate import Generate
from vergence.scoring.naive import Naive
from vergence.train import parts
from vergence.train.config import Config
from vergence.train.loop import train
from vergence.types import UserError

TINY = Config(
    steps=1, scenes_per_batch=4, siblings=4, token_budget=400, max_tokens=40, watch_every=0, verify_scorer=True
)


@pytest.mark.parametrize(
    ("method", "scorer", "options"),
    [
        ("papo-grpo@full", "leaf", {}),
        ("cppo", "recompute", {"beta": "0"}),
        ("cappo", "graph", {}),
        ("grpo", "auto", {"kl": "full"}),
    ],
)
def test_a_right_scorer_says_by_how_little_it_differs(method, scorer, options, tmp_path):
    """Whatever the rollouts earned: here all of them fail, and have no advantage."""
    told = []
    train(
        replace(TINY, method=method, scorer=scorer, options=options, max_tokens=2), tmp_path / "run", tell=told.append
    )
    (line,) = [line for line in told if line.startswith("scorer verified on 16 rollouts")]
    assert " in the gradient" in line
    assert " 0e+00 in the gradient" not in line


def test_plain_passes_have_nothing_to_be_compared_with(tmp_path):
    told = []
    train(replace(TINY, method="grpo", scorer="naive"), tmp_path / "run", tell=told.append)
    assert any(line.startswith("nothing to verify") for line in told)


def test_a_wrong_scorer_ends_the_run_before_its_first_step(tmp_path, monkeypatch):
    respond = prefix.Prefix.respond

    def from_the_start(self, stored, row_B, token_BT, mask_BT):
        return respond(self, stored._replace(position_S=stored.position_S * 0), row_B, token_BT, mask_BT)

    monkeypatch.setattr(prefix.Prefix, "respond", from_the_start)
    with pytest.raises(
        UserError, match=r"'leaf' differs from plain forward passes .* in the gradient.* --scorer naive"
    ):
        train(replace(TINY, method="grpo", scorer="leaf"), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("change", ["eager", "sliding"])
def test_a_model_whose_prompts_cannot_be_shared_is_read_plainly_and_that_is_said_once(
    change, tmp_path, monkeypatch, capsys
):
    def odd(*path, **how):
        policy = load(*path, **how)
        if change == "eager":
            policy.model.set_attn_implementation("eager")
        else:
            policy.model.config.get_text_config().layer_types = ["sliding_attention"] * 4
        return policy

    monkeypatch.setattr(parts, "load", odd)
    config = replace(TINY, method="papo", verify_scorer=False)
    made = parts.assemble(config, tmp_path)
    assert isinstance(made.scorer, Naive)
    assert isinstance(made.sampler, Generate) == (change == "sliding")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "reads its prompt again (--scorer naive)" in line and change in line] == lines[
        -1:
    ]
    assert len(lines) == (2 if change == "sliding" else 1)
    if change == "eager":  # the other is no model that could run
        train(config, tmp_path / "run")
    with pytest.raises(UserError, match=f"cannot be shared .*{change}.*--scorer naive"):
        parts.assemble(replace(config, scorer="leaf"), tmp_path)
