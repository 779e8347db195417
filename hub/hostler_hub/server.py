"""Serving: the sockets, uvicorn's settings, signals, and the start and end of the hub."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import os
import signal
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
import uvicorn

from hostler_hub import __version__
from hostler_hub.app import create_app
from hostler_hub.errors import SettingsError, StateLost
from hostler_hub.runtime import (
    agents_socket,
    certificate,
    descriptors,
    garbage_collection,
    log,
    private_files,
    process,
    systemd,
)
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.store.errors import StoreLost
from hostler_hub.web.listener.acceptor import Acceptor
from hostler_hub.web.listener.connections import Caps, Connection, Connections
from hostler_hub.web.listener.http import HttpProtocol, ServerParts
from hostler_hub.web.listener.websocket import WebSocketProtocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from hostler_hub.runtime.settings import Settings
    from hostler_hub.web.hub import Hub

_log = structlog.get_logger(__name__)

# How long a stop waits for open requests: long polls and followed logs would keep it for ever.
_GRACE_S = 3
_DEAD_PEER_S = 120
_WS_MESSAGE_SIZE_BYTES = 1024 * 1024
_WS_QUEUE = 8
_M_MMAP_THRESHOLD = -3  # malloc.h
_MMAP_THRESHOLD_BYTES = 1024 * 1024


def serve(settings: Settings) -> None:
    """Run a hub in this process until SIGTERM or SIGINT.

    Raises SettingsError, before anything was changed, if the operator must change the
    configuration; StateLost if the database was deleted or replaced while the hub served.
    """
    settings.prepare_state_dir()
    descriptors.raise_limit()
    _keep_memory_low()
    with process.hold_lock(settings), _bind(settings) as listener:
        log.configure(settings.log_level)
        # Port 0 let the system choose; from here on everybody is told the real one.
        chosen = dataclasses.replace(settings, port=listener.getsockname()[1])
        with agents_socket.listen(chosen.agents_socket) as inner:
            asyncio.run(_serve(chosen, listener, inner))


class _Server(uvicorn.Server):
    """uvicorn's server, with a listener of ours; it announces that it serves, and leaves signals to
    us.

    uvicorn's own handler raises the signal again as soon as the sockets are closed, which would end
    the process before the hub has closed its store. A server that is not ``announced`` announces
    nothing.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        settings: Settings,
        connections: Connections,
        *,
        announced: bool = True,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._connections = connections
        self._announced = announced
        self._accepting = Tasks()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])  # it accepts nothing itself
        for listener in sockets or []:
            self._accepting.spawn(self._acceptor(listener).run(), "accept connections")
        if not self._announced:
            return
        started_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        private_files.write_json(
            self._settings.run_file,
            {
                "url": self._settings.client_url,
                "local_url": self._settings.url,
                "ca_file": self._settings.tls_ca or None,
                "certificate": self._settings.tls_certificate or None,
                "pid": os.getpid(),
                "started_at": started_at,
            },
        )
        process.announce("ready")
        systemd.notify("READY=1")
        _log.info("hub started", url=self._settings.url, version=__version__)

    def _acceptor(self, listener: socket.socket) -> Acceptor:
        deadline_s = self._settings.receive_deadline_s
        parts = ServerParts(self.config, self.server_state, deadline_s)

        def protocol(connection: Connection) -> HttpProtocol:
            return HttpProtocol(parts, connection)

        return Acceptor(listener, self._connections, protocol, self.config.ssl, deadline_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait until builds that have ended have freed their slots, while their agents are still
        connected; then shut down. A leased instance outlives the hub, and costs money until the
        next hub starts (V18).
        """
        hub: Hub = self._app.state.hub
        await hub.supervisor.released()
        await self._accepting.aclose()
        await super().shutdown(sockets)

    def ask_to_stop(self) -> None:
        """Shut down in order when called first; when called again, stop waiting
        for open connections.
        """
        self.force_exit = self.should_exit
        self.should_exit = True


async def _serve(settings: Settings, outer: socket.socket, inner: socket.socket) -> None:
    """Serve until asked to stop. With TLS there are two servers, because the inner socket, which
    agents on this machine use, needs no TLS.
    """
    app = create_app(settings)
    connections = Connections(_caps(settings))
    chain = certificate.Certificate.of(settings)
    plain = _Server(_config(app, None), app, settings, connections, announced=chain is None)
    servers = [(plain, [outer, inner])]
    if chain is not None:
        secure = _Server(_config(app, chain), app, settings, connections)
        servers = [(plain, [inner]), (secure, [outer])]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_stop, [server for server, _ in servers])
    with _telling_of_lost_state() as lost:
        async with app.router.lifespan_context(app), asyncio.TaskGroup() as tasks:
            garbage_collection.watch()
            guard = _guard_state(app.state.hub, lost, [server for server, _ in servers])
            watching = [
                tasks.create_task(systemd.keep_alive(), name="watchdog"),
                tasks.create_task(guard, name="state"),
            ]
            if chain is not None:
                watching.append(tasks.create_task(chain.watch(), name="certificate"))
            await asyncio.gather(*(server.serve(sockets=sockets) for server, sockets in servers))
            _log.info("hub stopping")
            systemd.notify("STOPPING=1")
            for task in watching:
                task.cancel()
        _log.info("hub stopped")


async def _guard_state(hub: Hub, lost: list[StoreLost], servers: list[_Server]) -> None:
    """Stop the servers once another program has deleted or replaced the database."""
    lost.append(await hub.store.watch())
    _log.critical("database lost", reason=str(lost[0]))
    _ask_to_stop(servers)


@contextlib.contextmanager
def _telling_of_lost_state() -> Iterator[list[StoreLost]]:
    """Raise StateLost at the end if the list that this yields has an entry, or if the body raised
    StoreLost; it replaces any other exception that the loss caused.
    """
    lost: list[StoreLost] = []
    try:
        yield lost
    except StoreLost as error:
        lost.append(error)
    finally:
        if lost:
            raise StateLost(
                f"{lost[0]} while the hub had it open, so the hub has stopped: keep other programs"
                " from touching the database's files, see that the right database is in its"
                " place, and start the hub again"
            )


def _ask_to_stop(servers: list[_Server]) -> None:
    for server in servers:
        server.ask_to_stop()


def _caps(settings: Settings) -> Caps:
    return Caps.within(
        descriptors.for_connections(),
        settings.unauthenticated_connections,
        settings.unauthenticated_per_client,
    )


def _config(app: ASGIApp, certificate: certificate.Certificate | None) -> uvicorn.Config:
    config = uvicorn.Config(
        agents_socket.AgentsOnly(app),
        # We run it ourselves: a failure to start must reach our caller as the exception it is.
        lifespan="off",
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=_WS_MESSAGE_SIZE_BYTES,
        ws_max_queue=_WS_QUEUE,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # agents have a pulse of their own
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    config.load()
    config.ssl = None if certificate is None else certificate.context
    return config


def _keep_memory_low() -> None:
    """Fix glibc's threshold for mmap(). Otherwise the 16 MiB of one scrypt raise it, and glibc then
    keeps that much memory in every thread.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such trouble
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def _bind(settings: Settings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except socket.gaierror as error:
        raise SettingsError(f"host: {settings.host!r} is not known: {error.strerror}") from error
    except OSError as error:
        where = f"port {settings.port} of {settings.host}"
        # The error's own text is "[Errno 98] Address already in use (while attempting to ...)".
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"cannot listen on {where}: {reason.lower()}") from error
    # Accepted sockets inherit it. asyncio sets it only where the protocol number is given, which
    # create_server() leaves 0; with Nagle's algorithm every answer to an agent waits 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that acknowledges nothing, or whose window stays shut: the kernel ends it, since its
    # socket would wait for it for ever.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_S * 1000)
    listener.setblocking(False)
    return listener
