"""Commands that ask which words depend on the picture: of responses, and of the rules that methods find them by."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vergence.commands.given import Data, Loading, asked_as, held_out, model_of, printable, refuse_unnamed, trained_as
from vergence.report.table import print_json
from vergence.types import Erase, Scene, UserError, Wording

if TYPE_CHECKING:
    from vergence.train.config import Config
    from vergence.train.traces import Record

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Asking:
    """How responses are asked for."""

    samples: int = 1
    """Responses to each question."""
    seed: int = 0
    """Of the questions, of the sampling noise and of the views."""
    temperature: float = 1.0
    """Of sampling; 0 takes the likeliest token every time."""
    max_tokens: int | None = None
    """Longest response; by default as the model was trained, else 64, or 2048 but for --wording short."""
    wording: Wording | None = None
    """How a question is put; by default as the model was trained, else short for the seedling, or think."""

    def of(self, model: str, trained: Config | None) -> dict[str, Any]:
        """The same as arguments, all of them decided.

        Raises:
            UserError: a number is out of its range.
        """
        from vergence.evaluate.suite import conditions

        usual: Wording = "short" if model == "seedling" else "think"
        wording, max_tokens = asked_as(trained, self.wording, self.max_tokens, usual)
        how = {"samples": self.samples, "temperature": self.temperature, "max_tokens": max_tokens, "wording": wording}
        conditions(**how)
        return how | {"seed": self.seed}


def look(
    model: Positional[str],
    question: str = "",
    image: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = (),
    gold: str = "",
    response: str | None = None,
    data: Annotated[Data, tyro.conf.arg(name="")] = Data(),  # noqa: B008 (frozen)
    loading: Annotated[Loading, tyro.conf.arg(name="")] = Loading(),  # noqa: B008 (frozen)
    asking: Annotated[Asking, tyro.conf.arg(name="")] = Asking(),
    split: Literal["tune", "report"] = "tune",
    number: int = 4,
    by: str = "kl masked",
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Show which words of a response depend on the picture: each token coloured by how much a view of it changes.

    Example: vergence look runs/mine --image a.png --question "How many red cubes are there?"

    The image is shown again masked, kept (changed, with what matters left), removed (with some of it gone), blank, and
    not at all ("no image"). For each of these VIEW there are "kl VIEW" (over the vocabulary), "k3 VIEW", "log ratio
    VIEW" and "entropy gain VIEW" of every token, in nats; and "entropy" with the image. Without --question, held-out
    questions of --scenes are answered; where their facts are known, tokens that state something seen are underlined.

    Args:
        model: A run folder (its last checkpoint), a folder in Hugging Face layout, a Hub name, or "seedling".
        question: What is asked about the images.
        image: A picture file; give the option again for another.
        gold: The right answer, to have the verifier judge the responses.
        response: Score this text as the answer, instead of sampling one.
        split: Of --scenes: tune to choose by, report for what one publishes.
        number: Questions of --scenes.
        by: The statistic that colours the tokens.
        out: Write a page to this file, new or such a page: images, views, tokens with every statistic; opens from disk.
        json: Print one line of JSON.
    """
    from vergence.evaluate.kept import refuse_unwritable
    from vergence.evaluate.looking import look as look_at
    from vergence.evaluate.looking import sentence
    from vergence.report.coloured import scale_of
    from vergence.report.template import refuse_others
    from vergence.train.display import counting

    where = model_of(model)
    trained = trained_as(where)
    how = asking.of(model, trained)
    if out is not None:
        refuse_others(out)
        refuse_unwritable(out)
    scenes = _asked(question, image, gold, lambda: held_out(data.open(trained), split, number, seed=asking.seed))
    policy = loading.load(model)
    with counting("questions") as told:
        records = look_at(policy, scenes, response=response, step=step_of(where), watch=told, **how)
    scale = scale_of(records, by)
    if json:
        print_json({"by": by, "sentences": [sentence(record, by) for record in records], "looks": records})
    else:
        _tell(records, scale)
    if out is not None:
        _write(out, model, records, scenes, by)


