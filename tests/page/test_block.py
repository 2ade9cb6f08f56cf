"""The viewer's data and colours, without a browser: numbers, bounds, and nothing in it that a browser would act on."""

import hashlib
import json
import re
from base64 import b64decode

import numpy as np
import pytest
from page.planted import HOSTILE, SHOWN, trace, traces

from vergence import views
from vergence.report import ramps
from vergence.report.legible import bounded, legible
from vergence.report.looks import write_looks
from vergence.report.seen import LONGEST, viewed
from vergence.report.shown import picture
from vergence.report.statistic import statistic
from vergence.report.viewer import MOST_STATISTICS, MOST_TOKENS, POLICY, data, embedded, sample, viewer
from vergence.scenes.embedded import of_key
from vergence.types import Caption, Erase, UserError

BARS = of_key("bars/train/0/0")


def one(**more):
    said = f"{BARS.facts[0].about}: {BARS.facts[0].value}. {BARS.facts[1].about}: 77. \\boxed{{4}}"
    given = {name: more.pop(name) for name in ("names", "sibling") if name in more}
    return trace(BARS, said, **given) | more


def shown(records, shows=SHOWN, scene_of=of_key):
    return data(viewed(records, scene_of, shows))


# ------------------------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ramp", [ramps.petrol, ramps.rust_to_petrol])
def test_equal_steps_of_a_ramp_are_equal_to_the_eye(ramp, theme):
    lab = np.array([ramps.oklab(colour.ground) for colour in ramp(theme)])
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    arms = [steps] if ramp is ramps.petrol else [steps[:8], steps[8:]]
    for arm in arms:  # colours are rounded to 8 bits, which moves a step by a few percent
        assert np.abs(arm / arm.mean() - 1).max() < 0.06
    lightness = lab[:, 0] if ramp is ramps.petrol else lab[8:, 0]
    assert len({*np.sign(np.diff(lightness))}) == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ramp", [ramps.petrol, ramps.rust_to_petrol])
def test_letters_can_be_read_on_every_colour(ramp, theme):
    assert min(ramps.contrast(*colour) for colour in ramp(theme)) >= 4.5


# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear sRGB: protanopia, deuteranopia, tritanopia
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    value = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab_of(light):
    """OKLab of linear light, written from its definition for the test."""
    cones = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                      [0.0883024619, 0.2817188376, 0.6299787005]]) @ light.clip(0, 1)  # fmt: skip
    return np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                     [0.0259040371, 0.7827717662, -0.8086757660]]) @ np.cbrt(cones)  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_who_confuses_colours_can_read_the_ramps(kind, theme):
    def seen(colour):
        return lab_of(np.array(BLINDNESS[kind]) @ linear(colour))

    lightness = [seen(colour.ground)[0] for colour in ramps.petrol(theme)]
    assert len({*np.sign(np.diff(lightness))}) == 1
    both = [seen(colour.ground) for colour in ramps.rust_to_petrol(theme)]
    for step in range(1, 9):  # the same distance from zero on either side is told apart, from the first step on
        assert np.linalg.norm(both[8 + step] - both[8 - step]) > 0.012 * step


# -------------------------------------------------------------------------------------------------------- numbers


def test_a_scale_is_robust_and_one_for_all():
    values = [*np.linspace(0, 1, 99).tolist(), 1000.0]
    assert statistic("kl masked", values).high < 2
    assert statistic("kl masked", []).high == 0.0
    signed = statistic("log ratio masked", np.linspace(-3, 1, 101).tolist())
    assert signed.signed
    assert signed.low == -signed.high == pytest.approx(-2.92)
    assert not statistic("k3 masked", [-6e-8, 0.5, 1.0]).signed
    assert statistic("weight contrast", [1.0] * 5)[3] == "How much this token counts in this term of the loss."


def test_the_page_says_what_the_trace_says():
    record = one()
    line = shown([record])["rollouts"][0]
    found = shown([record])["statistics"]
    assert [one["name"] for one in found] == list(record["stats"])
    for number, name in enumerate(record["stats"]):
        assert line["values"][number] == pytest.approx(record["stats"][name], rel=5e-3, abs=1e-9)
    assert "".join(line["tokens"]) == record["response"]
    assert line["looks"] == "".join(map(str, record["looks"]))
    wrong = [token for token, false in zip(line["tokens"], line["false"], strict=True) if false == "1"]
    assert wrong == [" 77"]
    assert line["slips"] == [[BARS.facts[1].about, "77", BARS.facts[1].value]]
    assert line["error"] == "perception"


def test_statistics_that_a_rollout_has_not_are_none():
    with_, without = one(), one(sibling=1, names=["entropy"])
    lines = shown([without, with_])["rollouts"]
    assert lines[0]["values"][2] is None
    assert lines[1]["values"][2] is not None
    broken = one()
    broken["stats"]["entropy"] = [float("nan"), None, "7", True]
    column = shown([broken])["rollouts"][0]["values"][0]
    assert column == [None] * len(broken["tokens"])


