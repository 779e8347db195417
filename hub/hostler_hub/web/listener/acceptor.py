"""Accepts the connections of one listening socket.

asyncio's own loop for it cannot be limited, and where descriptors run out it tries, and logs, as
many times as the backlog is long, each second.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import structlog

from hostler_hub.runtime.client import THIS_MACHINE, client_of
from hostler_hub.runtime.log import Tally
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.web.listener.connections import Connection, Connections

_log = structlog.get_logger(__name__)

# So many connections are accepted before those that are open get their turn.
_BURST = 16
_BACKOFF_S = 0.25
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

MakeProtocol = Callable[[Connection], asyncio.Protocol]


class Acceptor:
    """Accepts connections until it is cancelled. ``deadline_s`` is for TLS handshakes."""

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        make_protocol: MakeProtocol,
        context: ssl.SSLContext | None,
        deadline_s: float,
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._make_protocol = make_protocol
        self._tls: dict[str, Any] = {}
        if context is not None:
            self._tls = {"ssl": context, "ssl_handshake_timeout": deadline_s}
        self._exhausted = Tally(time.monotonic)
        self._opening = Tasks()

    async def run(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        accepted = 0
        try:
            while True:
                try:
                    sock, address = await loop.sock_accept(self._listener)
                except OSError as error:
                    await self._await_room(error)
                    continue
                self._take(sock, address)
                accepted += 1
                if accepted % _BURST == 0:
                    await asyncio.sleep(0)
        finally:
            await self._opening.aclose()

    async def _await_room(self, error: OSError) -> None:
        """Wait after a failed accept. Linux also reports errors of the network there, which belong
        to the one connection that is gone.
        """
        if error.errno not in _EXHAUSTED:
            await asyncio.sleep(0)
            return
        if count := self._exhausted.count():
            _log.warning("no connection can be accepted", reason=error.strerror, count=count)
        self._connections.end_longest_waiting()
        await asyncio.sleep(_BACKOFF_S)

    def _take(self, sock: socket.socket, address: Any) -> None:
        client = client_of(address[0]) if isinstance(address, tuple) else THIS_MACHINE
        connection = self._connections.admit(client)
        if connection is None:
            sock.close()
            return

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled() or task.exception() is not None:
                connection.remove()
                sock.close()

        task = self._opening.spawn(self._open(sock, connection), "open connection")
        connection.end = task.cancel
        task.add_done_callback(ended)

    async def _open(self, sock: socket.socket, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_protocol(connection), sock, **self._tls
            )
        except OSError:  # the client is gone, or it speaks no TLS, or not in time
            connection.remove()
            sock.close()