def _write(out: Path, model: str, records: list[Record], scenes: list[Scene], by: str) -> None:
    """The page, with the sentence of an only response on top; where it is goes to standard error, beside any JSON."""
    from vergence.evaluate.looking import SHOWS, sentence
    from vergence.report.looks import write_looks

    title = f"What {printable(Path(model).name or model)} looks at"
    about = sentence(records[0], by) if len(records) == 1 else ""
    write_looks(out, title, records, {scene.key: scene for scene in scenes}.__getitem__, SHOWS, about=about)
    print(f"written to {out}", file=sys.stderr)


def _asked(question: str, image: tuple[Path, ...], gold: str, held_out: Callable[[], list[Scene]]) -> list[Scene]:
    """The user's own question, or held-out ones.

    Raises:
        UserError: there is a question without an image or the other way round, or nothing is asked.
    """
    from vergence.commands.trying import scene_of_user

    if bool(question.strip()) != bool(image):
        missing = "--image" if question.strip() else "--question"
        raise UserError(f"{missing} is missing: give both, or neither to have questions of --scenes answered")
    if image:
        return [scene_of_user(question, image, (), {"text": gold, "kind": None, "tolerance": 0.0})]
    if gold:
        raise UserError("--gold belongs to a --question of your own; those of --scenes have their answers")
    scenes = [scene for scene in held_out() if scene.images]
    if not scenes:
        raise UserError("there is no question with an image to ask; take a larger --number, or the other --split")
    return scenes


def step_of(model: str | Path) -> int:
    """The training step that a checkpoint's folder is called after; 0 where it is not.

    >>> step_of("runs/mine/checkpoints/step-000040"), step_of("seedling")
    (40, 0)
    """
    found = re.fullmatch(r"step-(\d{1,9})", Path(model).name)
    return int(found[1]) if found else 0


def _tell(records: list[Record], scale: Any) -> None:
    """Print the responses in colour, what the colours mean, and each response's sentence."""
    from rich.console import Console

    from vergence.evaluate.looking import sentence
    from vergence.report.coloured import coloured, highest, legend

    console = Console(highlight=False, soft_wrap=True)
    for record in records:
        verdict = f" ({record['status']}; the answer is {printable(record['gold'])})" if record["status"] else ""
        console.print(f"{printable(record['question'])}{verdict}", style="bold", markup=False)
        console.print(coloured(record, scale))
        console.print(printable(sentence(record, scale.by)), markup=False)
        console.print(f"highest: {highest(record, scale.by)}\n", markup=False)
    console.print(legend(scale))
    if any(record["looks"] for record in records):
        console.print("underlined: states something seen")