def test_a_page_has_room_for_some_statistics_and_says_how_many_it_leaves_out():
    records = [one(sibling=sibling, names=[f"s{sibling}-{at}" for at in range(40)]) for sibling in range(3)]
    found = shown(records)
    assert len(found["statistics"]) == MOST_STATISTICS == 64
    assert {len(line["values"]) for line in found["rollouts"]} == {64}
    assert found["rollouts"][1]["values"][40] is not None
    unnamed = len({name for record in records for name in record["stats"]}) - MOST_STATISTICS
    assert f"{unnamed} more statistics are left out" in viewer(viewed(records, of_key, {}))
    assert "more statistics" not in viewer(viewed(records[:1], of_key, {}))


def test_pictures_are_those_that_the_policy_saw_and_are_there_once():
    found = shown([one(), one(sibling=1)], {**SHOWN, "masked": Erase(0.5, 8)})
    images = [BARS.images[0], views.show(Erase(0.5, 8), BARS.images[0], 11, 0)]
    removed = SHOWN["removed"]
    images.append(views.show(views.choose(removed, 12, 0), BARS.images[0], 12, 0))
    assert found["pictures"] == [picture(image).uri for image in images]
    assert [seen[1] for seen in found["rollouts"][1]["seen"]] == [[[0, 1]], [[1, 1]], [[2, 1]]]


def test_what_cannot_be_drawn_says_why():
    lines = [one(scene="bars/train/0/none"), one(views=["image", "lost", "caption", "aligned", "none"])]
    shows = {"caption": Caption(), "aligned": Erase(aligned=True), "none": None}
    first, second = shown(lines, shows)["rollouts"]
    assert "bars/train/0/none" in first["trouble"]
    assert first["seen"] == []
    words = [words for _, _, words in second["seen"]]
    assert words == [
        "", "what this view showed is not known", BARS.caption,
        "its cells are the model's own image tokens, which only the model knows", "no image",
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------- sample


def test_a_sample_is_whole_groups_evenly_spaced():
    records = [{"step": step, "scene": "a", "sibling": sibling} for step in range(2560) for sibling in range(8)]
    chosen = sample(records)
    assert len(chosen) == 1000
    steps = [record["step"] for record in chosen[::8]]
    assert steps[0] == 0
    assert steps[-1] > 2500  # as far as the end, not the first ones alone
    assert max(np.diff(steps)) - min(np.diff(steps)) <= 1
    assert [record["sibling"] for record in chosen] == list(range(8)) * 125
    assert sample(chosen) == chosen
    assert sample([]) == []


def test_a_sample_is_bounded_in_tokens():
    records = [{"step": step, "scene": "a", "tokens": ["x"] * 1000} for step in range(400)]
    assert len(sample(records)) * 1000 <= MOST_TOKENS
    assert len(sample(records)) > 100
    assert len(sample([{"step": 1, "scene": "a", "tokens": ["x"] * 10}] * 5000, most=7)) == 7


# ---------------------------------------------------------------------------------------------------- what is hostile


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_hostile_reaches_the_markup(text, tmp_path):
    fields = dict.fromkeys(("question", "gold", "extracted", "world", "finish", "scene", "status"), text)
    record = trace(BARS, text) | fields | {"view_key": {}, "views": ["image", text], "selected": {text: [1]}}
    record["stats"] = {text: [1.0], "kl masked": [2.0]}
    path = write_looks(tmp_path / "looks.html", text, [record], of_key, SHOWN, about=text)
    html = path.read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script") == 2
    assert html.count("<style") == html.count("</style") == 2
    assert not re.search('<img|\u202e|\x00|\u2028|onerror="', html)
    assert path.stat().st_size < 400_000


def test_the_data_are_what_was_put_in():
    value = {"a": "</script><!--&\u2028\ud800", "b": [1.5, None]}
    text = embedded(value)
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_long_text_is_cut_and_says_so():
    line = shown([trace(BARS, HOSTILE["large"])])["rollouts"][0]
    assert sum(map(len, line["tokens"])) == LONGEST
    assert line["more"] == "… and 980,000 more characters"
    assert bounded("x" * 500, 400).endswith("x … and 100 more characters")
    assert legible("a\u200bb\x1b") == "a⟨U+200B⟩b␛"


def test_the_policy_names_the_script():
    block = str(viewer(viewed([one()], of_key, SHOWN)))
    script = re.findall(r"<script>(.*?)</script>", block, re.DOTALL)
    assert len(script) == 1
    algorithm, digest = POLICY.strip("'").split("-", 1)
    assert algorithm == "sha256"
    assert hashlib.sha256(script[0].encode()).digest() == b64decode(digest)


def test_without_scripts_there_is_a_list():
    block = str(viewer(viewed(traces(4), of_key, SHOWN), of=999))
    plain = re.search(r"<noscript>(.*?)</noscript>", block, re.DOTALL)[1]
    assert plain.count("<li>") == 16
    assert "\\boxed{" in plain
    assert "A sample: 16 of 999 rollouts" in block


def test_nothing_to_show():
    assert viewer([]) == ""
    with pytest.raises(UserError, match="no response to show"):
        write_looks("nowhere.html", "", [], of_key, SHOWN)
