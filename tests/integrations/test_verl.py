"""What verl can train, with which settings, and what of it is loaded: all that needs no verl."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vergence.integrations.verl import ASKED, asked_for
from vergence.integrations.verl_methods import field_of, looking, own_terms, refuse_others, settings, stored_views
from vergence.integrations.verl_views import instead, shown
from vergence.objectives import METHODS, method
from vergence.objectives.objective import reads_of_method
from vergence.types import UserError

PAGE = Path(__file__).parents[2] / "docs" / "verl.md"
TRAINABLE = {"grpo", "dapo", "drgrpo", "papo-grpo@release", "papo-dapo@release", "vppo-dapo", "vppo-grpo"}


@pytest.mark.parametrize("name", METHODS)
def test_verl_trains_what_reads_stored_log_probabilities_and_nothing_else(name):
    if name in TRAINABLE:
        made = looking(name)
        assert made.objective.keys() == method(name).objective.keys()
        assert {read.quantity for read in reads_of_method(made)} == {"logp"}
        assert {read.view for read in reads_of_method(made) if read.when != "frozen"} == {"image"}
    else:
        with pytest.raises(UserError, match=f"verl cannot train '{name}': "):
            looking(name)


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("papo+shuffled", {}, "a control draws"),
        ("papo", {"saliency": "somewhere"}, "cannot be made from an image alone"),
        ("papo", {"grid": "aligned"}, "cannot be made from an image alone"),
        ("grpo", {"kl": "full"}, "divergence of the view 'image' with gradient"),
        ("grpo", {"entropy": 0.1, "entropy_of": "full"}, "entropy of the view 'image'"),
        ("racro", {}, "asked for something other"),
        ("pape", {}, "did you mean"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(name, options, why):
    with pytest.raises(UserError, match=why):
        looking(name, **options)


def test_our_terms_are_all_but_the_surrogate_and_the_reference():
    assert list(own_terms(looking("papo", eta=0.05))) == ["perception", "entropy", "masked_entropy"]
    assert list(own_terms(looking("vppo"))) == ["policy_entropy"]
    assert not own_terms(looking("grpo"))
    assert list(stored_views(looking("papo"))) == ["masked"]
    assert not stored_views(looking("papo", gamma=0.0))
    assert [field_of(view) for view in ("image", "reference", "masked")] == [
        "old_log_probs",
        "ref_log_prob",
        "masked_log_probs",
    ]


def test_the_settings_follow_the_options():
    found = settings("papo", clip_high="0.28", dual=0.0, mean="sequence", beta=0.0)
    actor = "actor_rollout_ref.actor"
    assert found[f"{actor}.clip_ratio_high"] == 0.28
    assert found[f"{actor}.clip_ratio_c"] == 1e9  # a ratio is at most e^20: out of reach
    assert found[f"{actor}.loss_agg_mode"] == "seq-mean-token-mean"
    assert f"{actor}.kl_loss_coef" not in found
    assert settings("papo", beta="0.05")[f"{actor}.kl_loss_coef"] == 0.05
    assert settings("drgrpo", budget=9)[f"{actor}.loss_scale_factor"] == 9
    assert settings("drgrpo")["algorithm.norm_adv_by_std_in_grpo"] is False
    assert settings("dapo")["algorithm.filter_groups.enable"] is True
    assert settings("papo")["algorithm.filter_groups.enable"] is False


@pytest.mark.parametrize(
    ("options", "why"),
    [({"kl_cap": 0.0}, "kl_cap=10"), ({"eps": 1e-4}, "adds 1e-6")],
)
def test_what_verls_loss_cannot_be_is_refused(options, why):
    with pytest.raises(UserError, match=why):
        settings("papo", **options)


def test_another_setting_is_refused_with_the_override_that_mends_it():
    wanted = settings("papo", beta=0.0)
    refuse_others(wanted, wanted.get)
    refuse_others(wanted, {**wanted, "algorithm.filter_groups.enable": None}.get)  # not there is not enabled
    with pytest.raises(UserError, match=r"give actor_rollout_ref\.actor\.clip_ratio_high=0\.3, or"):
        refuse_others(wanted, {**wanted, "actor_rollout_ref.actor.clip_ratio_high": 0.2}.get)
    with pytest.raises(UserError, match=r"rollout_correction\.bypass_mode=false"):
        refuse_others(wanted, {**wanted, "algorithm.rollout_correction.bypass_mode": True}.get)
    with pytest.raises(UserError, match="use_kl_loss=false"):
        refuse_others(wanted, {**wanted, "actor_rollout_ref.actor.use_kl_loss": True}.get)


def test_the_page_gives_the_overrides_of_papo():
    (told,) = re.findall(r"For `papo` they are\n\n```\n(.*?)```", PAGE.read_text(), re.S)
    wanted = {name: str(value).lower() for name, value in settings("papo").items()}
    assert dict(one.split("=") for one in told.split()) == wanted


def test_siblings_see_the_same_and_rounds_do_not():
    image = Image.new("RGB", (70, 70), "white")
    made = looking("papo")

    def read(images):
        return {"pixel_values": torch.stack([torch.from_numpy(np.array(one)).flatten(0, 1) for one in images])}

    def pixels(*key):
        return shown(made, [image, image], read, *key)["masked"]["pixel_values"]

    assert (pixels(1, "a") == pixels(1, "a")).all()
    assert (pixels(1, "a") != pixels(2, "a")).any()
    assert (pixels(1, "a") != pixels(1, "b")).any()
    first, second = pixels(1, "a")
    assert (first != second).any()
    assert set(first.unique().tolist()) == {0, 255}


def test_a_view_stands_in_the_images_place_and_only_there():
    clean = [{"pixel_values": torch.ones(4, 3), "image_grid_thw": torch.tensor([[1, 2, 2]])}, {}]
    seen = {"masked": {"pixel_values": torch.zeros(4, 3)}}
    found = instead(clean, [seen, seen], "masked")  # verl pads with rows that have no image, and a copy of the views
    assert found[0]["pixel_values"].sum() == 0
    assert found[0]["image_grid_thw"] is clean[0]["image_grid_thw"]
    assert found[1] == {}
    assert clean[0]["pixel_values"].sum() == 12
    with pytest.raises(UserError, match="default_agent_loop must be vergence"):
        instead(clean, [None, None], "masked")
    with pytest.raises(UserError, match="another size"):
        instead(clean, [{"masked": {"pixel_values": torch.zeros(6, 3)}}, None], "masked")


def test_nothing_is_loaded_that_was_not_asked_for():
    assert not asked_for({ASKED: "none"})
    script = "import sys, vergence.integrations.verl; print('torch' in sys.modules, 'verl' in sys.modules)"
    unasked = {key: value for key, value in os.environ.items() if key != ASKED}
    run = subprocess.run([sys.executable, "-c", script], env=unasked, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
