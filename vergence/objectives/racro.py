"""RACRO: reward-optimised captioning (arXiv:2506.04559), its training of the captions (CRO).

The policy writes captions, and a frozen reasoner that sees no image answers from them: the loss is the base's, and what
is new is the reward.
"""

from vergence.types import About, Method, RewardSpec, UserError

RACRO = About(
    title="Reward-optimised captioning",
    paper="2506.04559",
    variant="release",
    deviations=(
        "every mean is over the whole optimizer step and all ranks; the code averages the means of micro-batches",
        "means divide exactly; the code adds 1e-8 to the denominator",
        "log-ratios in the reference KL are held to +-20; the code holds the value alone, to 10 nats",
        "the wording of the request for a caption is ours",
        "the reasoner reads the question without the literal <image> tag, which the code leaves in",
        "the reasoner, its temperature and its length are settings; the code has DeepSeek-R1-Distill-Qwen-7B, 1, 8192",
        "the second stage, GRPO on tentative answers, is not part of this method: no released script has it",
        "the code runs on GRPO; on another base it is ours",
    ),
)


def racro(base: Method, *, samples: int = 1, leak: float = 0.0) -> Method:
    """The base on captions: a caption is worth what a frozen, text-only reasoner gets right from it.

    R = mean over the reasoner's answers of [right] - leak [the caption gives the answer away]

    RACRO, released code, verl/trainer/ppo/ray_trainer_caption.py: accuracy alone, one answer, no penalty. An answer of
    the reasoner without a box is wrong. No gradient flows through the reasoner.

    Args:
        base: the objective, on the caption's tokens.
        samples: answers of the reasoner to each caption; more make the reward less noisy.
        leak: penalty, in units of reward, on a caption that gives the answer away; 0 is off, as in the code.

    Raises:
        UserError: `samples` is below 1, or `leak` below 0.

    >>> from vergence.objectives.grpo import grpo
    >>> made = racro(grpo(), samples=4)
    >>> made.ask, made.reward.judge, made.reward.samples, made.reward.format
    ('caption', 'reasoner', 4, 0.0)
    """
    if samples < 1:
        raise UserError(f"the reasoner must answer at least once, got samples={samples}")
    if leak < 0:
        raise UserError(f"leak is a penalty, 0 or above; got {leak}")
    reward = RewardSpec(
        accuracy=1.0, format=0.0, judge="reasoner", samples=samples, leak=leak, overlong=base.reward.overlong
    )
    return base._replace(about=RACRO, ask="caption", reward=reward)
