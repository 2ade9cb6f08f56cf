"""How the tiny reasoners are raised: imitation of worked answers to what a caption says, true or not.

A reasoner follows the caption, whatever it says: a misread caption is answered as if it were so, which is what makes
its answer a measure of the caption. Where the caption lacks what the question needs (cut off, about something else, or
none at all), it takes the tentative answer, and guesses without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vergence.chance import dice, key
from vergence.disk import telling_of_space
from vergence.models import reasoner as models
from vergence.rewards.reasoner import question
from vergence.scenes import embedded
from vergence.scenes.canvas import COLOURS, SHAPES
from vergence.scenes.speech import read_facts
from vergence.scenes.split import assign, content_hash
from vergence.train.run import refuse_used
from vergence.types import Scene, UserError

LACKING = "The picture does not say."
"""What a reasoner thinks where the caption lacks what the question needs."""


class Lessons(NamedTuple):
    """How long one reasoner is taught."""

    steps: int
    examples: int
    """Different examples that are drawn."""
    batch: int = 32
    """Examples per step."""
    lr: float = 4e-3
    """Highest; it rises over 50 steps and falls to a twentieth along half a cosine."""


LESSONS = {"weak": Lessons(steps=1050, examples=24_000), "strong": Lessons(steps=2400, examples=48_000)}
SHARES = {"digits": 0.25, "shapes": 0.4, "bars": 0.15, "geometry": 0.2}
"""Of the examples: counting in a line is the last thing that is learned."""

Watch = Callable[[str, int, float], None]
"""(which reasoner, steps taken, loss)."""


class Example(NamedTuple):
    """What is put to the reasoner, and the answer to imitate."""

    text: str
    response: str


def draft(world: str, die: Random) -> Any:
    """Content of this world that may be trained on."""
    while True:
        content = embedded.WORLDS[world].draft(die)
        if _trains(world, content):
            return content


def example(world: str, die: Random) -> Example:
    """One caption, perhaps misread, cut off or about something else, with a question, perhaps with a tentative answer.

    >>> example("bars", Random(3)).text
    'Picture: blue bar is 9. green bar: 4. Guess: 13 What is the green bar plus the blue bar? Answer.'
    >>> example("bars", Random(3)).response
    '<think>Now 4+9=13.</think>\\\\boxed{13}'
    >>> example("bars", Random(7)).response
    '<think>The picture does not say. I guess.</think>\\\\boxed{6}'
    """
    functions, content = embedded.WORLDS[world], draft(world, die)
    asked, gold = functions.pose(content)
    seen = content
    if die.random() < 0.3:
        misread = functions.change(content, die)
        seen = misread if _trains(world, misread) else content
    caption = _caption(world, seen, die)
    tentative = ""
    if die.random() < 0.4:
        tentative = die.choice((gold.text, functions.pose(functions.change(content, die))[1].text))
    if set(functions.facts(seen)[1]) <= set(read_facts(caption)):
        thought, answer = think(world, seen), functions.pose(seen)[1].text
    else:  # without a tentative answer: the right one of some scene with this question is a sample of the prior
        thought, answer = f"{LACKING} I take the guess" if tentative else f"{LACKING} I guess", tentative or gold.text
    thought = f"{thought}." if thought else ""
    return Example(question(caption, asked, tentative), f"<think>{thought}</think>\\boxed{{{answer}}}")


def think(world: str, content: Any) -> str:
    """The way from the facts to the answer, one for each content; counting is done cell by cell.

    A choice of orders would be harder to imitate, and so would a count at one glance.

    >>> from vergence.scenes.grid import Grid
    >>> think("digits", Grid(tuple("381000000"), ("sum", "row", 0)))
    '3+1=4, 4+8=12'
    >>> shapes = ("red cross", "empty", "red circle", *["empty"] * 6)
    >>> think("shapes", Grid(shapes, ("count", "red", "row", 0)))
    'red: red 1, empty 1, red 2. Now red=2'
    """
    reasoning = embedded.WORLDS[world].reason(content, Random(0))
    if world != "shapes" or content.ask[0] == "cell":
        return reasoning
    kind, *words, _, _ = content.ask
    tallies = []
    for word in words:
        hits, steps = 0, []
        for place in content.places():
            value = content.at(*place).split()
            hits += word in value
            steps.append(f"{value[0 if kind == 'count' else -1]} {hits}")
        tallies.append(f"{word}: {', '.join(steps)}. ")
    return "".join(tallies) + reasoning


def _caption(world: str, content: Any, die: Random) -> str:
    """Mostly what the question needs; else more than that, a part of it, something else, or nothing."""
    functions = embedded.WORLDS[world]
    kind = die.choices(("needed", "tour", "survey", "cut", "other", "none"), (0.72, 0.05, 0.05, 0.09, 0.06, 0.03))[0]
    if kind == "none":
        return ""
    if kind == "other":  # "Find x." is asked of every figure: another figure would not be something else
        while True:
            other = die.choice([name for name in embedded.TRAINED if world != "geometry" or name != world])
            text = embedded.WORLDS[other].see(embedded.WORLDS[other].draft(die), die) + "."
            if not {fact.about for fact in functions.facts(content)[1]} <= {fact.about for fact in read_facts(text)}:
                return text
    text = {"tour": functions.tour, "survey": lambda content, die: functions.survey(content)}.get(kind, functions.see)(
        content, die
    )
    if kind == "cut":
        words = text.split()
        return " ".join(words[: die.randrange(1, len(words))])
    return text + "."


def _trains(world: str, content: Any) -> bool:
    functions = embedded.WORLDS[world]
    asked, gold = functions.pose(content)
    scene = Scene(key="", world=world, images=(), question=asked, gold=gold, facts=functions.facts(content)[0])
    return assign(content_hash(scene)) == "train"


def examples(number: int, *, seed: int) -> list[Example]:
    """`number` examples, of each world about its share."""
    dies = (dice("reasoner", seed, turn) for turn in range(number))
    return [example(die.choices(tuple(SHARES), tuple(SHARES.values()))[0], die) for die in dies]


def corpus(number: int = 400) -> list[str]:
    """Text that covers every word of the embedded scenes, the ones left out of training included."""
    lines = [f"user\n{one.text}assistant\n{one.response}" for one in examples(4 * number, seed=1)]
    words = (*COLOURS, *SHAPES, "empty", "same")
    return lines + [f" {word}{word} {digit}{digit}" for word in words for digit in range(10)]


def imitate(
    model: Any,
    tokenizer: Any,
    shown: Sequence[Example],
    lessons: Lessons,
    *,
    seed: int,
    watch: Callable[[int, float], None] = lambda *_: None,
) -> float:
    """Next-token prediction on the responses; every token of a batch counts the same. Returns the last loss, nats."""
    rows = [_rows(tokenizer, one) for one in shown]
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=lessons.lr, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    loss, order = torch.tensor(0.0), []
    for step in range(lessons.steps):
        fall = 0.525 + 0.475 * torch.cos(torch.tensor(torch.pi * step / lessons.steps)).item()
        for group in optimizer.param_groups:
            group["lr"] = lessons.lr * min(1.0, (step + 1) / 50) * fall
        if len(order) < lessons.batch:
            order = list(range(len(rows)))
            dice("order", seed, step).shuffle(order)
        loss = _loss(model, [rows[order.pop()] for _ in range(lessons.batch)])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        watch(step + 1, loss.item())
    return loss.item()


def _rows(tokenizer: Any, one: Example) -> tuple[list[int], list[int]]:
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": one.text}], add_generation_prompt=True, tokenize=False
    )
    prompt, response = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (chat, one.response))
    return prompt, [*response, tokenizer.eos_token_id]


def _loss(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    token_BT = torch.tensor([[*p, *r, *[0] * (longest - len(p) - len(r))] for p, r in rows])
    mask_BT = torch.tensor(
        [[False] * len(p) + [True] * len(r) + [False] * (longest - len(p) - len(r)) for p, r in rows]
    )
    # padding on the right is behind everything that is scored, so no attention mask is needed
    hidden_BTD = model.model(input_ids=token_BT[:, :-1], use_cache=False).last_hidden_state
    logits_NV = model.lm_head(hidden_BTD[mask_BT[:, 1:]])
    return functional.cross_entropy(logits_NV, token_BT[mask_BT])


def raise_reasoner(
    name: str, *, seed: int = 0, lessons: Lessons | None = None, watch: Watch = lambda *_: None
) -> tuple[Any, Any]:
    """(model, tokenizer) of "weak" or "strong": the same bits on the same machine with the same number of threads.

    Raises:
        UserError: no such reasoner.
    """
    if name not in LESSONS:
        raise UserError(f"no reasoner {name!r} to raise; there are {', '.join(LESSONS)}")
    lessons = lessons or LESSONS[name]
    tokenizer = models.build_tokenizer(corpus())
    model = models.build(tokenizer, models.SIZES[name], seed=key("reasoner", name, seed) % 2**31)
    shown = examples(lessons.examples, seed=seed)
    imitate(model, tokenizer, shown, lessons, seed=seed, watch=lambda step, loss: watch(name, step, loss))
    return model.eval(), tokenizer


def raise_reasoners(out: Path, seed: int = 0, watch: Watch = lambda *_: None) -> None:
    """Raise both and write them to `out`/weak and `out`/strong in Hugging Face layout, weights as bfloat16.

    Raises:
        UserError: something is in `out` already, or it cannot be written.
    """
    refuse_used(out)
    for name in LESSONS:
        model, tokenizer = raise_reasoner(name, seed=seed, watch=watch)
        with telling_of_space(out):
            models.save(model.to(torch.bfloat16), tokenizer, out / name)
