"""Driver ``ssh``: agents on machines with a POSIX shell and Python, reached by SSH.

How it deals with machines it shares with other drivers (`host_driver`); its own is the tunnel, by
which an agent reaches the hub through the connection that started it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from hostler_hub.drivers.contract import Capabilities, InstanceRef
from hostler_hub.drivers.hosts.driver import HostDriver
from hostler_hub.drivers.hosts.posix import PosixHost
from hostler_hub.drivers.ssh.hub_route import agent_url, port_of_url
from hostler_hub.drivers.ssh.options import SshOptions


class SshDriver(HostDriver[SshOptions]):
    """Starts agents on other machines, several on one where workers say so."""

    name: ClassVar[str] = "ssh"
    capabilities: ClassVar[Capabilities] = Capabilities(
        create_deadline_s=300.0, inspect_deadline_s=15.0, destroy_deadline_s=120.0
    )
    options_model = SshOptions
    machines_module = "hostler_hub.drivers.ssh.machines"
    host_class = PosixHost

    def _url(self, options: SshOptions) -> str:
        return agent_url(options, self._environment)

    async def _lead(self, options: SshOptions, transport: Any, instance: str, url: str) -> str:
        if not options.tunnel:
            return url
        port = await (await self._reach()).tunnels.ensure(transport, instance, None)
        return f"ws://127.0.0.1:{port}{urlsplit(url).path}"

    async def _follow(self, ref: InstanceRef, transport: Any) -> None:
        port = (ref.handle or {}).get("port")
        if port is not None:
            await (await self._reach()).tunnels.ensure(transport, ref.instance, port)

    async def _release(self, instance: str) -> None:
        if self._machines is not None:
            await self._machines.tunnels.release(instance)

    def _traits(self, options: SshOptions, reply: Mapping[str, Any]) -> dict[str, Any]:
        return {"port": port_of_url(reply.get("hub_url")) if options.tunnel else None}
