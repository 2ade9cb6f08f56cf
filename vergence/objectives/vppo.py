"""VPPO: visually-perceptive policy optimisation (arXiv:2510.09285): the advantage goes where the image mattered."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vergence.objectives.objective import composed
from vergence.objectives.papo import Grid, erased
from vergence.objectives.selecting import top_share
from vergence.objectives.terms import k3
from vergence.objectives.weighting import share_of_row
from vergence.types import BT, About, B, Batch, Mask, Method, Read, Reshape, Stats, UserError

VPPO = About(
    title="Visually-perceptive policy optimisation",
    paper="2510.09285",
    variant="release",
    deviations=(
        "a token's dependence on the image is k3 of the sampled token, held to 10 nats, as the code does; the paper "
        "writes the KL over the vocabulary",
        "of T tokens ceil(top T) are kept, as the code does; of equal ones the earlier, in the code as its sort has it",
        "least, greatest and mean dependence are of the whole round on all ranks; the code has the first two of one "
        "rank's share of an optimizer step, and the mean of a micro-batch, whose size bounds alpha",
        "alpha divides exactly; the code adds 1e-8. It is 1 if dependences differ by at most 1e-6, as in the code",
        "the reward is the base's; the published scripts reward the answer alone, not the format",
        "the switch that keeps tokens of high entropy too is off by default, and not built",
    ),
    reconstructed=(
        "the settings on GRPO: those of the code's own GRPO, with the entropy penalty; no script of that run is public",
    ),
)

MASKED = Read("masked", "logp", when="frozen")


def vppo(
    base: Method,
    *,
    top: float = 0.4,
    low: float = 0.9,
    fraction: float = 0.5,
    cell: int = 14,
    grid: Grid = "raw",
    saliency: str = "",
) -> Method:
    """The base, its advantage spent on the tokens that depend on the image, and more on rollouts that do.

    A_it = m_it alpha_i A_i,   m_it = 1 on the ceil(top T_i) tokens of greatest S_it,   S_it = k3(l_sampled, l_masked)

    arXiv:2510.09285 section 3 and its released code (dp_actor.py); alpha as of `shaped`, of the mean S of each rollout.
    Since the surrogate is positively homogeneous in A, this is the mask on the surrogate; the mean still counts every
    response token. The masked view is read once, under the weights that sampled, without gradient. The penalty on
    entropy is the base's option `entropy`.

    Args:
        base: whose advantages are reshaped.
        top: share of each response's tokens that train, in (0, 1]; 1 is all.
        low: factor of the rollout that depends on the image least, in [0, 1]; 1 leaves the rollouts as they are.
        fraction, cell, grid, saliency: of the masked view, as of `papo.release`.

    Raises:
        UserError: an option is out of its range.

    >>> from vergence.objectives.grpo import grpo
    >>> list(vppo(grpo(beta=0.0)).views), vppo(grpo(), top=1.0, low=1.0).reshape
    (['image', 'masked'], None)
    """
    if not (0 < top <= 1 and 0 <= low <= 1):
        raise UserError(f"top must lie in (0, 1] and low in [0, 1], got {top} and {low}")

    def dependence(batch: Batch, frozen: Stats) -> BT:
        return k3(batch.sampled_logp_BT, frozen.read(MASKED), limit=10.0).where(batch.mask_BT, 0.0)

    def select(batch: Batch, frozen: Stats) -> Mask:
        return top_share(dependence(batch, frozen), batch.mask_BT, top)

    def advantage(batch: Batch, frozen: Stats, everywhere: Callable[[B], B]) -> BT:
        score_B = (share_of_row(batch.mask_BT) * dependence(batch, frozen)).sum(-1)
        # A rollout without a token has no score; no score is negative, so -1 marks those of every rank.
        round_B = everywhere(score_B.where(batch.mask_BT.any(-1), -1.0))
        alpha_B = shaped(score_B, round_B[round_B >= 0], low=low).to(batch.advantage_B.dtype)
        return (alpha_B * batch.advantage_B)[:, None].where(select(batch, frozen), 0.0)

    if top == low == 1:
        return base._replace(about=VPPO)
    reshape = Reshape((MASKED,), advantage, None if top == 1 else select)
    return composed(base, views={"masked": erased(fraction, cell, grid, saliency)}, about=VPPO, reshape=reshape)


def shaped(score_B: B, round_N: Float[Tensor, " N"], *, low: float) -> B:
    """alpha = low + (high - low) (score - min) / (max - min): `low` for the least, and 1 in the mean over the round.

    high - low = (1 - low) / mean((score - min) / (max - min))          arXiv:2510.09285, trajectory advantage shaping

    Exactly 1 where the round's scores differ by at most 1e-6, and where there are none. The only bound is
    low + (1 - low) N, which one outlier among N rollouts reaches.

    Args:
        score_B: scores to be shaped, constant.
        round_N: every score of the round, those among them.
        low: in [0, 1].

    >>> score_B = torch.tensor([0.0, 1.0, 3.0, 4.0])
    >>> shaped(score_B, score_B, low=0.9)
    tensor([0.9000, 0.9500, 1.0500, 1.1000])
    """
    if len(round_N) == 0 or (reach := round_N.amax() - round_N.amin()) <= 1e-6:
        return torch.ones_like(score_B)
    return low + (1 - low) * (score_B - round_N.amin()) / reach / ((round_N - round_N.amin()) / reach).mean()
