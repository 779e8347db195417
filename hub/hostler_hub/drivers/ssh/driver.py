"""Driver ``ssh``: agents on machines with a POSIX shell and Python, reached by SSH.

It shares the handling of machines with other drivers (`hosts`). Specific to it is the tunnel,
through which an agent reaches the hub over the SSH connection that started it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from hostler_hub.drivers.contract import Capabilities
from hostler_hub.drivers.hosts.options import HostHandle
from hostler_hub.drivers.hosts.posix import PosixHost
from hostler_hub.drivers.hosts.remote_driver import RemoteDriver
from hostler_hub.drivers.ssh.hub_route import agent_url, port_of_url
from hostler_hub.drivers.ssh.options import SshOptions


class SshHandle(HostHandle[SshOptions]):
    """The handle of an instance. `port` is the tunnel's port on the machine's loopback; None
    without a tunnel.
    """

    DRIVER = "ssh"

    port: int | None = None


class SshDriver(RemoteDriver[SshOptions]):
    """Starts agents on other machines; several workers may share one machine."""

    name: ClassVar[str] = "ssh"
    capabilities: ClassVar[Capabilities] = Capabilities(
        create_deadline_s=300.0, inspect_deadline_s=15.0, destroy_deadline_s=120.0
    )
    options_model = SshOptions
    handle_model = SshHandle
    machines_module = "hostler_hub.drivers.ssh.machines"
    host_class = PosixHost

    def _hub_url(self, options: SshOptions) -> str:
        return agent_url(options, self._environment)

    async def _open_route(self, options: SshOptions, instance: str, url: str) -> str:
        if not options.tunnel:
            return url
        machines = await self._machines()
        port = await machines.tunnels.ensure(machines.transport(options), instance, None)
        return f"ws://127.0.0.1:{port}{urlsplit(url).path}"

    async def _renew(self, options: SshOptions) -> None:
        (await self._machines()).transport(options).renew()

    async def _restore_route(
        self, options: SshOptions, instance: str, handle: HostHandle[SshOptions] | None
    ) -> None:
        if isinstance(handle, SshHandle) and handle.port is not None:
            machines = await self._machines()
            await machines.tunnels.ensure(machines.transport(options), instance, handle.port)

    async def _close_route(self, instance: str) -> None:
        if self._loaded is not None:
            await self._loaded.tunnels.release(instance)

    def _handle(self, options: SshOptions, reply: Mapping[str, Any]) -> SshHandle:
        return SshHandle(
            options=options,
            directory=reply["directory"],
            process=reply["process"],
            port=port_of_url(reply.get("hub_url")) if options.tunnel else None,
        )
