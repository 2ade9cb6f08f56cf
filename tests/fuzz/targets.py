"""All targets, and how Hypothesis and atheris give each its inputs."""

from __future__ import annotations

from typing import Any

from fuzz.files import FILE_TARGETS
from fuzz.runs import RUN_TARGETS
from fuzz.texts import TEXT_TARGETS
from hypothesis import strategies as st

TARGETS = (*TEXT_TARGETS, *FILE_TARGETS, *RUN_TARGETS)


class FromHypothesis:
    """Choices that Hypothesis makes, and makes smaller where one of them breaks a law: see `drawing.Draw`."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def below(self, limit: int) -> int:
        """See `drawing.Draw`."""
        return self.data.draw(st.integers(0, limit - 1))

    def blob(self) -> bytes:
        """See `drawing.Draw`."""
        return self.data.draw(st.binary(max_size=255))
