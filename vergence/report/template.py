"""The pages' templates, and how numbers are written in them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vergence.disk import make, write_whole
from vergence.evaluate.interval import Estimate
from vergence.report.drawing import interval, swatch
from vergence.report.figures import short
from vergence.report.legible import legible
from vergence.report.policy import named, policy
from vergence.report.viewer import STYLE
from vergence.types import UserError

OURS = '<meta name="generator" content="Vergence">'
"""Stands in every page of ours: a file with it may be written anew."""


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Fill a template and write the page. Whatever a model or a data set wrote is escaped; only figures are markup.

    Raises:
        UserError: it cannot be written.
    """
    environment = templates()
    house = environment.get_template("style.html").render()
    environment.filters |= {"percent": percent, "points": points, "signed": signed, "short": short}
    environment.filters |= {"p": p_value, "svg": Markup}
    # numbers and our own words only: safe as they are
    environment.globals |= {
        "mark": lambda estimate, reach: Markup(interval(estimate, reach)),
        "swatch": lambda style: Markup(swatch(style)),
        "ours": Markup(OURS),
        "house": Markup(house),
        "sealed": partial(_sealed, house),
    }
    return put(path, environment.get_template(template).render(**values))


def put(path: Path, html: str) -> Path:
    """Put a page in its place, whole, and return its path.

    Raises:
        UserError: it cannot be written.
    """
    make(path.parent)
    # model output may hold half a surrogate pair, which UTF-8 has no bytes for
    write_whole(path, html.encode(errors="replace"))
    return path


def templates() -> Environment:
    """The templates of all pages, which escape whatever is put into them, and make visible what cannot be seen."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: legible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _sealed(house: str, script: str) -> str:
    """The policy of a page with figures; with the viewer's style where it has the viewer's script."""
    return policy([named(house), *([named(STYLE)] if script else [])], [script] if script else [], figures=True)


def refuse_others(path: Path) -> None:
    """Raise if something else than a page of ours is there.

    Raises:
        UserError: it is a folder, a device, or a file without our mark.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give --out a file, such as {path / 'report.html'}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a device or a pipe; give --out a file")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if OURS.encode() not in file.read(2000):
                raise UserError(f"{path} is there and is no page of ours; it is not overwritten: give another --out")


def percent(value: float) -> str:
    """A share as a percentage.

    >>> percent(0.4156)
    '41.6'
    """
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign.

    >>> points(0.041), points(-0.2), points(-0.00001)
    ('+4.1', '−20.0', '0.0')
    """
    rounded = round(100 * value, 1)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else ''}{abs(rounded):.1f}"


def signed(value: float) -> str:
    """A share, or a difference of shares, as a percentage; a minus where it is below zero.

    >>> signed(0.041), signed(-0.2)
    ('4.1', '−20.0')
    """
    return points(value).removeprefix("+")


def p_value(value: float) -> str:
    """A p-value.

    >>> p_value(0.0321), p_value(0.00004), p_value(1.0)
    ('0.032', '<0.001', '1.000')
    """
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def reach(estimates: list[Estimate | None]) -> float:
    """How far differences go, 5 points or more: the one scale of all marks of a page.

    >>> reach([Estimate(0.1, -0.2, 0.3, 9), None])
    0.3
    """
    return max([0.05, *(abs(end) for one in estimates if one for end in (one.low, one.high))])
