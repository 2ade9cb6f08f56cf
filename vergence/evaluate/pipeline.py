"""RACRO's inference (arXiv:2506.04559): the policy captions and answers tentatively, a text-only reasoner decides.

The reasoner sees text alone, so it can be exchanged without training anything: what a better one gains is told apart
from what better captions gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from PIL.Image import Image

from vergence import chance
from vergence.evaluate.asked import about_asking
from vergence.evaluate.errors import error_of
from vergence.evaluate.suite import Keep, Record, Told, under
from vergence.models.policy import Policy
from vergence.rewards.form import last_boxed
from vergence.rewards.judge import leaks
from vergence.rewards.reasoner import Question, Reasoner, question
from vergence.rewards.verify import verify
from vergence.rollout.decode import sampler_of
from vergence.rollout.render import Ask, Wording, render
from vergence.scenes.speech import false_facts
from vergence.train.run import about_gold
from vergence.types import ORIGINAL, Asked, Gold, Prompt, RewardSpec, Scene, UserError, ViewSpec


class Answered(NamedTuple):
    """What came of one question."""

    caption: str
    """What the policy says it sees."""
    tentative: str
    """The policy's own whole response; empty where none was asked for."""
    response: str
    """The reasoner's."""
    extracted: str | None
    """The answer in the reasoner's last box; None if there is none."""


def answer_by_reasoner(
    policy: Policy,
    reasoner: Reasoner,
    scenes: Sequence[Scene],
    *,
    samples: int = 4,
    seed: int = 0,
    temperature: float = 1.0,
    max_tokens: int = 64,
    wording: Wording = "short",
    tentative: bool = True,
    show: ViewSpec = ORIGINAL,
    at_once: int = 256,
    told: Told = lambda done, of: None,
    keep: Keep = lambda chunk: None,
    done: Sequence[Record] = (),
    named: str = "",
) -> list[Record]:
    """One record per answer, `samples` to each scene: `evaluate.suite.answer`'s fields, and what came before.

    `response`, `extracted` and `status` are the reasoner's (`finish` is always "stop": a reasoner does not say).
    `caption` and `tentative` are the policy's, `tokens` is the number of both, and `prompt` is the caption's;
    `caption_leaks` says whether the caption gave the answer away; `false_facts` counts the facts that the *caption*
    states and that are not so, and `error` says by what a wrong answer is wrong, caption and response read as one,
    where the scene knows its facts (else None). All noise is keyed by (seed, scene, sample): two reasoners asked with
    one seed get the same captions.

    RACRO takes the likeliest caption and lets the reasoner sample at 0.6; here one temperature holds for all three.

    Args:
        max_tokens: of the caption, of the tentative response, and of the reasoner's.
        tentative: ask the policy for its own answer too, and show it to the reasoner.
        show: how the policy sees the scenes.
        at_once: answers in a chunk.
        told: called after each chunk, for a progress bar.
        keep, done: as `evaluate.suite.answer` has them.
        named: the reasoner's name, as the records tell it.

    Raises:
        UserError: a number is out of its range.
        ReasonerDown: the reasoner stopped answering. Every chunk before was given to `keep`.
    """
    if at_once < 1:
        raise UserError(f"at_once must be at least 1, got {at_once}")
    how = {"temperature": temperature, "max_tokens": max_tokens, "wording": wording}
    asked_so = under(policy, seed=seed, samples=samples, show=show, **how) | {"reasoner": named}
    through = partial(_through, policy, reasoner, tentative=tentative, show=show, **how)
    rows = [(scene, sample) for scene in scenes for sample in range(samples)]
    records: list[Record] = list(done)
    for start in range(len(done), len(rows), at_once):
        some = rows[start : start + at_once]
        keys = [chance.key(seed, "pipeline", scene.key, sample) for scene, sample in some]
        answered = through([scene for scene, _ in some], keys)
        new = [_record(*row, one) | asked_so for row, one in zip(some, answered, strict=True)]
        keep(new)
        records += new
        told(len(records), len(rows))
    return records


