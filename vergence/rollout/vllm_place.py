"""Where a vLLM server is: somewhere else, or a child process that is started, watched and ended here."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import IO, Any, Protocol, runtime_checkable

from vergence.models.policy import Policy
from vergence.rewards.secret import without_secrets
from vergence.rewards.wire import base_url, shown
from vergence.rollout.vllm_arguments import arguments, flags, refuse_missing
from vergence.rollout.vllm_http import Address, wait_for
from vergence.rollout.vllm_request import Broken
from vergence.rollout.vllm_weights import PREFIX, folder

WAIT = 300.0
"""Seconds that a server elsewhere is waited for."""
START = 1800.0
"""Seconds that a server may take to start: a large model is read, and its kernels are compiled."""
TOLD = 4000
"""Bytes of the end of a server's log that are looked at when it dies."""


@runtime_checkable
class Place(Protocol):
    """Where a server is."""

    def up(self, model: Path, policy: Policy, ending: Event) -> Address:
        """Its address, when it answers; one that is started here has the model in this folder.

        Raises:
            Broken: it does not come, or `ending` is set.
        """
        ...

    def down(self) -> None:
        """Leave nothing running that was started here."""
        ...


class Elsewhere:
    """A `Place` that somebody else runs: it is waited for, and never started.

    Raises:
        UserError: it is no url, or one that holds what may be a key.
    """

    def __init__(self, url: str) -> None:
        self.address = Address(base_url(url).removesuffix("/v1"))

    def up(self, model: Path, policy: Policy, ending: Event) -> Address:
        """See `Place`."""
        wait_for(self.address, WAIT, lambda: refuse_ending(ending))
        return self.address

    def down(self) -> None:
        """See `Place`."""


class Child:
    """A `Place` on this machine: vLLM's server as a process of its own, behind a socket that only its user can reach.

    Raises:
        UserError: vLLM is not installed.
    """

    def __init__(self, *, memory: float = 0.4, processed: bool = False) -> None:
        refuse_missing()
        self.memory, self.processed = memory, processed
        self.process: subprocess.Popen[bytes] | None = None
        """The server, while there is one."""
        self._log: IO[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def up(self, model: Path, policy: Policy, ending: Event) -> Address:
        """See `Place`. One that runs is ended first."""
        self.down()
        # a socket's name has at most 107 bytes, and vLLM names its own at random there
        self._folder = folder("/tmp" if len(tempfile.gettempdir()) > 40 else None)
        own, self._log = Path(self._folder.name), tempfile.TemporaryFile()  # noqa: SIM115 (closed in `down`)
        given = arguments(model, policy, memory=self.memory, processed=self.processed)
        left = os.pathsep.join(str(one) for one in (own, model.parent) if one.name.startswith(PREFIX))
        command = [sys.executable, "-m", "vergence.rollout.vllm_child", str(os.getpid()), left, *flags(given)]
        command += [f"--uds={own / 'socket'}", "--enable-scale-out", "--disable-log-stats"]
        atexit.register(self.down)
        # a session of its own: Ctrl-C in the terminal lets the step finish, and the step needs the server
        self.process = subprocess.Popen(
            command,
            env=environment(policy) | {"TMPDIR": str(own)},  # what vLLM leaves there goes with the folder
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        address = Address("http://vllm", own / "socket")
        wait_for(address, START, lambda: refuse_ending(ending) or self._refuse_dead())
        return address

    def _refuse_dead(self) -> None:
        """Raise `Broken` if the server has ended."""
        assert self.process is not None
        if (code := self.process.poll()) is not None:
            raise Broken(f"the server ended with status {code}: {self._told()}")

    def _told(self) -> str:
        """What it said last; the line with an error, if there is one."""
        assert self._log is not None
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - TOLD))
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line]
        return shown((errors or lines or ["nothing"])[-1])

    def down(self) -> None:
        """See `Place`."""
        atexit.unregister(self.down)
        if self.process is not None:
            for sign, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, None)):
                with suppress(ProcessLookupError):  # the group, of which it is the leader
                    os.killpg(self.process.pid, sign)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(seconds)
                    break
            with suppress(ProcessLookupError):  # its engine, if it left one behind
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def refuse_ending(ending: Event) -> None:
    """Raise `Broken` if the sampler is being closed."""
    if ending.is_set():
        raise Broken("the sampler was closed")


def environment(policy: Policy) -> dict[str, str]:
    """The child's: without what torchrun says of this process and without keys, with the server's development mode."""
    own = {
        name: value
        for name, value in without_secrets(os.environ).items()  # who reaches its socket needs none
        if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        and not name.startswith(("GROUP_", "ROLE_", "TORCHELASTIC_"))
    }
    told: dict[str, Any] = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if policy.device.type != "cuda":
        told |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    # a checkout that is not installed is found as it is here
    paths = (str(Path(__file__).parents[2]), own.get("PYTHONPATH", ""))
    return {"VLLM_LOGGING_LEVEL": "WARNING", **own, **told, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
