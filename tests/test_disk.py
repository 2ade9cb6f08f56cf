"""Files that outlive a crash: what is synced before it has its name, who holds a folder, what a full disk says."""

import errno
import fcntl
import os
import platform
import re
import signal
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError
from synced import noted

from vergence import disk
from vergence.types import UserError


@pytest.fixture
def done(monkeypatch) -> list[tuple[str, str]]:
    """What is done on the disk, in order."""
    return noted(monkeypatch)


def test_a_file_is_synced_before_it_has_its_name_and_its_name_afterwards(tmp_path, done):
    folder = tmp_path / "here"
    disk.make(folder)
    assert done == [("sync", tmp_path.name)]
    done.clear()
    disk.write_whole(folder / "a", "text")
    assert done == [("sync", ".a.partial"), ("replace", "a"), ("sync", "here")]
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_folder_is_synced_with_all_that_is_in_it(tmp_path, done):
    (tmp_path / "new" / "deep").mkdir(parents=True)
    (tmp_path / "new" / "deep" / "weights").write_text("1")
    disk.put_in_place(tmp_path / "new", tmp_path / "final")
    *synced, replaced, last = done
    assert {name for _, name in synced} == {"weights", "deep", "new"}
    assert (replaced, last) == (("replace", "final"), ("sync", tmp_path.name))


def test_a_folder_that_is_replaced_is_never_half_there(tmp_path, monkeypatch):
    """Killed at any of these instants, its name stands for the old one, for the new one, or for nothing; then what was
    there is put back."""
    replace, seen = os.replace, []

    def whole(folder: Path) -> str:
        return "".join(sorted(path.read_text() for path in folder.iterdir())) if folder.exists() else ""

    def replaced(source, target) -> None:
        replace(source, target)
        seen.append(whole(tmp_path / "final"))

    for name, text in (("final", "1"), ("new", "2")):
        (tmp_path / name).mkdir()
        for part in "ab":
            (tmp_path / name / part).write_text(text)
    monkeypatch.setattr(os, "replace", replaced)
    disk.put_in_place(tmp_path / "new", tmp_path / "final")
    assert seen == ["", "22"]
    assert [path.name for path in tmp_path.iterdir()] == ["final"]

    before = tmp_path / f"{disk.REPLACED}final"
    os.rename(tmp_path / "final", before)
    disk.put_back(tmp_path)
    assert whole(tmp_path / "final") == "22"
    before.mkdir()
    (before / "a").write_text("1")
    disk.put_back(tmp_path)
    assert whole(tmp_path / "final") == "22"
    assert not before.exists()


def test_a_folder_that_cannot_be_replaced_keeps_its_name(tmp_path, monkeypatch):
    replace = os.replace

    def fails(source, target) -> None:
        if Path(source).name == "new":
            raise OSError(errno.EIO, "failed")
        replace(source, target)

    for name in ("final", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="failed"):
        disk.put_in_place(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "final" / "a").read_text() == "final"


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a"
    disk.write_whole(path, "old")

    def full(_) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"no space left while writing to .*free there"):
            disk.write_whole(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("room", [0, 5])
def test_a_line_that_does_not_fit_is_not_there_at_all(tmp_path, room):
    """A real limit on what a file may have: the write is cut short, and the next one fails."""
    import resource

    path = tmp_path / "log"
    disk.append(path, "one\n")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 + room, before[1]))
        with pytest.raises(UserError, match=r"a file may not grow so large here\). Free this. What was finished"):
            disk.append(path, "two, too long\n", lambda: "Free this. ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "one\n"
    disk.append(path, "two\n")
    assert path.read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "full"), "are free there"),
        (OSError(errno.EDQUOT, "quota"), "the quota is used up"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "are free there"),
        (
            OSError(errno.EROFS, "read-only"),
            "cannot write to .* give another --out.* a disk may have failed.* --resume",
        ),
        (OSError(errno.EIO, "failed"), "the disk failed while writing to .* --resume"),
        (OSError(errno.EACCES, "denied"), "cannot write to .* give another --out$"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path, error, told):
    with pytest.raises(UserError, match=told), disk.telling_of_space(tmp_path / "not" / "there"):
        raise error


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(OSError, match="busy"), disk.telling_of_space(tmp_path):
        raise OSError(errno.EBUSY, "busy")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF], ids=errno.errorcode.get)
