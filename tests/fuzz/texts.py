"""Targets that take a text or a value: responses, gold answers, what servers say, configs."""

from __future__ import annotations

import json
from typing import Any

import yaml
from fuzz.drawing import TEXTS, Draw, changed, one_of, some, text, torn, value, written
from fuzz.kinds import Target, told

from vergence.commands.given import settings
from vergence.rewards.bounds import refusal
from vergence.rewards.completion import read_completion, unfinished
from vergence.rewards.form import MOST_CHARACTERS, extracted, last_boxed, speaks, tagged, well_formed
from vergence.rewards.kinds import KINDS, read_gold
from vergence.rewards.letters import contradicts, named_option, read_choice, read_choices
from vergence.rewards.prose import statement, without_lead
from vergence.rewards.quantity import read_quantity, same_quantity
from vergence.rewards.rows import asked, read_rows
from vergence.rewards.settle import LONGEST, Unsettled, settle
from vergence.rewards.spelling import folded, plain, squeezed
from vergence.rewards.structure import depth_of, is_name, read_form
from vergence.rewards.units import read_unit
from vergence.rewards.verify import verify
from vergence.rewards.words import same_words
from vergence.scenes.columns import check_columns
from vergence.scenes.question import place, with_choices
from vergence.studies.arms import parsed
from vergence.train.config import Config
from vergence.train.config_file import from_yaml, to_yaml
from vergence.types import IMAGE, Gold

WORDINGS = ("short", "think", "first", "boxed", "answer")
ANSWER = (
    "\\boxed{",
    "}",
    "\\boxed",
    "\\fbox{",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "{",
    "\\{",
    "\\",
    "$",
    "$$",
)
ANSWER += (
    "The answer is ",
    "Answer: ",
    "final answer:\n",
    "#### ",
    " is ",
    "not ",
    "**",
    "(A)",
    "B)",
    "C. ",
    "A and B",
    "答案是",
)
ANSWER += (
    "1,200",
    "-3.50",
    "7/8",
    "\\frac{1}{2}",
    "\\dfrac12",
    "1e99",
    "10^{99}",
    "9" * 70,
    "9" * 5000,
    "0.333333",
    "twelve",
)
ANSWER += (
    "million",
    " cm",
    "cm^2",
    "km/h",
    "°",
    "%",
    "\\%",
    "\\$",
    "£",
    "½",
    "²",
    "π",
    "√",
    "≤",
    "\\pi",
    "\\sqrt{",
    "\\infty",
)
ANSWER += (
    "x",
    "y",
    "+",
    "-",
    "*",
    "/",
    "^",
    "^{",
    "_",
    "!",
    "=",
    "<",
    ">",
    "\\le ",
    "\\in",
    "\\cup",
    "\\pm",
    ",",
    ";",
    ":",
    "and",
    "or",
)
ANSWER += (
    "(",
    ")",
    "[",
    "]",
    "[0, 1)",
    "(1, 2)",
    "x = 5",
    "P(2, 3)",
    "\\text{",
    "\\begin{pmatrix}",
    "&",
    "\\\\",
    "\\end{pmatrix}",
)
ANSWER += ("red", "circle", "yes", "no", "12:30", "2020-05-12", "{}", "\n\n", "\t", "<|im_end|>", *TEXTS)
GOLDS = (
    "7",
    "1/2",
    "0.25",
    "12 cm",
    "B",
    "A, C",
    "red circle",
    "x+1",
    "(1, 2)",
    "\\{1, 2\\}",
    "[0, 1)",
    "x = 5",
    "x < 3",
)
GOLDS += ("\\frac{\\sqrt{3}}{2}", "1:2", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "50\\%", "yes", "\\pi", "2^{10}")


def _form(draw: Draw) -> None:
    response = text(draw, ANSWER) * (1 + 40 * (draw.below(40) == 1))
    wording, how, several = one_of(draw, WORDINGS), one_of(draw, ("box", "text")), bool(draw.below(2))
    well_formed(response, wording)
    found = extracted(response, wording, how, several=several)
    assert found is None or 0 < len(found) <= MOST_CHARACTERS + 200
    assert found is None or found == found.strip()
    box, inside = last_boxed(response), tagged(response)
    assert box is None or box in response
    assert inside is None or inside in response
    speaks(response)


