"""The handle of a container."""

from __future__ import annotations

from typing import Any

from pydantic import field_serializer

from hostler_hub.drivers.docker.options import Tls
from hostler_hub.drivers.handle import Handle


class DockerHandle(Handle):
    """The daemon, the id of the container (empty if only volumes are left), and the container's
    volumes. ``tls`` holds the names of secrets, not the secrets.
    """

    DRIVER = "docker"

    docker_host: str
    tls: Tls | None = None
    container: str
    name: str
    volumes: tuple[str, ...] = ()

    @field_serializer("tls")
    def _dump_tls(self, tls: Tls | None) -> dict[str, Any] | None:
        return None if tls is None else tls.model_dump(exclude_none=True)
