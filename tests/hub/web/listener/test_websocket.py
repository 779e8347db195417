"""Floods of an agent that was let in: it is read slowly, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from hub.web.listener_server import Client, Server, serving, until
from websockets.frames import Frame, Opcode

from hostler_hub.web.listener import websocket
from hostler_hub.web.listener.websocket import WebSocketProtocol

HANDSHAKE = (
    b"GET /agents HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"
MANY = 3 * websocket.FRAMES_BURST


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(3600.0) as server:
        yield server


async def attached(server: Server) -> tuple[Client, WebSocketProtocol]:
    client = await server.dial(HANDSHAKE)
    await client.until(b"\r\n\r\n")
    protocol = server.protocols[-1].transport.get_protocol()
    assert isinstance(protocol, WebSocketProtocol)
    return client, protocol


def frame(opcode: Opcode, data: bytes = b"") -> bytes:
    return Frame(opcode, data).serialize(mask=True)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.BINARY])
async def test_V19_others_are_answered_before_a_flood_is_read(
    server: Server, opcode: Opcode
) -> None:
    bad, protocol = await attached(server)
    bad.writer.write(frame(opcode) * MANY)
    await until(lambda: bool(protocol._unfed))
    for _ in range(3):
        good = await server.dial(GET)
        await good.until(b"ok")
    assert protocol._unfed or protocol._feeding is not None, "the flood was read first"
    assert not protocol.transport.is_reading()


async def test_a_flood_is_read_to_its_end_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "FRAMES_PER_S", 10**6)
    bad, protocol = await attached(server)
    bad.writer.write(frame(Opcode.BINARY, b"x") * MANY + frame(Opcode.PING, b"last"))
    await until(lambda: server.messages == MANY)
    await bad.until(b"last")
    await until(protocol.transport.is_reading)


async def test_messages_larger_than_a_piece_arrive_whole(server: Server) -> None:
    bad, _ = await attached(server)
    for _ in range(3):
        bad.writer.write(frame(Opcode.BINARY, b"x" * 5 * websocket.PIECE_BYTES))
    await until(lambda: server.messages == 3)


async def test_V15_answers_to_pings_are_not_kept_for_who_does_not_read_them(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "FRAMES_PER_S", 10**6)
    monkeypatch.setattr(websocket, "FRAMES_BURST", 10**6)
    bad, protocol = await attached(server)
    protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    bad.writer.transport.pause_reading()
    pings = frame(Opcode.PING, b"x" * 120) * 1000
    while protocol.writable.is_set():
        bad.writer.write(pings)
        await asyncio.sleep(0)
    full = protocol.transport.get_write_buffer_size()
    bad.writer.write(pings * 20 + frame(Opcode.BINARY))
    await until(lambda: server.messages == 1)
    assert protocol.transport.get_write_buffer_size() <= full + len(pings)


async def test_a_connection_counts_as_known_once_its_agent_was_let_in(server: Server) -> None:
    await attached(server)
    await until(lambda: server.connections.waiting_count == 0)
    assert server.connections.open_count == 1
