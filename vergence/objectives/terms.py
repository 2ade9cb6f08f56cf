"""Per-token terms: tensors in, a tensor of the same shape out, to be minimised, never reduced."""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Literal, NamedTuple

import torch

from vergence.types import BT


def ratio(logp_BT: BT, sampled_logp_BT: BT) -> BT:
    """Importance ratio exp(l - l_sampled), the log-ratio held to +-20 as in the released code of PAPO.

    >>> ratio(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -100.0]])).log()
    tensor([[ 0., 20.]])
    """
    return (logp_BT - sampled_logp_BT).clamp(-20.0, 20.0).exp()


def surrogate(
    logp_BT: BT, sampled_logp_BT: BT, advantage_BT: BT, *, clip: tuple[float, float], dual: float | None = None
) -> BT:
    """Clipped policy-gradient surrogate: max(-A r, -A clip(r, 1 - low, 1 + high)); at most -A dual where A < 0.

    PPO, arXiv:1707.06347 eq. 7. `low != high` is DAPO's clip-higher, arXiv:2503.14476. The second bound is the dual
    clip, arXiv:1912.09729: without it a token of negative advantage whose ratio runs away costs without limit.

    Args:
        logp_BT: log-probabilities under the policy that is trained, nats; carries the gradient.
        sampled_logp_BT: log-probabilities under the policy that sampled, nats; constant.
        advantage_BT: advantages; constant.
        clip: (low, high), both >= 0.
        dual: the bound, > 1; None leaves it out.

    Returns:
        One value per token, in units of the advantage.

    >>> logp_BT = torch.tensor([[1.0, 1.25, 4.0], [1.0, 1.25, 4.0]]).log()          # ratios 1, 1.25 and 4
    >>> advantage_BT = torch.tensor([[1.0] * 3, [-1.0] * 3])
    >>> surrogate(logp_BT, torch.zeros(2, 3), advantage_BT, clip=(0.2, 0.2), dual=3.0)
    tensor([[-1.0000, -1.2000, -1.2000],
            [ 1.0000,  1.2500,  3.0000]])
    """
    low, high = clip
    ratio_BT = ratio(logp_BT, sampled_logp_BT)
    value_BT = torch.maximum(-advantage_BT * ratio_BT, -advantage_BT * ratio_BT.clamp(1 - low, 1 + high))
    if dual is None:
        return value_BT
    return torch.where(advantage_BT < 0, torch.minimum(value_BT, -advantage_BT * dual), value_BT)


class Clipped(NamedTuple):
    """1.0 where the surrogate has no gradient because of the clip, else 0.0."""

    low_BT: BT
    high_BT: BT


def clip_fraction(logp_BT: BT, sampled_logp_BT: BT, advantage_BT: BT, *, clip: tuple[float, float]) -> Clipped:
    """Which tokens are clipped: below (r < 1 - low, A < 0) and above (r > 1 + high, A > 0). Average by `PER_TOKEN`.

    The metrics `clip_ratio/low` and `clip_ratio/high` of TRL. Arguments as of `surrogate`; no gradient.

    >>> logp_BT = torch.tensor([[0.5, 1.0, 1.5], [0.5, 1.0, 1.5]]).log()
    >>> advantage_BT = torch.tensor([[1.0] * 3, [-1.0] * 3])
    >>> low_BT, high_BT = clip_fraction(logp_BT, torch.zeros(2, 3), advantage_BT, clip=(0.2, 0.2))
    >>> low_BT.tolist(), high_BT.tolist()
    ([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    """
    low, high = clip
    ratio_BT = ratio(logp_BT.detach(), sampled_logp_BT)
    return Clipped(
        low_BT=((ratio_BT < 1 - low) & (advantage_BT < 0)).to(ratio_BT.dtype),
        high_BT=((ratio_BT > 1 + high) & (advantage_BT > 0)).to(ratio_BT.dtype),
    )


# ------------------------------------------------------------------------------------------- estimators of KL(p || q)
#
# All see one sampled token: l = log p, drawn from p, and l_q = log q, with x = l_q - l. None has a score-function term,
# so as a loss each follows only its pathwise gradient, and that need not be the gradient of what it estimates.


