"""The command that hands questions and answers to other programs, and judges what comes back."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vergence.commands.given import Data, asked_as, held_out, model_of, trained_as
from vergence.report.table import print_json, print_table
from vergence.types import UserError, Wording

if TYPE_CHECKING:
    from vergence.harnesses.questions import Putting
    from vergence.train.config import Config

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Asking:
    """Which questions are exported, and how they are to be put."""

    split: Literal["tune", "report"] | None = None
    """tune to choose by, report for the numbers one publishes (the default); of old records, what was asked."""
    number: int = 240
    """Questions."""
    samples: int = 8
    """Answers to each."""
    seed: int = 0
    """Of the scenes. The noise of the answers is the other program's."""
    wording: Wording | None = None
    """How a question is put; by default as the model was trained, else short."""
    max_tokens: int | None = None
    """Longest answer; by default as the model was trained, else 64, or 2048 but for --wording short."""
    temperature: float = 1.0
    """Of sampling; 0 takes the likeliest token every time."""
    min_pixels: int = 0
    """Smaller images are enlarged to so many pixels, for vlmevalkit; 0 is as saved with the model."""
    max_pixels: int = 0
    """Larger images are shrunk to so many pixels, for vlmevalkit; 0 is as saved with the model."""
    name: str = ""
    """Of the task; by default that of the worlds or of the data."""

    def of(self, data: Data, trained: Config | None) -> Putting:
        """The same, settled: for this data and a model that was trained so.

        Raises:
            UserError: a number is out of its range.
        """
        from vergence.harnesses.questions import Putting, slug

        put, longest = asked_as(trained, self.wording, self.max_tokens, "short")
        usual = "_".join(data.worlds) if data.scenes == "embedded" else Path(data.scenes).stem
        return Putting(
            name=slug(self.name or usual),
            split=self.split or "report",
            wording=put,
            samples=self.samples,
            temperature=self.temperature,
            max_tokens=longest,
            seed=self.seed,
        )


