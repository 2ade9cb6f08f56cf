"""A vLLM server that samples: one that is started here, as a child process, or one that runs at some address.

Prompts go as token ids and pictures (PNG) to its tokens-in, tokens-out endpoint; weights go through a folder that it
can read, and `collective_rpc` of its development mode has it read them. What it sends is bounded in size, and believed
only after `rollout.vllm_request.believed`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from safetensors import SafetensorError

from vergence.models.policy import Policy, Reader
from vergence.rewards.wire import shown
from vergence.rollout.vllm_http import NEEDED, Address, alone, exchange
from vergence.rollout.vllm_place import Place, refuse_ending
from vergence.rollout.vllm_request import (
    PATIENCE,
    Answer,
    Broken,
    Request,
    Said,
    Wanted,
    folded,
    patience,
    pictures,
    settings,
)
from vergence.rollout.vllm_weights import scratch, write_model, written_bytes
from vergence.types import UserError

GENERATE = "/inference/v1/generate"
"""Tokens in, tokens out."""
IN_FLIGHT = 64
"""Requests at once; their siblings come on top."""
NEVER = 1e6
"""Seconds for one answer alone: that nothing at all is answered is noticed earlier, by `patience`."""
LOOK = 0.5
"""Seconds between two looks whether to give up."""


class Served:
    """An `Engine` behind HTTP."""

    def __init__(self, place: Place, reader: Reader) -> None:
        self.place, self.reader, self.ending = place, reader, Event()
        self.processed, self.address = False, Address("")
        self._sleeps = self._asleep = False
        self._scratch: TemporaryDirectory[str] | None = None
        self._weights: Path | None = None

    def start(self, policy: Policy) -> None:
        """See `Engine`. A server that is started here begins with the weights of the last push, if there was one."""
        if self._weights is None:
            self._write(policy, "first")
        self.address = self.place.up(self._weights, policy, self.ending)
        told = alone("GET", self.address, "/server_info?config_format=json", timeout=PATIENCE)
        self.processed, self._sleeps = understood(told, self.address.url)
        self._asleep = False

    def push(self, policy: Policy, version: str) -> None:
        """See `Engine`. Written where `scratch` says, and kept until the next push."""
        self._write(policy, version)
        self.push_again(policy, version)

    def push_again(self, policy: Policy, version: str) -> None:
        """See `Engine`."""
        if self._asleep:
            self._post("/wake_up")
            self._asleep = False
        self._post("/pause?mode=wait")
        load = {"method": "reload_weights", "kwargs": {"weights_path": str(self._weights)}}
        try:
            self._post("/collective_rpc", load)
            if self._post("/reset_prefix_cache").get("success") is not True:
                raise Broken("its prefix cache cannot be reset, as if requests were under way")
            self._post("/reset_mm_cache")
            self._post("/reset_encoder_cache")
            self._post("/update_weight_version", {"new_version": version})
        finally:
            self._post("/resume")

    def _write(self, policy: Policy, version: str) -> None:
        old = self._weights
        try:
            if self._scratch is None:
                self._scratch = scratch(written_bytes(policy))
            new = Path(self._scratch.name) / version
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            write_model(policy, new)
        except (OSError, SafetensorError) as error:
            where = self._scratch.name if self._scratch else "a new folder"
            raise UserError(
                f"cannot write the weights for vLLM to {where} ({shown(str(error), 80)}); free some space, or say by "
                "TMPDIR where there is room for two copies, and go on with --resume"
            ) from error
        self._weights = new
        if old is not None and old != new:
            shutil.rmtree(old, ignore_errors=True)

    def ask(self, requests: Sequence[Request], wanted: Wanted) -> tuple[dict[int, Answer], Exception | None]:
        """See `Engine`."""
        return asyncio.run(self._ask(requests, wanted))

    async def _ask(self, requests: Sequence[Request], wanted: Wanted) -> tuple[dict[int, Answer], Exception | None]:
        found, turn = dict[int, Answer](), asyncio.Semaphore(IN_FLIGHT)
        async with self.address.client(IN_FLIGHT, timeout=NEVER) as client:

            async def one(place: int) -> None:
                async with turn:
                    body = asked(requests[place], wanted, self.reader)
                    most = largest(requests[place], wanted, len(self.reader.banned))
                    told = await exchange(client, "POST", self.address.url + GENERATE, body, most=most)
                    found[place] = answer_of(told, self.reader.banned if wanted.processed else ())

            left = {asyncio.create_task(one(place)) for place in range(len(requests))}
            try:
                await self._until_done(left, patience(wanted))
            except (Broken, UserError) as error:
                return found, error
            finally:
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)
        return found, None

    async def _until_done(self, tasks: set[asyncio.Task[None]], seconds: float) -> None:
        """Return when all have; raise what the first one raises that does."""
        left, since = set(tasks), time.monotonic()
        while left:
            ended, left = await asyncio.wait(left, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            refuse_ending(self.ending)
            since = time.monotonic() if ended else since
            if time.monotonic() - since > seconds:
                raise Broken(f"no request was answered within {seconds:.0f} s")

    def rest(self) -> None:
        """See `Engine`: only a server that was started so that it can."""
        if self._sleeps and not self._asleep:
            self._post("/sleep?level=1")
            self._asleep = True

    def stop(self) -> None:
        """See `Engine`."""
        self.place.down()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = self._weights = None

    def _post(self, path: str, body: Any = None) -> dict[str, Any]:
        return alone("POST", self.address, path, body, timeout=PATIENCE)


def understood(info: dict[str, Any], url: str) -> tuple[bool, bool]:
    """Whether a server's log-probabilities are those after temperature and bans, and whether it can sleep.

    Raises:
        UserError: it would resize pictures, or gives logits in the place of log-probabilities.
    """
    config = info.get("vllm_config")
    model = config.get("model_config") if isinstance(config, dict) else None
    model = model if isinstance(model, dict) else {}
    seeing, mode = model.get("multimodal_config"), model.get("logprobs_mode")
    how = seeing.get("mm_processor_kwargs") if isinstance(seeing, dict) else None
    if mode not in ("raw_logprobs", "processed_logprobs"):
        raise UserError(f"{url} has logprobs_mode {shown(repr(mode), 40)}; start it with raw_ or processed_logprobs")
    if not isinstance(how, dict) or how.get("do_resize") is not False:
        raise UserError(f"{url} would resize the pictures, which have been resized; start it as {NEEDED}")
    return mode == "processed_logprobs", model.get("enable_sleep_mode") is True


def asked(request: Request, wanted: Wanted, reader: Reader) -> dict[str, Any]:
    """The body of a request: its tokens, one of images for each picture, and the pictures as PNG."""
    processor = reader.image_processor
    parts = []
    for picture in pictures(request.prompt, processor):
        file = io.BytesIO()
        picture.save(file, format="PNG", compress_level=1)
        parts.append(
            {"type": "image_url", "url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}
        )
    return {
        "token_ids": folded(request.prompt, image_id=reader.image_id, merge=processor.merge_size),
        "sampling_params": settings(request, wanted, reader),
        "return_token_ids": True,
        **({"content_parts": parts} if parts else {}),
    }


def largest(request: Request, wanted: Wanted, banned: int) -> int:
    """Bytes that an answer can have: a token takes less than 300, and its banned ones as much again."""
    return 2**20 + 16 * len(request.prompt.tokens) + 300 * (1 + banned) * wanted.max_tokens * len(request.rows)


def answer_of(told: dict[str, Any], banned: Sequence[int]) -> Answer:
    """What a server says, read as it should be.

    Args:
        banned: the tokens whose log-probabilities it says beside those of the tokens that it sampled.

    Raises:
        UserError: it is of another form.

    >>> told = {"prompt_token_ids": [5], "choices": [{"index": 0, "token_ids": [2], "finish_reason": "stop", "logprobs":
    ...         {"content": [{"token_id": 2, "logprob": -0.5}]}, "weight_versions": [{"version": "1"}]}]}
    >>> answer_of(told, banned=()).said[0]
    Said(tokens=[2], logp=[-0.5], banned_logp=[[]], finish='stop', versions=['1'])
    """
    try:
        choices = sorted(told["choices"], key=lambda one: one["index"])
        if [one["index"] for one in choices] != [*range(len(choices))]:
            raise ValueError("the choices are not numbered")
        return Answer(_whole(told["prompt_token_ids"]), [_said(one, banned) for one in choices])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"the vLLM server's answer has not the form that it should have ({type(error).__name__}: "
            f"{shown(str(error), 80)}); take a version that docs/vllm.md names"
        ) from error


def _said(choice: dict[str, Any], banned: Sequence[int]) -> Said:
    content, tokens = choice["logprobs"]["content"], _whole(choice["token_ids"])
    if [entry["token_id"] for entry in content] != tokens:
        raise ValueError("the log-probabilities are of other tokens")
    logp = [float(entry["logprob"]) for entry in content]
    also = [[_of(entry["top_logprobs"], token) for token in banned] for entry in content]
    versions = [str(span["version"]) for span in choice["weight_versions"] or ()]
    return Said(tokens, logp, also, choice["finish_reason"], versions)


def _of(entries: list[dict[str, Any]], token: int) -> float:
    """The log-probability of a token among these."""
    for entry in entries:
        if entry["token_id"] == token and math.isfinite(float(entry["logprob"])):
            return float(entry["logprob"])
    raise ValueError("the banned tokens' log-probabilities are not there")


def _whole(tokens: Any) -> list[int]:
    """The tokens, if they are a list of whole numbers."""
    if type(tokens) is not list or any(type(token) is not int for token in tokens):
        raise ValueError("what should be tokens is none")
    return tokens
