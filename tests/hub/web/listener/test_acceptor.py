"""Accepting: at the limits of connections and descriptors, and with TLS."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from hub.web.listener_server import Client, Server, until

from hostler_hub.runtime import certificate_authority
from hostler_hub.web.listener import acceptor
from hostler_hub.web.listener.acceptor import Acceptor
from hostler_hub.web.listener.connections import Caps, Connections

GET = b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"


class Gate(socket.socket):
    """A listening socket whose accept() fails as often as it is told."""

    failures = 0
    tries = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.tries += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class Site:
    def __init__(self, caps: Caps) -> None:
        self.server = Server(3600.0)
        self.server.connections = Connections(caps)
        self.listener = Gate()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(128)
        self.listener.setblocking(False)
        self.server.port = self.listener.getsockname()[1]

    async def dial(self, sent: bytes = b"") -> Client:
        return await self.server.dial(sent)


@asynccontextmanager
async def accepting(
    caps: Caps, context: ssl.SSLContext | None = None, deadline_s: float = 3600.0
) -> AsyncIterator[Site]:
    site = Site(caps)
    with site.listener:
        made = Acceptor(
            site.listener,
            site.server.connections,
            site.server.protocol_of,
            context,
            deadline_s,
        )
        async with asyncio.timeout(60):
            task = asyncio.create_task(made.run())
            yield site
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await site.server.aclose()


async def test_what_is_accepted_is_served() -> None:
    async with accepting(Caps(100, 100, 100)) as site:
        for _ in range(3 * acceptor._BURST):
            client = await site.dial(GET)
            await client.until(b"ok")


async def test_without_descriptors_it_waits_and_logs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "_BACKOFF_S", 0.001)
    with structlog.testing.capture_logs() as logged:
        async with accepting(Caps(100, 100, 100)) as site:
            silent = await site.dial()
            await until(lambda: site.server.connections.open_count == 1)
            site.listener.failures = 50
            client = await site.dial(GET)
            await client.until(b"ok")
            assert await silent.rest() == b"", "who says nothing makes room"
            assert site.listener.tries < 60
    lines = [line for line in logged if line["event"] == "no connection can be accepted"]
    assert [line["reason"] for line in lines] == ["Too many open files"]


async def test_when_all_are_in_use_a_newcomer_is_hung_up_on() -> None:
    async with accepting(Caps(2, 2, 2)) as site:
        site.server.reads.clear()
        busy = [await site.dial(GET) for _ in range(2)]
        await until(lambda: site.server.connections.open_count == 2)
        await until(lambda: site.server.connections.waiting_count == 0)
        assert await (await site.dial(GET)).rest() == b""
        site.server.reads.set()
        for client in busy:
            await client.until(b"ok")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory: Path = tmp_path_factory.mktemp("tls")
    certificate_authority.make(directory, ["localhost", "127.0.0.1"])
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(directory / "hub.pem", directory / "hub.key")
    return made


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01", GET])
async def test_a_tls_handshake_has_a_deadline(context: ssl.SSLContext, said: bytes) -> None:
    async with accepting(Caps(100, 100, 100), context, deadline_s=0.05) as site:
        client = await site.dial(said)
        await client.rest()
        await until(lambda: site.server.connections.open_count == 0)


async def test_V19_a_silent_tls_client_makes_room_for_one_that_speaks(
    context: ssl.SSLContext,
) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    async with accepting(Caps(100, 3, 3), context) as site:
        silent = [await site.dial() for _ in range(6)]
        await until(lambda: site.server.connections.waiting_count == 3)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", site.server.port, ssl=trusting, server_hostname="localhost"
        )
        writer.write(GET)
        await reader.readuntil(b"ok")
        writer.transport.abort()
        for each in silent[:4]:
            assert await each.rest() == b""
