"""What is done on the disk, in order: which files were waited for, and which names they were given."""

import os
from pathlib import Path

import pytest


def noted(patch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """From now on: ("sync", name), ("replace", name)."""
    seen, fsync, replace = [], os.fsync, os.replace

    def synced(handle: int) -> None:
        seen.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def replaced(source, target) -> None:
        seen.append(("replace", Path(target).name))
        replace(source, target)

    patch.setattr(os, "fsync", synced)
    patch.setattr(os, "replace", replaced)
    return seen
