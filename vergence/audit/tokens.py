"""Do the rules that methods find perception tokens by find the tokens that look?

Where a scene's facts are known, so is the truth. Change one visible fact: what the same response would have to say
otherwise is

    looks      words of a stated fact's value: "7" in "red bar: 7"
    derived    numbers of a calculation and the answer, which change only because of what follows from the facts

and all else is wording. A rule gives every token a score and selects some. How well it finds the tokens that look is
measured over one response at a time, then over responses and questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from vergence import chance
from vergence.evaluate.interval import Estimate, bootstrap
from vergence.evaluate.looking import AT_ONCE, scorer_of
from vergence.models.policy import Policy
from vergence.objectives import selecting
from vergence.objectives.cppo import VIEWS
from vergence.objectives.terms import CAPPED
from vergence.rewards.judge import by_verifier
from vergence.rollout.collate import collate
from vergence.rollout.decode import sampler_of
from vergence.rollout.render import Wording, render
from vergence.rollout.sampler import roll_out
from vergence.scenes.speech import value_spans
from vergence.train.step import measure
from vergence.train.traces import pieces, touches
from vergence.types import BT, ORIGINAL, Batch, Erase, Mask, Read, Rollout, Scene, Stats, UserError, ViewSpec

CPPO_SHARE, VPPO_SHARE = 0.5, 0.4
"""Of the tokens that each method selects, as published. What was never published for a statistic is VPPO's."""
MASKED = Erase(0.5, 8)
"""VPPO's share of cells. The published 14 pixels would be nearly a third of an embedded scene's side."""
READS = (
    *(Read(view, what) for view in ("image", "removed", "removed, paper", "masked") for what in ("logp", "entropy")),
    Read("image", "kl", "masked"),
    Read("image", "js", "masked"),
)
_CALCULATION = re.compile(r"[a-z0-9]{1,24}(?:[-+*=][a-z0-9]{1,24}){1,12}")
_ANSWER = re.compile(r"\\boxed\{([^{}]{1,200})\}")
_WORD = re.compile(r"[a-z0-9]+")


class Rule(NamedTuple):
    """A way to find the tokens that look."""

    score: Callable[[Batch, Stats], BT]
    """The higher, the likelier that the token looks."""
    select: Callable[[Batch, Stats, BT], Mask]
    """(batch, statistics, score) -> what the method takes at its published share."""


def _rise(batch: Batch, stats: Stats) -> BT:
    gone_BT = stats.entropy("removed")
    return (gone_BT - stats.entropy("image")).relu() / (gone_BT + 1e-6)


def _by(rule: Callable[..., Mask], view: str) -> Callable[[Batch, Stats, BT], Mask]:
    return lambda batch, stats, _: rule(stats.entropy("image"), stats.entropy(view), batch.mask_BT, CPPO_SHARE)


def _top(batch: Batch, stats: Stats, score_BT: BT) -> Mask:
    return selecting.top_share(score_BT, batch.mask_BT, VPPO_SHARE)


def _ratio(batch: Batch, stats: Stats) -> BT:
    return stats.logp("image") - stats.logp("masked")


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "entropy shift, CPPO for verl": Rule(_rise, _by(selecting.rises_verl, "removed")),
        "entropy shift, CPPO for AReaL": Rule(_rise, _by(selecting.rises_areal, "removed")),
        "entropy shift, CPPO's text": Rule(
            lambda _, stats: stats.entropy("removed, paper") - stats.entropy("image"),
            _by(selecting.rises_paper, "removed, paper"),
        ),
        "k3 (VPPO, PAPO)": Rule(lambda _, stats: CAPPED["k3"](stats.logp("image"), stats.logp("masked")), _top),
        "full KL": Rule(lambda _, stats: stats.kl("image", "masked"), _top),
        "JS": Rule(lambda _, stats: stats.js("image", "masked"), _top),
        "log-ratio": Rule(_ratio, _top),
        "log-ratio, its size": Rule(lambda batch, stats: _ratio(batch, stats).abs(), _top),
        "entropy alone": Rule(lambda _, stats: stats.entropy("image"), _top),
        "random": Rule(lambda batch, _: batch.chance_BT, _top),
    }
)
"""The statistics that methods score tokens by. CPPO's views are its own; the others compare image and masked image."""


