"""A config as text: what a run's config.yaml holds, and what --config reads."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from vergence.train.config import Config
from vergence.types import UserError


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
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(read, Mapping):
        raise UserError(f"{where} must hold `field: value` lines, not {type(read).__name__}")
    known = {one.name: one for one in fields(Config)}
    for name in read:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
            raise UserError(f"{where}: unknown key {name!r}; did you mean {near!r}?")
    return Config(**{name: _convert(name, known[name].type, value, where) for name, value in read.items()})


def load_config(path: Path) -> Config:
    """The config in a file.

    Raises:
        UserError: no such file, or see `from_yaml`.
    """
    if not path.is_file():
        raise UserError(f"no config at {path}; give the config.yaml of a run folder, or start from a recipe")
    return from_yaml(path.read_text(), str(path))


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
            return tuple(str(one) for one in value)
        if "dict" in kind:
            return {str(key): str(one) for key, one in value.items()}
        if kind.startswith("Literal") and value not in get_args(get_type_hints(Config)[name]):
            raise ValueError
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: {name} must be {kind}, got {value!r}") from error
    return value
