"""Questions as a folder that another program can read: one JSON line each, the pictures beside them, how they are put.

What a harness of others is handed, and what its answers are judged by when they come back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from vergence.disk import telling_of_space
from vergence.evaluate.asked import image_sha, level_of
from vergence.evaluate.kept import refuse_unwritable
from vergence.rewards.kinds import KINDS
from vergence.rewards.verify import VERSION
from vergence.rollout.render import WORDINGS, put, words
from vergence.scenes.question import shown
from vergence.train.run import read_lines
from vergence.types import IMAGE, Gold, Scene, UserError, Wording

QUESTIONS, SETTINGS, PICTURES, TOKENIZER = "questions.jsonl", "settings.json", "images", "tokenizer.json"
"""The files of the folder. The tokenizer is the model's, to count with; it may be missing."""
MOST_SAMPLES = 1024
_SAID = 300
"""Characters that are shown of what is wrong."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,79}")
_HASH = re.compile(r"[0-9a-f]{8,64}")
"""What a picture is called: nothing else becomes a name of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Putting:
    """How questions are put to a model, wherever it runs.

    Raises:
        UserError: a number is out of its range, or the name or the wording is none.
    """

    name: str
    """Of the data set as the harness calls it: small letters, digits and underscores."""
    split: str
    wording: Wording
    samples: int
    """Answers to each question."""
    temperature: float
    max_tokens: int
    """Of each answer."""
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = (("samples", int), ("max_tokens", int), ("seed", int), ("temperature", int | float))
        for name, kind in numbers:
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), kind):
                raise UserError(f"{name} must be a {'whole ' * (kind is int)}number, got {shown(getattr(self, name))}")
        if not isinstance(self.split, str):
            raise UserError(f"split must be a text, got {shown(self.split)}")
        if not _NAME.fullmatch(self.name):
            raise UserError(f"the name {self.name[:80]!r} is not one of small letters, digits and _; see `slug`")
        if self.wording not in WORDINGS:
            raise UserError(f"there is no wording {self.wording!r}; there are {', '.join(WORDINGS)}")
        if not 1 <= self.samples <= MOST_SAMPLES or self.max_tokens < 1:
            raise UserError(
                f"samples must be 1 to {MOST_SAMPLES} and max_tokens at least 1, got {self.samples}, {self.max_tokens}"
            )
        if not 0 <= self.temperature < inf:
            raise UserError(f"temperature must be 0 or more, and finite, got {self.temperature}")


def slug(text: str) -> str:
    """A name that file systems, YAML and command lines take as it is.

    >>> slug("My Data/v2.1: é\\n"), slug("***")
    ('my_data_v2_1', 'questions')
    """
    return re.sub("[^a-z0-9]+", "_", text.lower()).strip("_")[:60].strip("_") or "questions"


def write_questions(
    folder: Path, scenes: Sequence[Scene], how: Putting, *, told: Callable[[int, int], None] = lambda done, of: None
) -> list[dict[str, Any]]:
    """The rows that stand in `folder` now, which is made; row i is about `scenes[i]`.

    A picture is written once, as PNG without loss, under its hash: no name of the data's becomes a name of a file.

    Args:
        told: called with (questions written, questions), for a progress bar.

    Raises:
        UserError: the folder is not empty, or there are no questions.
    """
    if not scenes:
        raise UserError("there are no questions to export")
    refuse_filled(folder)
    with telling_of_space(folder):
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        rows = []
        for index, scene in enumerate(scenes):
            shas = image_sha(scene)
            for sha, image in zip(shas, scene.images, strict=True):
                if not (path := folder / PICTURES / f"{sha}.png").exists():
                    image.convert("RGB").save(path)
            rows.append(_row(index, scene, shas, how))
            told(index + 1, len(scenes))
        (folder / QUESTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        settings = asdict(how) | {"verifier": VERSION}
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return rows


def _row(index: int, scene: Scene, shas: list[str], how: Putting) -> dict[str, Any]:
    return {
        "index": index,
        "item_id": scene.key,
        "world": scene.world,
        "prompt": put(scene.question, wording=how.wording),
        "image_sha": shas,
        "gold": scene.gold.text,
        "kind": scene.gold.kind,
        "choices": list(scene.gold.choices),
        "tolerance": scene.gold.tolerance,
        "vd_level": level_of(scene.columns),
    }


def refuse_filled(folder: Path) -> None:
    """Raise unless `folder` is missing or empty, and can be written to.

    Raises:
        UserError: something is there, and nothing is written over; or it cannot be written to.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder, and nothing is written over; give another --out")
    refuse_unwritable(folder / SETTINGS)


def read_questions(folder: Path) -> tuple[Putting, list[dict[str, Any]]]:
    """How the questions of a folder are put, and its rows.

    Raises:
        UserError: it is no such folder, or its files were damaged.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        how = Putting(**{name: settings[name] for name in Putting.__dataclass_fields__})
        rows = [_checked(number, row) for number, row in enumerate(read_lines(folder / QUESTIONS))]
        if not rows:
            raise UserError("it has no questions")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        said = str(error)[:_SAID]
        raise UserError(
            f"{folder} is no folder that `vergence export` wrote ({type(error).__name__}: {said}); export again"
        ) from error
    return how, rows


def _checked(number: int, row: Any) -> dict[str, Any]:
    """The row, which is to have all that `_row` writes, each of its kind.

    Raises:
        UserError: it is the first thing that is not so.
    """
    if not isinstance(row, dict) or row.get("index") != number:
        raise UserError(f"question {number} is not where it belongs: they are numbered 0, 1, 2, ...")
    shas, choices, tolerance = row.get("image_sha"), row.get("choices"), row.get("tolerance")
    texts = [row.get(name) for name in ("item_id", "world", "prompt", "gold")]
    wrong = {
        "item_id, world, prompt or gold": all(map(_is_text, texts)),
        "image_sha": isinstance(shas, list) and all(isinstance(sha, str) and _HASH.fullmatch(sha) for sha in shas),
        "choices": isinstance(choices, list) and all(map(_is_text, choices)),
        "kind": row.get("kind") in KINDS,
        "tolerance": isinstance(tolerance, int | float) and 0 <= tolerance < 1,
        "vd_level": isinstance(row.get("vd_level"), str | int | None),
    }
    for name, sound in wrong.items():
        if not sound:
            raise UserError(f"question {number}: {name} is not as it was written")
    return row


def _is_text(value: Any) -> bool:
    """Whether it is a text that a file can hold: without halves of surrogate pairs."""
    return isinstance(value, str) and not re.search("[\\ud800-\\udfff]", value)


def gold_of(row: dict[str, Any]) -> Gold:
    """The right answer of a row."""
    return Gold(row["gold"], row["kind"], tuple(row["choices"]), row["tolerance"])


def seen_first(row: dict[str, Any]) -> str:
    """The prompt for a program that shows all pictures before the words: without their marks."""
    return words(row["prompt"])


def has_places(row: dict[str, Any]) -> bool:
    """Whether the prompt says where its pictures stand, so that showing them first is another question."""
    return IMAGE in row["prompt"]


def counter(folder: Path) -> Callable[[str], int] | None:
    """How many tokens of the folder's tokenizer a text has; None where the folder has no tokenizer.

    Counted from the text: where a text was sampled in other pieces than the tokenizer would cut it into, or its end was
    cut off, as many were sampled as one cannot tell any more.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
