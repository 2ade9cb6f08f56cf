"""Reward functions with TRL's signature: our verifier's two halves, and RACRO's reward by a frozen reasoner."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from vergence import chance
from vergence.rewards.form import well_formed
from vergence.rewards.judge import by_reasoner
from vergence.rewards.kinds import read_gold
from vergence.rewards.reasoner import Reasoner
from vergence.rewards.verify import verify_all
from vergence.rollout.reason import load_reasoner
from vergence.rollout.render import put
from vergence.types import Gold, Method, RewardSpec, Scene, UserError, Wording

Rewards = Callable[..., list[float | None]]
"""What TRL calls with `prompts`, `completions` and the columns of the data, by name."""
ACCURACY = RewardSpec(accuracy=1.0, format=0.0)


def verifier_reward(*, wording: Wording = "short") -> Rewards:
    """The reward function `accuracy`: 1 where the answer is the column `solution`, by `rewards.verify`, else 0.

    A column `kind` says of which kind the answers are, and `choices` what letters stand for; without, it is inferred.

    >>> accuracy = verifier_reward(wording="boxed")
    >>> accuracy(completions=["\\\\boxed{7}", [{"role": "assistant", "content": "\\\\boxed{8}"}]], solution=["7", "7"])
    [1.0, 0.0]

    Args:
        wording: how the question was put, and so where the answer stands.

    Raises:
        UserError: when called: there is no column `solution`, or one of its values is no answer.
    """

    def accuracy(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        verdicts = verify_all(texts_of(completions), golds_of(columns, len(completions)), ACCURACY, wording=wording)
        return [verdict.accuracy for verdict in verdicts]

    return accuracy


def format_reward(*, wording: Wording = "short") -> Rewards:
    """The reward function `format`: 1 where a completion has the form that the wording asks for, else 0.

    >>> form = format_reward(wording="think")
    >>> form(completions=["<think>so</think>\\\\boxed{7}", "7"])
    [1.0, 0.0]

    Args:
        wording: how the question was put.
    """

    def format(completions: Sequence[Any], **_: Any) -> list[float | None]:
        return [float(well_formed(text, wording)) for text in texts_of(completions)]

    return format


def caption_prompt(question: str, *, wording: Wording = "short") -> str:
    """The request for a caption that a reasoner is to answer this question from; the user's turn for RACRO.

    >>> caption_prompt("What is the sum of the top row?")
    'What is the sum of the top row? Describe.'
    """
    return put(question, ask="caption", wording=wording)


def racro_reward(
    *,
    reasoner: str | Reasoner = "strong",
    model: str = "",
    samples: int = 1,
    leak: float = 0.0,
    wording: Wording = "short",
    temperature: float = 1.0,
    max_tokens: int = 64,
    seed: int = 0,
) -> Callable[..., Awaitable[list[float | None]]]:
    """RACRO's reward (arXiv:2506.04559): a completion is a caption, worth what a frozen reasoner answers from it.

    R = share of the reasoner's answers that are the column `solution`  -  leak * [the caption gives the answer away]

    TRL awaits it beside its other asynchronous functions; the reasoner answers in a thread. The data needs `question`,
    which the reasoner is asked after the caption, and `solution`; `kind`, `choices` and `caption` (the honest one, by
    which a leak is told) are used if they are there. Answer i to a caption has the noise of
    (seed, step, question, caption, i).

    Args:
        reasoner: "weak" or "strong", which are in the package; a folder; the address of an OpenAI-compatible server;
            or any `rewards.reasoner.Reasoner`.
        model: the name of the server's model.
        samples: answers to each caption.
        leak: penalty, in units of reward.
        wording: "short" asks in few words; any other as RACRO does, for a box.
        temperature, max_tokens: of each answer.
        seed: of the noise.

    Raises:
        UserError: there is no such reasoner, or samples is below 1; when called: the data lacks a column.
    """
    asked = load_reasoner(reasoner, model=model) if isinstance(reasoner, str) else reasoner
    spec = RewardSpec(accuracy=1.0, format=0.0, judge="reasoner", samples=samples, leak=leak)
    judge = by_reasoner(asked, spec, wording=wording, temperature=temperature, max_tokens=max_tokens)

    async def racro(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        texts = texts_of(completions)
        if "question" not in columns:
            raise UserError("the reasoner is asked the column 'question', which the data does not have: add it")
        golds, questions = golds_of(columns, len(texts)), columns["question"]
        captions = columns.get("caption") or [""] * len(texts)
        step = getattr(columns.get("trainer_state"), "global_step", 0)
        scenes = [
            Scene(key="", world="trl", images=(), question=question, gold=gold, caption=caption or "")
            for question, gold, caption in zip(questions, golds, captions, strict=True)
        ]
        keys = [
            chance.key(seed, "racro", step, question, text, row)
            for row, (question, text) in enumerate(zip(questions, texts, strict=True))
        ]
        verdicts = await asyncio.to_thread(judge, scenes, texts, keys)
        return [verdict.reward for verdict in verdicts]

    racro.asks_a_reasoner = spec  # type: ignore[attr-defined]
    return racro


def refuse_without_reasoner(method: Method, functions: Sequence[Any]) -> None:
    """Refuse RACRO without its reward, or with one that does not do what the method's options say.

    Raises:
        UserError: the method's reward asks a reasoner, and none of the reward functions does, or not as often.
    """
    if method.reward.judge != "reasoner":
        return
    asks = [one.asks_a_reasoner for one in functions if hasattr(one, "asks_a_reasoner")]
    if not asks:
        raise UserError(
            "the method is a reward of captions, by what a reasoner answers from them: give "
            "vergence.integrations.trl_rewards.racro_reward(...) among the reward functions, or take method='grpo'"
        )
    wanted, usual = method.reward, RewardSpec()
    for name in ("samples", "leak"):
        said = getattr(wanted, name)
        if said != getattr(usual, name) and all(getattr(spec, name) != said for spec in asks):
            raise UserError(
                f"options={{{name!r}: {said}}} is for the reward function to do: give racro_reward({name}={said})"
            )


def texts_of(completions: Sequence[Any]) -> list[str]:
    """The words of each completion, which TRL gives as text or as a conversation.

    >>> texts_of(["a", [{"role": "assistant", "content": "b"}], [{"content": [{"type": "text", "text": "c"}]}]])
    ['a', 'b', 'c']
    """
    return [_text(one) for one in completions]


def _text(one: Any) -> str:
    if isinstance(one, str):
        return one
    if isinstance(one, Mapping):
        return _text(one.get("content", one.get("text", "")))
    return "".join(map(_text, one))


def golds_of(columns: Mapping[str, Any], number: int) -> list[Gold]:
    """The right answers: of the column `solution`, of the kind in the column `kind`, or of the one that they look like.

    Raises:
        UserError: there is no such column; or a row of it is no answer, or not of its kind.
    """
    if "solution" not in columns:
        raise UserError("rewards need the right answers in a column 'solution', which the data does not have: add it")
    kinds, choices = (columns.get(name) or [None] * number for name in ("kind", "choices"))
    golds = []
    for row, (text, kind, those) in enumerate(zip(columns["solution"], kinds, choices, strict=True)):
        try:
            golds.append(read_gold(str(text), choices=tuple(those or ()), kind=kind or None))
        except UserError as error:
            raise UserError(f"the solution of row {row} of this batch, {str(text)[:80]!r}: {error}") from error
    return golds
