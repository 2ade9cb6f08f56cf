"""Every entry of the catalogue takes real steps on the real seedling; what can go wrong between asking and updating."""

import json
import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

import vergence.train.loop as loop
import vergence.train.parts as parts_module
import vergence.train.rounds as rounds
from vergence.objectives import CONTROLS, METHODS, method
from vergence.rewards.reasoner import ReasonerDown
from vergence.rollout.decode import sampler_of
from vergence.train.ask import MOST_DRAWS, ask
from vergence.train.config import Config
from vergence.train.loop import train
from vergence.train.parts import assemble
from vergence.train.run import read_lines
from vergence.types import Original, UserError

SLOW = pytest.mark.slow
TINY = Config(
    steps=2, scenes_per_batch=4, siblings=4, parts=2, token_budget=800, max_tokens=40, watch_every=1, warmup=0
)


class Echo:
    """A reasoner that boxes the last word of the caption; `fails` are the calls on which it is down."""

    def __init__(self, fails=()):
        self.calls, self.fails = 0, fails

    def __call__(self, asked, *, temperature, max_tokens):
        self.calls += 1
        if self.calls in self.fails:
            raise ReasonerDown("the reasoner at nowhere does not answer")
        return [
            f"<think></think>\\boxed{{{one.text.split('Picture: ')[-1].split('.')[0].split()[-1]}}}" for one in asked
        ]


@pytest.fixture
def echo(monkeypatch):
    reasoner = Echo()
    monkeypatch.setattr(parts_module, "load_reasoner", lambda *_, **__: reasoner)
    return reasoner


class Remembering:
    """A sampler that says again what these weights have said to the same prompt with the same key."""

    said: ClassVar[dict] = {}

    def __init__(self, policy, at_once):
        self.policy, self.sampler = policy, sampler_of(policy, at_once=at_once)

    def __call__(self, asked, **how):
        weights = tuple(float(weight.detach().double().sum()) for weight in self.policy.model.parameters())
        settled = hash((weights, *how.values()))
        names = [(settled, one.key, one.prompt.tokens, seen_in(one.prompt)) for one in asked]
        new = {name: one for name, one in zip(names, asked, strict=True) if name not in self.said}
        self.said.update(zip(new, self.sampler(list(new.values()), **how), strict=True))
        return [self.said[name] for name in names]


def seen_in(prompt):
    return None if prompt.pixels is None else hash(prompt.pixels.numpy().tobytes())


@pytest.fixture
def remembering(monkeypatch):
    """All methods put the same questions to the same weights: what is tried here is what becomes of the answers."""
    monkeypatch.setattr(parts_module, "sampler_of", Remembering)


def assert_healthy(run, steps):
    lines = list(read_lines(run / "metrics.jsonl"))
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert (run / "checkpoints" / f"step-{steps:06d}" / "model.safetensors").exists()
    return lines


