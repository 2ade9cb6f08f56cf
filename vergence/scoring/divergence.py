"""From logits to per-token statistics. Everything of vocabulary size stays in this folder."""

from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vergence.types import BT

BTV = Float[Tensor, "B T V"]


def sampled_logp(logp_BTV: BTV, token_BT: Int[Tensor, "B T"]) -> BT:
    """Log-probability of the sampled token, nats.

    >>> sampled_logp(torch.tensor([[[0.25, 0.75]]]).log(), torch.tensor([[1]])).exp()
    tensor([[0.7500]])
    """
    return logp_BTV.gather(-1, token_BT[..., None])[..., 0]


def entropy(logp_BTV: BTV) -> BT:
    """Entropy of the next-token distribution, -sum_v p_v log p_v, nats.

    >>> entropy(torch.full((1, 1, 4), 0.25).log())
    tensor([[1.3863]])
    """
    return -(logp_BTV.exp() * logp_BTV).sum(-1)


def kl(logp_BTV: BTV, other_logp_BTV: BTV) -> BT:
    """KL(p || q) = sum_v p_v (log p_v - log q_v), nats; carries gradient to both.

    >>> p, q = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.25, 0.75]]]).log()
    >>> round(float(kl(p, q)), 4), float(kl(p, p))
    (0.1438, 0.0)
    """
    return (logp_BTV.exp() * (logp_BTV - other_logp_BTV)).sum(-1)


def js(logp_BTV: BTV, other_logp_BTV: BTV) -> BT:
    """JS(p, q) = (KL(p || r) + KL(q || r)) / 2 with r = (p + q) / 2, in [0, log 2] nats; carries gradient to both.

    Lin, "Divergence measures based on the Shannon entropy" (1991).

    >>> p, q = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.25, 0.75]]]).log()
    >>> round(float(js(p, q)), 4), float(js(p, p))
    (0.0338, 0.0)
    """
    middle_BTV = torch.logaddexp(logp_BTV, other_logp_BTV) - log(2)
    return (kl(logp_BTV, middle_BTV) + kl(other_logp_BTV, middle_BTV)) / 2
