"""What `data check` says and draws."""

from dataclasses import replace

import pytest
from PIL import Image

from vergence.scenes.check import check, check_splits, samples, sheet
from vergence.scenes.embedded import WORLDS
from vergence.scenes.source import Embedded
from vergence.scenes.split import Split
from vergence.types import Gold, Scene, UserError

LARGE = Scene(
    key="photos/1",
    world="photos",
    images=(Image.new("RGB", (900, 300), "navy"), Image.new("RGB", (10, 400), "teal")),
    question="Which of these pictures is the taller one? " * 12,
    gold=Gold("B", "choice", ("the first", "the second")),
)


class Leaky(Embedded):
    """A source whose report split is its train split."""

    def held_out(self, split: Split, number: int, *, seed: int) -> list[Scene]:
        return self.train(0, number, seed=seed) if split == "report" else super().held_out(split, number, seed=seed)


def test_summary_counts():
    copy = replace(LARGE, key="photos/2")
    other = replace(LARGE, key="photos/3", question="Why?", gold=Gold("A", "choice"))
    text = check([LARGE, copy, other, *Embedded(("bars",)).train(0, 7, seed=0)])
    assert "10 scenes of 2 world(s)" in text
    assert "photos          3 scenes with 2 different question(s)" in text
    assert "choice 100.0%" in text
    assert "B 66.7%, A 33.3%" in text
    assert "900x300 50.0%, 10x400 50.0%" in text
    assert "66.7% by always answering B" in text
    assert "1 of 3 have the content of another" in text
    assert "by the best answer to each question" in text


def test_splits_are_summed_up():
    text = check_splits(Embedded(("bars",)), number=30)
    assert all(f"== {split} ==\n30 scenes of 1 world(s)" in text for split in ("train", "tune", "report"))
    assert text.endswith("No two splits share content.")


def test_shared_content_is_refused():
    with pytest.raises(UserError, match=r"train and report share 20 scene\(s\)"):
        check_splits(Leaky(("digits",)), number=20)


def test_samples_show_every_kind():
    scenes = samples(2)
    assert {scene.world for scene in scenes} == set(WORLDS)
    assert sum(scene.world == "novel" for scene in scenes) == 2
    assert all(scene.counterfactual for scene in scenes)


def test_sheet_is_drawn(tmp_path):
    scenes = [*samples(1), LARGE]
    sheet(scenes, tmp_path / "one.png")
    sheet(scenes, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as page:
        assert page.mode == "RGB"
        assert page.width > 3 * 2 * 192
        assert len(page.convert("RGB").getcolors(2**24)) > 1000


def test_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="no scenes"):
        check([])
    with pytest.raises(UserError, match="no scenes"):
        sheet([], tmp_path / "x.png")
    with pytest.raises(UserError, match="cannot be written"):
        sheet([LARGE], tmp_path / "nowhere" / "x.png")
