"""What an audit comes to: each number over questions with its interval, and one sentence, by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vergence.audit.conditions import KEPT, Heard
from vergence.audit.probes import by_position
from vergence.audit.shares import errors, per_question, right
from vergence.evaluate.errors import ERRORS, same
from vergence.evaluate.interval import Estimate, bootstrap, paired_difference
from vergence.evaluate.suite import Record
from vergence.scenes.speech import read_facts

NEGLIGIBLE = 0.1
"""A blank image that changes less than this, by the upper end of the interval, changes nothing that matters."""
LEGIBLE = 0.5
"""The least share of answers that must state a fact in words that can be read, or errors are not sorted."""


class Measure(NamedTuple):
    """One number of an audit."""

    name: str
    about: str
    """What it is, in a line."""
    value: Estimate


class Sorted(NamedTuple):
    """One kind of error."""

    name: str
    of_all: Estimate
    """Its share of all answers."""
    of_wrong: Estimate | None
    """Its share of the wrong ones; None where there are none."""


class Findings(NamedTuple):
    """What an audit comes to."""

    measures: tuple[Measure, ...]
    errors: tuple[Sorted, ...]
    """Empty where they cannot be sorted."""
    probes: tuple[tuple[float, Estimate], ...]
    left_out: tuple[dict[str, str], ...]
    verdict: str

    def measure(self, name: str) -> Estimate | None:
        """The number of that name, if it was measured."""
        return next((one.value for one in self.measures if one.name == name), None)


def find(heard: Heard) -> Findings:
    """Every number that the answers allow, and the verdict."""
    scores = {name: per_question(records, right) for name, records in heard.records.items()}
    measures = [*_answered(scores), *_swapped(heard, scores), *_kept(scores), *_described(heard, scores["image"])]
    probes, out = tuple(by_position(heard.probed)), list(heard.left_out)
    if probes:
        first, last = heard.probed[probes[0][0]], heard.probed[probes[-1][0]]
        lost = {scene: (first[scene] - last[scene]) / 2 for scene in first}
        about = "true claims preferred before it thinks, less those after it has thought"
        measures.append(Measure("forgetting", about, bootstrap(lost, least=-1.0)))
    kinds = _sorted(heard, out)
    found = Findings(tuple(measures), kinds, probes, tuple(out), "")
    return found._replace(verdict=verdict(found))


def _gap(less: Mapping[str, float], more: Mapping[str, float]) -> Estimate:
    """more - less, over the questions that were asked both ways."""
    both = less.keys() & more.keys()
    return paired_difference({name: less[name] for name in both}, {name: more[name] for name in both})


def _answered(scores: Mapping[str, Mapping[str, float]]) -> list[Measure]:
    """Accuracies, and the gaps between them."""
    image = scores["image"]
    found = [Measure("accuracy", "right answers, shown the image", bootstrap(image))]
    ways = {
        "blank": ("a blank image", "blind gap", "with the image, less shown a grey one in its place"),
        "none": ("no image", "blind gap, no image", "with the image, less asked without any"),
        "facts": ("facts beside the image", "oracle gap", "with true facts in words beside the image, less without"),
        "words": (
            "facts for the image",
            "oracle gap, no image",
            "with true facts in its place, less with the image",
        ),
    }
    for name, (shown, gap, about) in ways.items():
        if name in scores:
            found.append(Measure(f"accuracy, {shown}", f"right answers, shown {shown}", bootstrap(scores[name])))
            ends = (image, scores[name]) if gap.startswith("oracle") else (scores[name], image)
            found.append(Measure(gap, f"right answers {about}", _gap(*ends)))
    if "changed" in scores:
        both = {scene: share * image[scene] for scene, share in scores["changed"].items()}
        about = "right both for the image and for the same with one fact changed that changes the answer"
        found.append(Measure("both of a pair", about, bootstrap(both)))
    return found


def _swapped(heard: Heard, scores: Mapping[str, Mapping[str, float]]) -> list[Measure]:
    """What it says about another scene's picture."""
    if "swapped" not in scores:
        return []
    golds = {record["scene"]: record["gold"] for record in heard.records["image"]}
    own = {record["scene"] for record in heard.records["swapped"] if record["gold"] == golds[record["scene"]]}
    follows = {scene: share for scene, share in scores["swapped"].items() if scene not in own}
    found = []
    if follows:
        about = "shown another scene's image, right answers for that one"
        found.append(Measure("follows another image", about, bootstrap(follows)))
    about = "shown another scene's image, right answers for the one that is not shown"
    keeps = per_question(
        heard.records["swapped"],
        lambda record: right(record) if record["scene"] in own else same(record["extracted"], golds[record["scene"]]),
    )
    found.append(Measure("keeps its own answer", about, bootstrap(keeps)))
    moved = moves(heard.records["image"], heard.records["swapped"])
    about = "how far another image moves its answers: 0 is not at all, 1 to others always"
    return [*found, *([Measure("moved by another image", about, bootstrap(moved, least=-1.0))] if moved else [])]


def moves(one: Sequence[Record], other: Sequence[Record]) -> dict[str, float]:
    """Scene -> sum over answers of (p - q)^2 / 2, for the shares p and q with which it gives each under two conditions.

    Estimated without bias from pairs of different samples, whose noise is not the same:
    (P[same | one] + P[same | other]) / 2 - P[same | one and other]. Its mean is 0 where what is shown changes nothing,
    however random the answers are, and right or wrong. Empty where there is but one answer to a question.

    >>> said = lambda *answers: [{"scene": "a", "sample": i, "extracted": x} for i, x in enumerate(answers)]
    >>> moves(said("3", "3"), said("4", "4")), moves(said("3", "4"), said("3", "4")), moves(said("3"), said("4"))
    ({'a': 1.0}, {'a': 0.0}, {})
    """
    ours, theirs = _answers(one), _answers(other)
    return {
        scene: (_alike(ours[scene], ours[scene]) + _alike(said, said)) / 2 - _alike(ours[scene], said)
        for scene, said in theirs.items()
        if len(said) > 1
    }