def k1(logp_BT: BT, other_logp_BT: BT) -> BT:
    """-x: has mean KL(p || q), and in the mean no gradient in p.

    Schulman, "Approximating KL divergence" (2020). The expectation under p of the gradient of log p is 0.

    Args:
        logp_BT: log p of the sampled tokens, nats; carries the gradient.
        other_logp_BT: log q of the same tokens, nats; carries the gradient if the view was read with it.

    >>> k1(torch.tensor([[0.5]]).log(), torch.tensor([[0.25]]).log())          # log 2
    tensor([[0.6931]])
    """
    return logp_BT - other_logp_BT


def k2(logp_BT: BT, other_logp_BT: BT) -> BT:
    """x^2 / 2: has a mean near KL(p || q), and in the mean exactly its gradient in p.

    Schulman (2020); `mse` in the released code. Arguments as of `k1`.

    >>> k2(torch.tensor([[0.5]]).log(), torch.tensor([[0.25]]).log())          # (log 2)^2 / 2
    tensor([[0.2402]])
    """
    return 0.5 * (other_logp_BT - logp_BT).square()


def k3(logp_BT: BT, other_logp_BT: BT, *, reach: float = 20.0, limit: float = inf) -> BT:
    """exp(x) - x - 1: has mean KL(p || q), and in the mean the gradient of KL(q || p), the other direction.

    Schulman (2020); arXiv:2402.03300 eq. 4; `low_var_kl` in the released code (PAPO, verl/trainer/core_algos.py). Never
    negative. Its gradient in log p is 1 - q/p: as a penalty on a reference that is KL to second order, but maximised it
    pushes p to 0 wherever q is large, without bound, which the `limit` of the released code stops at q/p > 13.61.

    Args:
        logp_BT, other_logp_BT: as of `k1`.
        reach: |x| is held to this, nats; beyond it there is no gradient.
        limit: the value is held to this, nats; above it there is no gradient.

    >>> p_BT, q_BT = torch.tensor([[0.5, 0.5, 0.01]]), torch.tensor([[0.25, 0.5, 0.5]])
    >>> k3(p_BT.log(), q_BT.log(), limit=10.0)          # 1/2 + log 2 - 1, then 0, then 50 - log 50 - 1 = 45.1, held
    tensor([[ 0.1931,  0.0000, 10.0000]])
    """
    x_BT = (other_logp_BT - logp_BT).clamp(-reach, reach)
    return (x_BT.exp() - x_BT - 1).clamp(max=limit)


def k3_printed(logp_BT: BT, other_logp_BT: BT, *, reach: float = 20.0, limit: float = inf) -> BT:
    """exp(-x) + x - 1, with r = p/q: r - log r - 1, as PAPO prints it. `k3` of the two exchanged.

    arXiv:2507.06448 section 3.2. Its mean under p is chi^2(p || q) - KL(p || q), and in the mean its gradient in p is
    that of chi^2(p || q) / 2. Arguments as of `k3`.

    >>> k3_printed(torch.tensor([[0.5]]).log(), torch.tensor([[0.25]]).log())          # 2 - log 2 - 1
    tensor([[0.3069]])
    """
    return k3(other_logp_BT, logp_BT, reach=reach, limit=limit)


Estimator = Literal["k1", "k2", "k3", "k3-printed"]

ESTIMATORS: dict[str, Callable[[BT, BT], BT]] = {"k1": k1, "k2": k2, "k3": k3, "k3-printed": k3_printed}

CAPPED = {**ESTIMATORS, "k3": partial(k3, limit=10.0), "k3-printed": partial(k3_printed, limit=10.0)}
"""The same as the released code runs them: those with an exponential are held to 10 nats."""


def surprise(logp_BT: BT) -> BT:
    """-log p of the sampled token: has mean H(p), and in the mean no gradient in p.

    PAPO's entropies, arXiv:2507.06448 appendix H and dp_actor.py. On policy the expected gradient of log p is 0; where
    sampling cut off the tails (top-p), minimising this is a weak pull towards the tokens that could be sampled.

    Args:
        logp_BT: log-probabilities of the sampled tokens, nats; carries the gradient if the view was read with it.

    >>> surprise(torch.tensor([[0.5]]).log())
    tensor([[0.6931]])
    """
    return -logp_BT


def itself(value_BT: BT) -> BT:
    """What was read, as it is: for a divergence or an entropy that the scorer took over the whole vocabulary."""
    return value_BT
