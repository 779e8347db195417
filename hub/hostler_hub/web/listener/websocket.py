"""The WebSocket side of a connection: uvicorn's protocol with limits on what an agent may send.

Theory of operation. Each frame costs the hub time, whatever is in it, and a single read can bring
tens of thousands of pings. So what was read is given to the parser in small pieces, one in each
turn of the event loop, and each connection may send FRAMES_PER_S frames a second on the average. An
agent that sends more is not read for a while: TCP makes it wait, and nobody else waits (V19).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from hostler_hub.runtime.token_bucket import TokenBucket
from hostler_hub.web.listener.connections import Connection
from hostler_hub.web.listener.http import STATE_KEY

FRAMES_PER_S = 2000
FRAMES_BURST = 4000
# Up to 1,300 of the smallest frames, which are parsed in about 20 ms.
PIECE_BYTES = 8 * 1024


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The WebSocket protocol of one connection, which an HttpProtocol has handed over."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._connection: Connection = self.app_state[STATE_KEY]
        self._bucket = TokenBucket(FRAMES_PER_S, FRAMES_BURST, self.loop.time)
        self._unfed = bytearray()
        self._feeding: asyncio.Handle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._unfed.clear()
        self._connection.remove()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._unfed and len(data) <= PIECE_BYTES:
            self._feed(data)
        else:
            self._unfed += data
            self._feed_later(0.0)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept":  # only agents that were admitted are accepted
            self._connection.authenticate()

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self._unfed:
                self._feed_later(0.0)
            else:
                self._resume()
        return message

    def handle_ping(self) -> None:
        # Who sends pings and reads no answers would make the hub keep them all.
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def _feed(self, data: bytes) -> None:
        """Parse what the peer has sent; read on, or make it wait."""
        self.conn.receive_data(data)
        owed_s = self._bucket.take(len(self.conn.events))
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
            return
        self.handle_events()
        if not self.handshake_initiated:  # the whole request was there, and is none
            self.transport.close()
        if self.transport.is_closing():
            self._unfed.clear()
        elif self._unfed or owed_s:
            self._feed_later(owed_s)

    def _feed_later(self, after_s: float) -> None:
        self.transport.pause_reading()
        if self._feeding is None:
            self._feeding = self.loop.call_later(after_s, self._feed_next)

    def _feed_next(self) -> None:
        self._feeding = None
        if self.disconnected or self.read_paused:  # receive() goes on
            return
        if self._unfed:
            piece = bytes(self._unfed[:PIECE_BYTES])
            del self._unfed[:PIECE_BYTES]
            self._feed(piece)
        self._resume()

    def _resume(self) -> None:
        """Read on, unless the peer or the application is to be waited for."""
        if not self._unfed and self._feeding is None and not self.read_paused:
            self.transport.resume_reading()
