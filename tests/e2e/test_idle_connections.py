"""Clients that connect and say nothing, or half of something: everybody else is served."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from e2e.api import Api
from e2e.hub_process import HubProcess
from websockets.asyncio.client import connect

from hostler_agent.wire.extension import Handshake

if TYPE_CHECKING:
    from pathlib import Path

IDLE = 5000
HALF_SENT = 2000
HEAD = b"GET /healthz HTTP/1.1\r\nHost: hub\r\nX-Half"
BODY = (
    b"POST /login HTTP/1.1\r\nHost: hub\r\nOrigin: http://hub\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nhalf"
)
PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many for this process as it needs for its side of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 1000:
        pytest.skip(f"needs {IDLE + 1000} open files; raise `ulimit -Hn`, which is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Silent:
    """Connections to a hub that say no more than `said`."""

    def __init__(self, hub: HubProcess, said: bytes = b"") -> None:
        self._hub = hub
        self._said = said
        self._sockets: list[socket.socket] = []

    def open(self, count: int, addresses: int = 1) -> None:
        for number in range(count):
            sock = socket.socket()
            self._sockets.append(sock)
            sock.bind((f"127.0.0.{2 + number % addresses}", 0))
            sock.connect(("127.0.0.1", self._hub.port))
            if self._said:
                sock.sendall(self._said)

    async def ends(self) -> list[bytes]:
        """What each was answered until it was closed."""
        return [await asyncio.to_thread(_rest, sock) for sock in self._sockets]

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def _rest(sock: socket.socket) -> bytes:
    sock.settimeout(60)
    read = b""
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(4096):
            read += part
    return read


async def attaches(hub: HubProcess, worker: str) -> None:
    headers = Handshake(worker, PASSWORD, "s" * 43).headers()
    async with connect(hub.agents_url, additional_headers=headers, proxy=None) as agent:
        assert await agent.recv()


async def test_V19_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    hub.open_files = 1024
    silent = Silent(hub)
    try:
        hub.start()
        async with Api(hub.url, hub.token) as api:
            await api.define("p", driver="permanent", password=PASSWORD)
            before = len(hub.log)
            for addresses in (1, 50):
                await asyncio.to_thread(silent.open, IDLE, addresses)
                assert (await api.worker("p"))["attached"] is False
                await attaches(hub, "p")
            await api.define("late")  # the store can still be written
        assert len(hub.log) - before < 100
        assert hub.stop() == 0
    finally:
        silent.close()
        hub.close()


async def test_half_sent_requests_are_closed_at_the_deadline(tmp_path: Path) -> None:
    many = str(2 * HALF_SENT)
    limits = {"unauthenticated_connections": many, "unauthenticated_per_client": many}
    with HubProcess.running(tmp_path / "hub", receive_deadline_s="1", **limits) as hub:
        silent = [Silent(hub, HEAD), Silent(hub, BODY)]
        try:
            for each in silent:
                await asyncio.to_thread(each.open, HALF_SENT // 2)
            ends = [end for each in silent for end in await each.ends()]
        finally:
            for each in silent:
                each.close()
    assert {end.partition(b"\r\n")[0] for end in ends} == {b"HTTP/1.1 408 Request Timeout"}
