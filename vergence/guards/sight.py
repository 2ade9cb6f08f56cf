"""Guards of looking: what goes wrong between the policy and its image, as far as a run's own log can tell."""

from __future__ import annotations

from vergence.guards.past import CUT, RIGHT, START_WATCHED, UNPARSED, Past, Seen

MASKED = ("perception/kl_masked", "perception/k3_masked", "perception/k3_p99_masked", "perception/k3_variance_masked")
CLIP = "clip_ratio/high"
MASKED_KL, LEAK = "perception/kl_masked", "perception/caption_leak"
NO_EFFECT = 0.01
"""Nats in the mean over tokens, below which another view changes next to nothing: a third of the least at which PAPO's
published runs start (0.03 to 0.05, arXiv:2507.06448 section 5.3). The seedling's views start at 0.07 and above."""


def kl_hacking(past: Past) -> Seen | None:
    """The distance to the masked view surges while answers get worse: a perception term that is maximised is fed.

    Only where the run has one (PAPO's, CPPO's): elsewhere it is another cause. Raised where the KL, k3 or its 99th
    percentile is 2.5 times its start, or the variance of k3 is 4 times, and one harm is seen: accuracy at 0.8 of its
    best, cut or unparsed responses 0.1 above their start, or the upper clip at 5 times its start and above 0.005.
    arXiv:2507.06448 section 5.3, appendices J and M: the variance grew 8.4 times, the upper clip 14 times (0.0005 to
    0.007), which is the early sign. In runs of the seedling that stayed well the KL grew at most 2.8 times, without
    harm; in those that collapsed at gamma = 0.2, 2.3 to 4.4 times, with harm.
    Two further signs of the same section count as a surge where PAPO's term is maximised: the entropy of the responses
    or that under the mask at twice its start; and the upper clip, which is then no harm of its own.
    """
    papo = past.now("loss/perception") < 0
    if not papo and "loss/contrast" not in past.names():
        return None
    clipped = past.start(CLIP)
    harms = {
        "accuracy falls": past.fallen(RIGHT, 0.8, 2.0),
        "responses are cut off": past.risen(CUT, 0.1),
        "responses hold no answer": past.risen(UNPARSED, 0.1),
        "the upper clip climbs": clipped is not None and past.now(CLIP) >= max(0.005, 5 * clipped),
    }
    surged = [name for name in (*MASKED, "loss/perception") if past.grown(name, 4.0 if "variance" in name else 2.5)]
    if papo:
        surged += [name for name in ("entropy", "perception/entropy_masked") if past.grown(name, 2.0)]
        if not surged and harms["the upper clip climbs"]:
            surged, harms["the upper clip climbs"] = [CLIP], False
    seen = [harm for harm, is_seen in harms.items() if is_seen]
    if not surged or not seen:
        return None
    return past.seen(
        surged[0],
        f"{surged[0]} went {past.moved(surged[0])}, and {', '.join(seen)}: the policy feeds the perception term with "
        f"tokens that depend on the image and answer nothing (KL hacking). Lower gamma, add an entropy term (eta) or a "
        f"reference KL (beta), or go back to a checkpoint before it",
    )


def looks_less(past: Past) -> Seen | None:
    """The KL to the masked view is at 0.4 of its start on two watched rounds in a row, whatever becomes of accuracy.

    Where it rises, the gain does not come from the image (blind reasoning, SeePhys Pro; image disavowal looks alike);
    where it falls, the run unlearns to look. The lowest of a seedling run that stayed well is 0.72; of CapPO with
    swapped captions, which unlearns, 0.08 to 0.19.
    """
    start, recent = past.start(MASKED_KL), past.last(MASKED_KL, START_WATCHED + 2)[-2:]
    if not start or not recent or max(recent) > 0.4 * start:
        return None
    less = f"the KL to the masked view went {past.moved(MASKED_KL, 2)}: responses depend less on the image"
    if past.risen(RIGHT, 0.05):
        more = (
            f"{less}, while accuracy went {past.moved(RIGHT)}. Compare with a blank image (vergence eval --show blank) "
            f"before you believe the gain"
        )
    else:
        more = (
            f"{less}, and answers are no better for it: the run unlearns to look. See whether what the method shows in "
            f"the image's place is true to it, and what is rewarded; lower the coefficient of the method's own term, "
            f"if it has one"
        )
    return past.seen(MASKED_KL, more, 2)