def _numbers(draw: Draw) -> None:
    said = text(draw, ANSWER)[:LONGEST]
    spelt = plain(said)
    number = read_quantity(spelt)
    if number:
        assert same_quantity(number, number)
    for function in (squeezed, folded, read_unit, is_name, read_quantity, statement, without_lead, refusal, depth_of):
        function(spelt)
    read_form(spelt)
    choices = tuple(text(draw, ANSWER)[:80] for _ in range(draw.below(4)))
    for choice in (read_choice(said, choices), named_option(said, choices)):
        assert choice is None or (len(choice) == 1 and choice.isascii() and choice.isupper())
    read_choices(said, choices)
    contradicts(said, choices)
    same_words(said, spelt)


def _gold(draw: Draw) -> Gold | None:
    said = one_of(draw, GOLDS) if draw.below(2) else text(draw, (*GOLDS, *ANSWER))
    choices = [text(draw, ANSWER)[:80] for _ in range(draw.below(4))] if not draw.below(3) else []
    kind = one_of(draw, (None, None, *KINDS, "none"))
    tolerance = one_of(draw, (0.0, 0.0, 0.05, 1.0, -1.0, float("nan")))
    return told(lambda: read_gold(said, choices=choices, kind=kind, tolerance=tolerance))


def _golds(draw: Draw) -> None:
    gold = _gold(draw)
    if gold is None:
        return
    said = gold.text if not draw.below(3) else text(draw, (*GOLDS, *ANSWER))
    try:
        right = settle(said, *gold, arithmetic=bool(draw.below(2)))
    except Unsettled:
        return
    assert right in (True, False, None)


def _verifier(draw: Draw) -> None:
    gold = _gold(draw)
    if gold is None:
        return
    said = text(draw, (*GOLDS, *ANSWER))
    response = f"<think>{text(draw, ANSWER)}</think> \\boxed{{{said}}}" if draw.below(3) else said
    how = {
        "wording": one_of(draw, WORDINGS),
        "extract": one_of(draw, ("box", "text")),
        "arithmetic": bool(draw.below(2)),
    }
    verdict = verify(response, gold, **how, seconds=0.3)
    assert verdict.status in ("right", "wrong", "unparsed", "timed out")
    assert verdict.accuracy == (verdict.status == "right")
    assert verdict.format in (0.0, 1.0)
    assert verdict.extracted is not None or verdict.status == "unparsed"
    assert verify(f"<think>so</think>\\boxed{{{gold.text}}}", gold, seconds=0.3).status != "wrong" or _odd(gold)


def _odd(gold: Gold) -> bool:
    """Whether putting the gold into a box changes it: its own braces close the box, or it holds marks of the form."""
    marks = ("boxed", "fbox", "think>", "answer>")
    depth = 0
    for mark in gold.text:
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            return True
    return depth != 0 or any(mark in gold.text for mark in marks)


COMPLETION: dict[str, Any] = {
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "<think>x</think>\\boxed{4}", "reasoning": "2+2"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 9},
}


def _completion(draw: Draw) -> None:
    found = some(draw, COMPLETION, 4)
    if draw.below(4) == 0:
        found = changed(draw, {"choices": [{"message": {"content": [{"type": "text", "text": "4"}]}}]})
    unfinished(found)
    said = told(lambda: read_completion(found, "http://127.0.0.1:1/v1"), "http://127.0.0.1:1/v1")
    if said:
        said.whole.encode()
        json.dumps(said)


JUDGED = {"gold": "12", "response": "\\boxed{12}", "kind": "integer", "choices": None, "tolerance": 0.0, "id": 3}


