"""A checkpoint on the Hub: what is sent, and how it is refused. The token is the Hub login's; nothing here reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vergence.scenes.folders import below
from vergence.types import UserError

TRAINER = "trainer"
"""The folder with what only a resumed run needs, and which may say where things lie on the machine that trained."""
SUMS = "SHA256SUMS"
"""The hashes of all files, those of `TRAINER` too."""
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


class File(NamedTuple):
    """One file that is sent."""

    name: str
    size: int
    """Bytes."""


def files_of(checkpoint: Path, *, with_trainer: bool = False) -> list[File]:
    """What of a checkpoint is sent, by name.

    Raises:
        UserError: it is not a model in Hugging Face layout; or a file of it is a link to somewhere else.
    """
    if not (checkpoint / "config.json").is_file():
        raise UserError(f"{checkpoint} is no checkpoint: it holds no config.json; give a run folder or a checkpoint")
    found = sorted(path for path in below(checkpoint, hidden=True) if path.is_file())
    away = [path for path in found if not path.resolve().is_relative_to(checkpoint.resolve())]
    if away:  # a checkpoint from elsewhere must not send other files of this machine
        raise UserError(
            f"{away[0]} is a link to {away[0].resolve()}, outside of the checkpoint, and is not sent; copy the folder "
            "with its files in it (cp -rL) if you know what they are"
        )
    named = [File(path.relative_to(checkpoint).as_posix(), path.stat().st_size) for path in found]
    return [one for one in named if with_trainer or not (one.name.startswith(f"{TRAINER}/") or one.name == SUMS)]


def publish(
    checkpoint: Path, repository: str, files: Sequence[File], *, private: bool = True, revision: str = ""
) -> str:
    """Send these files of a checkpoint to a model repository, which is made if there is none; returns its address.

    Raises:
        UserError: the name is none; there is no network or no login, or it may not write there; or the repository is
            there already and can be seen by all, when it should be private.
    """
    check_name(repository)
    from huggingface_hub import HfApi

    api = HfApi(library_name="vergence")

    def send() -> str:
        made = api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(made.repo_id).private:
            raise UserError(f"{made.repo_id} can be seen by everyone already; give --public if that is meant")
        if revision:
            api.create_branch(made.repo_id, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=checkpoint,
            allow_patterns=[re.sub(r"([*?[])", r"[\1]", one.name) for one in files],
            commit_message=f"Upload {checkpoint.name} with Vergence",
            revision=revision or None,
        )
        return str(made)

    return _telling(repository, send)


def check_name(repository: str) -> None:
    """Raise unless it reads as owner/name.

    Raises:
        UserError: it does not.
    """
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"the Hub's repositories are named owner/name, got {repository!r}")


def _telling(repository: str, send: Callable[[], str]) -> str:
    """What `send` returns; what the Hub or the network says instead, as a message that says what to do."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        return send()
    except LocalTokenNotFoundError:
        raise UserError(f"nobody is logged in to the Hub: {LOGIN}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise UserError(f"the Hub does not know this login: {LOGIN}") from None
        if status == 403:
            raise UserError(f"the Hub lets this login not write to {repository}: {LOGIN} there") from None
        raise UserError(f"the Hub refused {repository} ({status}): {_first_line(error)}") from None
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be sent: unset it") from None
    except (httpx2.HTTPError, OSError) as error:
        raise UserError(f"the Hub cannot be reached ({_first_line(error)}); try again with a network") from None


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
