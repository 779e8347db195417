"""The HTTP side of a connection: uvicorn's protocol with deadlines and limits on what comes in.

Theory of operation. The hub needs the client as long as it has no complete request to work on. Then
a deadline runs: for the head of a request from the connection's begin or from the last answer on;
for a body from its head on. An authenticated client has one deadline after the other for a body, as
long as each brings a minimum; one that has proven nothing has a single one (slow-loris requests).
While the application does not read, no deadline counts. What is late gets 408.

uvicorn's parser itself limits neither the size of a head, nor of trailers, nor the number of
requests that are sent before the first is answered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from hostler_hub.web.listener.connections import Connection

# The application answers 431 by a problem document from 16 KiB on; this is where reading ends.
HEAD_SIZE_BYTES = 32 * 1024
# What the parser of WebSocket handshakes takes: one line, and the number of lines.
HANDSHAKE_SIZE_BYTES = 16 * 1024
HANDSHAKE_LINE_BYTES = 8 * 1024
HANDSHAKE_LINES = 100
# What an authenticated client must send of a body within each deadline.
BODY_LEAST_BYTES = 1024
PIPELINED = 8
# The key of ASGI's `state` that holds the Connection.
STATE_KEY = "connection"


@dataclass(frozen=True)
class ServerParts:
    """What all protocols of a server share. ``deadline_s``: see the module."""

    config: Config
    state: ServerState
    deadline_s: float


class HttpProtocol(HttpToolsProtocol):
    """The HTTP protocol of one connection."""

    def __init__(self, server: ServerParts, connection: Connection) -> None:
        super().__init__(server.config, server.state, {STATE_KEY: connection})
        self._connection = connection
        self._deadline_s = server.deadline_s
        self._timer: asyncio.TimerHandle | None = None
        self._head_size_bytes = 0
        self._unparsed_bytes = 0
        self._body_bytes = 0  # since the deadline began
        self._begun = False  # a head, which is not complete

    # --- the transport's events -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connection.end = transport.abort
        self._restart_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._connection.remove()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if max(self._head_size_bytes, self._unparsed_bytes) > HEAD_SIZE_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif len(self.pipeline) > PIPELINED:
            self.transport.abort()

    # --- the parser's events ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_size_bytes = self._unparsed_bytes = 0
        self._begun = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_size_bytes += len(url)
        self._unparsed_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, after the head.
        self._head_size_bytes += len(name) + len(value) + 4
        self._unparsed_bytes = 0
        if self._head_size_bytes <= HEAD_SIZE_BYTES:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._begun = False
        self._restart_deadline()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._unparsed_bytes = 0
        self._stop_deadline()
        self._connection.serve()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._connection.wait()
            self._restart_deadline()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol, which would hang up without a word on
        headers that it does not take.
        """
        self._stop_deadline()
        sizes = [len(name) + len(value) + 4 for name, value in self.headers]
        fits = sum(sizes) <= HANDSHAKE_SIZE_BYTES and len(sizes) <= HANDSHAKE_LINES
        if fits and max([len(self.url) + 20, *sizes]) <= HANDSHAKE_LINE_BYTES:
            self._connection.serve()
            super().handle_websocket_upgrade()
        else:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    # --- deadlines --------------------------------------------------------------------------------

    def _restart_deadline(self) -> None:
        self._stop_deadline()
        self._body_bytes = 0
        self._timer = self.loop.call_later(self._deadline_s, self._end_window)

    def _stop_deadline(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_window(self) -> None:
        """The deadline has passed: go on waiting for a body that comes, refuse everything else."""
        enough = self._connection.authenticated and self._body_bytes >= BODY_LEAST_BYTES
        if self._answering and (self.flow.read_paused or enough):
            self._restart_deadline()
        elif not self._answering and not self._begun:  # nothing has come
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    @property
    def _answering(self) -> bool:
        """Whether the head of a request has come whose answer is not complete."""
        latest: RequestResponseCycle | None = self.cycle
        return latest is not None and not latest.response_complete

    def _refuse(self, status: HTTPStatus) -> None:
        """Close the connection, with an answer if one can still be given."""
        self._stop_deadline()
        begun = self._answering and self.cycle.response_started
        if begun or self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        text = f"{status.value} {status.phrase}"
        answer = (
            f"HTTP/1.1 {text}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}"
        )
        self.transport.write(answer.encode("ascii"))
        self.transport.close()


def note_authenticated(scope: Scope) -> None:
    """The client that sent this request has proven who it is. Does nothing if the request came
    through another server than ours.
    """
    connection = scope.get("state", {}).get(STATE_KEY)
    if isinstance(connection, Connection):
        connection.authenticate()
