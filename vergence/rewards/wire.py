"""JSON over HTTP from a server that is not trusted: bounded in size and time, asked again after what may pass.

A key is taken from the environment, is looked up anew wherever it is needed, and stands in no object, message or file.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx2

from vergence.harmless import one_line
from vergence.rewards.flow import Flow
from vergence.rewards.secret import KEYS, without_key
from vergence.types import UserError

LONGEST_WAIT = 300.0
"""Seconds. No server makes us wait longer between two tries, whatever its Retry-After says."""
LARGEST = 16 * 2**20
"""Bytes of a response that are read at most."""
PASSING = frozenset({408, 409, 429})
"""Besides 5xx, the statuses that may be gone at the next try."""
LATE = -1
"""In the place of a status: the try took too long."""
GONE = -2
"""Likewise: nobody was there to connect to."""
CROWDED = frozenset({429, 503, LATE})
"""The statuses of a server that has too much to do: `Flow` lets fewer tries begin after them."""


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


def open_client(url: str, concurrency: int, timeout: float) -> httpx2.AsyncClient:
    """A client of the server at a url, with its key and so many connections. No redirects: a key goes nowhere else."""
    key = key_for(url)
    return httpx2.AsyncClient(
        limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        timeout=timeout,
        headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})},
        follow_redirects=False,
        trust_env=not _is_here(httpx2.URL(url)),  # a proxy of the environment is another machine
    )


async def fetch(
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    wanted: Any,
    patience: Patience,
    flow: Flow,
    *,
    final: frozenset[int] = frozenset(),
    lacks: Callable[[Any], str] = lambda _: "",
) -> Any:
    """The JSON that the server answers with.

    Args:
        wanted: sent as JSON; None sends nothing.
        flow: has the places for tries. It is told how each went, and is held while the server asks to wait.
        final: statuses that are a refusal here, though elsewhere they may pass.
        lacks: what is wrong with an answer that may be whole at the next try; "" is nothing.

    Raises:
        Silent: every try failed in a way that may pass, or there is no time for another.
        UserError: the server refuses, or the answer is too large or no JSON.
    """
    # JSON in ASCII: text with half of a surrogate pair in it could not be encoded otherwise
    body = None if wanted is None else json.dumps(wanted).encode()
    since, problem, tries, wait = time.monotonic(), "", 0, 0.0
    while tries <= patience.retries:
        if tries:
            await asyncio.sleep(min(wait, flow.budget.left()))
            if flow.budget.late():
                break
        wait = min(patience.wait * 2.0**tries, LONGEST_WAIT)
        async with flow.place() as ticket:
            if flow.budget.late():  # while it waited for the place
                break
            tries += 1
            flow.budget.count(retries=int(tries > 1))
            tried = await _try(client, method, url, body, patience.timeout, flow, ticket)
        if tried.status in CROWDED:
            flow.crowded(ticket)
        elif tried.status == GONE:
            flow.gone()
        if tried.status == 200:
            found = _json(tried.body, url)
            if not (problem := lacks(found)):
                flow.answered(ticket)
                return found
            continue
        problem = tried.problem or f"status {tried.status}: {_reason(tried.body)}"
        if tried.status in final or (0 < tried.status < 500 and tried.status not in PASSING):
            raise UserError(f"{url} refuses, {problem}. {_advice(tried.status)}")
        if said := tried.headers.get("retry-after", ""):
            wait = _asked_to_wait(said, wait)
            flow.pause(max(0.0, min(wait, flow.budget.left())))
    told = "1 try" if tries == 1 else f"{tries} tries"
    raise Silent(f"{problem or 'not asked'}, after {told} in {time.monotonic() - since:.0f} s")


class _Tried(NamedTuple):
    """How one try went: `status` is 0 where the connection failed, or `LATE`, or `GONE`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    problem: str = ""


async def _try(
    client: httpx2.AsyncClient, method: str, url: str, body: bytes | None, timeout: float, flow: Flow, ticket: int
) -> _Tried:
    try:
        # bounds the whole try, also of a server that sends a byte now and then
        async with flow.within(ticket, timeout):
            return _Tried(*await _exchange(client, method, url, body))
    except httpx2.ConnectError as error:
        return _Tried(GONE, {}, b"", f"{type(error).__name__} {shown(str(error))}".strip())
    except (httpx2.RequestError, TimeoutError) as error:
        late = isinstance(error, (TimeoutError, httpx2.TimeoutException)) and not flow.orphaned(ticket)
        return _Tried(LATE if late else 0, {}, b"", f"{type(error).__name__} {shown(str(error))}".strip())


async def _exchange(
    client: httpx2.AsyncClient, method: str, url: str, body: bytes | None
) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers, body) of one request."""
    got = bytearray()
    kind = {"Content-Type": "application/json"} if body is not None else {}
    async with client.stream(method, url, content=body, headers=kind) as response:
        refuse_packed(response.headers, url)
        async for chunk in response.aiter_raw():
            got += chunk
            if len(got) > LARGEST:
                raise UserError(f"{url} answers with more than {LARGEST // 2**20} MiB; is that a chat server?")
        return response.status_code, response.headers, bytes(got)


def refuse_packed(headers: Mapping[str, str], url: str) -> None:
    """Raise if an answer is compressed, which was not asked for: a small one may unpack to whatever it likes.

    Raises:
        UserError: it is.
    """
    packed = headers.get("content-encoding", "identity")
    if packed.strip().lower() not in ("", "identity"):
        raise UserError(
            f"{url} compresses its answer ({shown(packed, 20)}) though it is asked not to, and nothing is unpacked "
            "here; have the server, or the proxy before it, obey Accept-Encoding: identity"
        )


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
    return one_line(without_key(text), most)


def whole(value: Any) -> Any:
    """The value with a question mark for each half of a surrogate pair in its texts: some servers fail at them.

    >>> whole([{"text": "a\\ud800"}])
    [{'text': 'a?'}]
    """
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    return [whole(one) for one in value] if isinstance(value, list) else value


def key_for(url: str) -> str:
    """The key of the environment that the server at a url is told; "" for none.

    VERGENCE_API_KEY is for whatever server is named. OPENAI_API_KEY may have been set for another one: it goes to no
    other machine in the clear.

    Raises:
        UserError: the key holds characters that no key has.
    """
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):  # the client's own error would show it
                raise UserError(f"{name} holds characters that no key has (a line break?); set it again")
            return key if name == KEYS[0] or _is_private(httpx2.URL(url)) else ""
    return ""


def _is_private(url: httpx2.URL) -> bool:
    """Whether nobody on the way to a server can read along."""
    return url.scheme == "https" or _is_here(url)


def _is_here(url: httpx2.URL) -> bool:
    """Whether the server is on this machine."""
    if url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return False


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
    if status >= 500:
        return "It cannot say what it has: name the model that is to answer"
    return "Check the name of the model, and the longest prompt and answer that it takes (vLLM: --max-model-len)"


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
