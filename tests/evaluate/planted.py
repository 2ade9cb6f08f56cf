"""Models whose fault is known, as samplers: they get a prompt's tokens and pixels, and see no scene.

The eye knows every picture of the test, and takes the most like one for what it is shown; a picture in one colour is
like none. Whoever sees nothing imagines a picture.
"""

import re
from collections.abc import Sequence
from functools import cache
from random import Random

import torch

from vergence.models.policy import Reader
from vergence.rollout.render import render
from vergence.scenes import embedded
from vergence.scenes.follow import follow
from vergence.types import ORIGINAL, Sampled, Scene


@cache
def drawn(key: str) -> embedded.Drawn:
    """The scene of a key, with its content and its counterfactual."""
    world, split, seed, index = key.split("/")
    return embedded.draw(world, split, int(index), seed=int(seed))


def content_of(scene: Scene):
    """What was drawn for a scene."""
    return drawn(scene.key).content


def asking(content, ask):
    """The same picture, asked another question."""
    return content if ask is None else content._replace(ask=ask)


def turnable(world: str, content) -> bool:
    """Whether one fact read wrongly gives another answer: not where three of a kind stand against none."""
    if world in ("bars", "geometry") or content.ask[0] != "compare":
        return True
    values = [content.at(*place) for place in content.places()]
    return abs(sum(content.ask[1] in v.split() for v in values) - sum(content.ask[2] in v.split() for v in values)) < 3


def misadded(response: str, die: Random) -> str:
    """The same response with a wrong calculation or count, and the answer that comes of it; as it was without any."""
    counts = re.findall(r"([a-z]+)=([0-9]+)", response)
    if len(counts) == 2 and "x=" not in response:
        right = re.search(r"boxed\{(.*)\}", response)[1]
        first, second = counts[0][0], counts[1][0]
        answer = die.choice([word for word in (first, second, "same") if word != right])
        a, b = {first: (2, 1), second: (1, 2), "same": (1, 1)}[answer]
        response = response.replace(f"{first}={counts[0][1]}", f"{first}={a}")
        response = response.replace(f"{second}={counts[1][1]}", f"{second}={b}")
        return re.sub(r"boxed\{.*\}", f"boxed{{{answer}}}", response)
    results = list(re.finditer(r"=([0-9]+)(?=\.<)", response))
    if not results:
        return response
    wrong = int(results[-1][1]) + die.choice((1, 2, 10))
    response = f"{response[: results[-1].start(1)]}{wrong}{response[results[-1].end(1) :]}"
    return re.sub(r"boxed\{.*\}", f"boxed{{{wrong}}}", response)


class Planted:
    """A sampler with a fault.

    Args:
        fault: "ignores" the image, "adds" wrongly, "misreads" one needed fact with probability `often`, or none: "".
        scenes: of the test.
    """

    def __init__(self, fault: str, reader: Reader, scenes: Sequence[Scene], *, often: float = 0.7) -> None:
        self.fault, self.reader, self.often = fault, reader, often
        self.asked, self.known, self.facts, self.told, eyes = {}, [], [], {}, []
        for scene in scenes:
            world, content = scene.world, content_of(scene)
            self.asked[scene.question] = (world, getattr(content, "ask", None))
            self.told[scene.caption] = (world, content)
            twin = drawn(scene.key).scene.counterfactual
            for shown, seen in ((scene, content), (twin, embedded_content(twin, content))):
                self.known.append((world, seen))
                self.facts.append(shown.facts)
                eyes.append(_features(render(reader, shown, ORIGINAL, 0).pixels))
        self.eyes, self.answered = torch.stack(eyes), {}

    def __call__(self, asked, *, temperature, max_tokens):
        return [self._said(one) for one in asked]

    def _said(self, one):
        text, die = self.reader.tokenizer.decode(one.prompt.tokens), Random(one.key)
        question = max((known for known in self.asked if known in text), key=len)
        world, ask = self.asked[question]
        caption = max((known for known in self.told if f"Picture: {known}" in text), key=len, default="")
        seen = self.told[caption] if caption else self._look(one.prompt, question)
        if self.fault == "ignores" or seen is None:
            seen, misread = (world, _imagined(world, ask, die)), False
        else:
            misread = self.fault == "misreads" and not caption and die.random() < self.often
        world, content = seen[0], asking(seen[1], ask)
        misread = misread and turnable(world, content)
        if "Describe." in text:
            functions = embedded.WORLDS[world]
            response = functions.see(functions.change(content, die) if misread else content, die) + "."
        else:
            response = embedded.say(embedded.Drawn(None, content), world, die, misread=misread)
            response = misadded(response, die) if self.fault == "adds" else response
        tokens = (*self.reader.tokenizer(response, add_special_tokens=False)["input_ids"], self.reader.eos_id)
        zeros = (0.0,) * len(tokens)
        return Sampled(tokens, zeros, zeros, "stop")

    def _look(self, prompt, question):
        if prompt.pixels is None:
            return None
        features = _features(prompt.pixels)
        if features.norm() < 0.5:
            return None
        able = self._able(question)
        return self.known[int((self.eyes @ features).where(able, -torch.inf).argmax())]

    def _able(self, question):
        """The pictures to which the question has an answer."""
        if question not in self.answered:
            answers = [follow(question, facts).answer for facts in self.facts]
            self.answered[question] = torch.tensor([bool(answer) and answer[0] != "-" for answer in answers])
        return self.answered[question]

    def prefer(self, claims):
        """The true claim, for one who sees; the first in the alphabet, for one who does not."""
        blind = self.fault == "ignores"
        return [float(claim.true < claim.false) * 2 - 1 if blind else 1.0 for claim in claims]


def embedded_content(twin: Scene, content):
    """The content of a counterfactual, from its facts."""
    values = [fact.value for fact in twin.facts]
    if hasattr(content, "cells"):
        return content._replace(cells=tuple(values))
    if hasattr(content, "bars"):
        named = zip(content.bars, values, strict=True)
        return content._replace(bars=tuple((colour, int(value)) for (colour, _), value in named))
    return content._replace(labels=(int(values[1]), int(values[2])))


def _features(pixels):
    flat = pixels.flatten() - pixels.mean()
    return flat / flat.norm() if flat.norm() > 1.0 else flat * 0


def _imagined(world, ask, die):
    while True:
        content = asking(embedded.WORLDS[world].draft(die), ask)
        try:
            if not embedded.WORLDS[world].pose(content)[1].text.startswith("-"):
                return content
        except (KeyError, ValueError):  # this picture has no such bar, or a shape where numbers are added
            continue