class Truth(NamedTuple):
    """What each token of a response is, 0 or 1."""

    looks: list[int]
    derived: list[int]


def derived_spans(text: str) -> list[tuple[int, int]]:
    """Where a text says what follows from what is seen: the numbers of a calculation, and the words of the answer.

    >>> text = r"red bar: 7. So red=1, 7+2=9.</think>\\boxed{9}"
    >>> [text[start:end] for start, end in derived_spans(text)]
    ['1', '7', '2', '9', '9']
    """
    spans = [
        (found.start() + word.start(), found.start() + word.end())
        for found in _CALCULATION.finditer(text)
        if "=" in found[0]
        for word in _WORD.finditer(found[0])
        if word[0].isdigit()
    ]
    boxes = [(found.start(1), found[1]) for found in _ANSWER.finditer(text)]
    return spans + [(start + word.start(), start + word.end()) for start, box in boxes for word in _WORD.finditer(box)]


def truth(texts: Sequence[str]) -> Truth:
    """Which tokens of a response look, and which are derived, from their texts; no token is both.

    >>> truth(["red bar", ":", " 7", ". ", "7", "+2", "=9", "."])
    Truth(looks=[0, 0, 1, 0, 0, 0, 0, 0], derived=[0, 0, 0, 0, 1, 1, 1, 0])
    """
    text = "".join(texts)
    seen = touches(texts, value_spans(text))
    follows = touches(texts, derived_spans(text))
    return Truth(seen, [int(one and not other) for one, other in zip(follows, seen, strict=True)])


def found_by(
    score: Sequence[float], selected: Sequence[int], of: Truth, *, derived: str = "apart"
) -> dict[str, float | None]:
    """How well a rule finds the tokens of one response that look. Shares in 0..1; None where nothing is to be divided.

        AP, AUROC              of its score
        precision, recall      of what it selects at its published share
        precision at number    of the tokens of highest score, as many as look (there it equals recall)
        selected               what it selects, as a share of all tokens
        derived                how many of the tokens that it selects are derived

    Args:
        derived: "apart": tokens that are derived count neither for a rule nor against it, but in the last two;
            "negative": they count as tokens that do not look.

    >>> of = Truth([0, 1, 0, 0], [0, 0, 0, 1])
    >>> found_by([0.1, 3.0, 0.2, 9.0], [0, 1, 0, 1], of)["precision"]
    1.0
    >>> found_by([0.1, 3.0, 0.2, 9.0], [0, 1, 0, 1], of, derived="negative")["precision"]
    0.5
    """
    looks, apart = np.array(of.looks, bool), np.array(of.derived, bool)
    counts = ~apart if derived == "apart" else np.ones_like(apart)
    chosen = np.array(selected, bool)
    y, s, c = looks[counts], np.array(score, float)[counts], chosen[counts]
    most = np.zeros_like(y)
    most[np.argsort(-s, kind="stable")[: y.sum()]] = True
    both = y.any() and not y.all()
    return {
        "AP": float(average_precision_score(y, s)) if y.any() else None,
        "AUROC": float(roc_auc_score(y, s)) if both else None,
        "precision": float(y[c].mean()) if c.any() else None,
        "recall": float(c[y].mean()) if y.any() else None,
        "precision at number": float(y[most].mean()) if y.any() else None,
        "selected": float(chosen.mean()),
        "derived": float(apart[chosen].mean()) if chosen.any() else None,
    }


