"""Chooses how the agent in a container reaches the hub.

A local daemon mounts the directory of the hub's Unix socket, read-only: this works without
configuration, needs no network in the container, and sends no token over a network. The directory
is mounted and not the socket, because a restarted hub makes a new socket in it. With other daemons
only wss:// is possible, because agents refuse to send a token unencrypted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.docker.options import DockerOptions
from hostler_hub.drivers.errors import OptionsRefused

MOUNT = "/run/hostler"


@dataclass(frozen=True, slots=True)
class HubRoute:
    """The URL of the hub for an agent. ``directory`` is mounted at MOUNT; ``socket`` is the path of
    the hub's socket inside the container.
    """

    url: str
    directory: Path | None = None
    socket: str | None = None


def choose(options: DockerOptions, environment: Environment) -> HubRoute:
    """How the agent in a container reaches the hub. Raises OptionsRefused if no way is safe."""
    path = urlsplit(environment.connect_url).path
    if options.hub_url is not None:
        given = urlsplit(options.hub_url).path
        return HubRoute(options.hub_url if given not in {"", "/"} else _join(options.hub_url, path))
    socket = environment.hub_socket
    if options.is_local and socket is not None and socket.exists():
        return HubRoute(f"ws://localhost{path}", socket.parent, f"{MOUNT}/{socket.name}")
    if environment.connect_url.startswith("wss:"):
        return HubRoute(environment.connect_url)
    raise OptionsRefused(
        f"docker: containers at {options.docker_host} cannot reach this hub: it is known as "
        f"{environment.connect_url} only. Set HOSTLER_PUBLIC_URL (https://NAME), or "
        "driver_options.hub_url (wss://NAME)"
    )


def _join(url: str, path: str) -> str:
    return url.rstrip("/") + path
