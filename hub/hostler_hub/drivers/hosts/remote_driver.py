"""Base of the host drivers whose machines are reached through a transport."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, ClassVar, Protocol, TypeVar

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.drivers.hosts.driver import HostDriver
from hostler_hub.drivers.hosts.host import Host, Site
from hostler_hub.drivers.hosts.options import Options
from hostler_hub.drivers.hosts.remote import RemoteHost
from hostler_hub.drivers.transports.contract import Transport

Options_contra = TypeVar("Options_contra", contravariant=True)


class Machines(Protocol[Options_contra]):
    """The interface of a driver's machines and of the connections to them."""

    def transport(self, options: Options_contra) -> Transport:
        """The transport to a machine: one for each machine and user, shared by their workers."""

    async def awake(self, options: Options_contra) -> Transport:
        """The transport to a machine that answers. A machine that sleeps is woken if the options
        say how.
        """

    async def aclose(self) -> None:
        """Close the connections."""


class RemoteDriver(HostDriver[Options]):
    """Starts agents on other machines."""

    machines_module: ClassVar[str]
    """The module that defines the class `Machines`. It is imported at the first call, because it
    takes memory and time that a hub without such workers need not spend."""
    host_class: ClassVar[type[RemoteHost]]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._loaded: Any = None

    async def aclose(self) -> None:
        """Close the connections. Agents that were started through them keep running."""
        machines, self._loaded = self._loaded, None
        if machines is not None:
            await machines.aclose()

    async def _machines(self) -> Any:
        """The driver's `Machines`, created at the first call."""
        if self._loaded is None:
            module = await asyncio.to_thread(importlib.import_module, self.machines_module)
            if self._loaded is None:  # nobody else has been quicker
                self._loaded = module.Machines(self._environment)
        return self._loaded

    async def _host(self, options: Options, site: Site, *, wake: bool = False) -> Host:
        machines: Machines[Options] = await self._machines()
        transport = await machines.awake(options) if wake else machines.transport(options)
        if self._environment.archive is None:
            raise OptionsRefused(f"{self.name}: this hub has no archive of the agent")
        return self.host_class(transport, site, self._environment.archive)
