"""Tunnels: a port on a machine's loopback that leads, inside our own SSH connection, to the hub.

The machine's sshd listens there for us, so an agent reaches a hub that has no address of its own
and needs no TLS. Such a port lives as long as the connection: when that breaks it is asked for
again, under the same number, for agents that come back know no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from paramiko.ssh_exception import SSHException

from hostler_hub.drivers.transports.errors import Refused, TransportError, TransportTimeout
from hostler_hub.drivers.transports.ssh.transport import SshTransport

LOOPBACK = "127.0.0.1"
# Below what Linux gives to outgoing connections, above what services are registered for.
PORTS = (20000, 30000)
TRIES = 5
REQUEST_DEADLINE_S = 10.0
LOOK_EVERY_S = 1.0
MAX_PAUSE_S = 30.0
_CHUNK_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


@dataclass
class _Way:
    """The ports on one machine, who needs them, and the connection they are open on."""

    transport: SshTransport
    needed: dict[int, set[str]] = field(default_factory=dict)
    open_on: Any = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    keeper: asyncio.Task[None] | None = None


class Tunnels:
    """All of a hub's; `hub` is the socket where it listens for agents on its own machine."""

    def __init__(self, hub: Path | None) -> None:
        self._hub = hub
        self._ways: dict[SshTransport, _Way] = {}

    async def ensure(self, transport: SshTransport, user: str, port: int | None) -> int:
        """The port that leads here, open now; kept so until `release(user)`. Raises
        TransportError.
        """
        if self._hub is None:
            raise Refused("option 'tunnel': this hub has no socket for agents")
        way = self._ways.setdefault(transport, _Way(transport))
        chosen = port or next(iter(way.needed), None) or await self._choose(way)
        way.needed.setdefault(chosen, set()).add(user)
        await self._open(way)
        if way.keeper is None:
            name = f"tunnel {transport.address}"
            way.keeper = asyncio.create_task(self._keep(way), name=name)
        return chosen

    async def release(self, user: str) -> None:
        """`user` needs no port any more; what nobody needs is closed."""
        for way in list(self._ways.values()):
            for port in [port for port, users in way.needed.items() if users == {user}]:
                del way.needed[port]
                with contextlib.suppress(TransportError):
                    await _ask(way.open_on, functools.partial(_cancel, way.open_on, port))
            for users in way.needed.values():
                users.discard(user)
            if not way.needed:
                await self._forget(way)

    async def aclose(self) -> None:
        """The ports go with their connections."""
        for way in list(self._ways.values()):
            await self._forget(way)

    async def _forget(self, way: _Way) -> None:
        self._ways.pop(way.transport, None)
        if way.keeper is not None:
            way.keeper.cancel()
            await asyncio.gather(way.keeper, return_exceptions=True)

    async def _choose(self, way: _Way) -> int:
        connection = await way.transport.connected()
        for tries_left in reversed(range(TRIES)):
            port = random.randrange(*PORTS)  # noqa: S311 - a free one, not a secret one
            try:
                await self._request(way.transport, connection, port)
            except Refused:
                if not tries_left:
                    raise
            else:
                way.open_on = way.open_on or connection
                return port
        raise AssertionError

    async def _open(self, way: _Way) -> None:
        async with way.opening:
            connection = await way.transport.connected()
            if way.open_on is connection:
                return
            for port in list(way.needed):
                await self._request(way.transport, connection, port)
            way.open_on = connection

    async def _request(self, transport: SshTransport, connection: Any, port: int) -> None:
        assert self._hub is not None
        handler = functools.partial(_relay, self._hub)
        ask = functools.partial(connection.request_port_forward, LOOPBACK, port, handler)
        try:
            await _ask(connection, ask)
        except Refused as error:
            raise Refused(
                f"{transport.address}: option 'tunnel': sshd refused port {port}: {error} "
                "(its AllowTcpForwarding must allow remote; or somebody else has the port)"
            ) from error

    async def _keep(self, way: _Way) -> None:
        pause_s = LOOK_EVERY_S
        with way.transport.hold():
            while True:
                await asyncio.sleep(pause_s)
                try:
                    await self._open(way)
                    pause_s = LOOK_EVERY_S
                except TransportError as error:
                    pause_s = min(pause_s * 2, MAX_PAUSE_S)
                    _log.warning("tunnel is down", address=way.transport.address, why=str(error))


async def _ask(connection: Any, ask: Callable[[], object]) -> None:
    """A request that paramiko waits on for ever; raises TransportError."""
    try:
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            await asyncio.to_thread(ask)
    except TimeoutError:
        connection.close()  # so that the thread ends as well
        raise TransportTimeout("the request for a port was not answered in time") from None
    except (SSHException, EOFError, OSError) as error:
        raise Refused(str(error) or type(error).__name__) from error


def _cancel(connection: Any, port: int) -> None:
    if connection is not None and connection.is_active():
        connection.cancel_port_forward(LOOPBACK, port)


def _relay(hub: Path, channel: Any, _origin: object, _server: object) -> None:
    """paramiko's thread calls this for each connection to the port, and must not be held up."""
    threading.Thread(target=_connect, args=(hub, channel), daemon=True, name="tunnel").start()


def _connect(hub: Path, channel: Any) -> None:
    try:
        ours = _dial(hub)
    except OSError:  # the hub is stopping; the agent tries again
        channel.close()
        return
    back = threading.Thread(target=_pump, args=(ours, channel), daemon=True, name="tunnel back")
    back.start()
    _pump(channel, ours)
    back.join()
    ours.close()
    channel.close()


def _dial(hub: Path) -> socket.socket:
    """A socket's address has 107 bytes, its path may be longer."""
    directory = os.open(hub.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    ours = socket.socket(socket.AF_UNIX)
    try:
        ours.connect(f"/proc/self/fd/{directory}/{hub.name}")
    except OSError:
        ours.close()
        raise
    finally:
        os.close(directory)
    return ours


def _pump(source: Any, target: Any) -> None:
    """Until either side ends; then both do."""
    with contextlib.suppress(OSError, EOFError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError, EOFError):
            each.shutdown(socket.SHUT_RDWR)
