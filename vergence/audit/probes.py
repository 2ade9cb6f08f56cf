"""Does it still see while it thinks? A claim about the picture is put into its own words, once true and once false.

The chain of thought is the model's own; at some positions in it a fact that it does not state itself is claimed, with
its value and with another. Whoever still sees the picture finds the true claim likelier, however far it has come.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from vergence.chance import dice, key
from vergence.evaluate.interval import Estimate, bootstrap
from vergence.models.policy import Policy
from vergence.rollout.render import Wording, render
from vergence.scenes.speech import read_facts
from vergence.types import ORIGINAL, Fact, Scene

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the chain of thought that stand before the claim."""
MOST = 20_000
"""Characters of a response that are looked at."""
_END = re.compile(r"[.\n](?=\s|$)")


class Claim(NamedTuple):
    """One thing said of a picture in the middle of a thought, truly and falsely."""

    scene: Scene
    position: float
    before: str
    """What the model had said by then."""
    true: str
    false: str
    """Both are to stand behind `before`, and differ in the value alone."""


Prefer = Callable[[Sequence[Claim]], list[float]]
"""log p(true) - log p(false) of each claim, nats, given the image, the question and what was said before."""


def claims(scene: Scene, response: str, others: Sequence[Scene], seed: int = 0) -> list[Claim]:
    """The claims to put into one response, one for each of `POSITIONS`, all about the same thing.

    It is one of the scene's facts that the response does not state, so that it cannot be copied; the false value is
    that of the same thing in another scene of the same world. So to one who sees nothing each of the two is as likely
    to be the true one, and chance is 1/2. None where there is no such fact.

    Args:
        scene: with facts.
        response: the model's own.
        others: where false values come from.
    """
    stated, die = {fact.about for fact in read_facts(response)}, dice("probe", seed, scene.key)
    values: dict[str, list[str]] = defaultdict(list)
    for other in sorted(others, key=lambda other: other.key):
        if other.world == scene.world:
            for about, value in other.facts:
                values[about].append(value)
    can = [
        (fact, false)
        for fact in scene.facts
        if fact.about not in stated and (false := [value for value in values[fact.about] if value != fact.value])
    ]
    if not can:
        return []
    fact, false = die.choice(can)
    value, thought = die.choice(false), thinking(response)
    found = []
    for position in POSITIONS:
        before = cut(thought, position)
        space = "" if before.endswith((">", "\n", " ")) or not before else " "
        true, other = (f"{space}{Fact(fact.about, said)}." for said in (fact.value, value))
        found.append(Claim(scene, position, before, true, other))
    return found


def thinking(response: str) -> str:
    """What a response says before its answer: up to where its thoughts end, or its first box.

    >>> thinking("<think>top left: 3.</think>\\\\boxed{3}")
    '<think>top left: 3.'
    """
    ends = [place for mark in ("</think>", "\\boxed", "<answer>") if (place := response.find(mark)) != -1]
    return response[: min(ends, default=len(response))][:MOST].rstrip()


def cut(thought: str, position: float) -> str:
    """The first share of a chain of thought, back to where a sentence ends; of the first sentence nothing but the tag.

    >>> text = "<think>I see this: top left: 3. So 3+8=11, 11+1=12."
    >>> cut(text, 0.5), cut(text, 0.9), cut(text, 1.0) == text
    ('<think>', '<think>I see this: top left: 3.', True)
    """
    opened = "<think>" if thought.startswith("<think>") else ""
    most = len(opened) + round(position * (len(thought) - len(opened)))
    if most >= len(thought):
        return thought
    ends = [found.end() for found in _END.finditer(thought, len(opened)) if found.end() <= most]
    return thought[: max(ends, default=len(opened))]


def preference(policy: Policy, asked: Sequence[Claim], *, wording: Wording = "short", at_once: int = 32) -> list[float]:
    """`Prefer` by a policy: the log-probabilities of the tokens in which the two continuations differ, nats.

    Args:
        at_once: claims in one pass; memory only.
    """
    prompts = {}
    for claim in asked:
        if claim.scene.key not in prompts:
            view = key(0, "probe", claim.scene.key)
            prompts[claim.scene.key] = render(policy.reader, claim.scene, ORIGINAL, view, wording=wording)
    found: list[float] = []
    for start in range(0, len(asked), at_once):
        some = asked[start : start + at_once]
        rows = [(claim, claim.before + said) for claim in some for said in (claim.true, claim.false)]
        tokens = [policy.reader.tokenizer(text, add_special_tokens=False)["input_ids"] for _, text in rows]
        logp = _logp(policy, [prompts[claim.scene.key] for claim, _ in rows], tokens)
        for true, false in zip(range(0, len(rows), 2), range(1, len(rows), 2), strict=True):
            same = _alike(tokens[true], tokens[false])
            found.append(sum(logp[true][same:]) - sum(logp[false][same:]))
    return found


@torch.no_grad()
def _logp(policy: Policy, prompts: Sequence, tokens: Sequence[Sequence[int]]) -> list[list[float]]:
    """Of each row, the log-probability of each of its tokens."""
    longest = max(map(len, tokens))
    token_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens])
    mask_BT = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in tokens])
    logits_BTV = policy.logits(prompts, token_BT, mask_BT).float()
    chosen_BT = logits_BTV.gather(-1, token_BT.to(logits_BTV.device)[..., None])[..., 0]
    logp_BT = (chosen_BT - logits_BTV.logsumexp(-1)).tolist()
    return [row[: len(those)] for row, those in zip(logp_BT, tokens, strict=True)]


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with together."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def seen(asked: Sequence[Claim], preferred: Sequence[float]) -> dict[float, dict[str, float]]:
    """Position -> scene -> 1 where the true claim is likelier, -1 where the false one is, 0 where they are alike.

    Its mean is 2 p - 1 with p the share of true claims that are preferred: 0 is chance, 1 is sight.
    """
    found: dict[float, dict[str, float]] = defaultdict(dict)
    for claim, value in zip(asked, preferred, strict=True):
        found[claim.position][claim.scene.key] = float(value > 0) - float(value < 0)
    return dict(found)


def by_position(scores: Mapping[float, Mapping[str, float]]) -> list[tuple[float, Estimate]]:
    """For each position the mean of `seen`, with its interval over questions."""
    return [(position, bootstrap(scores[position], least=-1.0)) for position in sorted(scores)]