def tokens(
    models: Positional[tuple[str, ...]],
    data: Annotated[Data, tyro.conf.arg(name="")] = Data(),  # noqa: B008 (frozen)
    loading: Annotated[Loading, tyro.conf.arg(name="")] = Loading(),  # noqa: B008 (frozen)
    asking: Annotated[Asking, tyro.conf.arg(name="")] = Asking(samples=2),
    steps: Literal["last", "all"] = "last",
    split: Literal["tune", "report"] = "report",
    number: int = 240,
    fraction: float = 0.5,
    cell: int = 8,
    derived: Literal["apart", "negative"] = "apart",
    grounding: bool = False,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Measure how well the rules that methods pick perception tokens by find the tokens that look.

    Example: vergence tokens runs/mine --steps all

    Where a scene's facts are known, so are the tokens that must change when a fact does: words of a stated fact's
    value. Every rule scores the tokens of the model's own responses; intervals are over questions. Of one checkpoint
    the table has every rule and measure, of several the average precision of every rule.

    Args:
        models: Run folders, folders in Hugging Face layout, or "seedling".
        steps: Of run folders: the last checkpoint, or all of them, and the model that training began with.
        split: tune to choose by, report for the numbers one publishes.
        number: Questions.
        fraction: Of the masked view of all rules but CPPO's: the share of cells that is black.
        cell: Side of its cells, pixels.
        derived: Numbers of calculations and answers are left apart, or are tokens that do not look.
        grounding: Also black out one cell of a grid at a time: is it the stated fact's own cell that moves the word?
        out: Write one JSON line per response, with every token's scores, to this file, which must not be there.
        json: Print one line of JSON.
    """
    from vergence.evaluate.kept import refuse_unwritable
    from vergence.report.finding import print_found

    if not models:
        raise UserError("name at least one model or run folder")
    if out is not None:
        if out.exists():
            raise UserError(f"--out {out} is there already; give another file")
        refuse_unwritable(out)
    masked, done, found = Erase(fraction, cell), {}, []
    for name, where in [one for model in models for one in checkpoints_of(model, steps, models)]:
        trained = trained_as(where) or trained_as(model_of(name))
        how = {**asking.of(name, trained), "masked": masked, "derived": derived}
        key = (str(where), *how.values(), data.scenes)
        if key not in done:  # several runs may have begun with the same model
            scenes = held_out(data.open(trained), split, number, seed=asking.seed)
            done[key] = _measured(name, where, loading, scenes, how, grounding, out)
        found.append({**done[key], "model": name})
    if json:
        print_json({"split": split, "derived": derived, "masked": [fraction, cell], "checkpoints": found})
    else:
        print_found(found)


def checkpoints_of(model: str, steps: str, typed: tuple[str, ...] = ()) -> list[tuple[str, str | Path]]:
    """The checkpoints that are meant, each with what it is called; of a run's the model it began with comes first.

    >>> checkpoints_of("seedling", "all")
    [('seedling', 'seedling')]

    Args:
        typed: All models that the user has named.

    Raises:
        UserError: it is a run without a checkpoint; or see `refuse_unnamed`.
    """
    last = model_of(model)
    if steps == "last" or Path(last).parent.name != "checkpoints" or Path(last) == Path(model):
        return [(model, last)]
    trained = trained_as(last)
    first = [(model, trained.model)] if trained is not None else []
    if first:
        refuse_unnamed(model, first[0][1], typed)
    return first + [(model, path) for path in sorted(Path(last).parent.glob("step-*")) if path.is_dir()]


def _measured(
    name: str, where: str | Path, loading: Loading, scenes: list[Scene], how: dict[str, Any], grounding: bool, out: Any
) -> dict[str, Any]:
    """What there is to say of one checkpoint, as plain data; its records are added to `out`."""
    from statistics import fmean

    from vergence.audit.grounding import grounded
    from vergence.audit.tokens import GROUPS, estimates, perception_tokens
    from vergence.disk import telling_of_space
    from vergence.train.display import counting

    policy, step = loading.load(str(where)), step_of(where)
    with counting(f"{name}, step {step}: questions") as told:
        records = perception_tokens(policy, scenes, watch=told, **how)
    if out is not None:
        with telling_of_space(out), out.open("a") as file:
            file.writelines(dumps({"model": name, "step": step, **record}) + "\n" for record in records)
    groups = {group: [record for record in records if among(record)] for group, among in GROUPS.items()}
    found = {
        "model": name,
        "step": step,
        "responses": len(records),
        "questions": len({record["scene"] for record in records}),
        **{what: fmean(fmean(record[what]) for record in records) for what in ("looks", "derived") if records},
        "groups": {
            group: {
                "responses": len(some),
                "rules": {
                    rule: {measure: one and one._asdict() for measure, one in of.items()}
                    for rule, of in (estimates(some) if some else {}).items()
                },
            }
            for group, some in groups.items()
        },
    }
    if grounding:
        with counting(f"{name}, step {step}: cells") as told:
            own = {key: value for key, value in how.items() if key not in ("masked", "derived")}
            measured = grounded(policy, scenes, watch=told, **own)
        found["grounding"] = {measure: one._asdict() for measure, one in measured.items()}
    return found
