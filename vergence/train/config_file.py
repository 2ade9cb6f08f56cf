"""A config as text: what a run's config.yaml holds, and what --config reads."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from vergence.train.config import Config
from vergence.types import UserError

LONGEST = 100_000
"""Characters of a config that is read; a whole one has a few thousand."""
DEEPEST = 4
"""Lists and mappings in each other; a config has two."""
_SHOWN = 200
"""Characters of a value that an error shows."""


class _Loader(yaml.SafeLoader):
    """YAML without what a few lines can make endless: deep nesting, and names for parts that are used again.

    The two methods are those of PyYAML 6; they are called for every config, which a test sees.
    """

    depth = 0

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """An opening bracket: the scanner would look far ahead of the first of many."""
        if self.flow_level > DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply for a config", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(kind)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next part, with those inside of it."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="no *name is read: write the value out", problem_mark=event.start_mark)
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply for a config", problem_mark=event.start_mark)
        self.depth += 1
        found = super().compose_node(parent, index)
        self.depth -= 1
        return found


def to_yaml(config: Config) -> str:
    """The config as text that `from_yaml` reads back to an equal one."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    return yaml.safe_dump(plain, sort_keys=False)


def from_yaml(text: str, where: str = "config.yaml") -> Config:
    """The config that a text describes.

    >>> from_yaml(to_yaml(Config(seed=7, options={"gamma": "0.1"}))) == Config(seed=7, options={"gamma": "0.1"})
    True
    >>> from_yaml("stepz: 3")
    Traceback (most recent call last):
    vergence.types.UserError: config.yaml: unknown key 'stepz'; did you mean 'steps'?

    Raises:
        UserError: not a mapping, an unknown key (the nearest is named), a wrong type or a value out of range.
    """
    if len(text) > LONGEST:
        raise UserError(f"{where} has {len(text):,} characters, and no config has more than {LONGEST:,}")
    try:
        read = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none is a ValueError
        raise UserError(f"{where} is not YAML: {' '.join(str(error).split())[:_SHOWN]}") from error
    if not isinstance(read, Mapping):
        raise UserError(f"{where} must hold `field: value` lines, not {type(read).__name__}")
    known = {one.name: one for one in fields(Config)}
    for name in read:
        if name not in known:
            near = difflib.get_close_matches(str(name)[:_SHOWN], known, n=1, cutoff=0.0)[0]
            raise UserError(f"{where}: unknown key {repr(name)[:_SHOWN]}; did you mean {near!r}?")
    given = {name: _convert(name, known[name].type, value, where) for name, value in read.items()}
    try:
        return Config(**given)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def load_config(path: Path) -> Config:
    """The config in a file.

    Raises:
        UserError: no such file, or it cannot be read; or see `from_yaml`.
    """
    if not path.is_file():
        raise UserError(f"no config at {path}; give the config.yaml of a run folder, or start from a recipe")
    try:
        with path.open("rb") as file:
            text = file.read(4 * LONGEST + 1).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); see that it is yours to read") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8; save it as UTF-8") from error
    return from_yaml(text, str(path))


def _convert(name: str, kind: Any, value: Any, where: str) -> Any:
    """YAML has no tuples, and reads 1e-4 as text."""
    try:
        if kind == "float":
            return float(value)
        if kind == "int" and not (isinstance(value, int) and not isinstance(value, bool)):
            raise ValueError
        if kind in ("str", "bool") and type(value).__name__ != kind:
            raise ValueError
        if kind.startswith("tuple[float"):
            low, high = value
            return float(low), float(high)
        if kind.startswith("tuple[str"):
            if isinstance(value, str):
                raise ValueError
            return tuple(str(one) for one in value)
        if "dict" in kind:
            return {str(key): str(one) for key, one in value.items()}
        if kind.startswith("Literal") and value not in get_args(_hints()[name]):
            raise ValueError
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{where}: {name} must be {kind}, got {repr(value)[:_SHOWN]}") from error
    return value


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Config)
