"""The files that are copied into a container before it starts: agent, configuration, token.

They go into a volume that only this container uses. They are not in the container's own layer,
where `docker commit` would find the token, nor in its environment or arguments, which anyone who
may inspect the container can read.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

from hostler_hub.drivers.contract import InstanceSpec
from hostler_hub.drivers.docker.hub_route import HubRoute
from hostler_hub.drivers.docker.options import DockerOptions

HOME = "/hostler"
ARCHIVE = "agent.pyz"
CONFIG = "agent.json"
TOKEN = "token"  # noqa: S105 - a file's name
AUTHORITIES = "ca.pem"
WORK = "work"


@dataclass(frozen=True, slots=True)
class Owner:
    """The user and group that run the agent, as numeric ids inside the container."""

    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class File:
    name: str
    content: bytes
    mode: int = 0o600


def agent_files(
    spec: InstanceSpec, options: DockerOptions, route: HubRoute, authorities: str | None
) -> list[File]:
    """The agent's configuration and the files that it names. The caller adds the agent archive."""
    config = {
        "hub": route.url,
        "name": spec.worker,
        "instance": spec.instance,
        "epoch": spec.epoch,
        "workdir": f"{HOME}/{WORK}",
        "token_file": f"{HOME}/{TOKEN}",
        "containment": options.containment,
        "is_container": True,
        **spec.agent_config,
    }
    if route.socket is not None:
        config["hub_socket"] = route.socket
    files = [File(TOKEN, spec.token.encode())]
    if authorities is not None:
        config["ca_file"] = f"{HOME}/{AUTHORITIES}"
        files.append(File(AUTHORITIES, authorities.encode()))
    return [*files, File(CONFIG, json.dumps(config).encode())]


def pack(files: Iterable[File], owner: Owner) -> bytes:
    """A tar archive of the files, and of the directory that builds work in."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        directory = _entry(WORK, 0o700, owner)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for file in files:
            entry = _entry(file.name, file.mode, owner)
            entry.size = len(file.content)
            archive.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def _entry(name: str, mode: int, owner: Owner) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.uid, entry.gid = mode, owner.uid, owner.gid
    return entry
