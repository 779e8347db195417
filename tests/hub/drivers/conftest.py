"""Environments for drivers: two hubs on one machine, and a Docker daemon."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import APIClient
from peers import docker as docker_peer

from hostler_hub import archive
from hostler_hub.drivers.contract import AgentArchive, Environment
from hostler_hub.drivers.docker import mark
from hostler_hub.identifiers import new_ulid

# Nobody listens there: these instances boot and never attach, which is all a driver knows of.
NOWHERE = "ws://127.0.0.1:9/api/v1/agents/connect"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(new_ulid(), tmp_path / "ours", NOWHERE)


@pytest.fixture
def other_environment(tmp_path: Path) -> Environment:
    return Environment(new_ulid(), tmp_path / "theirs", NOWHERE)


@pytest.fixture(scope="session")
def agent_archive(tmp_path_factory: pytest.TempPathFactory) -> AgentArchive:
    return archive.install(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def equip(agent_archive: AgentArchive) -> Callable[[Environment], Environment]:
    """Gives an environment the agent, and a socket that nobody listens at."""

    def equipped(environment: Environment) -> Environment:
        socket = environment.directory / "agents" / "hub.sock"
        socket.parent.mkdir(parents=True)
        socket.touch()
        return dataclasses.replace(environment, archive=agent_archive, hub_socket=socket)

    return equipped


@pytest.fixture
def docker_environment(
    environment: Environment, equip: Callable[[Environment], Environment]
) -> Environment:
    return equip(environment)


@pytest.fixture(scope="session")
def docker_url() -> Iterator[str]:
    with docker_peer.shared() as url:
        yield url


@pytest.fixture
def docker_client(docker_url: str) -> Iterator[APIClient]:
    with docker_peer.client_of(docker_url) as client:
        yield client


@pytest.fixture
def clear(docker_client: APIClient) -> Callable[[str], None]:
    """Removes whatever a failed test left of a hub's."""

    def remove_all(hub: str) -> None:
        for container in docker_client.containers(all=True, filters=mark.of_hub(hub)):
            docker_client.remove_container(container["Id"], v=True, force=True)
        for volume in docker_client.volumes(filters=mark.of_hub(hub))["Volumes"] or []:
            docker_client.remove_volume(volume["Name"])

    return remove_all
