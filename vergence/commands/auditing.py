"""The command that finds out whether a model looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vergence.commands.given import Data, Loading, asked_as, held_out, model_of, trained_as
from vergence.report.table import print_json, print_table
from vergence.types import UserError, Wording

if TYPE_CHECKING:
    from vergence.audit.conditions import Heard
    from vergence.types import Scene

Positional = tyro.conf.Positional


def audit(
    model: Positional[str],
    data: Annotated[Data, tyro.conf.arg(name="")] = Data(),  # noqa: B008 (frozen)
    loading: Annotated[Loading, tyro.conf.arg(name="")] = Loading(),  # noqa: B008 (frozen)
    split: Literal["tune", "report"] = "tune",
    number: int = 120,
    samples: int = 2,
    seed: int = 0,
    against: str = "",
    reasoner: str = "strong",
    wording: Wording | None = None,
    max_tokens: int | None = None,
    temperature: float = 1.0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Find out whether a model looks, what it gets wrong, and why: docs/audit.md says what each number means.

    Each question is asked with its image, a blank one, none, true facts in words, another scene's image, one fact
    changed, and under views that keep what matters. Every answer is kept in audit/, the numbers in
    evaluation/audit.json, in the run's folder if the model is a run.

    Example: vergence audit seedling --number 60

    Args:
        model: A run folder (its last checkpoint), a folder in Hugging Face layout, or "seedling".
        split: tune to choose by, report for the numbers one publishes.
        number: Questions.
        samples: Answers to each, under each of a dozen conditions; two at least, to tell chance from the image.
        seed: Of the scenes, of the sampling noise, and of what is drawn for the audit.
        against: Another model: how many fewer perception errors the first makes than this one.
        reasoner: Answers from the model's captions: weak, strong, a folder or a URL; "" leaves that out.
        wording: How a question is put; by default as the model was trained, else short.
        max_tokens: Longest answer; by default as the model was trained, else 64, or 2048 but for --wording short.
        temperature: Of sampling.
        out: The folder to write to, in the place of an earlier audit; by default the run's, else nothing is written.
        json: Print one line of JSON.
    """
    from vergence.audit import written
    from vergence.audit.findings import find
    from vergence.audit.reduction import reduction
    from vergence.evaluate.suite import conditions

    trained = trained_as(model_of(model))
    wording, max_tokens = asked_as(trained, wording, max_tokens, "short")
    how = {"samples": samples, "temperature": temperature, "max_tokens": max_tokens, "wording": wording}
    conditions(**how)
    folder = out or _run(model)
    if folder:
        _refuse(folder)
    scenes = held_out(data.open(trained), split, number, seed=seed)
    heard, others = _heard(loading, (model, against), scenes, reasoner, seed=seed, **how)
    found = find(heard)
    reduced = reduction(others, heard.records["image"]) if others and found.errors else None
    about = {"model": model, "against": against or None, "scenes": data.scenes, "split": split, "seed": seed}
    result = written.as_json(found, reduced, **about, questions=len(scenes), reasoner=reasoner or None, **how)
    if folder:
        result["written"] = str(written.write(folder, heard, result, others))
    print_json(result) if json else _tell(result)


def _refuse(folder: Path) -> None:
    """Raise a UserError if something else than an audit's answers is where they go, or nothing can be written there."""
    from vergence.audit.written import WAYS
    from vergence.evaluate.kept import refuse_unwritable
    from vergence.evaluate.suite import refuse_overwriting

    for where in (folder / "audit", folder / "evaluation"):
        if where.is_symlink():  # in a folder of somebody else it may lead anywhere
            raise UserError(f"{where} is a link, and an audit is written there; take it away, or give another --out")
    for name in WAYS:
        refuse_overwriting(folder / "audit" / f"{name}.jsonl")
    refuse_unwritable(folder / "audit" / f"{WAYS[0]}.jsonl")


def _run(model: str) -> Path | None:
    """The folder, if it is a run's."""
    where = Path(model)
    return where if (where / "config.yaml").is_file() and (where / "checkpoints").is_dir() else None


def _heard(
    loading: Loading, models: tuple[str, str], scenes: list[Scene], reasoner: str, *, seed: int, **how: Any
) -> tuple[Heard, list[dict[str, Any]]]:
    """What the first model says to everything, and the second, if there is one, to the image alone."""
    from vergence.audit.conditions import answers, as_it_is, listen
    from vergence.audit.subject import of_policy
    from vergence.rollout.reason import load_reasoner
    from vergence.train.display import counting
    from vergence.types import ORIGINAL

    by = load_reasoner(reasoner, device=loading.device) if reasoner else None
    one, *other = (of_policy(loading.load(model), seed=seed, **how) for model in models if model)
    put = {"max_tokens": how["max_tokens"], "wording": how["wording"]}
    with counting("audit, 100 to a way of asking") as told:
        heard = listen(one, scenes, reasoner=by, seed=seed, told=told, **put)
    with counting("answers of the other model") as told:
        return heard, [record for them in other for record in answers(them, as_it_is("image", scenes, ORIGINAL), told)]


def _tell(result: dict[str, Any]) -> None:
    """Print the numbers, then the verdict."""

    def said(value: dict[str, Any] | None) -> str:
        return "-" if value is None else f"{value['mean']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"

    asked = f"{result['questions']} questions, {result['samples']} answers each, {result['split']} split"
    rows = [[one["name"], said(one), str(one["n"]), one["about"]] for one in result["measures"]]
    print_table(f"{result['model']}: {asked}", ["measure", "mean [95 %]", "n", "what it is"], rows)
    if result["errors"]:
        rows = [[one["name"], said(one), said(one["of_wrong"])] for one in result["errors"]]
        print_table("wrong answers, by the first cause", ["error", "of all answers", "of the wrong ones"], rows)
    if result["probes"]:
        rows = [[f"{one['position']:.0%}", said(one), str(one["n"])] for one in result["probes"]]
        print_table("true claims preferred (0 is chance, 1 is sight)", ["thought so far", "mean [95 %]", "n"], rows)
    if result["reduction"]:
        rows = [[name.replace("_", " "), said(one)] for name, one in result["reduction"].items()]
        print_table(f"perception errors, from {result['against']} to this", ["", "mean [95 %]"], rows)
    for one in result["left_out"]:
        print(f"left out: {one['what']}: {one['why']}")
    print(f"verdict: {result['verdict']}")
    if "written" in result:
        print(f"written to {result['written']}")
