"""Where other verifiers judge a file of responses otherwise than ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import Any, NamedTuple

from vergence.rewards.pool import SECONDS, Found, Pool, workers
from vergence.rewards.rows import Row, asked
from vergence.rewards.theirs import Asked, Theirs
from vergence.rewards.verify import verify_all
from vergence.types import Gold, UserError, Wording

NEEDED: Mapping[Theirs, tuple[str, ...]] = {
    "math-verify": ("math_verify",),
    "mathruler": ("mathruler", "pylatexenc", "tqdm"),
}
"""Who is asked, and the modules without which it is not."""
AT_ONCE = 4096
"""Rows that are held."""


class Difference(NamedTuple):
    """A response on which the verifiers differ."""

    line: int
    gold: str
    kind: str
    extracted: str | None
    verdicts: dict[str, str]
    """Verifier -> right, wrong, unparsed or timed out; ours is called vergence."""


class Audit(NamedTuple):
    """What came of asking all of them."""

    rows: int
    errors: list[str]
    """Rows that could not be judged, and why."""
    missing: list[str]
    """Verifiers that are not installed."""
    counts: dict[str, dict[str, int]]
    """Verifier -> verdict -> responses."""
    differences: list[Difference]


def audit(rows: Iterable[Row], *, wording: Wording = "think", seconds: float = SECONDS) -> Audit:
    """Our verdict on each row beside those of Math-Verify and, where it is installed, MathRuler.

    They differ where one says right and another does not. The others are asked as their users do, in processes that
    are killed after `seconds`: Math-Verify with the gold in a box, as it reads no bare TeX, MathRuler with the gold as
    it is; both with the whole response. Of the rows, `AT_ONCE` are held at a time.

    >>> found = audit([Row({"gold": "blue", "response": "\\\\boxed{lbeu}"})])
    >>> found.differences[0].verdicts["math-verify"], found.differences[0].verdicts["vergence"]
    ('right', 'wrong')
    """
    there = [name for name, modules in NEEDED.items() if all(map(find_spec, modules))]
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("vergence", *there)}
    number, errors, differences, left = 0, [], [], iter(rows)
    while some := list(islice(left, AT_ONCE)):
        number += len(some)
        read = list(_read(some, errors))
        responses, golds = [one[1] for one in read], [one[2] for one in read]
        ours = verify_all(responses, golds, wording=wording, seconds=seconds)
        found: dict[str, list[Found]] = {"vergence": [verdict.status for verdict in ours]}
        for name in there:
            meant = [boxed(gold.text) if name == "math-verify" else gold.text for gold in golds]
            found[name] = ask_them(name, responses, meant, seconds)
        for name, verdicts in found.items():
            counts[name].update(verdicts)
        each = [{name: verdicts[at] for name, verdicts in found.items()} for at in range(len(read))]
        differences += [
            Difference(line, gold.text, gold.kind, verdict.extracted, verdicts)
            for (line, _, gold), verdict, verdicts in zip(read, ours, each, strict=True)
            if len({said == "right" for said in verdicts.values()}) > 1
        ]
    missing = [name for name in NEEDED if name not in there]
    return Audit(number, errors, missing, {name: dict(of) for name, of in counts.items()}, differences)


def _read(rows: Iterable[Row], errors: list[str]) -> Iterator[tuple[int, str, Gold]]:
    """(line, response, gold) of the rows that can be judged; of the others, why not, is added to the errors."""
    for row in rows:
        try:
            if row.error:
                raise UserError(row.error)
            yield row.line, *asked(row.fields)
        except UserError as error:
            errors.append(f"line {row.line}: {error}")


def ask_them(
    who: Theirs, responses: Sequence[str], golds: Sequence[str], seconds: float = SECONDS, python: str | None = None
) -> list[Found]:
    """What another verifier says of each; "unparsed" where it raises or gives no verdict.

    Args:
        python: an interpreter that it is installed for, if not this one.

    Raises:
        UserError: the processes do not start.
    """
    given: dict[str, Any] = {"python": python} if python else {}
    pool = Pool(workers(), "vergence.rewards.theirs", **given)
    try:
        return pool.ask([Asked(who, response, gold) for response, gold in zip(responses, golds, strict=True)], seconds)
    finally:
        pool.close()


def boxed(text: str) -> str:
    """The text in a box, if it has none.

    >>> boxed("12"), boxed("\\\\boxed{12}")
    ('\\\\boxed{12}', '\\\\boxed{12}')
    """
    return text if "\\boxed" in text else f"\\boxed{{{text}}}"
