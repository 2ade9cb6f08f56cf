"""What tests of faults start from: a process that has imported everything, and folders in memory."""

import shutil
import tempfile
from pathlib import Path

import pytest
from faults.works import Whole, training, warm, whole


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> None:
    warm(tmp_path_factory.mktemp("warm") / "run")


@pytest.fixture
def place(ready) -> Path:
    """A folder; what is written there is never waited for."""
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def papo(ready, tmp_path_factory) -> Whole:
    """An uninterrupted run of `training("papo")`: checkpoints at the steps 2, 4 and 6."""
    return whole(training("papo"), tmp_path_factory.mktemp("papo") / "run")


@pytest.fixture(scope="session")
def half(ready, papo, tmp_path_factory) -> Path:
    """The same, stopped after step 4; to be copied."""
    from functools import partial

    from faults.forked import forked
    from faults.works import train_on

    work, folder = training("papo"), tmp_path_factory.mktemp("half") / "run"
    ended = forked(partial(train_on, work.config, folder, until=4), folder, prepare=work.prepare)
    assert not ended.status, ended.said
    return folder
