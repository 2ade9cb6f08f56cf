"""The page of `vergence look`: the rollout viewer alone, for any checkpoint and image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vergence.report.legible import bounded
from vergence.report.policy import named, policy
from vergence.report.seen import SceneOf
from vergence.report.template import put, templates
from vergence.report.viewer import POLICY, STYLE, view_traces
from vergence.types import UserError, ViewSpec


def write_looks(
    path: Path | str,
    title: str,
    traces: Sequence[Mapping[str, Any]],
    scene_of: SceneOf,
    shows: Mapping[str, ViewSpec | None],
    *,
    about: str = "",
) -> Path:
    """Write a page that shows these traces and return its path. It needs no network and no other file.

    Args:
        scene_of: scene key -> scene, for the pictures.
        shows: view name -> what it shows.
        about: a sentence under the title.

    Raises:
        UserError: there is no trace, or the page cannot be written.
    """
    if not traces:
        raise UserError("no response to show: the page needs at least one; ask at least one question")
    here = Path(__file__).parent
    own = "".join((here / name).read_text(encoding="utf-8") for name in ("colours.css", "looks.css"))
    html = (
        templates()
        .get_template("looks.html")
        .render(
            title=bounded(title, 200),
            about=bounded(about, 1000),
            style=Markup(own),
            policy=policy([named(own), named(STYLE)], [POLICY]),
            block=view_traces(traces, scene_of, shows),
        )
    )
    return put(Path(path), html)
