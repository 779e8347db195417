"""The driver itself. How it deals with machines it shares with other drivers (`hosts`).

What a WinRM shell has started dies with it, so an agent is started by a scheduled task, or
detached where the shell's job lets it out; the agent's `host` verb does either on the machine.
"""

from __future__ import annotations

from typing import ClassVar

from hostler_hub.drivers.contract import Capabilities
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.drivers.hosts.options import HostHandle
from hostler_hub.drivers.hosts.remote_driver import RemoteDriver
from hostler_hub.drivers.hosts.windows import WindowsHost
from hostler_hub.drivers.ssh.hub_route import why_not
from hostler_hub.drivers.winrm.options import WinrmOptions


class WinrmHandle(HostHandle[WinrmOptions]):
    """Which machine the instance is on, and in which directory."""

    DRIVER = "winrm"


class WinrmDriver(RemoteDriver[WinrmOptions]):
    """Starts agents on Windows machines, several on one where workers say so."""

    name: ClassVar[str] = "winrm"
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_timeout_s=300.0,
        create_deadline_s=300.0,
        inspect_deadline_s=30.0,
        destroy_deadline_s=150.0,
    )
    options_model = WinrmOptions
    handle_model = WinrmHandle
    machines_module = "hostler_hub.drivers.winrm.machines"
    host_class = WindowsHost
    # Six questions and answers, a shell and Python, on a machine that is perhaps busy building.
    query_deadline_s = 25.0

    def _hub_url(self, options: WinrmOptions) -> str:
        url = self._environment.connect_url
        why = why_not(url, options.host)
        if not why:
            return url
        raise OptionsRefused(
            f"winrm: an agent on {options.host} cannot reach this hub at {url}: {why}. Set "
            "HOSTLER_PUBLIC_URL to an https:// address of the hub"
        )
