"""How far the sampler's log-probabilities are from the trainer's, and what is done about it.

A response is drawn from what the sampler computes and trained by what the trainer computes. With another engine the two
differ by rounding; with weights that are a batch older, by what was learnt since; with other pixels, by anything.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Literal

from vergence.objectives.terms import k3, ratio
from vergence.train.config import Config
from vergence.types import BT, Batch, Mask, Metrics, UserError

Correction = Literal["truncate", "mask"]


class GapTooWide(UserError):
    """Sampler and trainer differ by more than the run allows, or by what is no number."""


def is_read(config: Config) -> bool:
    """Whether the responses are read under the trainer's weights before they train: always where another samples.

    >>> is_read(Config()), is_read(Config(sampler="vllm")), is_read(Config(most_gap=0.1))
    (False, True, True)
    """
    return config.sampler != "own" or config.correction != "none" or config.most_gap > 0


def importance(trainer_BT: BT, sampler_BT: BT, *, correction: Correction, cap: float) -> BT:
    """The weight of each token's advantage, with rho = exp(l_trainer - l_sampler), the log-ratio held to +-20.

    truncate:  w = min(rho, cap)                          mask:  w = rho where 1/cap <= rho <= cap, else 0

    Truncated importance sampling is Ionides's (2008) and V-trace's (IMPALA, arXiv:1802.01561); between sampler and
    trainer it is that of Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (2025).
    The mask is IcePop's (Ring-1T, arXiv:2510.18855), with bounds that mirror each other. Without a bound the weighted
    mean has the expectation under the trainer's distribution; either bound trades some of that for less variance.

    Args:
        trainer_BT: log-probabilities under the trainer's weights before its first step on the batch, nats; constant.
        sampler_BT: those that the sampler gave, nats; constant.
        cap: at least 1; above 1 for the mask.

    >>> import torch
    >>> rho_BT = torch.tensor([[0.25, 0.5, 1.0, 2.0, 4.0]])
    >>> importance(rho_BT.log(), torch.zeros(1, 5), correction="truncate", cap=2.0)
    tensor([[0.2500, 0.5000, 1.0000, 2.0000, 2.0000]])
    >>> importance(rho_BT.log(), torch.zeros(1, 5), correction="mask", cap=2.5)
    tensor([[0.0000, 0.5000, 1.0000, 2.0000, 0.0000]])
    """
    rho_BT = ratio(trainer_BT, sampler_BT)
    if correction == "truncate":
        return rho_BT.clamp(max=cap)
    return rho_BT.where((rho_BT >= 1 / cap) & (rho_BT <= cap), 0.0)


def anchored(batch: Batch, trainer_BT: BT) -> Batch:
    """The batch whose ratio has the trainer's log-probabilities for its denominator.

    The surrogate's ratio then says how far the policy has moved since the batch began, and is 1 at the first step; the
    weight of `weighed` says what lies between sampler and trainer: the decoupled objective of Hilton et al.
    (arXiv:2110.00641), for older weights AReaL's (arXiv:2505.24298). What reshapes advantages by the distance from the
    image to another view (CapPO, VPPO) then has both sides from the trainer, too.

    Args:
        trainer_BT: as of `importance`.
    """
    return replace(batch, sampled_logp_BT=trainer_BT.to(batch.sampled_logp_BT.dtype, copy=True))  # each is saved


def weighed(batch: Batch, sampler_BT: BT, *, correction: Correction, cap: float) -> Batch:
    """The batch of `anchored` with each token's advantage times its weight (`importance`).

    That weighs the surrogate, which is positively homogeneous in A. Signs stay, and with them what is clipped; so does
    `advantage_B`, and with it every gate. A token of weight 0 has no surrogate and is still counted by the mean. Other
    terms (KL, entropy, perception) are not weighed.

    Args:
        sampler_BT: as of `importance`.
    """
    weight_BT = importance(batch.sampled_logp_BT, sampler_BT, correction=correction, cap=cap)
    return replace(batch, advantage_BT=batch.advantage_BT * weight_BT.where(batch.mask_BT, 0.0))


def gap(trainer_BT: BT, sampler_BT: BT, mask_BT: Mask, *, cap: float, most: float = 0.0) -> Metrics:
    """What there is to say of the gap d = l_trainer - l_sampler, over the response tokens.

    `sampler/gap_mean` and `gap_max` are of |d|, nats. `kl` is the mean of exp(d) - d - 1, which estimates KL(sampler ||
    trainer) per token (k3, Schulman 2020), nats. `ratio_mean` is that of exp(d), whose expectation is 1 whatever the
    two are; `ratio_outside` the share of tokens whose ratio is outside [1/cap, cap]; `gap_of_most`, where there is a
    bound `most`, the share of it that the mean has reached.

    >>> import torch
    >>> trainer_BT, sampler_BT = torch.tensor([[0.5, 0.5, 0.1]]).log(), torch.tensor([[0.5, 0.25, 0.9]]).log()
    >>> seen = gap(trainer_BT, sampler_BT, torch.tensor([[True, True, False]]), cap=1.5)    # d = 0 and log 2
    >>> {name: round(value, 4) for name, value in seen.items()}
    {'sampler/gap_mean': 0.3466, 'sampler/gap_max': 0.6931, 'sampler/kl': 0.1534, 'sampler/ratio_mean': 1.5, \
'sampler/ratio_outside': 0.5}
    """
    trainer, sampler = trainer_BT[mask_BT].double(), sampler_BT[mask_BT].double()
    apart, rho = (trainer - sampler).abs(), ratio(trainer[None], sampler[None])[0]
    return {
        "sampler/gap_mean": apart.mean().item(),
        "sampler/gap_max": apart.max().item(),
        "sampler/kl": k3(sampler[None], trainer[None]).mean().item(),
        "sampler/ratio_mean": rho.mean().item(),
        "sampler/ratio_outside": ((rho < 1 / cap) | (rho > cap)).double().mean().item(),
        **({"sampler/gap_of_most": apart.mean().item() / most} if most else {}),
    }


def refuse_wide(seen: Metrics, config: Config, *, tokens: int) -> None:
    """Raise where no step should be taken on what was sampled.

    Args:
        seen: what `gap` says of the batch.

    Raises:
        GapTooWide: the mean is above `config.most_gap`, or not finite; the message says what usually makes it so.
    """
    mean, greatest = seen["sampler/gap_mean"], seen["sampler/gap_max"]
    if not isfinite(mean):
        raise GapTooWide(
            f"a log-probability of the sampler ({config.sampler}) or of the trainer is not finite, in a batch of "
            f"{tokens} tokens: the weights of one of them are likely lost. Go back to a checkpoint before it, or take "
            f"dtype float32"
        )
    if config.most_gap and mean > config.most_gap:
        older = " Weights that are a batch older (ahead=1) have a share in it, too." if config.ahead else ""
        raise GapTooWide(
            f"the log-probabilities of the sampler ({config.sampler}) and of the trainer differ by {mean:.3g} nats in "
            f"the mean of {tokens} tokens, by {greatest:.3g} at most, and most_gap={config.most_gap:g} allows no more. "
            f"Usually the sampler sees other pixels (a resizing or limits of its own), has other weights (they did not "
            f"reach it, or without the adapters), computes in another precision, or answers from a cache of older "
            f"weights.{older} No step was taken on this batch. Mend it and go on with --resume, or allow more "
            f"(--most-gap; 0 is no bound)"
        )
