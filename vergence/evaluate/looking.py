"""Which words of a response depend on the picture? For any checkpoint and any images, without training."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from types import MappingProxyType
from typing import Any, NamedTuple

from vergence import chance
from vergence.models.policy import Policy
from vergence.models.prefix import Prefix, refusal
from vergence.objectives.cppo import VIEWS
from vergence.rewards.judge import by_verifier
from vergence.rollout.collate import collate
from vergence.rollout.decode import sampler_of
from vergence.rollout.render import Wording, render, render_text
from vergence.rollout.sampler import roll_out
from vergence.scoring.naive import Naive, Scorer
from vergence.scoring.shared import Shared
from vergence.train.step import measure
from vergence.train.traces import Record, at_tokens, compared
from vergence.types import (
    ORIGINAL,
    Blank,
    Erase,
    Prompt,
    Read,
    Rollout,
    Sampled,
    Scene,
    Stats,
    UserError,
    View,
    ViewSpec,
)

NO_IMAGE = "no image"
"""The question alone."""
SHOWS: Mapping[str, ViewSpec | None] = MappingProxyType(
    {
        "masked": Erase(),
        "kept": VIEWS["release"][0],
        "removed": VIEWS["release"][1],
        "blank": Blank(),
        NO_IMAGE: None,
    }
)
"""How the image is shown again: as training is watched with, CPPO's two views, in one grey, and not at all (None)."""
UNMOVED = 0.01
"""Nats: a response of which no word is moved by more says the same without the picture."""
AT_ONCE = 2**14
"""Tokens in one forward pass; memory only."""


