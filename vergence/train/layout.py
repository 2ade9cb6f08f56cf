"""How a run is shared among processes: who has which part of the weights, and how many scenes."""

from __future__ import annotations

from typing import NamedTuple

from vergence.train.config import Config


class Layout(NamedTuple):
    """How a run is shared among processes."""

    processes: int = 1
    """W."""
    shards: int = 1
    """k: how many of them share one copy of the weights."""
    offload: bool = False
    """Whether the shares stay in the CPU's memory."""

    @property
    def several(self) -> bool:
        """Whether there is anybody to share with."""
        return self.processes > 1

    def scenes(self, number: int) -> int:
        """The most of so many scenes that one process has.

        >>> Layout(8, 8).scenes(20)
        3
        """
        return -(-number // self.processes)


ALONE = Layout()
"""One process."""


def layout_of(config: Config, processes: int) -> Layout:
    """How the config shares a run among so many processes.

    >>> layout_of(Config(shards=0), 8).shards, layout_of(Config(shards=2), 8).shards, layout_of(Config(), 1).shards
    (8, 2, 1)
    """
    return Layout(processes, min(config.shards or processes, processes), config.offload and processes > 1)
