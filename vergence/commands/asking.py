"""Commands that ask a policy: held-out questions, or one of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vergence.commands.given import model_of
from vergence.report.table import print_json, print_table
from vergence.types import UserError

if TYPE_CHECKING:
    from vergence.evaluate.suite import Record

Positional = tyro.conf.Positional
LONGEST = {"short": 64, "think": 2048}
"""Tokens of a caption, a tentative answer or a reasoner's answer by default, by wording."""


def evaluate(
    model: Positional[str],
    scenes: str = "embedded",
    worlds: tuple[str, ...] = ("digits", "shapes", "bars", "geometry"),
    device: str = "cpu",
    split: Literal["tune", "report"] = "tune",
    number: int = 240,
    samples: int = 4,
    seed: int = 0,
    show: Literal["image", "blank"] = "image",
    reasoner: str = "",
    reasoner_model: str = "",
    reasoner_cache: Path | None = None,
    wording: Literal["short", "think"] = "short",
    max_tokens: int = 64,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Answer held-out questions and print avg@k per world, with 95 % intervals over questions.

    Example: vergence eval runs/mine --worlds mosaic

    Args:
        model: A run folder (its last checkpoint), a folder in Hugging Face layout, or "seedling".
        scenes: "embedded", or a .jsonl file.
        worlds: Which embedded worlds take turns; mosaic and novel are out of domain.
        device: "cpu", "cuda", ...
        split: tune to choose by, report for the numbers one publishes.
        number: Questions.
        samples: Answers to each, k of avg@k.
        seed: Of the scenes and of the sampling noise.
        show: The image, or a grey one in its place.
        reasoner: Let this one answer, from the model's caption and tentative answer: weak, strong, a folder or a URL.
        reasoner_model: The name of a server's model; by default its first.
        reasoner_cache: A folder that keeps a server's answers, so that none is asked for twice.
        wording: How a question is put.
        max_tokens: Longest answer, tokens.
        out: Write one JSON line per answer to this file.
        json: Print one line of JSON.
    """
    from vergence.evaluate import suite
    from vergence.models.policy import load
    from vergence.scenes.source import open_source
    from vergence.train.display import counting
    from vergence.types import ORIGINAL, Blank

    asked = open_source(scenes, worlds).held_out(split, number, seed=seed)
    given = {"samples": samples, "seed": seed, "wording": wording, "max_tokens": max_tokens}
    given["show"] = Blank() if show == "blank" else ORIGINAL
    policy = load(model_of(model), device=device)
    with counting("answers") as told:
        if reasoner:
            named = {"name": reasoner, "model": reasoner_model, "cache": reasoner_cache, "device": device}
            records = _by_reasoner(policy, named, asked, out, told=told, **given)
        else:
            records = suite.answer(policy, asked, told=told, **given)
    if out:
        suite.write_records(out, records)
    _tell(records, f"avg@{samples}, {split} split, shown: {show}", reasoner, json=json)


def _tell(records: list[Record], title: str, reasoner: str, *, json: bool) -> None:
    """Print what the answers come to."""
    from vergence.evaluate.suite import summary

    found = summary(records)
    if json:
        print_json({name: one._asdict() | {"accuracy": one.accuracy._asdict()} for name, one in found.items()})
        return
    if reasoner:
        title += f", answered by the reasoner {reasoner} from the model's captions"
    errors = "caption states a false fact" if reasoner else "states a false fact"
    rows = [
        [name, str(one.accuracy), "unknown" if one.perception_errors is None else f"{one.perception_errors:.3f}"]
        for name, one in found.items()
    ]
    print_table(title, ["world", "accuracy [95 %]", errors], rows)


def _by_reasoner(policy: Any, named: dict[str, Any], scenes: Any, out: Path | None, **given: Any) -> list[Record]:
    """The records of the pipeline; what is finished is in `out` already when the reasoner stops answering."""
    from vergence.evaluate.pipeline import answer_by_reasoner
    from vergence.evaluate.suite import write_records
    from vergence.rollout.reason import load_reasoner

    finished: list[Record] = []

    def keep(chunk: list[Record]) -> None:
        finished.extend(chunk)
        if out:
            write_records(out, finished)

    return answer_by_reasoner(policy, load_reasoner(**named), scenes, keep=keep, **given)


def answer(
    image: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction],
    question: str,
    extractor: str = "seedling",
    reasoner: str = "strong",
    reasoner_model: str = "",
    wording: Literal["short", "think"] = "short",
    temperature: float = 0.0,
    max_tokens: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Answer one question about images: a model says what it sees, a text-only reasoner answers from that.

    Example: vergence answer --image a.png --question "How many red cubes are there?" --reasoner strong

    Args:
        image: A picture file; give the option again for another.
        question: What is asked.
        extractor: What looks and describes: a run folder, a folder in Hugging Face layout, or "seedling".
        reasoner: What answers: weak, strong, a folder, or the URL of an OpenAI-compatible server.
        reasoner_model: The name of a server's model; by default its first.
        wording: How both are asked: short for the models in the package, think for instruction-tuned ones.
        temperature: Of all three texts; 0 takes the likeliest.
        max_tokens: Of each of the three texts, at most; by default 64, with --wording think 2048.
        seed: Of the sampling noise.
        device: "cpu", "cuda", ...
        json: Print one line of JSON.
    """
    from vergence.evaluate.pipeline import answer_one
    from vergence.models.policy import load
    from vergence.rollout.reason import load_reasoner
    from vergence.scenes.picture import open_picture

    if not image:
        raise UserError("there is nothing to look at; give at least one --image FILE")
    for path in image:
        if not path.is_file():
            raise UserError(f"there is no file {path}; --image takes a picture file")
    if temperature < 0 or (max_tokens is not None and max_tokens < 1):
        raise UserError(f"--temperature must be 0 or more and --max-tokens at least 1, got {temperature}, {max_tokens}")
    pictures = [open_picture(path) for path in image]
    answered = answer_one(
        load(model_of(extractor), device=device),
        load_reasoner(reasoner, model=reasoner_model, device=device),
        pictures,
        question,
        seed=seed,
        temperature=temperature,
        max_tokens=LONGEST[wording] if max_tokens is None else max_tokens,
        wording=wording,
    )
    if json:
        print_json(answered._asdict())
        return
    print(f"caption: {_printable(answered.caption)}")
    print(f"tentative answer: {_printable(answered.tentative)}")
    print(f"reasoner: {_printable(answered.response)}")
    print(f"answer: {'none was found' if answered.extracted is None else _printable(answered.extracted)}")


def _printable(text: str) -> str:
    """Without what a terminal would obey: the text is a model's."""
    return "".join(char if char.isprintable() or char in "\n\t" else " " for char in text).strip()
