"""Results in the terminal: a table for people, one line of JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vergence.harmless import harmless


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(value))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, as wide as it needs to be where the output is not a terminal."""
    # as texts: what stands in brackets would be obeyed otherwise, and names come from data
    table = Table(title=Text(harmless(title), style="table.title"), title_justify="left")
    for column in columns:
        table.add_column(_text(column))
    for row in rows:
        table.add_row(*map(_text, row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _text(cell: str) -> Text:
    return Text(harmless(cell))
