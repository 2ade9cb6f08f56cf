"""Traces: what is written while training is what was measured, changes nothing, and survives a resume."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vergence import objectives
from vergence.models.policy import load
from vergence.models.reader import Reader
from vergence.objectives.terms import CAPPED
from vergence.scoring.naive import Naive
from vergence.train import loop, rounds, traces, watch
from vergence.train.ask import ask
from vergence.train.config import Config
from vergence.train.parts import WATCHED, assemble
from vergence.train.run import read_lines
from vergence.train.step import measure
from vergence.types import Erase, Read

TINY = Config(steps=1, scenes_per_batch=5, siblings=2, token_budget=2000, max_tokens=24, watch_every=1)
FILES = ("metrics.jsonl", "rollouts.jsonl", "traces.jsonl")


@pytest.fixture(scope="module")
def cppo(tmp_path_factory):
    """A round of CPPO, what the views say about it read anew by plain forward passes, and its traces."""
    config = replace(TINY, method="cppo", scenes_per_batch=6, siblings=4, max_tokens=40)
    parts = assemble(config, tmp_path_factory.mktemp("run"))
    asked = ask(parts, 0, 0)
    scenes = [rollout.scene for rollout in asked.rollouts[::4]]
    prompts = rounds.render_views(parts, scenes, 0, watch.watching(parts.config, 0))
    pending = rounds.freeze_round(parts, asked.rollouts, prompts)
    stats = watch.looked(parts, pending.batch, prompts)
    found = list(traces.traces(parts, asked.rollouts, scenes, pending, stats, round_=0, step=1))
    return parts, asked.rollouts, pending, prompts, found


def test_the_tokens_of_a_trace_join_to_what_was_written(cppo):
    parts, rollouts, _, _, found = cppo
    assert len(found) == traces.SCENES * 4
    for record, rollout in zip(found, rollouts, strict=False):
        assert "".join(record["tokens"]) == parts.policy.reader.tokenizer.decode(list(rollout.sampled.tokens))
        assert len(record["tokens"]) == len(rollout.sampled.tokens)
        assert record["response"] == rollout.text
        assert all(len(values) == len(record["tokens"]) for values in record["stats"].values())
        assert record["left_out"] == 0


def test_the_statistics_are_those_of_plain_forward_passes(cppo):
    parts, _, pending, prompts, found = cppo
    reads = [Read("image", "logp"), Read("image", "entropy")]
    for view in ("watched", "removed"):
        reads += [Read(view, "logp"), Read(view, "entropy"), Read("image", "kl", view)]
    plain = Naive({"now": parts.policy.logits}, {**parts.method.views, "watched": WATCHED})
    stats = measure(pending.batch, plain, prompts, reads, budget=4000)
    checked = 0
    for row, record in enumerate(found):
        T = len(record["tokens"])
        for view, name in (("watched", "masked"), ("removed", "removed")):
            if f"kl {name}" not in record["stats"]:
                continue
            logp_T, other_T = stats.logp("image")[row, :T], stats.logp(view)[row, :T]
            want = {
                f"kl {name}": stats.kl("image", view)[row, :T],
                f"k3 {name}": CAPPED["k3"](logp_T[None], other_T[None])[0],
                f"log ratio {name}": logp_T - other_T,
                f"entropy gain {name}": stats.entropy(view)[row, :T] - stats.entropy("image")[row, :T],
            }
            for key, value_T in want.items():
                got = torch.tensor(record["stats"][key])
                torch.testing.assert_close(got, value_T, rtol=2e-3, atol=2e-4, check_dtype=False)
                checked += 1
    assert checked > 4 * 16


def test_a_gate_keeps_a_view_out_of_a_trace_and_selections_are_the_terms(cppo):
    _, _, pending, _, found = cppo
    gates = set()
    for row, record in enumerate(found):
        better = pending.batch.advantage_B[row].item() > 0
        gates.add(better)
        assert ("kl removed" in record["stats"]) == better
        assert "kl masked" in record["stats"]
        chosen = objectives.method("cppo").objective["contrast"].select(pending.batch, pending.frozen)[row]
        assert record["selected"]["contrast"] == chosen[: len(record["tokens"])].int().tolist()
        assert any(record["selected"]["contrast"]) <= better
    assert gates == {True, False}


def test_a_view_is_drawn_again_from_its_key(cppo):
    """What the viewer shows is what the policy saw: the pixels of the masked view, from the record alone."""
    parts, rollouts, _, prompts, found = cppo
    from vergence import views

    for at in (0, 4, 8):
        record, scene = found[at], rollouts[at].scene
        for name, trainer in (("masked", "watched"), ("removed", "removed"), ("kept", "kept")):
            spec = views.choose(traces.shows_of(parts.method)[name], record["view_key"][name], 0)
            shown = views.show(spec, scene.images[0], record["view_key"][name], 0)
            prompt = parts.policy.reader.prompt("?", [shown])
            assert torch.equal(prompt.pixels, prompts[trainer][at // 4].pixels)


def test_what_looks_is_the_words_of_stated_values(cppo):
    looking = [
        piece.strip()
        for record in cppo[-1]
        for piece, seen in zip(record["tokens"], record["looks"], strict=True)
        if seen
    ]
    values = "red green blue yellow purple circle square triangle cross empty rectangle segment"
    assert len(looking) > 20
    assert sum(piece.isdigit() or piece in values for piece in looking) >= 0.9 * len(looking)


def test_views_and_reshaped_advantages_by_method(tmp_path):
    for name, views in (
        ("vppo", ["image", "masked", "own masked"]),
        ("cappo", ["image", "masked", "caption"]),
        ("grpo+blind", ["image"]),
    ):
        run = tmp_path / name
        loop.train(replace(TINY, method=name), run)
        records = list(read_lines(run / "traces.jsonl"))
        assert len(records) == 8
        for record in records:
            assert record["views"] == views
            assert ("caption" in record) == (name == "cappo")
            assert ("weight" in record["stats"]) == (name in ("vppo", "cappo"))
            kept = record["selected"].get("surrogate")
            assert (kept is not None) == (name == "vppo")
            if kept and record["advantage"] != 0:
                assert [weight != 0 for weight in record["stats"]["weight"]] == [one == 1 for one in kept]
        lines = list(read_lines(run / "rollouts.jsonl"))
        shared = ("step", "scene", "sibling", "response", "reward", "advantage", "status", "gold")
        assert [[line[key] for key in shared] for line in lines[:8]] == [[r[key] for key in shared] for r in records]


def test_traces_change_no_number(tmp_path, monkeypatch):
    config = replace(TINY, method="papo")
    loop.train(config, tmp_path / "with")
    monkeypatch.setattr(rounds, "traces", lambda *args, **kwargs: [])
    loop.train(config, tmp_path / "without")
    for file in (*FILES[:2], "checkpoints/step-000001/model.safetensors"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    assert (tmp_path / "without" / "traces.jsonl").read_bytes() == b""
    assert len(list(read_lines(tmp_path / "with" / "traces.jsonl"))) == 8


@pytest.mark.slow
def test_a_resumed_run_has_the_same_traces_byte_for_byte(tmp_path):
    config = replace(TINY, method="papo", steps=4, passes=2, save_every=1)
    loop.train(config, tmp_path / "whole")
    loop.train(config, tmp_path / "cut", until=3)  # in the middle of the second round
    with (tmp_path / "cut" / "traces.jsonl").open("a") as file:  # a round that was under way, and a torn line
        file.write(json.dumps({"step": 9, "scene": "x"}) + '\n{"step": 9, "sce')
    loop.train(config, tmp_path / "cut", resume=True)
    for name in FILES:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_from_before_there_were_traces_is_resumed(tmp_path):
    config = replace(TINY, steps=2, save_every=1)
    loop.train(config, tmp_path / "run", until=1)
    shutil.copytree(tmp_path / "run", tmp_path / "old")
    (tmp_path / "old" / "traces.jsonl").unlink()
    as_it_was_before(tmp_path / "old" / "checkpoints" / "step-000001")
    loop.train(config, tmp_path / "old", resume=True)
    assert {record["step"] for record in read_lines(tmp_path / "old" / "traces.jsonl")} == {2}


def as_it_was_before(checkpoint: Path) -> None:
    """Without hashes, and silent about the logs."""
    (checkpoint / "SHA256SUMS").unlink()
    where = checkpoint / "trainer" / "state.json"
    state = json.loads(where.read_text())
    where.write_text(json.dumps({name: state[name] for name in ("step", "position", "scenes")}))


def test_no_rounds_are_watched_and_nothing_is_traced(tmp_path):
    loop.train(replace(TINY, watch_every=0), tmp_path / "run")
    assert (tmp_path / "run" / "traces.jsonl").read_bytes() == b""


def test_a_long_response_is_cut_and_says_so(cppo, monkeypatch):
    parts, rollouts, *_ = cppo
    monkeypatch.setattr(traces, "LONGEST", 5)
    length = len(rollouts[0].sampled.tokens)
    found = traces.at_tokens(parts.policy.reader, rollouts[0], {"kl": torch.arange(length) / 3}, {})
    assert found["left_out"] == length - 5
    assert found["stats"]["kl"] == [0.0, 0.3333, 0.6667, 1.0, 1.333]
    assert len(found["tokens"]) == len(found["looks"]) == 5


def test_what_is_no_number_is_none(cppo):
    parts, rollouts, *_ = cppo
    value_T = torch.zeros(len(rollouts[0].sampled.tokens))
    value_T[:3] = torch.tensor([float("nan"), float("inf"), -0.0])
    stats = traces.at_tokens(parts.policy.reader, rollouts[0], {"kl": value_T}, {})["stats"]
    assert json.dumps(stats["kl"][:3]) == "[null, null, 0.0]"


class Bytes:
    """A tokenizer whose tokens are single bytes, as the rarest of a byte-level vocabulary are."""

    def decode(self, tokens):
        return bytes(tokens).decode(errors="replace")


class Stripping:
    """A tokenizer that drops the blank before the first word, as those of the Llama family do."""

    words = (" a", " b", "c", " d")

    def decode(self, tokens):
        return "".join(self.words[token] for token in tokens).removeprefix(" ")


def test_characters_of_several_tokens_belong_to_the_one_that_completes_them():
    text = "aé€𝄞."
    assert traces.pieces(Reader(Bytes(), None), list(text.encode())) == [
        *"a",
        "",
        "é",
        "",
        "",
        "€",
        "",
        "",
        "",
        "𝄞",
        ".",
    ]


def test_pieces_join_to_the_whole_whatever_the_bytes():
    die = random.Random(0)
    for _ in range(300):
        tokens = die.choices((65, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9D, 0xFF, 10), k=die.randint(0, 9))
        found = traces.pieces(Reader(Bytes(), None), tokens)
        assert "".join(found) == Bytes().decode(tokens)
        assert len(found) == len(tokens)
    assert traces.pieces(Reader(Stripping(), None), [0, 1, 2, 3]) == ["a", " b", "c", " d"]


def test_pieces_of_the_seedling_join_for_any_tokens():
    reader, die = load("seedling").reader, random.Random(1)
    for _ in range(50):
        tokens = [die.randrange(len(reader.tokenizer)) for _ in range(12)]
        assert "".join(traces.pieces(reader, tokens)) == reader.tokenizer.decode(tokens)


def test_the_common_masked_view_is_papos():
    assert traces.shows_of(objectives.method("papo"))["masked"] == Erase(0.6, 14)
