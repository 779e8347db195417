"""How an agent on another machine reaches the hub, or why it cannot."""

from __future__ import annotations

from urllib.parse import urlsplit

from hostler_agent.config import is_loopback
from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.drivers.ssh.options import SshOptions


def agent_url(options: SshOptions, environment: Environment) -> str:
    """Where the agent is to connect (with a tunnel, only the path counts). Raises OptionsRefused.

    Agents send no token over plain ws:// but to their own machine.
    """
    url = environment.connect_url
    why = "" if options.tunnel else why_not(url, options.host, is_direct=not options.jump)
    if not why:
        return url
    raise OptionsRefused(
        f"ssh: an agent on {options.host} cannot reach this hub at {url}: {why}. Set option "
        "'tunnel' to true to lead it through the SSH connection, or HOSTLER_PUBLIC_URL to an "
        "https:// address of the hub"
    )


def why_not(url: str, host: str, *, is_direct: bool = True) -> str:
    """Why an agent on that machine cannot connect to the URL; empty when it can."""
    hub = urlsplit(url).hostname or ""
    if url.startswith("wss:") or (is_loopback(hub) and is_loopback(host) and is_direct):
        return ""
    return "it listens for this machine only" if is_loopback(hub) else "it has no TLS there"


def port_of_url(url: object) -> int | None:
    """The tunnel's port, as it stands in an agent's configuration."""
    return urlsplit(url).port if isinstance(url, str) else None
