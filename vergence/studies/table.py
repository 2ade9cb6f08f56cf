"""A study's table: as rows for the terminal, and as Markdown with its sentences."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from vergence.evaluate.interval import Estimate
from vergence.studies.arms import Plan
from vergence.studies.compare import FLIPS, Compared, Found, Row
from vergence.studies.pairs import FAMILIES
from vergence.studies.sentences import WORDS, sentences, signed, verdict

Table = tuple[str, list[str], list[list[str]]]
"""(title, columns, rows)."""


def tables(study: Found, plan: Plan) -> list[Table]:
    """What each arm reached, what each comparison says, how the answers fail, and what it cost."""
    found = [_reached(study, plan)]
    found += [_compared([one for one in study.compared if one.family == family], family) for family in FAMILIES]
    return [table for table in [*found, _failing(study), _costs(study)] if table[2]]


def markdown(study: Found, plan: Plan) -> str:
    """The whole of table.md."""
    parts = ["# Study", how(study, plan), *(_as_markdown(table) for table in tables(study, plan))]
    parts += ["## What the controls leave", *(f"- {told}" for told in sentences(study).values())]
    if study.missing:
        parts += ["## Not there yet", ", ".join(study.missing)]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ").replace("leave\n- ", "leave\n\n- ") + "\n"


def how(study: Found, plan: Plan) -> str:
    """How the numbers were taken."""
    lengths = sorted({arm.config.steps for arm in plan.arms})
    equal = f"{plan.seconds:g} seconds of training" if plan.seconds else f"{', '.join(map(str, lengths))} steps"
    n = len({seed for row in study.rows for seed in row.seeds})
    return (
        f"{len(study.rows)} arms, {n} seed{'s' * (n != 1)}, {equal} each; avg@{plan.samples} on {plan.questions} "
        "held-out questions of the report split, other questions for each seed. The unit is the training seed: a "
        "difference is taken on the same questions within a seed, its interval is Student's t over seeds (95 %), p is "
        "of the t test"
        + (", `flip` of flipping the seeds' signs" if n >= FLIPS else "")
        + ", Holm's correction is over the comparisons of one table, and what could be told is the difference that "
        "these seeds would show with 80 % probability."
    )


def _reached(study: Found, plan: Plan) -> Table:
    columns = ["arm", "seeds", "accuracy [95 %]", "gain over start", "best checkpoint", "image blanked", "other worlds"]
    rows = []
    for row in study.rows:
        (gain,) = study.of("start", row.arm) or [None]
        told = signed(gain.difference) if gain else ""
        cells = [row.arm, str(len(row.seeds)), estimate(row.accuracy), told, estimate(row.best), estimate(row.blind)]
        rows.append([*cells, estimate(row.away) if row.away else ""])
    return f"avg@{plan.samples}, means over seeds", columns, rows


def _compared(those: Sequence[Compared], family: str) -> Table:
    flips = any(one.flip is not None for one in those)
    columns = ["arm", "against", "difference [95 %]", "within each seed", "p", "Holm", *["flip"] * flips]
    columns += ["could be told", "perception errors", "verdict"]
    rows = []
    for one in those:
        seeds = ", ".join(
            f"{value.mean:+.3f}{'*' * (value.low > 0 or value.high < 0)}" for value in one.by_seed.values()
        )
        numbers = [one.p, one.holm, *[one.flip] * flips]
        cells = [one.arm, one.against, signed(one.difference), seeds, *map(_optional, numbers)]
        besides = f"; differs besides: {'; '.join(one.differs)}" if one.differs else ""
        cells += [_optional(one.detectable), signed(one.misread) if one.misread else ""]
        rows.append([*cells, WORDS[verdict(one)] + besides])
    told = f"{FAMILIES[family]} (* the bootstrap over one seed's questions leaves zero out)"  # type: ignore[index]
    return told[0].upper() + told[1:], columns, rows


def _failing(study: Found) -> Table:
    kinds = all(row.kinds for row in study.rows)
    columns = [
        "arm",
        "perception errors" if kinds else "states a false fact",
        "unparsed",
        "cut off",
        "warnings (seeds)",
    ]
    rows = [
        [row.arm, estimate(row.misread), f"{row.unparsed:.3f}", f"{row.cut_off:.3f}", _warned(row)]
        for row in study.rows
    ]
    return "How answers fail: shares of all answers with the image", columns, rows


def _costs(study: Found) -> Table:
    columns = ["arm", "steps", "seconds", "seconds per step", "passes", "tokens forward per step", "drawn per trained"]
    rows = []
    for row in study.rows:
        cost = row.cost
        told = [f"{cost['steps']:g}", f"{cost['seconds']:.0f}", f"{cost['seconds_per_step']:.2f}"]
        told += [f"{cost['passes']:g}", f"{cost['forward_tokens_per_step']:.0f}", f"{cost['drawn']:.2f}"]
        rows.append([row.arm, *told])
    return "Cost: training alone; passes over the responses in a step, the image's own included", columns, rows


def estimate(one: Estimate) -> str:
    """A mean and its interval; one seed has none.

    >>> estimate(Estimate(0.5, 0.4, 0.6, 3)), estimate(Estimate(0.5, float("-inf"), float("inf"), 1))
    ('0.500 [0.400, 0.600]', '0.500')
    """
    return f"{one.mean:.3f}" + (f" [{one.low:.3f}, {one.high:.3f}]" if isfinite(one.low) else "")


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value >= 0.001 else "<0.001"


def _warned(row: Row) -> str:
    return ", ".join(f"{name} ({seeds})" for name, seeds in sorted(row.warnings.items()))


def _as_markdown(table: Table) -> str:
    title, columns, rows = table
    lines = [columns, ["---"] * len(columns), *rows]
    cells = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return f"## {title}\n\n" + "\n".join(cells)
