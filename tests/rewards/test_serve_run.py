"""A run whose reasoner is behind a server: what it may use ends, and the run is what it would have been."""

from dataclasses import replace

import pytest
from rewards.fake_server import counted, serving, text_of

from vergence import objectives
from vergence.rewards import wire
from vergence.rewards.budget import BudgetSpent
from vergence.train.config import Config
from vergence.train.loop import train
from vergence.train.parts import _budget
from vergence.types import UserError

TINY = Config(
    method="racro", steps=4, scenes_per_batch=2, siblings=3, parts=2, token_budget=800, max_tokens=24, watch_every=0
)


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in (*wire.KEYS, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def last_word(wanted, tried):
    """Boxes the last word of the caption, for 30 tokens."""
    words = text_of(wanted).split("Picture: ")[-1].split(".")[0].split()
    return counted(f"\\boxed{{{words[-1] if words else ''}}}", 20, 10)


def test_a_budget_ends_the_run_with_a_checkpoint_and_the_resumed_run_is_the_whole_one(tmp_path):
    """A round asks 6 answers, of 30 tokens each. The second round does not fit; some of it is kept."""
    with serving(last_word) as fake:
        whole = replace(TINY, reasoner=fake.url, server_model="m")
        train(whole, tmp_path / "whole")
        asked = len(fake.seen)
        bounded = replace(whole, server_tokens=400)
        with pytest.raises(BudgetSpent, match=r"of 400 tokens.*--resume.*--server-tokens and --server-seconds"):
            train(bounded, tmp_path / "run")
        assert (tmp_path / "run" / "checkpoints" / "step-000002").is_dir()
        first = len(fake.seen) - asked
        assert first == len(list((tmp_path / "run" / "servers" / "reasoner").iterdir())) < asked
        train(replace(bounded, server_tokens=1000, server_seconds=60.0), tmp_path / "run", resume=True)
        assert len(fake.seen) == 2 * asked  # nothing was asked twice
    for file in ("metrics.jsonl", "rollouts.jsonl", "checkpoints/step-000004/model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "run" / file).read_bytes(), file


@pytest.mark.parametrize("bound", [{"server_tokens": -1}, {"server_seconds": -1.0}, {"server_seconds": float("nan")}])
def test_bounds_that_are_none_are_refused(bound):
    with pytest.raises(UserError, match=f"{next(iter(bound))} must be 0 or more"):
        replace(TINY, **bound)


def test_processes_share_the_tokens_where_all_of_them_ask():
    """Beside a sampler with weights of its own the first alone judges, and has all of them."""
    racro, cappo = objectives.method("racro"), objectives.method("cappo")
    config = replace(TINY, server_tokens=901, server_seconds=9.0)
    assert [_budget(config, racro, processes).tokens for processes in (1, 2, 4)] == [901, 451, 226]
    beside = replace(config, sampler="http://localhost:1")
    assert [_budget(beside, method, 4).tokens for method in (racro, cappo)] == [901, 226]
    assert _budget(beside, cappo, 4).seconds == 9.0
