"""The tiny reasoners: small, plain Hugging Face, and raised again from their seed."""

import hashlib
import json
import shutil
from random import Random

import pytest
import torch
from safetensors import safe_open

from vergence.chance import dice
from vergence.models import reasoner as models
from vergence.rewards.form import last_boxed, well_formed
from vergence.scenes import embedded
from vergence.scenes.canvas import NOVEL_COLOUR, NOVEL_SHAPE
from vergence.train import reasoners
from vergence.train.reasoners import LACKING, Lessons, corpus, example, examples, raise_reasoner, raise_reasoners
from vergence.types import UserError

SHORT = Lessons(steps=3, examples=64, batch=4)


def test_they_are_small_and_in_bfloat16():
    files = [path for folder in models.EMBEDDED.values() for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) < 3 * 2**20
    for folder in models.EMBEDDED.values():
        with safe_open(folder / "model.safetensors", "pt") as weights:
            assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118


def test_the_tokenizer_is_made_again_byte_for_byte(tmp_path):
    models.build_tokenizer(corpus()).save_pretrained(tmp_path)
    for folder in models.EMBEDDED.values():
        assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_every_word_is_one_token():
    _, tokenizer = models.load(models.EMBEDDED["weak"])
    for word in ("red", NOVEL_COLOUR, NOVEL_SHAPE, "empty", "7", "Guess", "backward"):
        assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1


def digest(model) -> str:
    state = model.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


@pytest.mark.slow
def test_the_first_steps_are_the_same_bits_and_another_seed_is_another_reasoner():
    first = digest(raise_reasoner("weak", lessons=SHORT)[0])
    before = torch.random.get_rng_state()
    assert digest(raise_reasoner("weak", lessons=SHORT)[0]) == first
    assert torch.equal(before, torch.random.get_rng_state())
    assert digest(raise_reasoner("weak", lessons=SHORT, seed=1)[0]) != first


def test_both_are_raised_and_saved_and_a_used_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reasoners, "LESSONS", {"weak": SHORT, "strong": SHORT})
    steps = []
    raise_reasoners(tmp_path / "out", watch=lambda name, step, loss: steps.append((name, step)))
    assert steps == [(name, step) for name in ("weak", "strong") for step in (1, 2, 3)]
    for name in ("weak", "strong"):
        assert models.load(tmp_path / "out" / name)[0].dtype is torch.float32
    with pytest.raises(UserError, match="is not empty"):
        raise_reasoners(tmp_path / "out")
    with pytest.raises(UserError, match="weak, strong"):
        raise_reasoner("middling")


# ---------------------------------------------------------------------------------------------- what is taught


def test_examples_are_answers_in_form_and_leave_out_what_training_leaves_out():
    shown = examples(400, seed=0)
    assert all(well_formed(one.response) for one in shown)
    text = " ".join(one.text + one.response for one in shown)
    assert NOVEL_COLOUR not in text
    assert NOVEL_SHAPE not in text


@pytest.mark.parametrize("world", embedded.TRAINED)
def test_without_the_facts_the_tentative_answer_is_taken(world):
    lacking = guessed = 0
    for index in range(300):
        one = example(world, dice("test", world, index))
        if LACKING in one.response:
            lacking += 1
            if "Guess: " in one.text:
                guessed += 1
                tentative = one.text.split("Guess: ")[1]
                assert tentative.startswith(f"{last_boxed(one.response)} ")
    assert lacking > 20
    assert guessed > 5


def test_bars_are_answered_as_the_caption_says():
    """The sum or difference of the two bars is worked out from the caption's words alone."""
    for index in range(200):
        one = example("bars", Random(index))
        if LACKING in one.response:
            continue
        told = {}
        for sentence in one.text.removeprefix("Picture: ").split(".")[:-2]:
            words = sentence.replace(":", " ").split()
            told[words[0]] = int(words[-1])
        asked = one.text.split("What is the ")[1].split()
        a, b = told[asked[0]], told[asked[4]]
        assert last_boxed(one.response) == str(a + b if asked[2] == "plus" else a - b)


def test_counts_are_tallied_cell_by_cell_and_end_in_what_the_reasoning_says():
    for index in range(300):
        content = reasoners.draft("shapes", dice("test", index))
        thought = reasoners.think("shapes", content)
        if content.ask[0] == "cell":
            assert thought == ""
            continue
        words = content.ask[1:-2]
        tallied = {part.split(": ")[0]: part.split()[-1] for part in thought.split(". ")[:-1]}
        said = dict(pair.split("=") for pair in thought.split(". ")[-1].removeprefix("Now ").split(", "))
        assert tallied == said
        assert set(said) == set(words)


def test_contents_belong_to_the_train_split():
    for world in embedded.TRAINED:
        for index in range(20):
            assert reasoners._trains(world, reasoners.draft(world, dice("test", world, index)))


# ---------------------------------------------------------------------------------------------- bad input


def test_a_folder_that_holds_no_reasoner_is_told(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        models.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot load a reasoner"):
        models.load(tmp_path)


def test_a_damaged_reasoner_is_told(tmp_path):
    folder = tmp_path / "weak"
    shutil.copytree(models.EMBEDDED["weak"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 7}))
    with pytest.raises(UserError, match="cannot load a reasoner"):  # 7 layers, of which the types of 2 are named
        models.load(folder)
    deeper = {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (folder / "config.json").write_text(json.dumps({**config, **deeper}))
    with pytest.raises(UserError, match="are not those of its config"):
        models.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        models.load(folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot load a reasoner"):
        models.load(folder)


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(UserError, match="give --device cpu"):
        models.load(models.EMBEDDED["weak"], device="cuda:99")


@pytest.mark.slow
def test_raised_again_they_are_as_good(tmp_path):
    """Minutes: both from their seed."""
    from vergence import chance
    from vergence.rewards.judge import by_reasoner
    from vergence.rollout.reason import load_reasoner
    from vergence.types import RewardSpec

    raise_reasoners(tmp_path / "out")
    scenes = embedded.draw_many(embedded.TRAINED, "tune", 240)
    captions, keys = [scene.caption for scene in scenes], [chance.key("again", scene.key) for scene in scenes]
    right = {}
    for name in models.EMBEDDED:
        judge = by_reasoner(load_reasoner(str(tmp_path / "out" / name)), RewardSpec(1.0, 0.0))
        right[name] = sum(verdict.accuracy for verdict in judge(scenes, captions, keys)) / len(scenes)
    assert right["strong"] >= 0.93
    assert 0.45 < right["weak"] < 0.8
