"""The command line: finds the command, and turns bad input into a message."""

import difflib
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from vergence.commands import COMMANDS, command, summary
from vergence.harmless import harmless, printable

_RECORD = logging.getLogRecordFactory()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Bad input ends with its message and status 2, without a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = " ".join(given[:2]) if " ".join(given[:2]) in COMMANDS else (given[0] if given else "--help")
    rest = given[len(name.split()) :]
    group = [one for one in COMMANDS if one.startswith(f"{name} ")]
    if name in ("-h", "--help") or (group and rest[:1] in (["-h"], ["--help"])):
        try:
            _list(group or list(COMMANDS))
        except BrokenPipeError:
            _read_no_further()
        return
    import tyro

    logging.setLogRecordFactory(_heard)
    from vergence.train.stopping import Terminated, terminable
    from vergence.types import UserError  # it brings torch, which --help need not wait for

    try:
        if name not in COMMANDS:
            meant = " ".join([name, *rest[:1]]) if group else name
            near = difflib.get_close_matches(meant, group or COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"there is no command {meant!r}; {hint}There are: {', '.join(group or COMMANDS)}")
        with terminable():
            if name == "train":  # whose options depend on the recipe
                command(name)(rest)
            else:
                tyro.cli(command(name), prog=f"vergence {name}", args=rest)
    except UserError as error:
        from vergence.rewards.secret import without_key

        # what was wrong may be a name, or a server's words
        print(f"error: {printable(without_key(str(error)))}", file=sys.stderr)
        sys.exit(getattr(error, "status", 2))  # 3: a guard has ended a run
    except (MemoryError, RuntimeError) as error:
        from vergence.train.memory import is_out_of_memory  # a run that trains has said more: see `Memory.during`

        if not is_out_of_memory(error):
            raise
        lost = str(error).splitlines()[0] if str(error) else "no detail"
        print(f"error: out of memory ({lost}). Take a smaller model, smaller images or --max-tokens", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        _read_no_further()
    except KeyboardInterrupt as stopped:
        print("stopped early; what was finished is kept (a training run goes on with --resume)", file=sys.stderr)
        sys.exit(0 if isinstance(stopped, Terminated) else 130)  # who sends SIGTERM asks for no more than this


def _heard(*given: Any, **more: Any) -> logging.LogRecord:
    """What a library logs: it names what is in files, such as tensors."""
    record = _RECORD(*given, **more)
    with suppress(Exception):  # said where it is written
        record.msg, record.args = harmless(record.getMessage()), ()
    return record


def _read_no_further() -> NoReturn:
    """End: who read the output has enough. Python would complain once more on the way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(141)


def _list(names: Sequence[str]) -> None:
    """Print these commands, with what they do."""
    print("vergence: train vision-language models to look\n")
    for one in names:
        print(f"  {one:<13}{summary(one)}")
    print("\n`vergence COMMAND --help` shows a command's options.", flush=True)


if __name__ == "__main__":
    main()