VARIANTS = {"drgrpo", "papo-grpo@paper", "papo-dapo@paper", "papo-dapo@full", "vppo-grpo", "cppo-grpo@release-areal"}
VARIANTS |= {"cppo-dapo@release-verl", "cappo-dapo", "racro-dapo"}
"""Entries of whose parts the others have each."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW) if name in VARIANTS else name for name in METHODS])
def test_every_method_trains(name, tmp_path, echo, remembering):
    train(replace(TINY, method=name), tmp_path / "run")
    first, second = assert_healthy(tmp_path / "run", 2)
    assert second["grad_norm"] > 0
    own = {view for view, how in method(name).views.items() if how.policy == "now" and how.show != Original()}
    assert {key.split("/")[1] for key in first if key.count("/") == 2 and "/k3_p99" in key} == own


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["papo-grpo@full", "cppo", pytest.param("cappo", marks=SLOW), pytest.param("dapo", marks=SLOW)]
)
def test_sharing_prompts_changes_nothing_but_rounding(name, tmp_path, remembering):
    """Micro-batches that cut groups, gates, a reference, a caption: the first step is the same."""
    config = replace(TINY, method=name, steps=1, token_budget=500)
    scorers = ("naive", "graph", "leaf", "recompute")
    for scorer in scorers:
        train(replace(config, scorer=scorer), tmp_path / scorer)
    naive, *shared = (next(read_lines(tmp_path / scorer / "metrics.jsonl")) for scorer in scorers)
    for one in shared:
        assert naive == pytest.approx(one, rel=1e-3, abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
def test_every_control_trains(control, tmp_path, remembering):
    name = "vppo" if control == "random" else "papo"
    train(replace(TINY, method=f"{name}+{control}"), tmp_path / "run")
    assert_healthy(tmp_path / "run", 2)


def test_blind_training_shows_no_image(tmp_path, monkeypatch):
    shown = []

    def look(parts, scenes, round_, watching):
        prompts = render(parts, scenes, round_, watching)
        shown.extend(prompt.pixels for prompt in prompts["image"])
        return prompts

    render = rounds.render_views
    monkeypatch.setattr(rounds, "render_views", look)
    train(replace(TINY, method="grpo+blind", steps=1), tmp_path / "run")
    assert shown
    assert all((pixels == pixels[0]).all() for pixels in shown)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("dapo", marks=SLOW),
        pytest.param("cappo", marks=SLOW),
        "cppo",
        pytest.param("vppo-dapo", marks=SLOW),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(name, tmp_path):
    """In the middle of a round: its scenes came from several draws, and its frozen statistics must be as they were."""
    config = replace(TINY, method=name, steps=4)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "run", until=1)
    train(config, tmp_path / "run", resume=True, until=3)
    train(config, tmp_path / "run", resume=True)
    for file in ("metrics.jsonl", "rollouts.jsonl", "checkpoints/step-000004/model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "run" / file).read_bytes(), file


def test_dynamic_sampling_fills_the_batch_with_groups_that_differ(tmp_path):
    parts = assemble(replace(TINY, method="dapo"), tmp_path)
    asked = ask(parts, 0, 0)
    groups = [asked.rollouts[row : row + 4] for row in range(0, 16, 4)]
    assert len(groups) == 4
    assert all(len({rollout.verdict.accuracy for rollout in group}) == 2 for group in groups)
    assert all(len({rollout.scene.key for rollout in group}) == 1 for group in groups)
    assert asked.metrics["sampling/kept"] == pytest.approx(asked.metrics["sampling/kept"], abs=1)
    again = ask(parts, 0, 0)
    assert [rollout.text for rollout in again.rollouts] == [rollout.text for rollout in asked.rollouts]
    following = ask(parts, 1, asked.position)
    assert {one.scene.key for one in following.rollouts}.isdisjoint(one.scene.key for one in asked.rollouts)


def test_dynamic_sampling_gives_up_and_says_what_was_kept(tmp_path):
    parts = assemble(replace(TINY, method="dapo", max_tokens=2, scenes_per_batch=2, siblings=2), tmp_path)
    with pytest.raises(UserError, match=rf"in {MOST_DRAWS} draws, and 0 of them \(0%\).*more siblings"):
        ask(parts, 0, 0)


def test_a_view_that_changes_nothing_stops_the_run(tmp_path):
    config = replace(TINY, method="papo", options={"fraction": "0"})
    with pytest.raises(UserError, match=r"view 'masked' .*exactly as they are.*teaches nothing"):
        train(config, tmp_path / "run")


def test_a_missing_caption_names_its_row(tmp_path, echo):
    scenes = assemble(TINY, tmp_path).source.train(0, 4, seed=0)
    rows = []
    for number, scene in enumerate(scenes):
        scene.images[0].save(tmp_path / f"{number}.png")
        row = {"image": f"{number}.png", "question": scene.question, "answer": scene.gold.text}
        rows.append(row if number == 2 else {**row, "caption": scene.caption})
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(TINY, method="cappo", scenes=str(tmp_path / "mine.jsonl"))
    with pytest.raises(UserError, match=r"3.* has no caption"):
        train(config, tmp_path / "run")
    train(replace(config, captions="initial"), tmp_path / "written")
    assert_healthy(tmp_path / "written", 2)


def test_a_reasoner_that_is_down_costs_no_finished_rollout(tmp_path, monkeypatch):
    config = replace(TINY, method="racro", steps=4)
    reasoner = Echo()
    monkeypatch.setattr(parts_module, "load_reasoner", lambda *_, **__: reasoner)
    train(config, tmp_path / "whole")
    assert reasoner.calls == 2
    reasoner = Echo(fails=(2,))
    with pytest.raises(ReasonerDown, match="does not answer"):
        train(config, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "step-000002").is_dir()
    assert sum(1 for _ in read_lines(tmp_path / "run" / "rollouts.jsonl")) == 16
    train(config, tmp_path / "run", resume=True)
    for file in ("metrics.jsonl", "rollouts.jsonl", "checkpoints/step-000004/model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "run" / file).read_bytes(), file


def test_whatever_ends_a_run_it_keeps_what_is_finished(tmp_path, monkeypatch):
    """Scenes that run out in a later round, a reasoner that is down in an evaluation: the steps before are saved."""
    config = replace(TINY, method="grpo", steps=6)
    asks = rounds.ask

    def runs_out(parts, round_, position):
        if round_ == 1:
            raise UserError("nothing left that differs")
        return asks(parts, round_, position)

    monkeypatch.setattr(rounds, "ask", runs_out)
    with pytest.raises(UserError, match="nothing left"):
        train(config, tmp_path / "asked")
    monkeypatch.setattr(rounds, "ask", asks)
    train(config, tmp_path / "asked", resume=True)
    assert_healthy(tmp_path / "asked", 6)

    def down(policy):
        raise ReasonerDown("the server at nowhere does not answer")

    config = replace(config, eval_every=3)
    with pytest.raises(ReasonerDown):
        train(config, tmp_path / "evaluated", evaluate=down)
    assert (tmp_path / "evaluated" / "checkpoints" / "step-000003").is_dir()
    train(config, tmp_path / "evaluated", evaluate=lambda policy: {"accuracy": 0.0}, resume=True)
    assert_healthy(tmp_path / "evaluated", 6)


def test_a_view_that_changes_nothing_this_once_is_let_through(tmp_path):
    """Half of the keeping views, and a mask over few cells, may leave a small batch as it is."""
    parts = assemble(replace(TINY, method="papo", options={"fraction": "0.02", "cell": "24"}), tmp_path)
    scenes = parts.source.train(0, 1, seed=0)
    same = 0
    for round_ in range(12):
        prompts = rounds.render_views(parts, scenes, round_, {})
        same += torch.equal(prompts["masked"][0].pixels, prompts["image"][0].pixels)
    assert same > 0


def test_a_scene_that_comes_twice_is_answered_twice(tmp_path):
    parts = assemble(replace(TINY, method="grpo"), tmp_path)
    scene = parts.source.train(0, 1, seed=0)[0]

    class Twice:
        def train(self, start, number, *, seed):
            return [scene] * number

    rollouts = ask(parts._replace(source=Twice()), 0, 0).rollouts
    assert len({rollout.key for rollout in rollouts}) == 16
    assert len({rollout.sampled.tokens for rollout in rollouts}) > 4


def test_a_gated_view_is_spent_on_what_it_trains_alone(tmp_path, monkeypatch):
    """CPPO's views see the rollouts with A > 0 and no others, in training and in its frozen statistics."""
    seen = {"anchor": 0, "kept": 0, "removed": 0}
    parts = assemble(replace(TINY, method="cppo", parts=1, watch_every=0), tmp_path)
    look, name_of = parts.scorer._look, {id(view): name for name, view in parts.method.views.items()}

    def counted(held, view, batch):
        state = look(held, view, batch)
        if name_of[id(view)] in seen:
            seen[name_of[id(view)]] += len(state.hidden_nTD)
        return state

    monkeypatch.setattr(parts.scorer, "_look", counted)
    prompts, pending = None, None
    asked = ask(parts, 0, 0)
    prompts = rounds.render_views(parts, [rollout.scene for rollout in asked.rollouts[::4]], 0, {})
    pending = rounds.freeze_round(parts, asked.rollouts, prompts)
    through = int((pending.batch.advantage_B > 0).sum())
    assert 0 < through < 16
    assert seen == {"anchor": through, "kept": 0, "removed": through}
    loop.update(parts, pending, prompts, 0)
    assert seen == {"anchor": through, "kept": through, "removed": 2 * through}


