"""Commands that try a model by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from vergence.commands.given import Loading, asked_as, model_of, printable, trained_as
from vergence.report.table import print_json
from vergence.types import Kind, Scene, UserError, Wording

Positional = tyro.conf.Positional


def ask(
    checkpoint: Positional[str],
    question: str,
    image: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = (),
    choices: tuple[str, ...] = (),
    gold: str = "",
    kind: Kind | None = None,
    tolerance: float = 0.0,
    wording: Wording | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    seed: int = 0,
    loading: Annotated[Loading, tyro.conf.arg(name="")] = Loading(),  # noqa: B008 (frozen)
    json: bool = False,
) -> None:
    """Ask a model one question about images, and show its responses, the answers in them, and whether they are right.

    Example: vergence ask runs/mine --image a.png --question "How many red cubes are there?" --gold 3

    Args:
        checkpoint: A run folder (its last checkpoint), a folder in Hugging Face layout, a Hub name, or "seedling".
        question: What is asked. Images come first, in the order given.
        image: A picture file; give the option again for another. None: the question alone.
        choices: What the letters A, B, ... stand for; they are put under the question.
        gold: The right answer, to have the verifier judge the responses.
        kind: Of the right answer; by default as it looks.
        tolerance: Of a number, relative.
        wording: How the question is put; by default as the model was trained, else short for the seedling, or think.
        samples: Responses. With --temperature 0 they would be the same.
        temperature: Of sampling; 0 takes the likeliest token every time.
        max_tokens: Longest response; by default as the model was trained, else 64, or 2048 but for --wording short.
        seed: Of the sampling noise.
        json: Print one line of JSON.
    """
    from vergence.evaluate.suite import answer, conditions

    scene = scene_of_user(question, image, choices, {"text": gold, "kind": kind, "tolerance": tolerance})
    trained = trained_as(model_of(checkpoint))
    wording, max_tokens = asked_as(trained, wording, max_tokens, "short" if checkpoint == "seedling" else "think")
    how = {"seed": seed, "temperature": temperature, "max_tokens": max_tokens, "wording": wording}
    conditions(**{name: value for name, value in how.items() if name != "seed"}, samples=samples)
    policy = loading.load(checkpoint)
    fields = ("response", "extracted", "finish", *(("status", "kind", "verifier") if gold else ()))
    replies = [{name: one[name] for name in fields} for one in answer(policy, [scene], samples=samples, **how)]
    if json:
        print_json({"question": scene.question, "wording": wording, "replies": replies})
        return
    for number, reply in enumerate(replies, 1):
        if samples > 1:
            print(f"--- {number} of {samples}")
        _tell(reply)


def scene_of_user(question: str, image: tuple[Path, ...], choices: tuple[str, ...], gold: dict[str, Any]) -> Scene:
    """The user's own question as a scene.

    Raises:
        UserError: the question is empty, a file is not there or no picture, or the gold answer cannot be read.
    """
    from vergence.rewards.kinds import read_gold
    from vergence.scenes.picture import open_picture
    from vergence.scenes.question import with_choices
    from vergence.types import Gold

    if not question.strip():
        raise UserError("the question is empty: there is nothing to answer")
    for path in image:
        if not path.is_file():
            raise UserError(f"there is no file {path}; --image takes a picture file")
    right = read_gold(**gold, choices=choices) if gold["text"] else Gold("", "word")
    pictures = tuple(map(open_picture, image))
    return Scene(key="asked", world="asked", images=pictures, question=with_choices(question, choices), gold=right)


def _tell(reply: dict[str, Any]) -> None:
    """Print one response and what was read from it."""
    print(printable(reply["response"]))
    found = "none was found" if reply["extracted"] is None else printable(reply["extracted"])
    cut = " (the response was cut off: give more --max-tokens)" if reply["finish"] == "length" else ""
    print(f"answer: {found}{cut}")
    if "status" in reply:
        print(f"verdict: {reply['status']} (as {reply['kind']}, {reply['verifier']})")
