"""Several frames in one piece, against websockets' own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from hostler_agent.hub.websocket import HubWebSocket


@pytest.fixture
async def received() -> asyncio.Queue[bytes]:
    return asyncio.Queue()


@pytest.fixture
async def socket(received: asyncio.Queue[bytes]) -> AsyncIterator[HubWebSocket]:
    async def keep(server: ServerConnection) -> None:
        async for frame in server:
            assert isinstance(frame, bytes)
            received.put_nowait(frame)

    async with serve(keep, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/"
        async with connect(url, create_connection=HubWebSocket, compression=None) as made:
            assert isinstance(made, HubWebSocket)
            yield made


async def test_frames_arrive_apart_and_in_order_from_one_write(socket, received, monkeypatch):
    writes = []
    write = socket.transport.write
    monkeypatch.setattr(socket.transport, "write", lambda data: (writes.append(data), write(data)))
    frames = [b"one", b"x" * 70_000, b"", b"three"]
    await socket.send_all(frames)
    assert [await received.get() for _ in frames] == frames
    assert len(writes) == 1
    await socket.send_all([b"alone"])
    assert await received.get() == b"alone"


async def test_a_closed_connection_says_so(socket):
    await socket.close()
    with pytest.raises(ConnectionClosed):
        await socket.send_all([b"one", b"two"])