def test_a_fresh_selection_is_read_before_every_step(tmp_path, monkeypatch, remembering):
    config = replace(TINY, method="cppo", options={"fresh": "yes"}, watch_every=0)
    counted = []
    freeze = rounds.freeze
    for module in (loop, rounds):
        monkeypatch.setattr(module, "freeze", lambda *args, **kwargs: counted.append(1) or freeze(*args, **kwargs))
    train(config, tmp_path / "fresh")
    assert len(counted) == 2  # one for the round, and one before its second step
    train(replace(config, options={}), tmp_path / "frozen")
    assert len(counted) == 3


def test_chance_of_a_token_is_nobodys_but_its_own(tmp_path):
    parts = assemble(replace(TINY, method="grpo"), tmp_path)
    asked = ask(parts, 0, 0)
    batch, some = (rounds.collate(rollouts, 4) for rollouts in (asked.rollouts, asked.rollouts[:4]))
    assert torch.equal(batch.chance_BT[:4, : some.chance_BT.shape[1]], some.chance_BT)
    assert 0.4 < batch.chance_BT[batch.mask_BT].mean() < 0.6


def test_the_drift_of_weighted_advantages_is_logged(tmp_path, remembering):
    """CapPO's weights spoil the zero mean over siblings: what is logged is the mean of w A; `recentre` takes it out."""
    drifts = {}
    for recentre in ("no", "yes"):
        train(replace(TINY, method="cappo", steps=1, options={"recentre": recentre}), tmp_path / recentre)
        (line,) = read_lines(tmp_path / recentre / "metrics.jsonl")
        drifts[recentre] = line["advantage/drift"]
    assert abs(drifts["no"]) > 1e-4
    assert drifts["yes"] == pytest.approx(0.0, abs=1e-6)
