"""Decides whether and at which URL an agent on another machine can reach the hub."""

from __future__ import annotations

from urllib.parse import urlsplit

from hostler_agent.config import is_loopback
from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.drivers.ssh.options import SshOptions


def agent_url(options: SshOptions, environment: Environment) -> str:
    """The URL for the agent; with a tunnel only its path is used. Raises OptionsRefused if the
    agent cannot connect.

    Agents send no token over plain ws:// except to their own machine.
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
    """The reason why an agent on that machine cannot connect to the URL; empty if it can."""
    hub = urlsplit(url).hostname or ""
    if url.startswith("wss:") or (is_loopback(hub) and is_loopback(host) and is_direct):
        return ""
    return "it listens for this machine only" if is_loopback(hub) else "it has no TLS there"


def port_of_url(url: object) -> int | None:
    """The tunnel's port in the hub URL of an agent's configuration; None without one."""
    return urlsplit(url).port if isinstance(url, str) else None