def answer_one(
    policy: Policy,
    reasoner: Reasoner,
    images: Sequence[Image],
    asked: str,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    max_tokens: int = 64,
    wording: Wording = "short",
    tentative: bool = True,
) -> Answered:
    """The caption, the tentative response, the reasoner's response and its answer to one question about images.

    Raises:
        UserError: the question is empty, or the images or the question cannot be read by the policy.
        ReasonerDown: the reasoner does not answer.
    """
    if not asked.strip():
        raise UserError("the question is empty: there is nothing to answer")
    scene = Scene(key="asked", world="asked", images=tuple(images), question=asked, gold=Gold("", "word"))
    (answered,) = _through(
        policy,
        reasoner,
        [scene],
        [chance.key(seed, "pipeline", scene.key, 0)],
        temperature=temperature,
        max_tokens=max_tokens,
        wording=wording,
        tentative=tentative,
    )
    return answered.answered


class _Gone(NamedTuple):
    """One way through."""

    answered: Answered
    tokens: int
    """That the policy sampled."""
    about: dict[str, Any]
    """What was asked: `evaluate.asked.about_asking`, of the caption."""


def _through(
    policy: Policy,
    reasoner: Reasoner,
    scenes: Sequence[Scene],
    keys: Sequence[int],
    *,
    temperature: float,
    max_tokens: int,
    wording: Wording,
    tentative: bool,
    show: ViewSpec = ORIGINAL,
) -> list[_Gone]:
    """One way through for each of `scenes`, with the noise of `keys`."""
    tokens, about = [0] * len(scenes), {}

    def say(ask: Ask) -> list[str]:
        prompts: dict[str, Prompt] = {}  # the samples of a scene share its prompt
        for scene in scenes:
            if scene.key not in prompts:
                prompts[scene.key] = render(policy.reader, scene, show, 0, ask=ask, wording=wording)
                if ask == "caption":
                    about[scene.key] = about_asking(policy.reader, scene, prompts[scene.key])
        drawn = sampler_of(policy)(
            [Asked(prompts[scene.key], chance.key(key, ask)) for scene, key in zip(scenes, keys, strict=True)],
            temperature=temperature,
            max_tokens=max_tokens,
        )
        for row, one in enumerate(drawn):
            tokens[row] += len(one.tokens)
        return [policy.reader.text(one.tokens) for one in drawn]

    # a question without an image goes to the reasoner as it is, as in RACRO's inference
    captions = [text if scene.images else "" for text, scene in zip(say("caption"), scenes, strict=True)]
    said = say("answer") if tentative else [""] * len(scenes)
    own = [text if scene.images else "" for text, scene in zip(said, scenes, strict=True)]
    how = "short" if wording == "short" else "think"
    put = [
        Question(question(caption, scene.question, _shown(text, wording), wording=how), chance.key(key, "reasoner"))
        for scene, caption, text, key in zip(scenes, captions, own, keys, strict=True)
    ]
    responses = reasoner(put, temperature=temperature, max_tokens=max_tokens)
    if len(responses) != len(put):
        raise UserError(f"the reasoner gave {len(responses)} answers to {len(put)} questions")
    return [
        _Gone(Answered(*row, last_boxed(row[2])), number, about[scene.key])
        for *row, number, scene in zip(captions, own, responses, tokens, scenes, strict=True)
    ]


def _shown(tentative: str, wording: Wording) -> str:
    """What the reasoner sees of a tentative response: all of it, as in RACRO; in the short wording its answer alone."""
    return (last_boxed(tentative) or "") if wording == "short" else tentative


def _record(scene: Scene, sample: int, one: _Gone) -> Record:
    answered = one.answered
    verdict = verify(answered.response, scene.gold, RewardSpec(accuracy=1.0, format=0.0))
    return {
        "scene": scene.key,
        "world": scene.world,
        "sample": sample,
        "question": scene.question,
        "gold": scene.gold.text,
        **about_gold(scene.gold),
        "response": answered.response,
        "extracted": verdict.extracted,
        "status": verdict.status,
        "finish": "stop",
        "false_facts": len(false_facts(answered.caption, scene.facts)) if scene.facts else None,
        "error": error_of(f"{answered.caption}\n{answered.response}", verdict.status, "stop", scene),
        "caption": answered.caption,
        "tentative": answered.tentative,
        "caption_leaks": leaks(answered.caption, scene),
        "tokens": one.tokens,
        **one.about,
    }