def _answers(records: Sequence[Record]) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for record in records:
        found.setdefault(record["scene"], []).append(record["extracted"])
    return found


def _alike(one: Sequence[str | None], other: Sequence[str | None]) -> float:
    """The share of pairs of different samples that are the same answer, or both none."""
    pairs = [(a, b) for i, a in enumerate(one) for j, b in enumerate(other) if i != j]
    return sum(same(a, b) or a is b is None for a, b in pairs) / len(pairs)


def _kept(scores: Mapping[str, Mapping[str, float]]) -> list[Measure]:
    """What views cost that keep what matters."""
    image, views = scores["image"], [name for name in KEPT if name in scores]
    about = "right answers under {}, less with the image"
    found = [Measure(f"under {name}", about.format(name), _gap(image, scores[name])) for name in views]
    if views:
        mean = {scene: sum(scores[name][scene] for name in views) / len(views) for scene in scores[views[0]]}
        found.append(Measure("under views that keep", f"the mean of these {len(views)}", _gap(image, mean)))
    return found


def _described(heard: Heard, image: Mapping[str, float]) -> list[Measure]:
    """Whether its own captions are enough, and whether it answers rightly where they are not."""
    if heard.shortcut is None:
        return []
    suffices, able = heard.shortcut
    fair = {scene: value for scene, value in suffices.items() if able.get(scene, 1.0)}
    if not fair:
        return []
    put = "which the reasoner can answer from the scene's own caption" if able else "of all questions"
    found = [Measure("own caption suffices", f"captions a reasoner answers from; questions {put}", bootstrap(fair))]
    known = {scene: 1.0 - value for scene, value in fair.items() if image[scene] > 0}
    if known:
        about = "of the questions it answers rightly at least once, those whose own caption does not suffice"
        found.append(Measure("shortcut", about, bootstrap(known)))
    return found


def _sorted(heard: Heard, out: list[dict[str, str]]) -> tuple[Sorted, ...]:
    """The kinds of errors with the image, where its words can be read; else it is said why not."""
    records = heard.records["image"]
    if any(record["error"] is None and not right(record) for record in records):
        out.append({"what": "kinds of errors", "why": "the facts of some scenes are not known"})
        return ()
    legible = sum(bool(read_facts(record["response"])) for record in records) / len(records)
    if legible < LEGIBLE:
        why = (
            f"only {legible:.0%} of the answers state a fact in words that can be read; it takes at least {LEGIBLE:.0%}"
        )
        out.append({"what": "kinds of errors", "why": why})
        return ()
    return tuple(Sorted(*one) for one in errors(records, ERRORS))


_WRONG = {
    "perception": ("looks, misreads", "misread or miss something"),
    "reasoning": ("looks, reasons wrongly", "see what is needed and conclude wrongly"),
    "calculation": ("looks, calculates wrongly", "see what is needed and calculate wrongly"),
    "inconsistency": ("looks, contradicts itself", "answer otherwise than they conclude"),
    "format": ("looks, gives no answer", "hold no answer that can be read"),
}


def verdict(found: Findings) -> str:
    """One sentence, the first of these that holds.

    1. Neither does the image make more answers right than a blank one, nor does another image move the answers (the
       intervals of the blind gap and of "moved by another image" include 0 or lie below): "does not look", if that of
       the blind gap ends below `NEGLIGIBLE`; else it cannot be told.
    2. No answer is wrong.
    3. Errors are sorted: the commonest kind, if it is more than half of the wrong answers; else that none is.
    4. The larger oracle gap: whether true facts in words, beside the image or for it, would mend half of what is wrong.
    """
    accuracy, gap, moved = (found.measure(name) for name in ("accuracy", "blind gap", "moved by another image"))
    if accuracy is None or gap is None:
        return "cannot be told: no question has an image"
    if gap.low <= 0 and (moved is None or moved.low <= 0):
        said = f"the blank image takes {100 * gap.mean:.0f} points [{100 * gap.low:.0f}, {100 * gap.high:.0f}]"
        if gap.high < NEGLIGIBLE:
            return f"does not look: {said}"
        return f"cannot be told: {said}; ask more questions"
    if accuracy.mean == 1.0:
        return "looks, and answers everything rightly"
    known = [(one.of_wrong, one.name) for one in found.errors if one.of_wrong]
    if known:
        most, name = max(known)
        if most.mean > 0.5:
            first, why = _WRONG[name]
            return f"{first}: {most.mean:.0%} of its wrong answers {why} [{most.low:.0%}, {most.high:.0%}]"
        return f"looks; no kind of error is most of its wrong answers, the commonest is {name} ({most.mean:.0%})"
    gaps = [gap.mean for name in ("oracle gap", "oracle gap, no image") if (gap := found.measure(name))]
    if not gaps:
        return "looks; why it is wrong cannot be told without facts"
    mended = max(0.0, *gaps) / (1 - accuracy.mean)
    said = f"true facts in words would mend {mended:.0%} of what it has wrong"
    return f"looks, misreads: {said}" if mended > 0.5 else f"looks, reasons wrongly: {said}"
