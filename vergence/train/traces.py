"""What was measured at each token of some rollouts: the lines of traces.jsonl, which the viewer colours words by.

Traces cost no forward pass: they are written in the rounds that are watched, from what `train.watch` has measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from torch import Tensor

from vergence.models.policy import Reader
from vergence.objectives.terms import CAPPED
from vergence.scenes.speech import value_spans
from vergence.train.ask import view_key
from vergence.train.checkpoint import Pending
from vergence.train.parts import WATCHED, Parts, shows_captions
from vergence.train.recorded import rollout_records
from vergence.train.watch import chosen_by, watched_views
from vergence.types import BT, Batch, Mask, Method, Original, Rollout, Scene, Stats, ViewSpec

SCENES = 4
"""Scenes of a watched round whose rollouts are traced, the first ones, with all their siblings."""
LONGEST = 1024
"""Tokens of a response that are traced: a file of traces stays one that can be opened."""

Record = dict[str, Any]
"""One line of traces.jsonl."""


def pieces(reader: Reader, tokens: Sequence[int]) -> list[str]:
    """The text of each token, special ones included; joined they are what the tokens say together.

    A character that is spread over several tokens belongs to the one that completes it: those before it say "".
    """
    decode = reader.tokenizer.decode
    whole, found, since, said = decode(list(tokens)), [], 0, 0
    for end in range(1, len(tokens) + 1):
        # after what was said last, and not alone: some tokenizers drop the blank before the first word
        before, now = decode(list(tokens[since:said])), decode(list(tokens[since:end]))
        if now.endswith("\ufffd") and end < len(tokens) and end - said < 4:
            found.append("")
            continue
        found.append(now[len(before) :])
        since, said = said, end
    return found if "".join(found) == whole else _by_prefixes(decode, tokens, whole)


def _by_prefixes(decode: Any, tokens: Sequence[int], whole: str) -> list[str]:
    """The same from the text of every beginning: slow, but what is joined is the whole whatever the tokenizer does."""
    found, reached = [], 0
    for end in range(1, len(tokens) + 1):
        start = decode(list(tokens[:end])).rstrip("\ufffd")
        common = next((i for i, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b), len(start))
        upto = len(whole) if end == len(tokens) else max(reached, min(common, len(whole)))
        found.append(whole[reached:upto])
        reached = upto
    return found


def touches(texts: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int]:
    """1 for each piece of which more than blanks lies in one of the spans of the joined text, else 0.

    >>> touches(["red bar", ": ", "7", ". 7"], [(9, 10)])
    [0, 0, 1, 0]
    """
    found, start = [], 0
    for text in texts:
        first, end = start + len(text) - len(text.lstrip()), start + len(text)
        found.append(int(any(first < stop and begin < end for begin, stop in spans) and text.strip() != ""))
        start = end
    return found


def looks(texts: Sequence[str]) -> list[int]:
    """1 for each piece that is (part of) a word of a stated fact's value: what has to be seen to be said.

    >>> looks(["red", " bar", ":", " 7", ".", " So", " 7", "+", "2"])
    [0, 0, 0, 1, 0, 0, 0, 0, 0]
    """
    return touches(texts, value_spans("".join(texts)))


def shows_of(method: Method) -> dict[str, ViewSpec]:
    """The views of a trace by name, in the order to show them: the image, the common masked view, the method's own.

    >>> from vergence.objectives import method
    >>> list(shows_of(method("grpo"))), list(shows_of(method("papo")))
    (['image', 'masked'], ['image', 'masked', 'own masked'])
    """
    image = method.views["image"].show
    shows: dict[str, ViewSpec] = {"image": image}
    if image == Original():
        shows["masked"] = WATCHED.show
    return shows | {named(name): view.show for name, view in watched_views(method).items()}


def named(view: str) -> str:
    """What a trace calls a view of the trainer's: "masked" is the common one, whatever the method calls its own.

    >>> named("watched"), named("masked"), named("removed")
    ('masked', 'own masked', 'removed')
    """
    return {"watched": "masked", "masked": "own masked"}.get(view, view)


def compared(stats: Stats, view: str, name: str) -> dict[str, BT]:
    """What can be said of each token by the image beside a view: KL(image || view) over the vocabulary, the k3 of the
    sampled token (held to 10 nats), l_image - l_view, and the entropy that the view adds, H_view - H_image. Nats.

    >>> import torch
    >>> names = {"logp": [[-1.0], [-3.0]], "entropy": [[0.5], [2.0]]}
    >>> value = {(view, what, None): torch.tensor([rows[k]]) for what, rows in names.items()
    ...     for k, view in enumerate(("image", "blank"))}
    >>> found = compared(Stats({**value, ("image", "kl", "blank"): torch.tensor([[0.7]])}), "blank", "grey")
    >>> {name: round(value_BT.item(), 3) for name, value_BT in found.items()}
    {'kl grey': 0.7, 'k3 grey': 1.135, 'log ratio grey': 2.0, 'entropy gain grey': 1.5}
    """
    logp_BT, other_BT = stats.logp("image"), stats.logp(view)
    return {
        f"kl {name}": stats.kl("image", view),
        f"k3 {name}": CAPPED["k3"](logp_BT, other_BT),
        f"log ratio {name}": logp_BT - other_BT,
        f"entropy gain {name}": stats.entropy(view) - stats.entropy("image"),
    }


def traces(
    parts: Parts,
    rollouts: Sequence[Rollout],
    scenes: Sequence[Scene],
    pending: Pending,
    stats: Stats,
    *,
    round_: int,
    step: int,
) -> Iterator[Record]:
    """Lines of traces.jsonl: the rollouts of the first `SCENES` scenes of a round.

    Args:
        scenes: those of the round, with the captions that were shown.
        stats: what `watch.looked` measured.
        step: the optimizer step that the round begins with.
    """
    config, method, shows = parts.config, parts.method, shows_of(parts.method)
    some = SCENES * config.siblings
    rows = slice(0, some)
    batch, frozen, stats = pending.batch.rows(rows), pending.frozen.rows(rows), stats.rows(rows)
    selected = {name: (select(batch, frozen) & batch.mask_BT).int() for name, select in chosen_by(method).items()}
    values = measured(method, batch, stats)
    lines = rollout_records(step, rollouts[:some], batch.advantage_B)
    for row, (line, rollout) in enumerate(zip(lines, rollouts[:some], strict=True)):
        scene = scenes[row // config.siblings]
        captions = any(map(shows_captions, method.views.values()))
        yield {
            **line,
            **({"caption": scene.caption} if captions else {}),
            "view_key": {name: view_key(config.seed, show, round_, scene.key) for name, show in shows.items()},
            **at_tokens(
                parts.policy.reader,
                rollout,
                {name: value_BT[row] for name, (value_BT, among_BT) in values.items() if among_BT[row].any()},
                {name: chosen_BT[row] for name, chosen_BT in selected.items()},
            ),
            "views": list(shows),
        }


def measured(method: Method, batch: Batch, stats: Stats) -> dict[str, tuple[BT, Mask]]:
    """Name -> what is traced of each token, and where it was measured: not where a view's gate kept a rollout out."""
    found = {"entropy": stats.entropy("image"), "advantage": batch.advantage_BT}
    if method.reshape is not None:
        found["weight"] = batch.advantage_BT / batch.advantage_B.where(batch.advantage_B != 0, 1.0)[:, None]
    everywhere = {name: (value_BT, batch.mask_BT) for name, value_BT in found.items()}
    views = {name: view.through(batch) for name, view in watched_views(method).items()}
    if method.views["image"].show == Original():
        views = {"watched": WATCHED.through(batch), **views}
    return everywhere | {
        name: (value_BT, batch.mask_BT & through_B[:, None])
        for view, through_B in views.items()
        for name, value_BT in compared(stats, view, named(view)).items()
    }


def at_tokens(
    reader: Reader, rollout: Rollout, values: Mapping[str, Tensor], selected: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What a trace says token by token: their texts, `values` with four significant digits, what `selected` them, and
    which of them look, where the scene's facts are known."""
    tokens = rollout.sampled.tokens
    texts, length = pieces(reader, tokens), min(len(tokens), LONGEST)
    return {
        "tokens": texts[:length],
        "left_out": len(tokens) - length,
        "stats": {name: _short(value_T[:length].tolist()) for name, value_T in values.items()},
        "looks": looks(texts)[:length] if rollout.scene.facts else None,
        "selected": {name: chosen_T[:length].tolist() for name, chosen_T in selected.items()},
    }


def _short(numbers: list[float]) -> list[float | None]:
    """With four significant digits; None where one is no finite number."""
    return [float(f"{number:.4g}") + 0.0 if isfinite(number) else None for number in numbers]