def view_without_effect(past: Past) -> Seen | None:
    """On two watched rounds in a row, at any time, the KL to a view that removes something is below 0.01 nats.

    Then a term on that view trains on noise: the view hides nothing that counts, or the policy does not look, or there
    is nothing to see. Views that keep the image (CPPO's `kept`) may be as near as they like, and so may a caption.
    """
    for name in past.names():
        view = removing(name)
        recent = past.last(name, 2)
        if view and recent and max(recent) < NO_EFFECT:
            return past.seen(
                name,
                f"the KL from the image to the {view} view is {recent[-1]:.2g} nats since step {past.since(name, 2)}: "
                f"what it hides changes nothing, and a term on it trains on noise. Look at the pictures and views in "
                f"the page of the run: are they blank, does the view hide enough (fraction), does the policy see them",
                2,
            )
    return None


def removing(name: str) -> str:
    """The view to which a logged number is the KL, if that view takes something from the image; else nothing.

    >>> [removing(f"perception/{name}") for name in ("kl_masked", "removed/kl", "kept/kl", "caption/kl", "k3_masked")]
    ['masked', 'removed', '', '', '']
    """
    if name == MASKED_KL:
        return "masked"
    if not name.endswith("/kl"):
        return ""
    parts = name.split("/")
    is_view = len(parts) == 3 and parts[0] == "perception"
    return parts[1] if is_view and parts[1] not in ("kept", "caption", "image", "anchor") else ""


def view_entropy_explosion(past: Past) -> Seen | None:
    """The entropy under another view at 3 times its start, on two watched rounds in a row.

    arXiv:2507.06448 section 5.3: under the mask it went from 0.4 to above 1.3 nats as the run was hacked. In
    75 seedling runs of fifteen methods and controls it stayed between 0.77 and 1.18 of its start.
    """
    for name in entropies(past):
        start, recent = past.start(name), past.last(name, START_WATCHED + 2)[-2:]
        if start and recent and min(recent) >= 3.0 * start:
            return past.seen(
                name,
                f"the entropy under the {_view(name)} view went {past.moved(name, 2)}: what the policy would say "
                f"without the image is nearly anything, which is how a perception term is fed. Lower the coefficient "
                f"of the method's own term, or add an entropy term",
                2,
            )
    return None


def view_entropy_collapse(past: Past) -> Seen | None:
    """The entropy under another view at a tenth of its start or less, on two watched rounds in a row.

    The policy is as sure without the image as with it: answers are learnt by heart, or all alike.
    """
    for name in entropies(past):
        start, recent = past.start(name), past.last(name, START_WATCHED + 2)[-2:]
        if start and recent and max(recent) <= 0.1 * start:
            return past.seen(
                name,
                f"the entropy under the {_view(name)} view went {past.moved(name, 2)}: the policy is sure of its "
                f"answer whatever it is shown. Compare with a blank image (vergence eval --show blank); raise the "
                f"temperature or the upper clip (clip_high)",
                2,
            )
    return None


def entropies(past: Past) -> list[str]:
    """The logged entropies under other views than the image."""
    own = [name for name in past.names() if name.startswith("perception/") and name.endswith("/entropy")]
    return [*(name for name in past.names() if name == "perception/entropy_masked"), *own]


def _view(name: str) -> str:
    return "masked" if name == "perception/entropy_masked" else name.split("/")[1]


def caption_leak(past: Past) -> Seen | None:
    """A tenth of the captions more than at the start give the answer away; or half of them, three rounds in a row, from
    the first on. Visionary-R1, arXiv:2505.14677. RACRO's captions on the seedling start at 0.02 to 0.09."""
    found = past.high(LEAK, "captions that give the answer away")
    if found is None:
        return None
    said = f"{found[0]}: the reasoner need not read what the image shows. Raise the penalty (leak)"
    return past.seen(LEAK, said, found[1])


def drowned_reward(past: Past) -> Seen | None:
    """The gradient of the terms that read other views is 3 times the surrogate's, on two watched rounds in a row.

    On the seedling, CPPO at its released coefficient has 0.01 to 3.4, and never twice in a row more than 1.2; at ten
    times that, 8.6.
    """
    name = "perception/gradient_ratio"
    if not past.stays(name, 2, 3.0):
        return None
    return past.seen(
        name,
        f"the perception terms' gradient is {past.now(name):.3g} times as long as the reward's at step {past.step}, "
        f"and was above 3 before: the answers hardly count. Lower the coefficient of the method's own term",
        2,
    )
