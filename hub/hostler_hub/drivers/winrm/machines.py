"""The machines that the WinRM driver reaches, and the connections to them.

This is a module of its own because its imports take memory and time, which a hub without such
workers need not spend.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.transports.winrm.access import WinrmAccess
from hostler_hub.drivers.transports.winrm.transport import WinrmTransport
from hostler_hub.drivers.winrm.options import WinrmOptions

THREADS = 32


class Machines:
    """The machines of one hub. Made in the event loop; all methods raise TransportError."""

    def __init__(self, environment: Environment) -> None:
        self._secrets = environment.secrets
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="winrm")
        self._transports: dict[WinrmAccess, WinrmTransport] = {}

    def transport(self, options: WinrmOptions) -> WinrmTransport:
        """The transport to a machine: one for each machine and user, shared by their workers."""
        access = options.access
        if access not in self._transports:
            self._transports[access] = WinrmTransport(access, self._secrets, self._threads)
        return self._transports[access]

    async def awake(self, options: WinrmOptions) -> WinrmTransport:
        """The transport to a machine. It does not connect: the first command shows whether the
        machine answers.
        """
        return self.transport(options)

    async def aclose(self) -> None:
        """Close the connections. Agents that were started through them keep running."""
        await asyncio.gather(*(each.aclose() for each in self._transports.values()))
        self._threads.shutdown(wait=False, cancel_futures=True)
