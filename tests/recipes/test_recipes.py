"""Every recipe builds with every method of the catalogue; what papers publish is what their recipes say."""

import pytest

from vergence import objectives
from vergence.cli import main
from vergence.recipes import ALIASES, RECIPES, recipe
from vergence.sources.catalogue import known
from vergence.train.config_file import from_yaml, to_yaml

ENTRIES = sorted({*objectives.METHODS, *objectives.ALIASES})


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_with_every_method(name):
    for entry in ENTRIES:
        config = recipe(name, entry)
        assert config.method == entry
        assert objectives.method(config.method, **config.options).objective
    assert from_yaml(to_yaml(recipe(name))) == recipe(name)


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_the_former_names_are_the_same_recipes(size):
    assert recipe(f"qwen-vl-{size}", "papo") == recipe(f"qwen2.5-vl-{size}", "papo")
    assert set(ALIASES) >= {"qwen-vl-3b", "qwen-vl-7b", "qwen-vl-3b-lora"}


@pytest.mark.parametrize(
    ("method", "batch", "lr", "longest", "data"),
    [
        ("grpo", (384, 5, 3), 1e-6, 2048, "PAPOGalaxy/PAPO_ViRL39K_train"),
        ("dapo", (384, 5, 3), 1e-6, 2048, "PAPOGalaxy/PAPO_ViRL39K_train"),
        ("papo", (384, 5, 3), 1e-6, 2048, "PAPOGalaxy/PAPO_ViRL39K_train"),
        ("papo-dapo", (384, 5, 3), 1e-6, 2048, "PAPOGalaxy/PAPO_ViRL39K_train"),
        ("cppo", (512, 5, 8), 1e-6, 4096, "TIGER-Lab/ViRL39K"),
        ("racro", (256, 4, 2), 1e-6, 8192, "TIGER-Lab/ViRL39K"),
    ],
)
def test_a_papers_batches_lengths_and_data(method, batch, lr, longest, data):
    """arXiv:2507.06448 Table 6; the released scripts of CPPO and RACRO."""
    for size in ("3b", "7b"):
        config = recipe(f"qwen2.5-vl-{size}", method)
        assert (config.scenes_per_batch, config.siblings, config.parts) == batch
        assert (config.lr, config.max_tokens, config.scenes) == (lr, longest, data)
        assert config.steps % config.steps_per_batch == 0
        assert known(data) is not None


def test_a_papers_coefficients():
    def options(size: str, method: str) -> dict[str, float]:
        config = recipe(f"qwen2.5-vl-{size}", method)
        return {name: config.options[name] for name in ("gamma", "eta", "beta", "clip_high") if name in config.options}

    assert options("3b", "papo") == {"gamma": "0.02"}
    assert options("7b", "papo") == {"gamma": "0.02", "eta": "0.05"}
    assert options("7b", "papo-dapo") == {"gamma": "0.01", "eta": "0.03"}
    assert options("3b", "grpo") == {"beta": "0.01", "clip_high": "0.3"}


def test_one_batch_is_one_pass_through_the_sampler_on_one_gpu():
    for size in ("3b", "7b"):
        config = recipe(f"qwen2.5-vl-{size}-lora")
        assert (config.adapter, config.tower, config.dtype) == ("lora", "frozen", "bfloat16")
        assert config.gradient_checkpointing


def test_recipes_are_listed_and_printed(capsys):
    main(["recipes"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in RECIPES)
    main(["recipes", "qwen-vl-3b", "--method", "cppo"])
    assert from_yaml(capsys.readouterr().out) == recipe("qwen2.5-vl-3b", "cppo")