def look(
    policy: Policy,
    scenes: Sequence[Scene],
    shows: Mapping[str, ViewSpec | None] = SHOWS,
    *,
    samples: int = 1,
    seed: int = 0,
    temperature: float = 1.0,
    max_tokens: int = 64,
    wording: Wording = "short",
    response: str | None = None,
    step: int = 0,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> list[Record]:
    """What each view says about every token of the policy's responses: records as those of traces.jsonl.

    Sampling noise is keyed by (seed, scene, sample), a view's chance by (seed, scene, view). Statistics are those of
    the model's own distribution (temperature 1). Advantages are None, and of a scene without a right answer (`gold` is
    empty) status and reward are.

    Args:
        shows: the views by name, besides "image"; None is the question without an image.
        samples: responses to each scene.
        response: score this text as the answer to each scene, and sample none.
        step: the training step of the policy, for the record.
        watch: told (scenes done, of how many).

    Raises:
        UserError: there is no text to score, or it holds an image token; or a view cannot be shown.
    """
    reads = [Read("image", "logp"), Read("image", "entropy")]
    for name in shows:
        reads += [Read("image", "kl", name), Read(name, "logp"), Read(name, "entropy")]
    scorer, sampler, found = scorer_of(policy, shows), sampler_of(policy), []
    how = {"siblings": samples, "seed": (seed, "look"), "temperature": temperature, "max_tokens": max_tokens}
    for done, scene in enumerate(scenes):
        watch(done, len(scenes))
        keys = {name: chance.key(seed, "look", repr(show), scene.key) for name, show in shows.items()}
        prompts = prompts_of(policy, scene, shows, keys, wording=wording, others=scenes)
        if response is not None:
            rollouts = [given(policy, scene, response, wording)]
        else:
            judge = by_verifier(wording=wording)
            rollouts = roll_out(sampler, policy.reader, [scene], prompts["image"], judge=judge, **how)
        batch = collate(rollouts, len(rollouts)).to(policy.device)
        stats = measure(batch, scorer, prompts, reads, budget=AT_ONCE)
        views = {"view_key": {"image": 0, **keys}, "views": ["image", *shows]}
        of_tokens = _token_by_token(policy, rollouts, stats, list(shows))
        found += [
            {"step": step, **_about(rollout), **row, **views} for rollout, row in zip(rollouts, of_tokens, strict=True)
        ]
    watch(len(scenes), len(scenes))
    return found


def _token_by_token(policy: Policy, rollouts: Sequence[Rollout], stats: Stats, shows: Sequence[str]) -> list[Record]:
    """For each rollout, what was measured at its tokens."""
    values = {"entropy": stats.entropy("image")}
    values |= {key: value_BT for name in shows for key, value_BT in compared(stats, name, name).items()}
    return [
        at_tokens(policy.reader, rollout, {key: value_BT[row] for key, value_BT in values.items()}, {})
        for row, rollout in enumerate(rollouts)
    ]


def scorer_of(policy: Policy, shows: Mapping[str, ViewSpec | None]) -> Scorer:
    """The scorer that reads each prompt once, where that is exact; else plain forward passes."""
    views = {name: View(ORIGINAL if show is None else show) for name, show in {"image": ORIGINAL, **shows}.items()}
    if refusal(policy.model) is not None:
        return Naive({"now": policy.logits}, views)
    return Shared({"now": Prefix(policy)}, views, budget=AT_ONCE)


def prompts_of(
    policy: Policy,
    scene: Scene,
    shows: Mapping[str, ViewSpec | None],
    keys: Mapping[str, int],
    *,
    wording: Wording = "short",
    others: Sequence[Scene] = (),
) -> dict[str, list[Prompt]]:
    """view -> the scene's prompt, alone in a list; "image" is the scene as it is."""
    reader = policy.reader
    prompts = {"image": [render(reader, scene, ORIGINAL, 0, wording=wording)]}
    for name, show in shows.items():
        if show is None:
            prompts[name] = [render_text(reader, scene.question, wording=wording)]
        else:
            prompts[name] = [render(reader, scene, show, keys[name], wording=wording, others=others)]
    return prompts


def given(policy: Policy, scene: Scene, response: str, wording: Wording = "short") -> Rollout:
    """A text as if the policy had written it: its tokens, judged.

    Raises:
        UserError: it is empty, or holds an image token.
    """
    reader = policy.reader
    tokens = tuple(reader.tokenizer(response, add_special_tokens=False)["input_ids"])
    if not tokens:
        raise UserError("the response to be scored is empty; give some text")
    if set(tokens) & set(reader.banned):
        raise UserError("the response to be scored holds an image token, which no response can hold; remove it")
    nothing = (0.0,) * len(tokens)
    sampled = Sampled(tokens, nothing, nothing, "stop")
    (verdict,) = by_verifier(wording=wording)([scene], [response], [0])
    return Rollout(scene=scene, sibling=0, key=0, sampled=sampled, text=response, verdict=verdict)


def _about(rollout: Rollout) -> Record:
    """What a record says of the whole response."""
    scene, verdict, judged = rollout.scene, rollout.verdict, bool(rollout.scene.gold.text)
    return {
        "scene": scene.key,
        "world": scene.world,
        "sibling": rollout.sibling,
        "question": scene.question,
        "gold": scene.gold.text,
        "kind": scene.gold.kind,
        "response": rollout.text,
        "extracted": verdict.extracted,
        "status": verdict.status if judged else None,
        "finish": rollout.sampled.finish,
        "reward": verdict.reward if judged else None,
        "advantage": None,
    }


# ------------------------------------------------------------------------------------------------- in one sentence


class Word(NamedTuple):
    """A word of a response, and how much a statistic has in it: the sum over its tokens."""

    text: str
    value: float


def words_of(record: Mapping[str, Any], by: str) -> list[Word]:
    """The words of a response in order: between blanks, and apart where letters or digits meet other signs.

    A token's value counts in the word in which it ends, so that the values add up to those of the tokens.

    >>> record = {"tokens": ["red bar", ": ", "7", ". "], "stats": {"kl masked": [0.25, 0.0, 2.0, 0.5]}}
    >>> words_of(record, "kl masked")
    [Word(text='red', value=0.0), Word(text='bar', value=0.25), Word(text=':', value=0.0), Word(text='7', value=2.0), \
Word(text='.', value=0.5)]
    """
    text, ends = "".join(record["tokens"]), []
    for piece in record["tokens"]:
        ends.append((ends[-1] if ends else 0) + len(piece))
    found = [(match.span(), match[0]) for match in re.finditer(r"\\?[^\W_]+|[^\w\s]|_", text)]
    values = [0.0] * len(found)
    for piece, end, value in zip(record["tokens"], ends, values_of(record, by), strict=True):
        upto = end - (len(piece) - len(piece.rstrip()))
        owner = next((k for k, ((start, stop), _) in enumerate(found) if start < upto <= stop), None)
        if owner is not None:
            values[owner] += value
    return [Word(word, value) for (_, word), value in zip(found, values, strict=True)]


def values_of(record: Mapping[str, Any], by: str) -> list[float]:
    """The values of a statistic at a record's tokens, 0 where one is no number.

    Raises:
        UserError: nothing of that name was measured.
    """
    if by not in record["stats"]:
        names = ", ".join(repr(name)[:40] for name in record["stats"])
        raise UserError(f"nothing called {repr(by)[:80]} was measured; take one of {names}")
    return [0.0 if value is None or isnan(value) else value for value in record["stats"][by]]


def sentence(record: Mapping[str, Any], by: str = "kl masked", *, most: int = 8) -> str:
    """Which words of the response depend on the picture: the fewest that have half of what is above zero.

    Signs that are no words are not counted, but have their share of the whole.

    >>> record = {"tokens": ["red", " bar", ":", " 7"], "stats": {"kl masked": [0.1, 0.0, 0.0, 2.0]}}
    >>> sentence(record)
    'Of 3 words, 1 depends most on the picture: "7" (2.00); it has 95 % of all kl masked.'
    >>> sentence({"tokens": [" 7"], "stats": {"kl masked": [0.001]}})
    'No word of this response depends on the picture: none has more than 0.01 of kl masked.'
    """
    words = words_of(record, by)
    spoken = [word for word in words if any(map(str.isalnum, word.text))]
    ranked = sorted(spoken, key=lambda word: -word.value)
    if not ranked or ranked[0].value <= UNMOVED:
        return f"No word of this response depends on the picture: none has more than {UNMOVED:g} of {by}."
    everything, chosen = sum(max(0.0, word.value) for word in words), []
    for word in ranked[:most]:
        chosen.append(word)
        if sum(one.value for one in chosen) >= everything / 2:
            break
    share = 100 * sum(one.value for one in chosen) / everything
    named = ", ".join(f'"{word.text}" ({word.value:.2f})' for word in chosen)
    verbs = ("depends", "it has") if len(chosen) == 1 else ("depend", "they have")
    return (
        f"Of {len(spoken)} words, {len(chosen)} {verbs[0]} most on the picture: {named}; "
        f"{verbs[1]} {share:.0f} % of all {by}."
    )
