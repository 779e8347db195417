"""The WebSocket side of a connection: uvicorn's protocol with limits on what an agent may send.

Theory of operation. Each frame costs the hub time, whatever is in it, and a single read can bring
tens of thousands of pings. So what was read is given to the parser in small pieces, as many in each
turn of the event loop as fit TURN_S, and each connection may send FRAMES_PER_S frames a second on
the average. An agent that sends more is not read for a while: TCP makes it wait, and nobody else
waits (V19).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from hostler_hub.runtime.token_bucket import TokenBucket
from hostler_hub.web.listener.connections import Connection
from hostler_hub.web.listener.http import STATE_KEY

FRAMES_PER_S = 2000
FRAMES_BURST = 2000
TURN_S = 0.005
# Up to 170 of the smallest frames, which are answered in about 5 ms.
PIECE_BYTES = 1024


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
        self._unfed += data
        if self._feeding is None:
            self._feed()

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
            elif self._feeding is None:
                self.transport.resume_reading()
        return message

    def handle_ping(self) -> None:
        # Who sends pings and reads no answers would make the hub keep them all.
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def _feed(self) -> None:
        """Parse what the peer has sent, as long as it is its turn; then read on, or make it
        wait.
        """
        self._feeding = None
        ends_at = self.loop.time() + TURN_S
        owed_s = 0.0
        while self._unfed and not self.read_paused and not owed_s and self.loop.time() < ends_at:
            piece = bytes(self._unfed[:PIECE_BYTES])
            del self._unfed[:PIECE_BYTES]
            owed_s = self._parse(piece)
            if self.transport.is_closing():
                self._unfed.clear()
                return
        if self.read_paused:  # until the application has taken the message: see receive()
            self.transport.pause_reading()
        elif self._unfed or owed_s:
            self._feed_later(owed_s)
        else:
            self.transport.resume_reading()

    def _parse(self, data: bytes) -> float:
        """Parse a piece, and handle its frames. Returns the seconds to wait before the next one."""
        self.conn.receive_data(data)
        owed_s = self._bucket.take(len(self.conn.events))
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
            return owed_s
        self.handle_events()
        if not self.handshake_initiated and not self._unfed:  # the whole request was there
            self.transport.close()
        return owed_s

    def _feed_later(self, after_s: float) -> None:
        self.transport.pause_reading()
        if self._feeding is None:
            self._feeding = self.loop.call_later(after_s, self._feed)
