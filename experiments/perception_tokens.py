"""Do the rules that methods select tokens by find the tokens that look?

    python experiments/perception_tokens.py

On embedded scenes the truth is known: a token looks if it is a word of a stated fact's value ("7" in "red bar: 7").
Everything else in a response is wording, a place that was chosen, arithmetic on what was said, or the answer's copy.
The policy's own responses to held-out questions are scored under each rule's own views. AUROC ranks a response's tokens
by the rule's score; precision, recall and share are of what the rule selects at its published fraction. Means over
responses, 95 % intervals over questions; responses that state no fact are left out, and from the precision those in
which a rule selects nothing. Masked cells have 8 pixels, as in the demo: 14 would be nearly a third of the image.
"""

import argparse
from collections import defaultdict
from statistics import fmean

import torch
from sklearn.metrics import roc_auc_score

from vergence import chance
from vergence.evaluate.interval import bootstrap
from vergence.models.policy import Reader, load
from vergence.objectives import selecting
from vergence.objectives.cppo import VIEWS
from vergence.objectives.terms import CAPPED
from vergence.rewards.judge import by_verifier
from vergence.rollout.collate import collate
from vergence.rollout.decode import sampler_of
from vergence.rollout.render import render
from vergence.rollout.sampler import roll_out
from vergence.scenes.source import open_source
from vergence.scenes.speech import value_spans
from vergence.scoring.naive import Naive
from vergence.types import BT, ORIGINAL, Batch, Erase, Mask, Read, Rollout, Stats, View

SHOWS = {
    "image": ORIGINAL,
    "removed": VIEWS["release"][1],
    "removed, paper": VIEWS["paper"][1],
    "masked": Erase(0.5, 8),
}
READS = tuple(Read(view, what) for view in SHOWS for what in ("logp", "entropy"))


def rules(batch: Batch, stats: Stats) -> dict[str, tuple[BT, Mask]]:
    """Rule -> (its score of each token, what it selects)."""
    mask_BT, H_BT = batch.mask_BT, stats.entropy("image")
    code_BT, text_BT = stats.entropy("removed"), stats.entropy("removed, paper")
    relative_BT = (code_BT - H_BT).relu() / (code_BT + 1e-6)
    k3_BT = CAPPED["k3"](stats.logp("image"), stats.logp("masked"))
    return {
        "CPPO, code for verl": (relative_BT, selecting.rises_verl(H_BT, code_BT, mask_BT, 0.5)),
        "CPPO, code for AReaL": (relative_BT, selecting.rises_areal(H_BT, code_BT, mask_BT, 0.5)),
        "CPPO, text of the summary": (text_BT - H_BT, selecting.rises_paper(H_BT, text_BT, mask_BT, 0.5)),
        "VPPO": (k3_BT, selecting.top_share(k3_BT, mask_BT, 0.4)),
        "highest entropy": (H_BT, selecting.top_share(H_BT, mask_BT, 0.4)),
        "random": (batch.chance_BT, selecting.top_share(batch.chance_BT, mask_BT, 0.4)),
    }


def looks(reader: Reader, rollout: Rollout) -> list[bool]:
    """For each token of a response, whether it is (part of) a word of a stated fact's value."""
    pieces = [reader.tokenizer.decode([token]) for token in rollout.sampled.tokens]
    text, found, spans = "".join(pieces), [], value_spans("".join(pieces))
    start = 0
    for piece in pieces:
        end = start + len(piece)
        first = end - len(piece.lstrip())
        found.append(any(first < stop and begin < end for begin, stop in spans) and piece.strip() != "")
        start = end
    assert len(text) == start
    return found


def main() -> None:
    """Ask, score, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="seedling")
    parser.add_argument("--scenes", type=int, default=240)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    policy = load(given.model)
    scenes = open_source("embedded", ("digits", "shapes", "bars", "geometry")).held_out("report", given.scenes, seed=0)
    scorer = Naive({"now": policy.logits}, {name: View(show) for name, show in SHOWS.items()})
    found: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    shares = []
    for start in range(0, len(scenes), 30):
        some = scenes[start : start + 30]
        keys = [chance.key("tokens", scene.key) for scene in some]
        prompts = {
            name: [render(policy.reader, scene, show, key) for scene, key in zip(some, keys, strict=True)]
            for name, show in SHOWS.items()
        }
        rollouts = roll_out(
            sampler_of(policy), policy.reader, some, prompts["image"], siblings=given.samples, seed=("tokens",),
            temperature=1.0, max_tokens=64, judge=by_verifier(),
        )  # fmt: skip
        batch = collate(rollouts, given.samples)
        with torch.no_grad():
            by_rule = rules(batch, scorer.score(batch, prompts, READS))
        for row, rollout in enumerate(rollouts):
            truth = looks(policy.reader, rollout)
            if not any(truth):
                continue
            shares.append(fmean(truth))
            for rule, (score_BT, selected_BT) in by_rule.items():
                chosen = selected_BT[row, : len(truth)].tolist()
                hits = sum(here and there for here, there in zip(truth, chosen, strict=True))
                for what, value in (
                    ("AUROC", roc_auc_score(truth, score_BT[row, : len(truth)].tolist())),
                    *([("precision", hits / sum(chosen))] if any(chosen) else []),
                    ("recall", hits / sum(truth)),
                    ("share selected", fmean(chosen)),
                ):
                    found[rule][what][rollout.scene.key].append(value)
    columns = ("AUROC", "precision", "recall", "share selected")
    print(f"| rule | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for rule, measured in found.items():
        cells = []
        for what in columns:
            one = bootstrap({scene: fmean(values) for scene, values in measured[what].items()})
            cells.append(f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]")
        print(f"| {rule} | {' | '.join(cells)} |")
    questions = len(next(iter(found.values()))["AUROC"])
    print(f"\n{len(shares)} responses to {questions} questions; {fmean(shares):.3f} of their tokens look.")


if __name__ == "__main__":
    main()
