"""The machines that the SSH driver reaches: their connections, tunnels, and known host keys.

This is a module of its own because its imports take half a second and 25 MiB, which a hub without
such workers need not spend.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.hosts import wake_on_lan
from hostler_hub.drivers.ssh.options import SshOptions
from hostler_hub.drivers.transports.errors import Unreachable
from hostler_hub.drivers.transports.ssh.access import SshAccess
from hostler_hub.drivers.transports.ssh.known_hosts import KnownHosts
from hostler_hub.drivers.transports.ssh.login import LoginMaterial
from hostler_hub.drivers.transports.ssh.transport import SshTransport
from hostler_hub.drivers.transports.ssh.tunnel import Tunnels

# A machine that hangs keeps at most one thread for each of its sessions and one for its login until
# their deadlines, so that the others are not held up; threads are started as they are needed.
THREADS = 1024
WAKE_PAUSE_S = 3.0


class Machines:
    """The machines of one hub. Made in the event loop; all methods raise TransportError."""

    def __init__(self, environment: Environment) -> None:
        files = environment.config_directory or environment.directory
        known = KnownHosts(files / "known_hosts")
        self._hooks = files / "hooks"
        self._material = LoginMaterial(known, files / "config", environment.secrets)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ssh")
        self._transports: dict[SshAccess, SshTransport] = {}
        self.tunnels = Tunnels(environment.hub_socket)

    def transport(self, options: SshOptions) -> SshTransport:
        """The transport to a machine: one for each machine and user, shared by their workers."""
        access = options.access
        if access not in self._transports:
            self._transports[access] = SshTransport(access, self._material, self._threads)
        return self._transports[access]

    async def awake(self, options: SshOptions) -> SshTransport:
        """The transport to a machine, logged in. A machine that sleeps is woken if the options say
        how.

        Raises DriverError if it cannot be woken.
        """
        transport = self.transport(options)
        try:
            await transport.connected()
        except Unreachable:
            if options.wake is None:
                raise
            await wake_on_lan.call(options.wake, self._hooks, options.host)
            await _await(transport, options.wake.timeout_s)
        return transport

    async def aclose(self) -> None:
        """Close the connections. Agents that were started through them keep running."""
        await self.tunnels.aclose()
        await asyncio.gather(*(each.aclose() for each in self._transports.values()))
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _await(transport: SshTransport, timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            await transport.connected()
        except Unreachable as error:
            if loop.time() >= deadline:
                text = f"{error}; it was woken {timeout_s:g} s ago (option 'wake')"
                raise Unreachable(text) from error
        else:
            return
        await asyncio.sleep(WAKE_PAUSE_S)
