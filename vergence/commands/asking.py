"""Commands that ask a policy: held-out questions, or one of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from vergence.commands.answers import Asking, Behind, Found, Put, answers_in, opened, tell, tell_json, title
from vergence.commands.given import Data, Loading, asked_as, held_out, model_of, printable, trained_as
from vergence.report.table import print_json
from vergence.types import UserError, Wording

Positional = tyro.conf.Positional


def evaluate(
    model: Positional[str],
    data: Annotated[Data, tyro.conf.arg(name="")] = Data(),  # noqa: B008 (frozen)
    put: Annotated[Put, tyro.conf.arg(name="")] = Put(),  # noqa: B008 (frozen)
    behind: Annotated[Behind, tyro.conf.arg(name="")] = Behind(),  # noqa: B008 (frozen)
    loading: Annotated[Loading, tyro.conf.arg(name="")] = Loading(),  # noqa: B008 (frozen)
    split: Literal["tune", "report"] = "tune",
    number: int = 240,
    buckets: bool = False,
    against: str = "",
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Answer held-out questions and print avg@k, pass@k and maj@k per world, with 95 % intervals over questions.

    Example: vergence eval runs/mine --worlds mosaic --against seedling

    Args:
        model: A run folder (its last checkpoint), a folder in Hugging Face layout, or "seedling".
        split: tune to choose by, report for the numbers one publishes.
        number: Questions.
        buckets: Ask with a grey image too, and tell questions apart by how much they need the picture.
        against: Compare with another model or run, asked the same, or with the answers in a file that --out wrote.
        out: Write one JSON line per answer to this file; what it holds already is not asked for again.
        json: Print one line of JSON.
    """
    from vergence.evaluate.buckets import blind_seed
    from vergence.evaluate.kept import AGAINST, BLIND, beside
    from vergence.types import Blank

    if buckets and put.show == "blank":
        raise UserError("--buckets compares with the answers to the image; leave --show blank out")
    trained = trained_as(model_of(model))
    how = put.how(trained)
    blind_out, other_out = beside(out, BLIND), beside(out, AGAINST)
    source = opened(data, trained, out, blind_out, other_out)
    scenes = held_out(source, split, number, seed=put.seed)
    pictured = [scene for scene in scenes if scene.images]
    if buckets and not pictured:
        raise UserError("--buckets compares with a grey picture, and no question has a picture; leave it out")
    asking = Asking(scenes, how, loading, behind)
    other = answers_in(against, asking)
    if against and not other:
        loading.refuse_missing(against)
    records = asking(model, out)
    grey = asking._replace(scenes=pictured)
    blind = grey(model, blind_out, show=Blank(), seed=blind_seed(put.seed)) if buckets else []
    if against and not other:
        other = asking(against, other_out)
    found = Found(records, blind, other)
    if json:
        tell_json(found, {"split": split, "shown": put.show, "reasoner": behind.named or None, **how})
    else:
        tell(found, title(split, put.show, how, behind))


def answer(
    image: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction],
    question: str,
    extractor: str = "seedling",
    reasoner: str = "strong",
    reasoner_model: str = "",
    wording: Wording | None = None,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    seed: int = 0,
    loading: Annotated[Loading, tyro.conf.arg(name="")] = Loading(),  # noqa: B008 (frozen)
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
        wording: How both are asked; by default as the extractor was trained, else short, which is for our own models.
        temperature: Of all three texts; 0 takes the likeliest.
        max_tokens: Of each text, at most; by default as the extractor was trained, else 64, or 2048 if not short.
        seed: Of the sampling noise.
        json: Print one line of JSON.
    """
    from vergence.evaluate.pipeline import answer_one
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
    wording, max_tokens = asked_as(trained_as(model_of(extractor)), wording, max_tokens, "short")
    answered = answer_one(
        loading.load(extractor),
        load_reasoner(reasoner, model=reasoner_model, device=loading.device),
        pictures,
        question,
        seed=seed,
        temperature=temperature,
        max_tokens=max_tokens,
        wording=wording,
    )
    if json:
        print_json(answered._asdict())
        return
    print(f"caption: {printable(answered.caption)}")
    print(f"tentative answer: {printable(answered.tentative)}")
    print(f"reasoner: {printable(answered.response)}")
    print(f"answer: {'none was found' if answered.extracted is None else printable(answered.extracted)}")
