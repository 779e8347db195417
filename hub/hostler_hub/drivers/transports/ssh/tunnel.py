"""Tunnels: a port on a machine's loopback that leads to the hub through our own SSH connection.

The machine's sshd listens on the port for us, so that an agent can reach a hub that has no public
address, without TLS. The port exists as long as the connection. When that breaks, the same port
number is requested again, because agents that reconnect know no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import structlog

from hostler_hub.drivers.transports.errors import Refused, TransportError, TransportTimeout
from hostler_hub.drivers.transports.ssh.channels import in_order
from hostler_hub.drivers.transports.ssh.session import SharedConnection
from hostler_hub.drivers.transports.ssh.transport import SshTransport
from hostler_hub.lifecycle.backoff import Backoff

LOOPBACK = "127.0.0.1"
# Below what Linux gives to outgoing connections, above what services are registered for.
PORTS = (20000, 30000)
TRIES = 5
REQUEST_DEADLINE_S = 10.0
LOOK_EVERY_S = 1.0
REOPEN = Backoff(first_s=2.0, longest_s=30.0)
_CHUNK_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


@dataclass
class _Forward:
    """The forwarded ports of one machine: the instances that need each, the borrowed connection
    that they are open on, and those that are open.
    """

    transport: SshTransport
    needed: dict[int, set[str]] = field(default_factory=dict)
    connection: SharedConnection | None = None
    opened: set[int] = field(default_factory=set)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    keeper: asyncio.Task[None] | None = None

    async def connected(self) -> paramiko.Transport:
        """The connection for the ports, borrowed anew where the one before has broken."""
        if self.connection is None or not self.connection.is_usable:
            self.give_back()
            self.connection = await self.transport.borrow()
        return self.connection.transport

    def give_back(self) -> None:
        """End the use of the connection, and with it that of the ports on it."""
        connection, self.connection = self.connection, None
        self.opened.clear()
        if connection is not None:
            self.transport.give_back(connection)


class Tunnels:
    """All tunnels of a hub. `hub` is the Unix socket on which the hub listens for agents."""

    def __init__(self, hub: Path | None) -> None:
        self._hub = hub
        self._forwards: dict[SshTransport, _Forward] = {}

    async def ensure(self, transport: SshTransport, user: str, port: int | None) -> int:
        """Open a port on the machine that leads to the hub, and keep it open until `release(user)`.

        Returns the port: `port`, or if that is None one that is chosen. Raises TransportError.
        """
        if self._hub is None:
            raise Refused("option 'tunnel': this hub has no socket for agents")
        forward = self._forwards.setdefault(transport, _Forward(transport))
        chosen = port or next(iter(forward.needed), None) or await self._choose(forward)
        forward.needed.setdefault(chosen, set()).add(user)
        await self._open(forward)
        if forward.keeper is None:
            name = f"tunnel {transport.address}"
            forward.keeper = asyncio.create_task(self._keep(forward), name=name)
        return chosen

    async def release(self, user: str) -> None:
        """Close the ports that only `user` needed."""
        for forward in list(self._forwards.values()):
            for port in [port for port, users in forward.needed.items() if users == {user}]:
                del forward.needed[port]
                if port in forward.opened and forward.connection is not None:
                    forward.opened.discard(port)
                    connection = forward.connection.transport
                    with contextlib.suppress(TransportError):
                        await _ask(connection, functools.partial(_cancel, connection, port))
            for users in forward.needed.values():
                users.discard(user)
            if not forward.needed:
                await self._forget(forward)

    async def aclose(self) -> None:
        """Stop keeping ports open. They close with their connections."""
        for forward in list(self._forwards.values()):
            await self._forget(forward)

    async def _forget(self, forward: _Forward) -> None:
        self._forwards.pop(forward.transport, None)
        if forward.keeper is not None:
            forward.keeper.cancel()
            await asyncio.gather(forward.keeper, return_exceptions=True)
        forward.give_back()

    async def _choose(self, forward: _Forward) -> int:
        async with self._opening(forward) as connection:
            for tries_left in reversed(range(TRIES)):
                port = random.randrange(*PORTS)  # noqa: S311 - a free one, not a secret one
                try:
                    await self._request(forward, connection, port)
                except Refused:
                    if not tries_left:
                        raise
                else:
                    return port
        raise AssertionError

    async def _open(self, forward: _Forward) -> None:
        async with self._opening(forward) as connection:
            for port in forward.needed.keys() - forward.opened:
                await self._request(forward, connection, port)

    @contextlib.asynccontextmanager
    async def _opening(self, forward: _Forward) -> AsyncIterator[paramiko.Transport]:
        async with forward.opening:
            try:
                yield await forward.connected()
            finally:
                if not forward.opened:  # the next try may find another sshd there
                    forward.give_back()

    async def _request(self, forward: _Forward, connection: paramiko.Transport, port: int) -> None:
        assert self._hub is not None
        handler = functools.partial(_relay, self._hub)
        ask = functools.partial(connection.request_port_forward, LOOPBACK, port, handler)
        try:
            await _ask(connection, ask)
        except Refused as error:
            raise Refused(
                f"{forward.transport.address}: option 'tunnel': sshd refused port {port}: {error} "
                "(its AllowTcpForwarding must allow remote; or somebody else has the port)"
            ) from error
        forward.opened.add(port)

    async def _keep(self, forward: _Forward) -> None:
        failures = 0
        with forward.transport.hold():
            while True:
                await asyncio.sleep(REOPEN.delay_s(failures) if failures else LOOK_EVERY_S)
                try:
                    await self._open(forward)
                    failures = 0
                except TransportError as error:
                    failures += 1
                    _log.warning(
                        "tunnel is down", address=forward.transport.address, why=str(error)
                    )


async def _ask(connection: Any, ask: Callable[[], object]) -> None:
    """Make a request with paramiko, which has no timeout, under a deadline. Raises
    TransportError.
    """
    try:
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            await asyncio.to_thread(ask)
    except TimeoutError:
        connection.close()  # so that the thread ends as well
        raise TransportTimeout("the request for a port was not answered in time") from None
    # paramiko raises in the caller's thread whatever its own thread has met.
    except Exception as error:
        raise Refused(str(error) or type(error).__name__) from error


def _cancel(connection: Any, port: int) -> None:
    if connection.is_active():
        # Not by cancel_port_forward(), which takes the handler from the other ports as well.
        connection.global_request("cancel-tcpip-forward", (LOOPBACK, port), wait=True)


def _relay(hub: Path, channel: paramiko.Channel, _origin: object, _server: object) -> None:
    """Start a thread that relays a connection to the hub. Called in paramiko's thread for each
    connection to the port, and must not block it.
    """
    threading.Thread(
        target=_connect, args=(hub, in_order(channel)), daemon=True, name="tunnel"
    ).start()


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
    """Connect to the hub's socket. The path goes through /proc/self/fd, because a socket's path may
    have 107 bytes at most.
    """
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
    """Copy bytes until either side ends, then close both."""
    with contextlib.suppress(OSError, EOFError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError, EOFError):
            each.shutdown(socket.SHUT_RDWR)
