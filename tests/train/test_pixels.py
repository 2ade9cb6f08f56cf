"""How large images may be: the answer is the largest that fits, read from a model's config alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vergence import objectives
from vergence.cli import main
from vergence.models.policy import load
from vergence.models.sizes import sizes
from vergence.recipes import recipe
from vergence.train.pixels import FEWEST, bytes_of, largest, room_of
from vergence.types import UserError

GIB = 2**30


def qwen25(folder: Path, *, width: int, layers: int, heads: int, key_heads: int, inner: int, words: int) -> str:
    """A folder that holds a config.json of the sizes of Qwen2.5-VL, and nothing else."""
    text = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": words}
    text |= {"num_key_value_heads": key_heads, "intermediate_size": inner, "max_position_embeddings": 128000}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": width}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112}
    told = {"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(told | {"tie_word_embeddings": width == 2048}))
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    small = {"width": 2048, "layers": 36, "heads": 16, "key_heads": 2, "inner": 11008, "words": 151936}
    large = {"width": 3584, "layers": 28, "heads": 28, "key_heads": 4, "inner": 18944, "words": 152064}
    return {"3b": qwen25(root / "3b", **small), "7b": qwen25(root / "7b", **large)}


def room(config, model, **fields):
    return room_of(replace(config, model=model, **fields), text=256, images=1)


def test_the_sizes_are_those_of_the_published_models(models):
    numbers = [room(recipe("qwen2.5-vl-3b"), models[size]).memory.sizes.weights / 2 for size in ("3b", "7b")]
    assert numbers == pytest.approx([3.75e9, 8.29e9], rel=0.01)


@pytest.fixture(scope="module")
def lora(models):
    return room(recipe("qwen2.5-vl-3b-lora"), models["3b"])


@pytest.mark.parametrize(("size", "memory"), [("3b", 24), ("7b", 40)])
def test_a_recipe_for_one_gpu_fits_it(models, size, memory):
    made = room(recipe(f"qwen2.5-vl-{size}-lora"), models[size])
    for name in ("grpo", "dapo", "papo", "papo@full", "cppo", "cappo", "racro"):
        config = recipe(f"qwen2.5-vl-{size}-lora", name)
        plan = replace(made.memory, config=config, method=objectives.method(name, **config.options))
        assert made._replace(memory=plan).fits(config.max_pixels // made.side**2, int(0.9 * memory * GIB)), name


def test_what_is_said_to_fit_is_the_largest(lora):
    made = lora
    found = []
    for tokens in (300, 700, 1500):
        there = made.with_images(tokens).plan().total
        found.append(most := largest(made, there))
        assert all(made.fits(fewer, there) for fewer in range(FEWEST, most + 1, 7))
        assert not made.fits(most + 1, there)
    assert found == sorted(set(found))
    assert largest(made, 1 * GIB) == 0


def test_the_context_bounds_images_too(lora):
    made = lora._replace(context=3000)
    assert largest(made, 2**50) == 3000 - 2048 - 256
    assert made.trouble(697, 2**50) == "context"
    assert made.trouble(696, 2**50) == ""
    assert made.trouble(696, 2**20) == "memory"


@pytest.mark.slow
def test_what_does_not_fit_for_the_context_is_not_blamed_on_memory(models, capsys):
    given = ["data", "pixels", "--recipe", "qwen2.5-vl-3b-lora", "--model", models["3b"], "--memory", "200GiB"]
    with pytest.raises(SystemExit):
        main([*given, "--max-tokens", "127900"])
    out, error = capsys.readouterr()
    assert "attends to 128,000 tokens, and 256 of text, a response of up to 127,900 and 1 image(s) of 4" in error
    assert "--token-budget" not in error
    assert "above the context" in " ".join(out.split())
    main([*given, "--max-tokens", "127000", "--sample-batch", "8"])
    assert "the limit is the model's context of 128,000 tokens" in capsys.readouterr().out


def test_without_weights_the_plan_is_the_loaded_models():
    config = replace(recipe("demo"), max_tokens=32)
    assert room(config, "seedling").memory.sizes == sizes(load("seedling").model)


def test_more_images_leave_less_to_each(lora):
    one, four = lora, lora._replace(images=4)
    there = one.with_images(2500).plan().total
    assert 0 < largest(four, there) < largest(one, there) / 2


def test_the_command_says_it_and_what_to_do_if_nothing_fits(models, lora, capsys):
    given = ["data", "pixels", "--recipe", "qwen2.5-vl-3b-lora", "--model", models["3b"]]
    there = f"{lora.with_images(600).plan().total / 0.9 / GIB:.3f}GiB"
    main([*given, "--memory", there])
    out = capsys.readouterr().out
    assert "--max-pixels " in out
    main([*given, "--memory", there, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["max_pixels"] == told["image_tokens"] * 28**2
    assert f"--max-pixels {told['max_pixels']}" in out
    with pytest.raises(SystemExit):
        main([*given, "--memory", "4GiB"])
    assert "even images of 4 tokens take" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "much", "24 apples", "0", "-3", "1e9"])
def test_what_is_no_size_of_memory_is_told(text):
    with pytest.raises(UserError, match="such as 24GiB"):
        bytes_of(text)


def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="no model at"):
        room(recipe("demo"), str(tmp_path))