def export(
    given: Positional[str],
    to: Literal["neutral", "lmms-eval", "vlmevalkit"],
    out: Path,
    score: Path | None = None,
    data: Annotated[Data, tyro.conf.arg(name="")] = Data(),  # noqa: B008 (frozen)
    asking: Annotated[Asking, tyro.conf.arg(name="")] = Asking(),
    json: bool = False,
) -> None:
    """Write answers as neutral JSONL, or questions as a task of lmms-eval or VLMEvalKit; judge what comes back.

    Example: vergence export runs/mine --to lmms-eval --out task --number 60

    Args:
        given: A model, as `eval` takes it, whose questions are exported. For --to neutral a run folder that was
            evaluated or a file of `eval --out`; with --score the folder that an earlier export wrote.
        to: neutral (one line per answer), lmms-eval (a task folder) or vlmevalkit (a table and a config).
        out: A folder, new or empty.
        score: A file of answers to exported questions, of lmms-eval (.jsonl) or VLMEvalKit (.xlsx, .tsv, .json).
        json: Print one line of JSON.
    """
    if to == "neutral":
        _neutral(Path(given), out, score, asking.split, json=json)
        return
    if score is not None:
        raise UserError("--score judges answers that came back, and writes them as --to neutral")
    from vergence.harnesses.questions import refuse_filled
    from vergence.models.folder import locate

    locate(model_of(given))
    refuse_filled(out)
    trained = trained_as(model_of(given))
    how = asking.of(data, trained)
    scenes = held_out(data.open(trained), how.split, asking.number, seed=how.seed)
    if to == "lmms-eval":
        told = _to_lmms_eval(given, scenes, how, out)
    else:
        told = _to_vlmevalkit(given, scenes, how, out, min_pixels=asking.min_pixels, max_pixels=asking.max_pixels)
    if json:
        print_json({"out": str(out), "questions": len(scenes), **told})
    else:
        print(f"{len(scenes)} questions in {out}. Run, where it and vergence are installed:\n\n{told['command']}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _written(given: str, scenes: Any, how: Putting, out: Path) -> str:
    """Write the questions, and the tokenizer if there is one; what to call the model there."""
    from vergence.harnesses.questions import TOKENIZER, has_places, write_questions
    from vergence.models.folder import locate
    from vergence.train.display import counting

    where, is_here = locate(model_of(given))
    with counting("questions") as told:
        rows = write_questions(out, scenes, how, told=told)
    if (marked := sum(map(has_places, rows))) > 0:
        _say(f"{marked} questions say where their pictures stand; programs that show pictures first do not show it")
    if is_here and (Path(where) / TOKENIZER).is_file():
        shutil.copyfile(Path(where) / TOKENIZER, out / TOKENIZER)
    return str(Path(where).resolve()) if is_here else where


def _to_lmms_eval(given: str, scenes: Any, how: Putting, out: Path) -> dict[str, str]:
    from vergence.harnesses.lmms_eval import command, write_pack

    model = _written(given, scenes, how, out)
    task = write_pack(out, tell=_say)
    if "," in model:
        _say(f"lmms-eval cuts --model_args at commas, and there is one in {model}: call the folder another name")
    return {"task": task, "command": shlex.join(command(out, task, model, how))}


def _to_vlmevalkit(given: str, scenes: Any, how: Putting, out: Path, **pixels: int) -> dict[str, str]:
    from vergence.harnesses.lmms_eval import kind_of
    from vergence.harnesses.questions import slug
    from vergence.harnesses.vlmevalkit import entry, samples_by_itself, write_config, write_table
    from vergence.models.folder import locate

    where, is_here = locate(model_of(given))
    if not is_here:
        raise UserError(f"{given} is not here, and its config.json says which class VLMEvalKit needs; give a folder")
    if not any(scene.images for scene in scenes):
        raise UserError("no question has a picture, and VLMEvalKit's data sets of one's own need them")
    one = entry(kind_of(Path(where)), str(Path(where).resolve()), how, **pixels)  # refused before anything is written
    _written(given, scenes, how, out)
    dataset = write_table(out, tell=_say)
    config = write_config(out, dataset, one, slug(Path(given).name))
    if one["class"] == "Qwen3VLChat" and how.temperature > 0 and not samples_by_itself(Path(where)):
        _say(
            "Qwen3VLChat does not say that it samples, and this model's generation_config.json does not either: "
            'without vLLM the temperature is ignored. Write "do_sample": true there'
        )
    words = ["python", "-m", "vlmeval", "--config", str(config), "--mode", "infer", "--work-dir", f"{out}-answers"]
    return {"dataset": dataset, "command": f"LMUData={shlex.quote(str(out))} PRED_FORMAT=json {shlex.join(words)}"}


def _neutral(given: Path, out: Path, score: Path | None, split: str | None, *, json: bool) -> None:
    from vergence.harnesses.export import export_neutral, said_of
    from vergence.train.display import counting

    if score is not None:
        _scored(given, score, out, json=json)
        return
    with counting("files") as told:
        written = export_neutral(given, out, split=split, told=told)
    if json:
        print_json([{"file": str(one.path), "answers": one.answers, "null": one.lacking} for one in written])
    else:
        print("\n".join(said_of(written)))


def _scored(folder: Path, score: Path, out: Path, *, json: bool) -> None:
    """Judge the answers of a harness, write them and print what they come to."""
    from vergence.evaluate.counted import as_json, cells, columns, tables
    from vergence.harnesses.export import neutral, write_neutral
    from vergence.harnesses.questions import refuse_filled
    from vergence.harnesses.rescore import rescore
    from vergence.train.display import counting

    refuse_filled(out)
    with counting("verdicts") as told:
        records, missing = rescore(folder, score, told=told)
    if not records:
        raise UserError(f"{score} holds no answers")
    out.mkdir(parents=True, exist_ok=True)
    written = write_neutral(out / "answers.jsonl", map(neutral, records))
    failed = sum(record["finish"] == "error" for record in records)
    known = all(record["finish"] is not None for record in records)
    if missing:
        _say(f"{missing} answers are missing: what follows is of those that came")
    if failed:
        _say(f"{failed} answers never came, as the file says itself; they count as unparsed")
    found = tables(records)
    if json:
        worlds = {name: as_json(one) | ({} if known else {"cut_off": None}) for name, one in found.items()}
        said = {"file": str(written.path), "answers": len(records), "missing": missing, "failed": failed}
        print_json(said | {"worlds": worlds})
        return
    if not known:
        found = {name: one._replace(cut_off=nan) for name, one in found.items()}  # shown as what it is: no number
    rows = [cells(name, one) for name, one in found.items()]
    print_table(f"{len(records)} answers of {score.name}", columns(found["overall"].samples), rows)
    print(written.path)