def test_a_file_system_that_cannot_sync_a_folder_is_written_to_all_the_same(tmp_path, monkeypatch, number):
    fsync = os.fsync

    def cannot(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", cannot)
    disk.make(tmp_path / "a" / "b")
    disk.write_whole(tmp_path / "a" / "b" / "file", "text")
    assert (tmp_path / "a" / "b" / "file").read_text() == "text"


@pytest.mark.parametrize(("kind", "number"), [("file", errno.EINVAL), ("file", errno.EIO), ("folder", errno.EIO)])
def test_what_cannot_be_synced_is_not_said_to_be_safe(tmp_path, monkeypatch, kind, number):
    (tmp_path / "file").touch()

    def fails(_) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        disk.sync(tmp_path / "file" if kind == "file" else tmp_path)


def holder(folder: Path) -> int:
    """A process that holds a folder until it is killed."""
    ready, said = os.pipe()
    child = os.fork()
    if not child:
        with disk.alone(folder, "run"):
            os.write(said, b"1")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(said)
    return child


def test_a_folder_has_one_process_and_a_killed_one_has_it_no_longer(tmp_path):
    child = holder(tmp_path / "run")
    told = pytest.raises(UserError, match=rf"another run is at work in .* \(process {child}\): wait for it")
    with told, disk.alone(tmp_path / "run", "run"):
        raise AssertionError("both hold it")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with disk.alone(tmp_path / "run", "run"):
        assert (tmp_path / "run" / ".lock").read_text() == f"{os.getpid()} {platform.node()}"
    assert (tmp_path / "run" / ".lock").read_bytes() == b""  # equal runs are equal bytes


@pytest.mark.parametrize(
    ("said", "told"),
    [("17 node-3.example", "(process 17 on node-3.example)"), (f"17 {platform.node()}", "(process 17)")]
    + [(odd, ": wait for it") for odd in ("", "17", "\0" * 9, "\x1b[2J 4", "17 a b")],
)
def test_who_holds_a_folder_is_told_with_its_machine_if_that_is_another(tmp_path, said, told):
    handle = disk.locked(tmp_path / ".lock")
    os.write(handle, said.encode())
    raises = pytest.raises(UserError, match=re.escape(f"another run is at work in {tmp_path}"))
    with raises as error, disk.alone(tmp_path, "run"):
        raise AssertionError("both hold it")
    os.close(handle)
    assert told in str(error.value)
    assert ("process" in str(error.value)) == ("process" in told)


def test_a_lock_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=r"\.lock is a link"), disk.alone(tmp_path):
        raise AssertionError("it is held")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("what", ["taken away", "replaced"])
def test_a_lock_whose_name_has_gone_holds_nothing_and_is_taken_again(tmp_path, monkeypatch, what):
    """It is, between the open and the lock: two processes would each hold a file of their own."""
    path, flocks, flock = tmp_path / ".lock", [], fcntl.flock

    def late(handle: int, how: int) -> None:
        flocks.append(handle)
        if len(flocks) == 1:
            path.unlink()
            if what == "replaced":
                path.touch()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    handle = disk.locked(path)
    assert len(flocks) == 2
    assert os.path.samestat(os.fstat(handle), os.stat(path))
    assert disk.locked(path) is None
    os.close(handle)


def test_a_folder_is_waited_for(tmp_path):
    child = holder(tmp_path)
    since = time.monotonic()
    with pytest.raises(UserError), disk.alone(tmp_path, "run", patience=0.3):
        raise AssertionError("both hold it")
    assert time.monotonic() - since >= 0.3
    os.kill(child, signal.SIGKILL)
    with disk.alone(tmp_path, "run", patience=30.0):
        os.waitpid(child, 0)


def test_a_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch):
    def none(*_) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", none)
    with disk.alone(tmp_path), disk.alone(tmp_path):
        pass
