"""JSON over HTTP from a server that is not trusted: bounded in size and time, asked again after what may pass.

A key is taken from the environment, is looked up anew wherever it is needed, and stands in no object, message or file.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx2

from vergence.types import UserError

KEYS = ("VERGENCE_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the server's key; the first that is set counts."""
LONGEST_WAIT = 300.0
"""Seconds. No server makes us wait longer between two tries, whatever its Retry-After says."""
LARGEST = 16 * 2**20
"""Bytes of a response that are read at most."""
PASSING = frozenset({408, 409, 429})
"""Besides 5xx, the statuses that may be gone at the next try."""


class Silent(Exception):
    """Every try failed in a way that may pass."""


class Patience(NamedTuple):
    """How long one keeps trying."""

    retries: int
    """Further tries after a lost connection, a timeout, a status of `PASSING` or a 5xx."""
    wait: float
    """Seconds before the first of them; each next one waits twice as long. Retry-After comes first."""
    timeout: float
    """Seconds for one try, until its last byte."""


def open_client(concurrency: int, timeout: float) -> httpx2.AsyncClient:
    """A client with the key of the environment, that many connections, and no redirects: a key goes nowhere else."""
    key = _key()
    return httpx2.AsyncClient(
        limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        timeout=timeout,
        headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})},
        follow_redirects=False,
    )


async def fetch(client: httpx2.AsyncClient, method: str, url: str, wanted: Any, patience: Patience) -> Any:
    """The JSON that the server answers with.

    Args:
        wanted: sent as JSON; None sends nothing.

    Raises:
        Silent: every try failed in a way that may pass.
        UserError: the server refuses, or the answer is too large or no JSON.
    """
    # JSON in ASCII: text with half of a surrogate pair in it could not be encoded otherwise
    body = None if wanted is None else json.dumps(wanted).encode()
    since, problem = time.monotonic(), ""
    for attempt in range(patience.retries + 1):
        wait = min(patience.wait * 2.0**attempt, LONGEST_WAIT)
        try:
            # bounds the whole try, also of a server that sends a byte now and then
            async with asyncio.timeout(patience.timeout):
                status, headers, got = await _exchange(client, method, url, body)
        except (httpx2.RequestError, TimeoutError) as error:
            problem = f"{type(error).__name__} {shown(str(error))}".strip()
        else:
            if status == 200:
                return _json(got, url)
            problem = f"status {status}: {_reason(got)}"
            if status < 500 and status not in PASSING:
                raise UserError(f"{url} refuses, {problem}. {_advice(status)}")
            wait = _asked_to_wait(headers.get("retry-after", ""), wait)
        if attempt < patience.retries:
            await asyncio.sleep(wait)
    tries = "1 try" if patience.retries == 0 else f"{patience.retries + 1} tries"
    raise Silent(f"{problem}, after {tries} in {time.monotonic() - since:.0f} s")


async def _exchange(
    client: httpx2.AsyncClient, method: str, url: str, body: bytes | None
) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers, body) of one request."""
    got = bytearray()
    kind = {"Content-Type": "application/json"} if body is not None else {}
    async with client.stream(method, url, content=body, headers=kind) as response:
        async for chunk in response.aiter_bytes():
            got += chunk
            if len(got) > LARGEST:
                raise UserError(f"{url} answers with more than {LARGEST // 2**20} MiB; is that a chat server?")
        return response.status_code, response.headers, bytes(got)


def base_url(url: str) -> str:
    """The url that paths are put after.

    >>> base_url("http://localhost:8000/"), base_url("https://host/openai/v1")
    ('http://localhost:8000/v1', 'https://host/openai/v1')

    Raises:
        UserError: it is no url, or holds what may be a key.
    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError, ValueError):
        parsed = httpx2.URL("")
    if parsed.userinfo or parsed.query or parsed.fragment or "@" in url:  # not shown: it may hold a key
        raise UserError(
            f"the url of the server at {parsed.host!r} holds a user, a password, a query or a fragment, which would be "
            f"written to logs; give scheme://host:port/path, and a key in the environment variable {KEYS[0]}"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"{url!r} is not the url of a server; give one such as http://localhost:8000")
    return f"{parsed.scheme}://{parsed.netloc.decode()}{parsed.path.rstrip('/') or '/v1'}"


def shown(text: str, most: int = 300) -> str:
    """The text on one line, cut, without control characters (a terminal would obey them) and without the key.

    >>> shown("one\\n\\x1b[2Jtwo"), shown("longer", most=4)
    ('one [2Jtwo', 'long...')
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in without_key(text)[: 64 * most]).split())
    return line if len(line) <= most else line[:most] + "..."


def without_key(text: str) -> str:
    """The text with [key] in the place of the key of the environment."""
    key = _key()
    return text.replace(key, "[key]") if key else text


def _key() -> str:
    """The key in the environment; "" if there is none."""
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):  # the client's own error would show it
                raise UserError(f"{name} holds characters that no key has (a line break?); set it again")
            return key
    return ""


def _json(body: bytes, url: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{url} answers with something that is not JSON: {shown(body.decode(errors='replace'), 80)!r}. "
            "Is that the url of an OpenAI-compatible server? It often ends in /v1"
        ) from error


def _reason(body: bytes) -> str:
    """What a server says with an error status, bounded."""
    text = body.decode(errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return shown(text)
    match found:
        case {"error": {"message": str(said)}} | {"error": str(said)} | {"message": str(said)} | {"detail": str(said)}:
            return shown(said)
    return shown(text)


def _advice(status: int) -> str:
    if status in (401, 403):
        return f"Set the environment variable {KEYS[0]} to a key that the server takes"
    if status == 404:
        return "Check the url (it often ends in /v1) and the name of the model"
    if status < 400:
        return "It sends elsewhere: give the url where the server is"
    return "Check the name of the model, and the longest prompt and answer that it takes"


def _asked_to_wait(said: str, otherwise: float) -> float:
    """Seconds, from a Retry-After header: a number or a date.

    >>> _asked_to_wait("2", 1.0), _asked_to_wait("soon", 1.0), _asked_to_wait("1e9", 1.0)
    (2.0, 1.0, 300.0)
    """
    try:
        wait = float(said)
    except ValueError:
        try:
            wait = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, OverflowError, TypeError, IndexError):
            return otherwise
    return min(max(wait, 0.0), LONGEST_WAIT) if wait == wait else otherwise
