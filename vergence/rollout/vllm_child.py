"""vLLM's server as a child process that ends when its parent does, with all that it started; see `vllm_place`."""

import os
import runpy
import shutil
import signal
import sys
import threading
import time

_LOOK = 1.0
"""Seconds between two looks at who the parent is."""


def main() -> None:
    """Serve, with the arguments of the command line after two: the parent's number, and the folders that it made."""
    parent, folders = int(sys.argv.pop(1)), sys.argv.pop(1).split(os.pathsep)
    threading.Thread(target=_follow, args=(parent, folders), daemon=True).start()
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)


def _follow(parent: int, folders: list[str]) -> None:
    """End this process and its group when the parent has ended, be it killed: a server holds a GPU's memory, and a
    folder of weights in /dev/shm the machine's. A parent that ends in order has seen to both."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    for folder in filter(None, folders):
        shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
