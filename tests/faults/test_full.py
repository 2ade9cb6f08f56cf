"""A full disk, a quota that is used up, a folder that cannot be written: what was finished is kept, and told."""

import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from faults.forked import Ended, Moment, forked
from faults.works import Work, answering, differences, files, newest, studying, training, whole

pytestmark = pytest.mark.faults
FILLED = "filled"


@contextmanager
def mounted(where: Path, size: str) -> Iterator[Path]:
    """A real file system of that size."""
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(where)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def remounted(where: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(where)], check=True)


def done(work: Work, folder: Path, *moments: Moment) -> Ended:
    log = folder.parent.parent / "said"
    ended = forked(partial(work.do, folder), folder, moments, prepare=work.prepare, log=log)
    assert "Traceback" not in ended.said, ended.said
    return ended


@pytest.mark.parametrize("size", ["1m", "8m", "12m", "19m", "24m", "30m"])
def test_a_disk_that_fills_up_while_checkpoints_are_written(papo, place, size):
    work = training("papo")
    with mounted(place / "disk", size) as disk:
        run = disk / "run"
        ended = done(work, run)
        assert ended.status == 2, ended.said
        assert "no space left while writing to" in ended.said
        assert "are free there" in ended.said
        before = newest(run)
        assert before == max((step for step in (2, 4) if step * 5.3 < int(size[:-1])), default=-1)
        assert "A checkpoint takes about" in ended.said
        assert ("keep-last" in ended.said) == (before > 2), ended.said
        remounted(disk, "size=200m")
        again = done(work, run)
        assert again.status == 0, again.said
        assert again.began >= max(before, 0)
        assert differences(run, papo.files, saved_more=True) == []


@pytest.mark.parametrize("left", [0, 1, 2, 5, 11])
def test_a_disk_that_fills_up_while_logs_are_written(papo, half, place, left):
    """So many pages are left."""
    work = training("papo")
    with mounted(place / "disk", "60m") as disk:
        run = Path(shutil.copytree(half, disk / "run"))
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / FILLED).write_bytes(bytes(free - left * 4096))
        ended = done(work, run)
        assert ended.status == 2, ended.said
        assert "no space left while writing to" in ended.said
        (disk / FILLED).unlink()
        again = done(work, run)
        assert again.status == 0, again.said
        assert again.began >= 4
        assert differences(run, papo.files, saved_more=True) == []


@pytest.mark.parametrize("work", [answering(), studying()], ids=lambda work: work.name)
@pytest.mark.parametrize("left", [1, 3])
def test_a_disk_that_fills_up_under_an_evaluation_or_a_study(place, work, left):
    of = whole(work, place / "whole")
    with mounted(place / "disk", "100m") as disk:
        run = disk / "run"
        run.mkdir()
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / FILLED).write_bytes(bytes(free - left * 4096))
        ended = done(work, run)
        assert ended.status == 2, ended.said
        (disk / FILLED).unlink()
        again = done(work, run)
        assert again.status == 0, again.said
        assert differences(run, of.files, saved_more=True) == []


@pytest.mark.parametrize("number", range(1, 55, 9))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS], ids=errno.errorcode.get)
def test_from_the_nth_write_on_nothing_can_be_written(papo, place, number, code):
    """In the middle of it."""
    work, run = training("papo"), place / "disk" / "run"
    run.parent.mkdir()
    ended = done(work, run, Moment("write", number, -code))
    assert ended.status == 2, ended.said
    told = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota", errno.EROFS: "cannot write to"}[code]
    assert told in ended.said
    before = newest(run)
    again = done(work, run)
    assert again.status == 0, again.said
    assert again.began >= max(before, 0)
    assert differences(run, papo.files, saved_more=True) == []


@pytest.mark.parametrize("number", range(1, 68, 11))
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_from_the_nth_sync_on_nothing_can_be_synced(papo, place, number, code):
    """Nobody may say then that something is safe."""
    work, run = training("papo"), place / "disk" / "run"
    run.parent.mkdir()
    hit = [Moment("sync", number, -code)]
    ended = forked(partial(work.do, run), run, hit, prepare=work.prepare)
    assert ended.status == 2, ended.said
    assert errno.errorcode[code] in ended.said or os.strerror(code) in ended.said or "no space left" in ended.said
    again = done(work, run)
    assert again.status == 0, again.said
    assert differences(run, papo.files, saved_more=True) == []


@pytest.mark.parametrize("most", [2_000, 1_000_000, 5_000_000])
def test_files_that_may_not_grow(papo, place, most):
    work, run = training("papo"), place / "disk" / "run"
    run.parent.mkdir()

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        work.do(run)

    ended = done(work._replace(do=lambda folder: limited()), run)
    assert ended.status == 2, ended.said
    assert "a file may not grow so large here" in ended.said
    assert newest(run) == -1
    again = done(work, run)
    assert again.status == 0, again.said
    assert differences(run, papo.files, saved_more=True) == []


def test_a_disk_that_may_only_be_read(papo, half, place):
    work = training("papo")
    with mounted(place / "disk", "100m") as disk:
        run = Path(shutil.copytree(half, disk / "run"))
        before = files(disk)
        remounted(disk, "ro")
        for folder in (run, disk / "new"):
            ended = done(work, folder)
            assert ended.status == 2, ended.said
            assert "cannot write to" in ended.said or "cannot be written" in ended.said
        assert files(disk) == before
        remounted(disk, "rw")
        again = done(work, run)
        assert again.began == 4
        assert differences(run, papo.files) == []


def test_a_folder_of_somebody_elses(papo, half, place):
    """As a user who may read it only."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    work, run = training("papo"), Path(shutil.copytree(half, place / "disk" / "run"))
    os.chmod(place, 0o755)
    before = files(run)

    def as_nobody(folder: Path) -> None:
        os.setgid(65534)
        os.setuid(65534)
        work.do(folder)

    ended = done(work._replace(do=as_nobody), run)
    assert ended.status == 2, ended.said
    assert "cannot write to" in ended.said
    assert files(run) == before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
