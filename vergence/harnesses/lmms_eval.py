"""A task of lmms-eval that puts our questions as we put them and judges as we judge: the folder, and what it calls.

Written against lmms-eval 0.7.3; docs/harnesses.md says what of it was tried. Nothing of it is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import yaml
from PIL import Image

from vergence.disk import telling_of_space
from vergence.harnesses.questions import PICTURES, Putting, counter, gold_of, read_questions, seen_first
from vergence.models.reader import content
from vergence.rewards.rows import ACCURACY
from vergence.rewards.verify import verify_all

TABLE = "questions.parquet"
METRICS = {"accuracy": True, "unparsed": False, "timed_out": False, "truncated": False}
"""What is measured of the answers to a question, and whether more is better."""
_CALLED = ("doc_to_visual", "doc_to_text", "doc_to_messages", "process_results")
_UTILS = '''"""What the task calls: all of it is `vergence.harnesses.lmms_eval.Pack` (to be installed)."""

from pathlib import Path

from vergence.harnesses.lmms_eval import Pack

_pack = Pack(Path(__file__).resolve().parent)
doc_to_visual = _pack.pictures
doc_to_text = _pack.text
doc_to_messages = _pack.messages
process_results = _pack.judged
'''


class Pack:
    """What lmms-eval calls of one task. A `doc` is a row of `questions.parquet`; only its `index` is read.

    Raises:
        UserError: the folder is none that `vergence export` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.how, self.rows = read_questions(folder)
        self.count = counter(folder)

    def _row(self, doc: dict[str, Any]) -> dict[str, Any]:
        return self.rows[doc["index"]]

    def pictures(self, doc: dict[str, Any]) -> list[Image.Image]:
        """The pictures of a question, in order."""
        opened = []
        for sha in self._row(doc)["image_sha"]:
            with Image.open(self.folder / PICTURES / f"{sha}.png") as image:
                opened.append(image.convert("RGB"))
        return opened

    def text(self, doc: dict[str, Any]) -> str:
        """The prompt, for models that are shown all pictures before the words."""
        return seen_first(self._row(doc))

    def messages(self, doc: dict[str, Any]) -> list[dict[str, Any]]:
        """The prompt as one turn of the user's, each picture in its place."""
        pictures = iter(self.pictures(doc))
        parts = content(self._row(doc)["prompt"], len(self._row(doc)["image_sha"]))
        turn = [{"type": "image", "url": next(pictures)} if part["type"] == "image" else part for part in parts]
        return [{"role": "user", "content": turn}]

    def judged(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, float]:
        """The share of all answers to a question, not of the first alone, that are right, unparsed, and so on.

        `truncated` is the share of those that have as many tokens as an answer may have, counted again from their
        text; it is left out where the folder holds no tokenizer to count with.

        Args:
            results: the answers, as text; lmms-eval may put them into a list of their own.
        """
        texts = list(_texts(results)) or [""]
        verdicts = verify_all(texts, [gold_of(self._row(doc))] * len(texts), ACCURACY, wording=self.how.wording)
        shares = {
            "accuracy": fmean(verdict.accuracy for verdict in verdicts),
            "unparsed": fmean(verdict.status == "unparsed" for verdict in verdicts),
            "timed_out": fmean(verdict.status == "timed out" for verdict in verdicts),
        }
        if self.count is not None:
            shares["truncated"] = fmean(self.count(text) >= self.how.max_tokens for text in texts)
        return shares


def _texts(results: Any) -> Iterator[str]:
    for one in results:
        if isinstance(one, list | tuple):
            yield from _texts(one)
        else:
            yield one if isinstance(one, str) else ""


class _Called(str):
    """A name that the YAML marks as a function of utils.py."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Called, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def write_pack(folder: Path, *, tell: Callable[[str], None] = lambda _: None) -> str:
    """The name of the task that `folder`, which holds questions already, now is for lmms-eval.

    The table has its types written down: of JSON, the readers guess that a text such as 2001-01-01 is a time.

    Args:
        tell: told what is left out, and why.

    Raises:
        UserError: the folder holds no questions, or cannot be written.
    """
    how, rows = read_questions(folder)
    has_tokenizer = counter(folder) is not None
    if not has_tokenizer:
        tell("the model has no tokenizer.json: which answers were cut off cannot be counted, and is not measured")
    types = pa.schema([("index", pa.int64()), *((name, pa.string()) for name in ("item_id", "prompt", "gold"))])
    table = pa.table({name: [row[name] for row in rows] for name in types.names}, schema=types)
    name = f"vergence_{how.name}"
    with telling_of_space(folder):
        parquet.write_table(table, folder / TABLE)
        (folder / "utils.py").write_text(_UTILS, encoding="utf-8")
        task = yaml.dump(_task(name, how, truncated=has_tokenizer), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(task, encoding="utf-8")
    return name


def _task(name: str, how: Putting, *, truncated: bool) -> dict[str, Any]:
    """The task's YAML. Without `until` an answer would end at its first empty line; without `filter_list` only the
    first of several would be judged; and without `reasoning_tags` its thinking would be cut out before."""
    metrics = [metric for metric in METRICS if truncated or metric != "truncated"]
    return {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": TABLE}},
        "test_split": "test",
        "output_type": "generate_until",
        **{called: _Called(f"utils.{called}") for called in _CALLED},
        "doc_to_target": "gold",
        "generation_kwargs": {
            "max_new_tokens": how.max_tokens,
            "temperature": float(how.temperature),
            "top_p": 1.0,
            "do_sample": how.temperature > 0,
            "until": [],
        },
        "repeats": how.samples,
        "filter_list": [{"name": "all", "filter": []}],
        "reasoning_tags": "none",
        "score_key": "accuracy",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": METRICS[metric]} for metric in metrics
        ],
    }


def command(folder: Path, name: str, model: str, how: Putting) -> list[str]:
    """The command that runs the task under vLLM, as words; `model` is a folder or a name of the Hub.

    The length stands there too: of the task's and the model's own, 4096, the class for vLLM takes the greater.

    >>> how = Putting(name="a", split="report", wording="boxed", samples=8, temperature=1.0, max_tokens=2048)
    >>> command(Path("pack"), "vergence_a", "my/model", how)[3:7]
    ['--model', 'vllm', '--model_args', 'model=my/model,max_new_tokens=2048']
    """
    return [
        *("python", "-m", "lmms_eval", "--model", "vllm"),
        *("--model_args", f"model={model},max_new_tokens={how.max_tokens}"),
        *("--include_path", str(folder), "--tasks", name, "-n", str(how.samples), "--batch_size", "64"),
        *("--log_samples", "--output_path", f"{folder}-answers"),
    ]


def kind_of(model: Path) -> str:
    """The `model_type` that a model's config.json states; empty where there is none to read."""
    try:
        return str(json.loads((model / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
