"""Shapes are checked in tests only, and one thread is enough: nothing here is large."""

import os
import sys
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in every process that a test starts

import torch
from jaxtyping import install_import_hook

# `laws` and `oracles` share their cases; a checkout that is not installed is tested as it lies.
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
install_import_hook("vergence", "beartype.beartype")
torch.set_num_threads(1)

with suppress(ImportError):  # the environments of other engines have no Hypothesis
    from hypothesis import settings

    settings.register_profile("laws", deadline=None)  # how long an example takes is the machine's affair
    settings.load_profile("laws")
