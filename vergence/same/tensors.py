"""Two sets of tensors in files beside each other, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import inf, prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vergence.types import UserError

PIECE = 2**24
"""Values that are held of a tensor at a time."""
BLOCK = 2**20
"""Bytes of a file that are held at a time."""
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The type whose bits a value's are, by the bytes of a value: two NaN may be the same, and 0.0 is not -0.0."""


class Apart(NamedTuple):
    """How two sets of tensors differ."""

    names: tuple[str, ...]
    """The tensors whose values differ, those of both sets in the order of their names."""
    odd: tuple[str, ...]
    """What cannot be compared: tensors that one set alone has, or that are of another shape or type."""
    tensors: int
    """How many there are in all."""
    values: int
    """How many values differ."""
    of: int
    """How many there are in the tensors that both have."""
    most: float
    """The largest difference of two values; inf where one is not finite and the other is another."""
    worst: str
    """The tensor that it is in."""

    def told(self) -> str:
        """In words.

        >>> Apart(("w",), (), 2, 3, 10, 0.5, "w").told()
        '1 of 2 tensors, 3 of 10 values, at most 0.5 apart (w)'
        >>> Apart((), ("v: only the first has it",), 2, 0, 10, 0.0, "").told()
        'v: only the first has it'
        """
        most = f", at most {self.most:.3g} apart ({self.worst})" if self.names else ""
        values = f"{len(self.names):,} of {self.tensors:,} tensors, {self.values:,} of {self.of:,} values{most}"
        more = [f"and {len(self.odd) - 3:,} more such"] if len(self.odd) > 3 else []
        return "; ".join([*([values] if self.names else []), *self.odd[:3], *more])


def tensors_apart(ones: Sequence[Path], others: Sequence[Path]) -> Apart | None:
    """How the tensors of two sets of safetensors files differ, whichever file each is in; None if they do not.

    Raises:
        UserError: a file is damaged.
    """
    alike = [path.name for path in ones] == [path.name for path in others]
    if alike and all(same_bytes(one, other) for one, other in zip(ones, others, strict=True)):
        return None
    with ExitStack() as stack:
        mine, theirs = (dict(_tensors(stack, paths)) for paths in (ones, others))
        names, odd, values, of, most, worst = [], [], 0, 0, -1.0, ""
        for name in sorted(mine.keys() | theirs.keys()):
            if trouble := _unlike(name, mine, theirs):
                odd.append(trouble)
                continue
            differ, apart = _values(mine[name][1], theirs[name][1], name, (mine[name][0], theirs[name][0]))
            of += _size(mine[name][1], name)
            if differ:
                names.append(name)
                values += differ
                most, worst = (apart, name) if apart > most else (most, worst)
        found = Apart(tuple(names), tuple(odd), len(mine.keys() | theirs.keys()), values, of, max(most, 0.0), worst)
    return found if names or odd else None


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files hold the same.

    Raises:
        OSError: one cannot be read.
    """
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while block := a.read(BLOCK):
            if block != b.read(BLOCK):
                return False
        return not b.read(1)


def _tensors(stack: ExitStack, paths: Sequence[Path]) -> Iterator[tuple[str, tuple[Path, Any]]]:
    """Name -> its file, opened."""
    for path in paths:
        try:
            file = stack.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
        names = file.keys()
        yield from ((name, (path, file)) for name in names)


def _unlike(name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Why two tensors cannot be compared value by value; "" if they can."""
    if name not in mine or name not in theirs:
        return f"{name}: only the {'first' if name in mine else 'second'} has it"
    (_, one), (_, other) = mine[name], theirs[name]
    kinds = [(piece.get_dtype(), tuple(piece.get_shape())) for piece in (one.get_slice(name), other.get_slice(name))]
    if kinds[0] == kinds[1]:
        return ""
    return f"{name}: {' and '.join(f'{kind} {list(shape)}' for kind, shape in kinds)}"


def _size(file: Any, name: str) -> int:
    return prod(file.get_slice(name).get_shape())


def _values(one: Any, other: Any, name: str, paths: tuple[Path, Path]) -> tuple[int, float]:
    """How many values of a tensor differ, and by how much at most."""
    shape = one.get_slice(name).get_shape()
    rows = max(1, PIECE // max(1, prod(shape[1:])))
    number, most = 0, 0.0
    for start in range(0, shape[0], rows) if shape else (0,):
        try:
            mine, theirs = (
                file.get_slice(name)[start : start + rows] if shape else file.get_tensor(name) for file in (one, other)
            )
        except SafetensorError as error:
            raise UserError(f"{name} in {paths[0]} or {paths[1]} cannot be read: {error}") from error
        differ, apart = bits_apart(mine, theirs)
        number, most = number + differ, max(most, apart)
    return number, most


def bits_apart(one: Tensor, other: Tensor) -> tuple[int, float]:
    """How many values of two tensors of one shape and type differ in a bit, and the largest difference, inf where one
    is not finite.

    >>> bits_apart(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 2.5, -0.0]))
    (2, 0.5)
    >>> nan = float("nan")
    >>> bits_apart(torch.tensor([nan, 1.0]), torch.tensor([nan, 1.0])), bits_apart(torch.tensor(nan), torch.tensor(1.0))
    ((0, 0.0), (1, inf))
    """
    one, other = one.reshape(-1).contiguous(), other.reshape(-1).contiguous()
    kind = BITS.get(one.element_size(), torch.uint8)
    differ = one.view(kind) != other.view(kind)
    if kind.itemsize != one.element_size():  # of a type with more bytes, each was compared
        differ = differ.view(len(one), -1).any(1)
    if not bool(differ.any()):
        return 0, 0.0
    mine, theirs = (x[differ] if x.is_complex() else x[differ].double() for x in (one, other))
    apart = (mine - theirs).abs().nan_to_num(nan=inf)
    return int(differ.sum()), float(apart.max())