@torch.no_grad()
def perception_tokens(
    policy: Policy,
    scenes: Sequence[Scene],
    *,
    samples: int = 2,
    seed: int = 0,
    temperature: float = 1.0,
    max_tokens: int = 64,
    wording: Wording = "short",
    masked: ViewSpec = MASKED,
    derived: str = "apart",
    at_once: int = 24,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> list[dict[str, Any]]:
    """One record for each of the policy's own responses that states a fact: its tokens, what they are, and by rule what
    it scores, selects and finds (`found_by`).

    Sampling noise is keyed by (seed, scene, sample), a view's chance by (seed, scene); every rule sees the same.

    Args:
        masked: the masked view of the rules that compare with one.
        derived: as of `found_by`.
        at_once: scenes in one pass; memory only.

    Raises:
        UserError: of none of the scenes the facts are known.
    """
    known = [scene for scene in scenes if scene.facts]
    if not known:
        raise UserError("of none of these questions it is known what is to be seen; take --scenes embedded")
    shows = {"removed": VIEWS["release"][1], "removed, paper": VIEWS["paper"][1], "masked": masked}
    scorer, sampler, found = scorer_of(policy, shows), sampler_of(policy), []
    how = {"siblings": samples, "seed": (seed, "tokens"), "temperature": temperature, "max_tokens": max_tokens}
    for start in range(0, len(known), at_once):
        watch(start, len(known))
        some = known[start : start + at_once]
        prompts = {
            name: [
                render(policy.reader, one, show, chance.key(seed, "tokens", one.key), wording=wording) for one in some
            ]
            for name, show in {"image": ORIGINAL, **shows}.items()
        }
        judge = by_verifier(wording=wording)
        rollouts = roll_out(sampler, policy.reader, some, prompts["image"], judge=judge, **how)
        batch = collate(rollouts, samples).to(policy.device)
        stats = measure(batch, scorer, prompts, READS, budget=AT_ONCE)
        found += _records(policy, rollouts, batch, stats, derived)
    watch(len(known), len(known))
    return found


def _records(
    policy: Policy, rollouts: Sequence[Rollout], batch: Batch, stats: Stats, derived: str
) -> Iterator[dict[str, Any]]:
    by_rule = {}
    for name, rule in RULES.items():
        score_BT = rule.score(batch, stats)
        by_rule[name] = score_BT, rule.select(batch, stats, score_BT)
    for row, rollout in enumerate(rollouts):
        texts = pieces(policy.reader, rollout.sampled.tokens)
        of, T = truth(texts), len(texts)
        if not any(of.looks):
            continue
        rules = {}
        for name, (score_BT, selected_BT) in by_rule.items():
            score, selected = score_BT[row, :T].tolist(), selected_BT[row, :T].int().tolist()
            kept = {"score": [float(f"{x:.4g}") for x in score], "selected": selected}
            rules[name] = kept | {"found": found_by(score, selected, of, derived=derived)}
        yield {
            "scene": rollout.scene.key,
            "world": rollout.scene.world,
            "sample": rollout.sibling,
            "status": rollout.verdict.status,
            "response": rollout.text,
            "tokens": texts,
            **of._asdict(),
            "rules": rules,
        }


MEASURES = ("AP", "AUROC", "precision", "recall", "precision at number", "selected", "derived")
"""What `found_by` says, in the order of a table."""
Group = Callable[[Mapping[str, Any]], bool]
GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "all": lambda record: True,
        "right": lambda record: record["status"] == "right",
        "wrong": lambda record: record["status"] != "right",
    }
)
"""Of responses. A word that was misread with confidence looks too: what finds tokens need not find errors."""


def by_question(records: Sequence[Mapping[str, Any]], rule: str, measure: str) -> dict[str, float]:
    """scene -> the mean of a measure over its responses, without those in which it is not defined.

    >>> records = [{"scene": "a", "rules": {"JS": {"found": {"AP": x}}}} for x in (0.5, 1.0, None)]
    >>> by_question(records, "JS", "AP")
    {'a': 0.75}
    """
    values: dict[str, list[float]] = {}
    for record in records:
        value = record["rules"][rule]["found"][measure]
        if value is not None:
            values.setdefault(record["scene"], []).append(value)
    return {scene: fmean(own) for scene, own in values.items()}


def estimates(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Estimate | None]]:
    """rule -> measure -> its mean over responses, with an interval over questions; None where it is not defined."""
    found: dict[str, dict[str, Estimate | None]] = {}
    for rule in RULES:
        values = {measure: by_question(records, rule, measure) for measure in MEASURES}
        found[rule] = {measure: bootstrap(of) if of else None for measure, of in values.items()}
    return found
