"""The link to the hub: connect, authenticate, and reconnect, until the hub orders the agent away.

The agent dials out, so a worker needs no open port. An attempt ends in one of three ways: with a
connection; with a temporary failure (the hub is down, not ready, or does not know the agent yet:
401, 503 and everything else), after which the agent waits and tries again; or with 410, the order
to go away, which is final, as are the close code 4410 and `shutdown`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional, cast
from urllib.parse import urlsplit

from hostler_agent.config import is_loopback
from hostler_agent.errors import ConfigurationError, ConnectFailed, OrderedAway
from hostler_agent.hub.connection import CLOSE_DEADLINE_S, Connection
from hostler_agent.hub.reconnect_delay import ReconnectDelay
from hostler_agent.wire.extension import GO_AWAY_STATUS
from hostler_agent.wire.limits import TO_AGENT

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    from hostler_agent.clock import Clock
    from hostler_agent.hub.websocket import HubWebSocket
    from hostler_agent.wire.extension import Handshake

OPEN_DEADLINE_S = 30.0
RECEIVE_QUEUE = 8
STEADY_AFTER_S = 10.0
"""A connection that lasted this long was a good one: the next failure is a new story."""

Dial = Callable[[], "Awaitable[HubWebSocket]"]
"""Opens one connection, or raises what `connect` of websockets raises."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """The hub's address. `ca_file` replaces the system's authorities for wss://; `unix_socket` is
    connected to instead of the URL's host.
    """

    url: str
    ca_file: Optional[Path] = None
    unix_socket: Optional[Path] = None

    def tls(self) -> Optional[ssl.SSLContext]:
        """The TLS context; None for ws://. Raises ConfigurationError if the authorities cannot be
        read.
        """
        if not self.url.startswith("wss:"):
            return None
        import ssl  # noqa: PLC0415 - costs time and memory that ws:// need not pay

        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"option 'ca_file': {self.ca_file}: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


class Link:
    """Keeps a connection to the hub. Must be made inside the running event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        handshake: Handshake,
        clock: Clock,
        random: Callable[[], float],
        contacted: Callable[[float], None],
        dial: Optional[Dial] = None,
    ) -> None:
        """`contacted`: see Connection; it is also called for a handshake that succeeded.

        `dial` replaces the network in simulations.
        """
        self._endpoint = endpoint
        self._tls = endpoint.tls()
        self._headers = handshake.headers()
        self._is_instance = handshake.instance is not None
        self._clock = clock
        self._delay = ReconnectDelay(random)
        self._contacted = contacted
        self._dial: Dial = dial or cast("Dial", self._connector)

    async def run(self, serve: Callable[[Connection], Awaitable[None]]) -> None:
        """Connect, and let `serve` work each connection, until cancelled. Raises OrderedAway."""
        while True:
            retry_after_s = None
            try:
                await self._attempt(serve)
                log.info("connection to the hub lost")
            except ConnectFailed as error:
                log.warning("cannot connect: %s", error)
                retry_after_s = error.retry_after_s
            await self._clock.sleep(self._delay.next_delay_s(retry_after_s))

    async def _attempt(self, serve: Callable[[Connection], Awaitable[None]]) -> None:
        sent_at = self._clock.now()
        connection = Connection(await self._open(), self._clock, self._contacted)
        try:
            opened_at = self._clock.now()
            self._contacted(sent_at)
            await serve(connection)
            if self._clock.now() - opened_at >= STEADY_AFTER_S:
                self._delay.succeeded()
        finally:
            await connection.close()

    async def _open(self) -> HubWebSocket:
        from websockets.exceptions import (  # noqa: PLC0415 - heavy: not before it is needed
            InvalidStatus,
            WebSocketException,
        )

        try:
            return await self._dial()
        except InvalidStatus as error:
            raise _refusal(error, is_instance=self._is_instance) from error
        except WebSocketException as error:
            raise ConnectFailed(f"the handshake failed: {error}") from error
        except (OSError, EOFError, UnicodeError, asyncio.TimeoutError) as error:
            # TLS errors are OSErrors; a host name that IDNA cannot encode is a UnicodeError.
            raise ConnectFailed(str(error) or type(error).__name__) from error

    def _connector(self) -> connect:
        from websockets.asyncio.client import connect  # noqa: PLC0415

        from hostler_agent.hub.websocket import HubWebSocket  # noqa: PLC0415

        class Connect(connect):
            """Follows no redirect, which could take the credentials, and the agent, to another
            server.
            """

            def process_redirect(self, exc: Exception) -> Exception:
                return exc

        options: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        if self._endpoint.unix_socket is not None:
            options.update(unix=True, path=str(self._endpoint.unix_socket), proxy=None)
        elif is_loopback(urlsplit(self._endpoint.url).hostname or ""):
            options["proxy"] = None
        return Connect(
            self._endpoint.url,
            additional_headers=self._headers,
            create_connection=HubWebSocket,
            compression=None,
            max_size=TO_AGENT.message_size_bytes,
            max_queue=RECEIVE_QUEUE,
            open_timeout=OPEN_DEADLINE_S,
            close_timeout=CLOSE_DEADLINE_S,
            ping_interval=None,  # the connection has its own: see there
            **options,
        )


def _refusal(error: InvalidStatus, *, is_instance: bool) -> Exception:
    """The exception for an answer that is not 101.

    A hub sends 410 to agents of instances alone. Where a permanent worker's agent gets it, a proxy
    answered, and the agent tries again.
    """
    response = error.response
    if is_instance and response.status_code == GO_AWAY_STATUS:
        return OrderedAway("the hub answered 410: this instance is over")
    reason = f"the hub answered {response.status_code}"
    if response.status_code == 401:
        reason += " (unauthorized: is the name and token right?)"
    return ConnectFailed(reason, _retry_after_s(response.headers.get("Retry-After")))


def _retry_after_s(value: Optional[str]) -> Optional[float]:
    """The seconds of a Retry-After header. A date is ignored: it would need two clocks to agree."""
    if value is None or not (value.isascii() and value.isdecimal() and len(value) < 10):
        return None
    return float(value)
