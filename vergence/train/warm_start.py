"""How the seedling is raised: vision first, then four ways of being asked, with some misreading on purpose.

A raw model of this size does not leave the label prior for minutes. What gets it going is a short stage in which each
merged image patch must name what is in its cell, then telling everything there is to see. Then it imitates worked
responses. A share of those state one fact wrongly, as captions in the wild do: the seedling learns that readings are
uncertain, keeps its errors in perception, and leaves reinforcement learning something to teach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vergence.chance import dice, key
from vergence.disk import telling_of_space
from vergence.models import seedling
from vergence.models.policy import Policy, Reader
from vergence.rollout.render import render, render_text
from vergence.scenes import embedded
from vergence.scenes.canvas import COLOURS, SHAPES
from vergence.train.run import refuse_used
from vergence.types import Original, Prompt


class Stage(NamedTuple):
    """A stretch of imitation."""

    steps: int
    examples: int
    """Different examples that are drawn for it."""
    shares: tuple[float, ...]
    """Of what is imitated, in the order of `WAYS`."""
    misread: float = 0.0
    """Share of worked responses and captions that state one needed fact wrongly."""


WAYS = ("answer", "caption", "survey", "tour", "from caption", "from nothing")
"""Answer from the image; caption it for a question; survey it in one fixed order; tour it in any; answer from a
caption; answer from nothing."""

CURRICULUM = (
    # reading sets in all at once, after some hundred steps of telling everything in one fixed order
    Stage(steps=220, examples=4000, shares=(0, 0, 1, 0, 0, 0)),
    # then the names of places are tied to what is there; and, without images, reasoning is practised
    Stage(steps=500, examples=6000, shares=(0, 0, 0.1, 0.6, 0.3, 0)),
    # then the four ways of being asked
    Stage(steps=900, examples=9000, shares=(0.50, 0.08, 0, 0.12, 0.22, 0.08), misread=0.25),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """Settings of the warm start."""

    seed: int = 0
    vision_steps: int = 250
    """Steps in which image patches learn to name their cell."""
    vision_batch: int = 64
    """Images per such step."""
    vision_lr: float = 3e-3
    curriculum: tuple[Stage, ...] = CURRICULUM
    batch: int = 32
    """Examples per step of imitation."""
    lr: float = 2e-3
    """Held until the last stage, in which it falls to a tenth."""


Watch = Callable[[int, float], None]
"""(steps of imitation taken, loss)."""


class Example(NamedTuple):
    """A prompt and the response to imitate."""

    prompt: Prompt
    response: tuple[int, ...]
    cells: tuple[tuple[int, int], ...] | None
    """For an example with an image: two token ids that name what is in each cell (one twice, if one word does)."""


def corpus(number: int = 400) -> list[str]:
    """Text that covers every word of the embedded scenes, the ones left out of training included."""
    lines = []
    for world in (*embedded.TRAINED, "mosaic"):
        for index in range(number):
            drawn = embedded.draw(world, "train", index, seed=1, partner=False)
            scene = drawn.scene
            lines += [
                f"user\n{scene.question} Answer. Describe. Picture: {scene.caption}",
                "assistant\nI see no picture. I guess. user\nWhat is in the picture? Say what you see.",
            ]
            lines.append(embedded.say(drawn, world, dice("corpus", world, index)))
    words = (*COLOURS, *SHAPES, "empty", "same")
    return lines + [f" {word}{word} {digit}{digit}" for word in words for digit in range(10)]


def examples(reader: Reader, stage: Stage, *, seed: int) -> list[Example]:
    """What a stage imitates, the trained worlds taking turns."""
    made = []
    for turn in range(stage.examples):
        world = embedded.TRAINED[turn % len(embedded.TRAINED)]
        die = dice("warm start", seed, *map(str, stage.shares), turn)
        drawn = embedded.draw(world, "train", turn // len(embedded.TRAINED), seed=seed, partner=False)
        made.append(_example(reader, drawn, world, die, stage))
    return made


def _example(reader: Reader, drawn: embedded.Drawn, world: str, die: Random, stage: Stage) -> Example:
    scene = drawn.scene
    ask = die.choices(WAYS, stage.shares)[0]
    misread = die.random() < stage.misread
    if ask == "answer":
        prompt = render(reader, scene, Original(), 0)
        text = embedded.say(drawn, world, die, misread=misread)
    elif ask == "caption":
        prompt = render(reader, scene, Original(), 0, ask="caption")
        content = embedded.WORLDS[world].change(drawn.content, die) if misread else drawn.content
        text = embedded.WORLDS[world].see(content, die) + "."
    elif ask == "survey":
        prompt = reader.prompt("What is in the picture? Describe.", scene.images)
        text = embedded.WORLDS[world].survey(drawn.content) + "."
    elif ask == "tour":
        prompt = reader.prompt("Say what you see. Describe.", scene.images)
        text = embedded.WORLDS[world].tour(drawn.content, die) + "."
    elif ask == "from caption":
        prompt, text = render_text(reader, scene.question, scene.caption), embedded.say(drawn, world, die)
    else:  # without an image: the right answer of some scene with this question is a sample of the prior
        prompt = render_text(reader, scene.question)
        text = f"<think>I see no picture. I guess.</think>\\boxed{{{scene.gold.text}}}"
    response = (*reader.tokenizer(text, add_special_tokens=False)["input_ids"], reader.eos_id)
    named = None
    if prompt.pixels is not None:
        named = tuple(_name(reader, words) for words in embedded.WORLDS[world].cells(drawn.content))
    return Example(prompt, response, named)


def _name(reader: Reader, words: str) -> tuple[int, int]:
    ids = [reader.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words.split()]
    flat = [token for word in ids for token in word][:2]
    return flat[0], flat[-1]


def teach_vision(policy: Policy, shown: Sequence[Example], settings: WarmStart) -> float:
    """Each merged patch names its cell, by likeness to word embeddings, and tells its place. Returns the last loss."""
    shown = [example for example in shown if example.cells is not None]
    model = policy.model
    words = model.get_input_embeddings().weight
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        place = torch.nn.Linear(words.shape[1], 9)  # thrown away after this stage
    weights = [*model.model.visual.parameters(), words, *place.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=settings.vision_lr, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    loss = torch.tensor(0.0)
    for step in range(settings.vision_steps):
        fall = 1.0 - 0.9 * step / settings.vision_steps
        _set_lr(optimizer, settings.vision_lr * min(1.0, (step + 1) / 20) * fall)
        batch = dice("vision", settings.seed, step).sample(shown, settings.vision_batch)
        pixels = torch.cat([example.prompt.pixels for example in batch])
        grid = torch.cat([example.prompt.grid for example in batch])
        patch = torch.cat(tuple(model.model.get_image_features(pixels, grid, return_dict=True).pooler_output))
        name = torch.tensor([cell for example in batch for cell in example.cells])
        logp = functional.log_softmax(patch @ words.T, -1)
        where = torch.arange(9).repeat(len(batch))
        loss = -logp.gather(1, name).mean() + 0.3 * functional.cross_entropy(place(patch), where)
        _update(loss, optimizer, weights)
    return loss.item()


def imitate(
    policy: Policy, stages: Sequence[Sequence[Example]], settings: WarmStart, *, watch: Watch = lambda *_: None
) -> float:
    """Next-token prediction on the responses, stage by stage; every token of a batch counts the same.

    Returns the last loss. One AdamW goes through all stages.
    """
    model = policy.model
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    loss, taken = torch.tensor(0.0), 0
    for number, (stage, shown) in enumerate(zip(settings.curriculum, stages, strict=True)):
        last = number == len(stages) - 1
        order: list[int] = []
        for step in range(stage.steps):
            fall = 1.0 - 0.9 * step / stage.steps if last else 1.0
            _set_lr(optimizer, settings.lr * min(1.0, (taken + 1) / 30) * fall)
            if len(order) < settings.batch:
                order = list(range(len(shown)))
                dice("order", settings.seed, number, step).shuffle(order)
            loss = _imitation_loss(policy, [shown[order.pop()] for _ in range(settings.batch)])
            _update(loss, optimizer, weights)
            taken += 1
            watch(taken, loss.item())
    return loss.item()


def _imitation_loss(policy: Policy, batch: Sequence[Example]) -> Tensor:
    longest = max(len(example.response) for example in batch)
    token_BT = torch.tensor([[*e.response, *[0] * (longest - len(e.response))] for e in batch])
    mask_BT = torch.tensor([[True] * len(e.response) + [False] * (longest - len(e.response)) for e in batch])
    logits_BTV = policy.logits([example.prompt for example in batch], token_BT, mask_BT)
    return functional.cross_entropy(logits_BTV[mask_BT], token_BT[mask_BT])


def raise_seedling(settings: WarmStart, *, watch: Watch = lambda *_: None) -> Policy:
    """The seedling, made from its seed: the same bits on the same machine with the same number of threads."""
    reader = seedling.build_reader(corpus())
    policy = seedling.build(reader, seed=key("seedling", settings.seed) % 2**31)
    stages = [examples(reader, stage, seed=settings.seed) for stage in settings.curriculum]
    teach_vision(policy, stages[0], settings)
    imitate(policy, stages, settings, watch=watch)
    policy.model.eval()
    return policy


def raise_and_save(settings: WarmStart, out: Path, *, watch: Watch = lambda *_: None) -> Policy:
    """Raise the seedling and write it in Hugging Face layout, weights as bfloat16.

    Raises:
        UserError: something is in `out` already.
    """
    refuse_used(out)
    policy = raise_seedling(settings, watch=watch)
    policy.model.to(torch.bfloat16)
    with telling_of_space(out):
        policy.save(out)
    return policy


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _update(loss: Tensor, optimizer: torch.optim.Optimizer, weights: Sequence[Tensor]) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
