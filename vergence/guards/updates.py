"""Guards of the updates: what becomes of accuracy, of the gradient, and of the numbers themselves."""

from __future__ import annotations

from statistics import median

from vergence.guards.past import GRADIENT, LOSS, RIGHT, TAUGHT, Past, Seen


def collapse(past: Past) -> Seen | None:
    """Accuracy is at 0.7 of its best or less, at least 0.1 below it, and further than noise reaches.

    Seedling runs that stayed well never fell below 0.77 of their best. A table made from such a run compares with the
    wrong thing: the DAPO baseline of arXiv:2507.06448 was of this kind.
    """
    if not past.fallen(RIGHT, 0.7, 4.0) or past.now(RIGHT) > past.best(RIGHT) - 0.1:
        return None
    return past.seen(
        RIGHT,
        f"accuracy fell from {past.best(RIGHT):.3f} at its best to {past.now(RIGHT):.3f} since step {past.since(RIGHT)}"
        f": the run has collapsed, and its last checkpoint is not its best. Report both; lower the learning rate or "
        f"the coefficient of the method's own term",
    )


def gradient(past: Past) -> Seen | None:
    """The gradient's length at 5 times its start, or once above 20 times the median of the last 21 steps.

    Both are compared with steps on which groups had something to teach (`TAUGHT`): on the others it is next to nothing,
    beside which any step would be a spike. In seedling runs that stayed well it grew to 1.8 times; single steps, to 3.
    """
    start, usual, here = past.start(TAUGHT), past.last(TAUGHT, 21), past.last(GRADIENT, 1)
    for name in (GRADIENT, TAUGHT):
        if start and past.now(name) >= 5.0 * start:
            return past.seen(
                name,
                f"the gradient's length went from {start:.3g} to {past.now(name):.3g} since step {past.since(name)}: "
                f"the updates are unstable, whatever the clip holds back. Lower the learning rate or the coefficient "
                f"of the method's own term",
            )
    if usual and here[0] > 20 * median(usual) > 0:
        return past.seen(
            GRADIENT,
            f"the gradient's length was {here[0]:.3g} at step {past.step}, usually {median(usual):.3g}: a spike. Look "
            f"at that step's rollouts; if it comes again, lower the learning rate",
            1,
        )
    return None


def not_finite(past: Past) -> Seen | None:
    """The loss or the gradient is not finite: no step is taken on it (`train.loop.update`)."""
    broken = [name for name in past.broken if name in (LOSS, GRADIENT)]
    if not broken:
        return None
    return Seen(
        past.step,
        f"{' and '.join(broken)} {'are' if broken[1:] else 'is'} not finite at step {past.step}. Weights and optimizer "
        f"are as they were: no step is taken on a loss or gradient that is not finite. Lower the learning rate or the "
        f"coefficient of the method's own term, or take dtype float32",
    )


def metric_not_finite(past: Past) -> Seen | None:
    """Another number is not finite, on a step that is taken all the same."""
    if not past.broken or not_finite(past):
        return None
    names = ", ".join(name[:80] for name in past.broken[:3])
    names += f" and {len(past.broken) - 3} more" if past.broken[3:] else ""
    return Seen(
        past.step,
        f"{names} {'are' if past.broken[1:] else 'is'} not finite at step {past.step}. Loss and gradient are, and the "
        f"run trains on: look at what computes it, and trust nothing that is made of it",
    )


def sampler_gap(past: Past) -> Seen | None:
    """Sampler and trainer drift apart: the guard of `guards.catalogue`, which speaks before the run is stopped.

    Raised where two rounds in a row are at half of `most_gap`; or the mean gap is 5 times its start, and above 0.02
    nats.
    """
    of_most, name = "sampler/gap_of_most", "sampler/gap_mean"
    if past.stays(of_most, 2, 0.5):
        share, where, number = past.last(of_most, 2), of_most, 2
        what = f"differ by {share[-1]:.0%} of what most_gap allows, and by {share[-2]:.0%} a round before"
    elif past.grown(name, 5.0) and past.now(name) > 0.02:
        what, where, number = f"differ more and more: the mean gap, in nats, went {past.moved(name)}", name, 0
    else:
        return None
    return past.seen(
        where,
        f"the log-probabilities of sampler and trainer {what}. Look whether weights still reach the sampler, and "
        f"whether its caches are reset after each update; a correction (--correction truncate) weighs what is left",
        number,
    )
