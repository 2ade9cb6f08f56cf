"""Guards of what is said: responses that end, repeat, teach or can be read no more, as a run's own log tells it."""

from __future__ import annotations

from vergence.guards.past import CUT, NOW, RIGHT, SPARSE, UNPARSED, ZERO, Past, Seen

DRAWS = "sampling/draws"


def entropy_explosion(past: Past) -> Seen | None:
    """Entropy of the responses at 3 times its start: unrelated tokens follow. VPPO appendix E and arXiv:2507.06448
    appendix H, of DAPO without any perception term; in the seedling's runs it never rose by a third."""
    if not past.grown("entropy", 3.0):
        return None
    return past.seen(
        "entropy",
        f"entropy went {past.moved('entropy')}: the policy says nearly anything. "
        f"Lower the upper clip (clip_high) or the learning rate, or add an entropy term (eta)",
    )


def entropy_collapse(past: Past) -> Seen | None:
    """Entropy at a tenth of its start or less: siblings agree in every word, and nothing is left to be learnt."""
    start = past.start("entropy")
    if not start or past.now("entropy") > 0.1 * start:
        return None
    return past.seen(
        "entropy",
        f"entropy went {past.moved('entropy')}: siblings say nearly the same, so that groups teach little. "
        f"Raise the upper clip (clip_high) or the temperature, or lower the learning rate",
    )


def no_signal(past: Past) -> Seen | None:
    """Four groups of five have siblings of equal reward, whose advantage is 0; or nearly all of them have, five rounds
    in a row, from the first on; or dynamic sampling needs ten draws for a batch, twice in a row (it gives up after 20).
    """
    if past.stays(DRAWS, 2, 10.0):
        said = (
            f"dynamic sampling drew {past.last(DRAWS, 1)[0]:.0f} times for one batch: hardly any group has siblings "
            f"that differ. Take questions that are answered sometimes, or more siblings"
        )
        return past.seen(DRAWS, said, 2)
    early = past.stays(ZERO, 5, SPARSE)
    if not early and (past.start(ZERO) is None or past.now(ZERO) < 0.8):
        return None
    return past.seen(
        ZERO,
        f"{past.now(ZERO):.0%} of the groups have siblings of equal reward since step {past.since(ZERO)}: hardly "
        f"anything is learnt from what is sampled. Take questions that are answered sometimes, more siblings, or a "
        f"method with dynamic sampling (dapo)",
    )


def truncation(past: Past) -> Seen | None:
    """A tenth of the rollouts more than at the start are cut off at the longest length; or half of them, three rounds
    in a row, from the first on."""
    found = past.high(CUT, "responses that are cut off")
    if found is None:
        return None
    return past.seen(
        CUT,
        f"{found[0]}: they are judged without their end. Raise max_tokens, punish length (overlong), or look whether "
        f"they repeat themselves, or go on after their end",
        found[1],
    )


def unparsed(past: Past) -> Seen | None:
    """A tenth of the rollouts more than at the start hold no answer that can be read."""
    if not past.risen(UNPARSED, 0.1):
        return None
    return past.seen(
        UNPARSED,
        f"the share of responses without a readable answer went {past.moved(UNPARSED)}: they are rewarded as if wrong. "
        f"Read some in rollouts.jsonl; check the wording of the prompt and the reward for form",
    )


def all_unparsed(past: Past) -> Seen | None:
    """In three rounds in a row, the first ones if need be, hardly a response holds an answer that can be read."""
    if not past.stays(UNPARSED, 3, 0.98):
        return None
    cut = past.last(CUT, 1)
    why = ", and nearly all are cut off: raise max_tokens" if cut and cut[0] >= 0.9 else ""
    return past.seen(
        UNPARSED,
        f"{past.last(UNPARSED, 1)[0]:.0%} of the responses hold no answer that can be read{why}. Every reward is alike "
        f"and nothing is learnt: read some in rollouts.jsonl, and take a wording of the prompt that this model follows "
        f"(wording)",
        3,
    )


def length(past: Past) -> Seen | None:
    """Responses twice as long as at the start, and accuracy no higher: length that buys nothing."""
    name = "completions/mean_length"
    if not past.grown(name, 2.0) or past.now(RIGHT) > (past.start(RIGHT) or 0.0):
        return None
    return past.seen(
        name,
        f"the mean length of responses went {past.moved(name)} tokens, and accuracy is no higher than at the start: "
        f"the policy pads. Average over tokens (mean=token), punish length (overlong), or look whether it repeats",
    )


def repetition(past: Past) -> Seen | None:
    """A tenth of the rollouts more than at the start say most of their words twice or more (`guards.text.repeats`); or
    half of them, three rounds in a row, from the first on.

    Perception-R1 counts distinct n-grams for it; what repeats facts is paid for each where facts are rewarded.
    """
    name = "completions/repetition"
    found = past.high(name, "responses that repeat themselves")
    if found is None:
        return None
    return past.seen(
        name,
        f"{found[0]}. Read some in rollouts.jsonl: look what the reward pays for, and whether they go on after their "
        f"end; punish length (overlong), or lower the learning rate",
        found[1],
    )


def disavowal(past: Past) -> Seen | None:
    """At 5 times its start, and a tenth of the rollouts more, say that there is no image (`guards.text.disavows`); or
    half of them do, three rounds in a row, from the first on.

    In the log of a distillation from a teacher that is shown a blank image, of one seed, the rate went from 2 % to 64 %
    as accuracy fell from 0.57 to 0.34.
    """
    name = "completions/disavowal"
    start = past.start(name)
    if start is not None and past.now(name) >= 5 * start and past.risen(name, 0.1):
        what = f"the share of responses that say there is no image to be seen went {past.moved(name)}"
        number, why = 0, "the policy answers from the question alone. Compare with a blank image (vergence eval --show "
        why += "blank); lower the coefficient of the method's own term, if it has one"
    elif past.stays(name, 3, 0.5):
        what = f"{past.last(name, 1)[0]:.0%} of the responses say that there is no image to be seen"
        number, why = 3, "look whether the pictures are what you think (the page of the run shows them), and whether "
        why += "they reach the sampler"
    else:
        return None
    return past.seen(name, f"{what}: {why}", number)


def timed_out(past: Past) -> Seen | None:
    """A twentieth of the verdicts are not reached in time, in the median of five rounds, the first ones if need be."""
    name = "rewards/timed_out"
    if not past.last(name, NOW) or past.now(name) < 0.05:
        return None
    return past.seen(
        name,
        f"{past.now(name):.0%} of the responses were not judged in time since step {past.since(name)}: right ones may "
        f"count as wrong. Look at them in rollouts.jsonl, where the status is 'timed out'; "
        f"leave other programs fewer cores",
    )
