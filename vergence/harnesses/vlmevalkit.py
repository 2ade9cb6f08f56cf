"""What VLMEvalKit needs to put our questions to a model: a table of them, and a config that samples as we do.

Written against VLMEvalKit's files as ModelScope publishes them (ms-vlmeval 0.0.20); docs/harnesses.md says what was
tried. Nothing of it is imported here. It judges nothing: its answers come back to `harnesses.rescore`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vergence.disk import telling_of_space
from vergence.harnesses.questions import PICTURES, QUESTIONS, Putting, read_questions, seen_first
from vergence.types import UserError

COLUMNS = ("index", "image", "question", "answer", "item", "sample")
"""Of the table. `item` and `sample` are ours, and come back with the prediction."""
CLASSES = {
    "qwen2_vl": "Qwen2VLChat",
    "qwen2_5_vl": "Qwen2VLChat",
    "qwen3_vl": "Qwen3VLChat",
    "qwen3_vl_moe": "Qwen3VLChat",
}
"""Its class for each `model_type` of a config.json."""
CONFIG = "vlmevalkit.json"


def write_table(folder: Path, *, tell: Callable[[str], None] = lambda _: None) -> str:
    """The name of the data set that stands in `folder`, which holds questions already, as NAME.tsv.

    There is one row for each answer, because VLMEvalKit asks once. Pictures are in the first row of a question, as
    base64, and the others name that row. The name ends in `openended`, or the questions would be taken for multiple
    choice; and it holds a hash of the questions, because VLMEvalKit shows a picture that it has of a name again.

    Args:
        tell: told which questions are left out, and why.

    Raises:
        UserError: the folder holds no questions, or none with a picture; or the table cannot be written.
    """
    how, rows = read_questions(folder)
    shown = [row for row in rows if row["image_sha"]]
    if not shown:
        raise UserError("no question has a picture, and VLMEvalKit's data sets of one's own need them")
    if len(shown) < len(rows):
        tell(f"{len(rows) - len(shown)} questions without a picture are left out: VLMEvalKit would drop them")
    content = hashlib.sha256((folder / QUESTIONS).read_bytes()).hexdigest()[:8]
    name = f"vergence_{how.name}_{content}_openended"
    path = folder / f"{name}.tsv"
    with telling_of_space(folder), path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in shown:
            table.writerows(_answers(folder, row, how))
    return name


def _answers(folder: Path, row: dict[str, Any], how: Putting) -> Iterator[tuple[Any, ...]]:
    pictures = [_encoded(folder / PICTURES / f"{sha}.png") for sha in row["image_sha"]]
    first = row["index"] * how.samples
    encoded = pictures[0] if len(pictures) == 1 else str(pictures)
    for sample in range(how.samples):
        image = first if sample else encoded
        yield first + sample, image, seen_first(row), row["gold"], row["index"], sample


def _encoded(picture: Path) -> str:
    try:
        return base64.b64encode(picture.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"{picture} cannot be read ({error.strerror}); export again") from error


def entry(kind: str, model: str, how: Putting, *, min_pixels: int = 0, max_pixels: int = 0) -> dict[str, Any]:
    """A model of VLMEvalKit's config that is asked as `how` says.

    What its classes do unless told: sample almost greedily (temperature 0.01 with top_k 1 or top_p 0.8), punish
    repetition (Qwen3VLChat under vLLM), and put words of their own to the question. Temperature 0 is written as top_k
    1, which both of their ways to sample understand. `use_vllm` is never set: with it Qwen2VLChat samples at
    temperature 0 whatever the config says.

    >>> how = Putting(name="a", split="report", wording="boxed", samples=8, temperature=1.0, max_tokens=2048)
    >>> entry("qwen2_5_vl", "my/model", how)["use_custom_prompt"]
    False

    Raises:
        UserError: VLMEvalKit has no class for such a model that is known here.
    """
    if kind not in CLASSES:
        raise UserError(
            f"VLMEvalKit's class for a {kind or 'nameless'!r} model is not known here; there are {', '.join(CLASSES)}. "
            "Take --to lmms-eval, which loads any model that transformers has"
        )
    sampled = how.temperature > 0
    asked: dict[str, Any] = {
        "class": CLASSES[kind],
        "model_path": model,
        "max_new_tokens": how.max_tokens,
        "temperature": how.temperature if sampled else 1.0,
        "top_p": 1.0,
        "top_k": 0 if sampled else 1,
        "repetition_penalty": 1.0,
        "use_custom_prompt": False,
        "post_process": False,
    }
    asked |= {"do_sample": sampled} if CLASSES[kind] == "Qwen2VLChat" else {"presence_penalty": 0.0}
    return asked | {name: n for name, n in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if n}


def write_config(folder: Path, dataset: str, model: dict[str, Any], name: str) -> Path:
    """Write the config of one model and one data set, which `run.py --config` takes."""
    path = folder / CONFIG
    config = {"model": {name: model}, "data": {dataset: {"class": "CustomVQADataset", "dataset": dataset}}}
    with telling_of_space(folder):
        path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return path


def samples_by_itself(model: Path) -> bool:
    """Whether a model's generation_config.json says that it samples: Qwen3VLChat does not say it."""
    try:
        said = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
        return said.get("do_sample") is True
    except (OSError, ValueError, AttributeError):
        return False
