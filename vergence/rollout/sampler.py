"""Asking the policy: the `Sampler` protocol, and from scenes to rollouts."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vergence import chance
from vergence.models.policy import Policy, Reader
from vergence.rewards.judge import Judge
from vergence.rewards.overlong import overlong as penalty
from vergence.rollout.unfinished import Unfinished
from vergence.types import Asked, Prompt, Rollout, Sampled, Scene, UserError


@runtime_checkable
class Sampler(Protocol):
    """One response to each of `asked`, in order.

    A sampler is a function of its arguments and the weights: noise comes from each one's key, the logged
    log-probability is the raw one (before any token was banned), and image tokens are never sampled.
    """

    def __call__(self, asked: Sequence[Asked], *, temperature: float, max_tokens: int) -> list[Sampled]:
        """See the class."""
        ...


@runtime_checkable
class Following(Protocol):
    """A sampler with weights of its own, which are to be those of the policy in training.

    Nothing else is asked of it than what a `Sampler` is asked; these three are called by who trains.
    """

    def follow(self, policy: Policy) -> None:
        """Take the policy's weights, and forget what was kept of the old ones; called before sampling."""
        ...

    def rest(self) -> None:
        """Make room on the device; called when sampling is over and training goes on."""
        ...

    def close(self) -> None:
        """Stop, and leave nothing running; called once, at the end, whatever the end is."""
        ...


def roll_out(
    sampler: Sampler,
    reader: Reader,
    scenes: Sequence[Scene],
    prompts: Sequence[Prompt],
    *,
    siblings: int,
    seed: tuple[int | str, ...],
    temperature: float,
    max_tokens: int,
    judge: Judge,
    overlong: float = 0.0,
    before: Sequence[Scene] = (),
) -> list[Rollout]:
    """`siblings` judged responses to each scene, scene by scene.

    Args:
        prompts: one for each scene.
        seed: with the scene's key and the sibling's number it makes the key of the rollout's noise.
        judge: says what each response is worth.
        overlong: the last share of `max_tokens` in which `rewards.overlong` takes from the reward; 0 is off.
        before: scenes of the same draw that come before these, and are asked elsewhere.

    Raises:
        UserError: `overlong` is not a share.
        ReasonerDown: the judge asks a reasoner that does not answer.
    """
    if not 0.0 <= overlong <= 1.0:
        raise UserError(f"overlong is a share of max_tokens and must lie in [0, 1], got {overlong}")
    keys, seen = [], Counter(scene.key for scene in before)
    for scene in scenes:  # a small source may hold a scene twice: its second time has other noise
        again = (seen[scene.key],) if seen[scene.key] else ()
        keys += [chance.key(*seed, scene.key, sibling, *again) for sibling in range(siblings)]
        seen[scene.key] += 1
    asked = [Asked(prompts[row // siblings], key) for row, key in enumerate(keys)]
    drawn = sampler(asked, temperature=temperature, max_tokens=max_tokens)
    asked_of = [scenes[row // siblings] for row in range(len(keys))]
    texts = [reader.text(sampled.tokens) for sampled in drawn]
    try:
        verdicts = judge(asked_of, texts, keys)
    except UserError:
        if isinstance(sampler, Unfinished):
            sampler.keep()
        raise
    if overlong:
        buffer = max(1, round(overlong * max_tokens))
        verdicts = [
            verdict._replace(reward=verdict.reward + penalty(len(sampled.tokens), max_tokens, buffer))
            for verdict, sampled in zip(verdicts, drawn, strict=True)
        ]
    return [
        Rollout(scene=scene, sibling=row % siblings, key=key, sampled=sampled, text=text, verdict=verdict)
        for row, (scene, key, sampled, text, verdict) in enumerate(
            zip(asked_of, keys, drawn, texts, verdicts, strict=True)
        )
    ]