def _rows(draw: Draw) -> None:
    line = written(some(draw, JUDGED, 4))
    data = torn(draw, line.encode())
    for row in read_rows(data.decode("utf-8", "surrogateescape").split("\n")):
        if row.error:
            continue
        told(lambda row=row: asked(row.fields))


SHORT = (
    "method",
    "options",
    "model",
    "seed",
    "steps",
    "lr",
    "betas",
    "worlds",
    "wording",
    "columns",
    "offload",
    "tolerance",
)
PLAIN = {name: one for name, one in yaml.safe_load(to_yaml(Config())).items() if name in SHORT}
YAML = yaml.safe_dump(PLAIN, sort_keys=False)
SIGNS = (
    "&a ",
    "*a",
    "!!python/object:os.system",
    "!!binary ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "? ",
    "|\n",
    ">\n",
    "---\n",
)
SIGNS += (
    "<<: *a",
    "'",
    '"',
    "\n",
    "\t",
    "#",
    "%",
    "@",
    "1:2:3",
    "0x1F",
    "0o7",
    "1_000",
    "2001-01-01",
    ".inf",
    ".nan",
    "~",
    "yes",
)


def _yaml(draw: Draw) -> None:
    if draw.below(2):
        source = torn(draw, YAML.encode()).decode("utf-8", "surrogateescape")
        at = draw.below(len(source) + 1)
        source = source[:at] + text(draw, (*SIGNS, *TEXTS)) + source[at:]
    else:
        try:
            source = yaml.safe_dump(some(draw, PLAIN), sort_keys=False)
        except (yaml.YAMLError, ValueError, RecursionError):
            source = "options: " + "[" * 3000
    if draw.below(30) == 1:
        source = one_of(
            draw, ("[" * 5000, "a: " + "{a: " * 3000, "- " * 4000, "9" * 5000, f"steps: {'9' * 5000}", BOMB)
        )
    config = told(lambda: from_yaml(source, "a/config.yaml"))
    if config is not None:
        assert from_yaml(to_yaml(config)) == config or "nan" in repr(config)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Ten lines that are a billion values once they are written out."""


def _options(draw: Draw) -> None:
    given = [text(draw, ("gamma", "=", "0.1", ",", "question=text", *TEXTS)) for _ in range(draw.below(4))]
    typed = 2 * sum(map(len, map(repr, given))) + 1000  # what was typed may be repeated
    told(lambda: settings(given, "--set", "gamma=0.1"), most=typed)
    told(lambda: parsed(given), most=typed)
    told(lambda: check_columns(dict.fromkeys(given, "x")), most=typed)


def _question(draw: Draw) -> None:
    said = text(
        draw, ("<image>", "<image 1>", "<image_2>", "<|image|>", "<IMAGE 3>", IMAGE, "<|im_start|>", "Find x.", *TEXTS)
    )
    images = draw.below(4)
    placed = told(lambda: place(said, images))
    if placed:
        assert placed.question.count(IMAGE) in (0, images)
        assert sorted(placed.order) == list(range(images))
    with_choices(said, [text(draw) for _ in range(draw.below(5))])


def _values(draw: Draw) -> None:
    """A config from values as a program would give them, JSON's included."""
    config = told(lambda: from_yaml(written({"options": value(draw)}), "config.yaml"), "config.yaml")
    assert config is None or isinstance(config, Config)


TEXT_TARGETS = (
    Target("form", _form, 2.0, "responses: boxes, tags, forms"),
    Target("numbers", _numbers, 2.0, "answers: numbers, units, lists, letters"),
    Target("gold", _golds, 2.0, "gold answers and answers, compared by reading"),
    Target("verifier", _verifier, 5.0, "responses and golds, expressions in workers"),
    Target("completion", _completion, 2.0, "what a chat server answers"),
    Target("judged rows", _rows, 2.0, "lines of `vergence verify`"),
    Target("yaml", _yaml, 4.0, "configs"),
    Target("values", _values, 2.0, "a config's options as JSON"),
    Target("options", _options, 1.0, "--set, --columns, --sweep"),
    Target("question", _question, 2.0, "questions with marks of images, choices"),
)
