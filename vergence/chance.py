"""Chance by argument: every draw comes from a key, never from global state.

A key is a 63-bit integer made from what the draw belongs to (a seed, a scene, a sibling, a step), so the draw does not
change when a batch is cut differently, a run is resumed, or work moves to another process.
"""

import hashlib
import random

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def key(*parts: int | str) -> int:
    """A 63-bit key for whatever `parts` name, in any text. Different parts give different keys (up to hash collisions).

    >>> key(0, "view", "digits/3") == key(0, "view", "digits/3"), key(1, 2) == key(12), key("1") == key(1)
    (True, False, False)
    """
    name = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()) >> 1


def rng(*parts: int | str) -> np.random.Generator:
    """A NumPy generator for whatever `parts` name.

    >>> bool((rng("a").random(3) == rng("a").random(3)).all())
    True
    """
    return np.random.default_rng(key(*parts))


def dice(*parts: int | str) -> random.Random:
    """A generator with `choice`, `sample` and `shuffle` for whatever `parts` name.

    >>> dice("a", 1).random() == dice("a", 1).random()
    True
    """
    return random.Random(key(*parts))


def uniform(key_B: Int[Tensor, " B"], position: int, size: int) -> Float[Tensor, "B size"]:
    """Draws in (0, 1), one row per key: a function of (key, position, column) alone, on any device.

    SplitMix64 (Steele, Lea and Flood 2014) over a counter: integer arithmetic, so the bits are the same everywhere.

    >>> u = uniform(torch.tensor([5, 7]), position=2, size=4)
    >>> bool((u[1] == uniform(torch.tensor([7]), position=2, size=4)[0]).all())
    True
    """
    row_B1 = _mix(key_B[:, None] + _wrap((position + 1) * 0xD1342543DE82EF95))
    column = torch.arange(1, size + 1, device=key_B.device)
    bits = _mix(row_B1 + column * _wrap(0x9E3779B97F4A7C15))
    # 52 bits: with 53 the largest would round to 1
    return _shift(bits, 12, bits).double().add_(0.5).mul_(2.0**-52)


def _mix(x: Tensor) -> Tensor:
    """In place: there is one number for every row and word, at every token that is sampled."""
    room = torch.empty_like(x)
    x.bitwise_xor_(_shift(x, 30, room)).mul_(_wrap(0xBF58476D1CE4E5B9))
    x.bitwise_xor_(_shift(x, 27, room)).mul_(_wrap(0x94D049BB133111EB))
    return x.bitwise_xor_(_shift(x, 31, room))


def _shift(x: Tensor, by: int, room: Tensor) -> Tensor:
    """Logical shift right, put into `room`: torch's is arithmetic."""
    return torch.bitwise_right_shift(x, by, out=room).bitwise_and_((1 << (64 - by)) - 1)


def _wrap(constant: int) -> int:
    """An unsigned 64-bit constant as the signed one with the same bits."""
    return (constant + 2**63) % 2**64 - 2**63
