"""Asking the policy: the `Sampler` protocol, and from scenes to rollouts."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vergence import chance
from vergence.models.policy import Reader
from vergence.rewards.typed import verify
from vergence.types import Asked, Prompt, RewardSpec, Rollout, Sampled, Scene


@runtime_checkable
class Sampler(Protocol):
    """One response to each of `asked`, in order.

    A sampler is a function of its arguments and the weights: noise comes from each one's key, the logged
    log-probability is the raw one (before any token was banned), and image tokens are never sampled.
    """

    def __call__(self, asked: Sequence[Asked], *, temperature: float, max_tokens: int) -> list[Sampled]:
        """See the class."""
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
    reward: RewardSpec,
) -> list[Rollout]:
    """`siblings` verified responses to each scene, scene by scene.

    Args:
        prompts: one for each scene.
        seed: with the scene's key and the sibling's number it makes the key of the rollout's noise.
    """
    keys = [chance.key(*seed, scene.key, sibling) for scene in scenes for sibling in range(siblings)]
    asked = [Asked(prompts[row // siblings], key) for row, key in enumerate(keys)]
    drawn = sampler(asked, temperature=temperature, max_tokens=max_tokens)
    rollouts = []
    for row, (key, sampled) in enumerate(zip(keys, drawn, strict=True)):
        scene, text = scenes[row // siblings], reader.text(sampled.tokens)
        verdict = verify(text, scene.gold, reward)
        rollouts.append(
            Rollout(scene=scene, sibling=row % siblings, key=key, sampled=sampled, text=text, verdict=verdict)
        )
    return rollouts
