"""`WinrmDriver`. It shares the handling of machines with other drivers (`hosts`).

A process that a WinRM shell started dies with the shell. So the agent's verb `host` starts an agent
by a service or a scheduled task, or detached if the shell's job permits breakaway.
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
    """The handle of an instance: the machine that it is on, and its directory there."""

    DRIVER = "winrm"


class WinrmDriver(RemoteDriver[WinrmOptions]):
    """Starts agents on Windows machines; several workers may share one machine."""

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
