"""Builds the environment of each driver from the hub's settings: directories, URL, secrets."""

from __future__ import annotations

from pathlib import Path

from hostler_agent.wire import extension
from hostler_hub.drivers.contract import AgentArchive, Environment
from hostler_hub.runtime import docker_privileges
from hostler_hub.runtime.secrets import Secrets
from hostler_hub.runtime.settings import Settings


def environment_of(
    driver: str, settings: Settings, hub_id: str, archive: AgentArchive, secrets: Secrets
) -> Environment:
    """The environment of the driver with this name."""
    return Environment(
        hub=hub_id,
        directory=settings.state_dir / "instances" / driver,
        connect_url=settings.connect_url + extension.PATH,
        archive=archive,
        secrets=secrets,
        hub_socket=settings.agents_socket,
        ca_file=Path(settings.tls_ca) if settings.tls_ca else None,
        allowed_privileges=docker_privileges.parse(settings.docker_allow),
        config_directory=settings.state_dir / "drivers" / driver,
    )
