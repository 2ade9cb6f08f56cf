"""JSON to and from a vLLM server that is not trusted: bounded in size, and its failures told apart.

What refuses is the user's to settle (`UserError`); what fails or is gone can be started again (`Broken`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from vergence.rewards.wire import open_client, refuse_packed, shown
from vergence.rollout.vllm_request import Broken
from vergence.types import UserError

NEEDED = "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --mm-processor-kwargs '{\"do_resize\": false}'"
"""How a server is started that can be asked and given weights."""
LARGEST = 2**24
"""Bytes that an answer about the server itself can have."""


class Address(NamedTuple):
    """Where a server listens."""

    url: str
    socket: Path | None = None
    """A socket of this machine in the place of a network; whoever may not read its folder cannot reach the server."""

    def client(self, connections: int, timeout: float) -> httpx2.AsyncClient:
        """A client with so many connections. Over a network it has the key of the environment; a socket needs none."""
        if self.socket is None:
            return open_client(self.url, connections, timeout)
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        plain = {"Accept-Encoding": "identity"}
        over = httpx2.AsyncHTTPTransport(uds=str(self.socket), limits=limits, trust_env=False)
        return httpx2.AsyncClient(
            transport=over, headers=plain, timeout=timeout, trust_env=False, follow_redirects=False
        )


def alone(method: str, at: Address, path: str, body: Any = None, *, timeout: float) -> dict[str, Any]:
    """What one request is answered with; see `exchange`."""
    return asyncio.run(_alone(method, at, path, body, timeout))


async def _alone(method: str, at: Address, path: str, body: Any, timeout: float) -> dict[str, Any]:
    async with at.client(1, timeout) as client:
        return await exchange(client, method, at.url + path, body, most=LARGEST)


async def exchange(client: httpx2.AsyncClient, method: str, url: str, body: Any, *, most: int) -> dict[str, Any]:
    """The JSON object that the server answers with; an empty one for nothing.

    Args:
        most: bytes of the answer that are read.

    Raises:
        Broken: there is no connection, or the server fails.
        UserError: it refuses, or answers with what it should not.
    """
    got, sent = bytearray(), None if body is None else json.dumps(body).encode()
    kind = {"Content-Type": "application/json"} if sent is not None else {}
    try:
        async with client.stream(method, url, content=sent, headers=kind) as response:
            refuse_packed(response.headers, url)
            async for chunk in response.aiter_raw():
                got += chunk
                if len(got) > most:
                    raise UserError(f"{url} answers with more than {most} bytes, which no vLLM would")
    except (httpx2.RequestError, TimeoutError) as error:
        raise Broken(f"{url}: {type(error).__name__} {shown(str(error))}".strip()) from error
    told = shown(got.decode(errors="replace"))
    if response.status_code >= 500:
        raise Broken(f"{url} fails with status {response.status_code}: {told}")
    if response.status_code != 200:
        need = f". The server has to be started as {NEEDED}" if response.status_code == 404 else ""
        raise UserError(f"{url} refuses with status {response.status_code}: {told}{need}")
    try:
        read = json.loads(got) if got.strip() else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{url} answers with something that is not JSON: {told!r}; is that a vLLM server?") from error
    if not isinstance(read, dict):
        raise UserError(f"{url} answers with something that is no JSON object: {told!r}; is that a vLLM server?")
    return read


def wait_for(at: Address, seconds: float, alive: Callable[[], None]) -> None:
    """Return when the server is ready.

    Args:
        alive: raises `Broken` when there is nothing to wait for any more.

    Raises:
        Broken: it is not within these seconds, or `alive` says so.
    """
    until = time.monotonic() + seconds
    while True:
        alive()
        try:
            alone("GET", at, "/health", timeout=5.0)
            return
        except Broken as error:
            if time.monotonic() > until:
                raise Broken(f"it was not ready within {seconds:.0f} s: {error}") from error
        time.sleep(0.2)
