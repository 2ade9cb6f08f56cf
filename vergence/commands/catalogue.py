"""The catalogue of methods: what each entry is, what it looks at, what that costs, how it differs from its source."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter, signature
from typing import Any

import tyro

from vergence.report.table import print_json
from vergence.types import Method, Read, UserError

Positional = tyro.conf.Positional


def methods(name: Positional[str] = "", json: bool = False) -> None:
    """List the catalogue, or show one entry in full: its source, views, cost, options and deviations.

    Example: vergence methods papo

    Args:
        name: An entry, or one of its other names. By default all of them.
        json: Print one line of JSON.
    """
    entries, others = catalogue()
    if name:
        full = others.get(name, name)
        if "+" in name:
            entries[full] = _of_control(name)
        if full not in entries:
            near = difflib.get_close_matches(name, [*entries, *others], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"there is no method {name!r}; {hint}There are: {', '.join(sorted([*entries, *others]))}")
        print_json(entries[full]) if json else print(in_full(entries[full]))
    elif json:
        print_json(entries)
    else:
        print("\n".join(map(in_short, entries.values())))


def catalogue() -> tuple[dict[str, dict[str, Any]], Mapping[str, str]]:
    """(name -> record, other name -> name): every method, then every control. See `record` and `control`."""
    from vergence import objectives

    entries = {name: record(name, make, objectives.ALIASES) for name, make in objectives.METHODS.items()}
    # controls are no methods of a paper: they say in a sentence what they are
    for name, one in objectives.CONTROLS.items():
        entries.setdefault(name, control(name, one))
    return entries, objectives.ALIASES


def record(name: str, make: Callable[..., Method], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Everything about a method at its default options, as plain data that JSON can hold."""
    method = make()
    about, reads = method.about, reads_of(method)
    return {
        "kind": "method",
        "name": name,
        "aliases": [alias for alias, full in aliases.items() if full == name],
        "title": about.title,
        "paper": about.paper,
        "variant": about.variant,
        "base": about.base,
        "views": {
            view: {"show": repr(one.show), "weights": one.policy, "gated": one.gate is not None}
            for view, one in method.views.items()
        },
        "extra_passes": extra_passes(method),
        "terms": list(method.objective),
        "asks": f"for a{'n' if method.ask == 'answer' else ''} {method.ask}",
        "judge": method.reward.judge,
        "groups": "all" if method.keep is None else "those that differ in correctness",
        "advantages": "per rollout" if method.reshape is None else "reshaped by what the views say",
        "reads": [read._asdict() for read in reads],
        "options": options(make),
        "deviations": list(about.deviations),
        "reconstructed": list(about.reconstructed),
    }


def _of_control(name: str) -> dict[str, Any]:
    """The record of a controlled method, such as papo+shuffled."""
    from vergence import objectives

    full = objectives.ALIASES.get(name.partition("+")[0], name.partition("+")[0])
    found = record(name, partial(objectives.method, name), {})
    known = options(objectives.METHODS[full]) if full in objectives.METHODS else {}
    strength = objectives.CONTROLS[name.partition("+")[2]].strength
    return found | {"options": known | ({} if strength is None else {"strength": strength})}


def control(name: str, one: Any) -> dict[str, Any]:
    """What is known of a control: its name, and what it is for."""
    return {"kind": "control", "name": name, "about": str(one.about)}


def reads_of(method: Method) -> list[Read]:
    """Every statistic that it needs, once: of its terms, its metrics, and what reshapes its advantages."""
    terms = [*method.objective.values(), *method.metrics.values()]
    reshaping = method.reshape.reads if method.reshape else ()
    return list(dict.fromkeys([*(read for term in terms for read in term.reads), *reshaping]))


def extra_passes(method: Method) -> dict[str, Any]:
    """Forward passes over all responses beyond the one with gradient that sees the image, which every method needs.

    A view costs one pass for all that is read of it at one time: read `frozen`, one without gradient in a round (in
    every optimizer step, if the method reads it anew); else one in every optimizer step, with gradient if any of its
    reads has one. A gated view costs less: it is spent on some of the responses.

    >>> from vergence.objectives import method
    >>> extra_passes(method("papo-grpo@paper"))  # the reference frozen, the masked view with gradient
    {'frozen': 1, 'frozen_every': 'round', 'live': 0, 'grad': 1}
    """
    seen: dict[str, set[str]] = {"frozen": set(), "live": set(), "grad": set()}
    for read in reads_of(method):
        seen[read.when] |= {read.view, read.against} - {None}
    return {
        "frozen": len(seen["frozen"]),
        "frozen_every": "step" if method.fresh else "round",
        "live": len(seen["live"] - seen["grad"] - {"image"}),
        "grad": len(seen["grad"] - {"image"}),
    }


def options(make: Callable[..., Method]) -> dict[str, Any]:
    """Option -> its default.

    >>> options(lambda *, gamma=0.02, mean="token": None)
    {'gamma': 0.02, 'mean': 'token'}
    """
    taken = {name: one for name, one in signature(make).parameters.items() if one.kind is not Parameter.VAR_KEYWORD}
    return {
        name: one.default if isinstance(one.default, int | float | str | None) else str(one.default)
        for name, one in taken.items()
    }


def in_short(entry: Mapping[str, Any]) -> str:
    """An entry as the list shows it."""
    if entry["kind"] == "control":
        return f"{entry['name']}\n  a control: {entry['about']}"
    also = f"  (also: {', '.join(entry['aliases'])})" if entry["aliases"] else ""
    return "\n".join([f"{entry['name']}{also}", f"  {_source(entry)}", *_differences(entry)])


def in_full(entry: Mapping[str, Any]) -> str:
    """All of an entry."""
    if entry["kind"] == "control":
        return in_short(entry)
    passes = entry["extra_passes"]
    lines = [
        entry["name"] + (f"  (also: {', '.join(entry['aliases'])})" if entry["aliases"] else ""),
        f"  {_source(entry)}" + (f"; on {entry['base']}" if entry["base"] else ""),
        f"  terms: {', '.join(entry['terms'])}",
        f"  asks {entry['asks']}; judged by the {entry['judge']}; groups that train: {entry['groups']}; advantages: "
        f"{entry['advantages']}",
        "  views:",
        *(f"    {name}: {_view(view)}" for name, view in entry["views"].items()),
        f"  extra passes: {passes['frozen']} without gradient in every {passes['frozen_every']}, {passes['live']} "
        f"without and {passes['grad']} with gradient in every step",
        "  reads:",
        *(f"    {_read(read)}" for read in entry["reads"]),
        "  options:" if entry["options"] else "  no options",
        *(f"    {name} = {default if default != '' else 'none'}" for name, default in entry["options"].items()),
    ]
    return "\n".join([*lines, *_differences(entry)])


def _source(entry: Mapping[str, Any]) -> str:
    return f"{entry['title']}, arXiv:{entry['paper']}, as the {entry['variant']}"


def _view(view: Mapping[str, Any]) -> str:
    weights = "today's weights" if view["weights"] == "now" else "the weights that training started from"
    return f"{view['show']}, seen by {weights}" + (", gated: some of the responses" if view["gated"] else "")


def _read(read: Mapping[str, Any]) -> str:
    against = f" || {read['against']}" if read["against"] else ""
    return f"{read['quantity']}({read['view']}{against}), {read['when']}"


def _differences(entry: Mapping[str, Any]) -> list[str]:
    return [f"    differs: {line}" for line in entry["deviations"]] + [
        f"    reconstructed: {line}" for line in entry["reconstructed"]
    ]
