"""A server of the hub's protocols with a small application behind it, and raw clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from hostler_hub.web.listener.connections import Caps, Connection, Connections
from hostler_hub.web.listener.http import HttpProtocol, ServerParts, note_authenticated
from hostler_hub.web.listener.websocket import WebSocketProtocol

PIECE_BYTES = 64 * 1024


class Server:
    """Protocols on a socket, and an application that reads bodies when it is let."""

    def __init__(self, deadline_s: float) -> None:
        self.connections = Connections(Caps(1000, 1000, 1000))
        self.protocols: list[HttpProtocol] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.bodies: list[int] = []
        config = uvicorn.Config(
            self.app,
            http=HttpProtocol,
            ws=WebSocketProtocol,
            ws_ping_interval=None,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
        )
        config.load()
        self._parts = ServerParts(config, ServerState(), deadline_s)
        self.port = 0
        self.messages = 0
        self.pieces = 0
        self.clients: list[Client] = []

    def protocol(self) -> HttpProtocol:
        connection = self.connections.admit("client")
        assert isinstance(connection, Connection)
        return self.protocol_of(connection)

    def protocol_of(self, connection: Connection) -> HttpProtocol:
        self.protocols.append(HttpProtocol(self._parts, connection))
        return self.protocols[-1]

    async def aclose(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        for protocol in self.protocols:  # one that is not read does not see that the peer is gone
            if protocol.transport is not None:
                protocol.transport.abort()
        await until(lambda: self.connections.open_count == 0)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                self.messages += 1
            return
        if scope["path"] == "/known":
            note_authenticated(scope)
        if scope["path"] == "/endless":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                piece = {"type": "http.response.body", "body": b"x" * PIECE_BYTES}
                await send({**piece, "more_body": True})
                self.pieces += 1
        size = 0
        while True:
            await self.reads.wait()
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        self.bodies.append(size)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def dial(self, sent: bytes) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        read = b""
        with suppress(ConnectionError):
            while part := await self._reader.read(65536):
                read += part
        self.writer.close()
        return read

    async def until(self, text: bytes) -> None:
        await self._reader.readuntil(text)


@asynccontextmanager
async def serving(deadline_s: float) -> AsyncIterator[Server]:
    server = Server(deadline_s)
    listener = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
    async with listener, asyncio.timeout(60):
        server.port = listener.sockets[0].getsockname()[1]
        yield server
        await server.aclose()


async def until(holds: Callable[[], bool]) -> None:
    """Let the others run until it holds."""
    async with asyncio.timeout(60):
        async for _ in turns():
            if holds():
                break


async def turns() -> AsyncIterator[None]:
    while True:
        yield
        await asyncio.sleep(0)
