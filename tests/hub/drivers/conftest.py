"""Environments for drivers: two hubs on one machine, a Docker daemon, and EC2 without machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from docker import APIClient
from needs import needs
from peers import docker as docker_peer

from hostler_hub.drivers import agent_archive
from hostler_hub.drivers.contract import AgentArchive, Environment
from hostler_hub.drivers.docker import labels
from hostler_hub.drivers.ec2 import cloud, launch, spare, terminate
from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.secrets import Secrets

if TYPE_CHECKING:
    from peers.ec2 import Ec2

# Nobody listens there: these instances boot and never attach, which is all a driver knows of.
NOWHERE = "ws://127.0.0.1:9/api/v1/agents/connect"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(new_ulid(), tmp_path / "ours", NOWHERE)


@pytest.fixture
def other_environment(tmp_path: Path) -> Environment:
    return Environment(new_ulid(), tmp_path / "theirs", NOWHERE)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> AgentArchive:
    return agent_archive.install(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def equip(archive: AgentArchive) -> Callable[[Environment], Environment]:
    """Gives an environment the agent, and a socket that nobody listens at."""

    def equipped(environment: Environment) -> Environment:
        socket = environment.directory / "agents" / "hub.sock"
        socket.parent.mkdir(parents=True)
        socket.touch()
        return dataclasses.replace(environment, archive=archive, hub_socket=socket)

    return equipped


@pytest.fixture
def docker_environment(
    environment: Environment, equip: Callable[[Environment], Environment]
) -> Environment:
    return equip(environment)


@pytest.fixture(scope="session")
@needs("docker")
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
        for container in docker_client.containers(all=True, filters=labels.of_hub(hub)):
            docker_client.remove_container(container["Id"], v=True, force=True)
        for volume in docker_client.volumes(filters=labels.of_hub(hub))["Volumes"] or []:
            docker_client.remove_volume(volume["Name"])

    return remove_all


@pytest.fixture(scope="session")
@needs("ec2")
def one_ec2() -> Iterator[Ec2]:
    from peers.ec2 import running

    with running() as made:
        yield made


@pytest.fixture
def ec2(one_ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> Ec2:
    """Drivers look at it, and ask it again, without waiting long."""
    one_ec2.faults.clear()
    one_ec2.calls.clear()
    one_ec2.spent.clear()
    for module in (launch, terminate, spare):
        monkeypatch.setattr(module, "_POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(cloud, "THROTTLED", Backoff(first_s=0.01, longest_s=20.0))
    return one_ec2


@pytest.fixture
def ec2_options(ec2: Ec2) -> Mapping[str, Any]:
    return {
        "region": "eu-west-1",
        "ami": "ami-12c6146b",  # one that moto has
        "instance_types": ["t3.micro"],
        "endpoint_url": ec2.url,
        "credentials": {
            "access_key": {"env": "HOSTLER_SECRET_AWS_ID"},
            "secret_key": {"env": "HOSTLER_SECRET_AWS_KEY"},
        },
    }


@pytest.fixture
def ec2_environment(
    environment: Environment, equip: Callable[[Environment], Environment]
) -> Environment:
    keys = {"HOSTLER_SECRET_AWS_ID": "testing", "HOSTLER_SECRET_AWS_KEY": "testing"}
    return dataclasses.replace(
        equip(environment),
        secrets=Secrets(environ=keys),
        connect_url="wss://hub.example.org/a/b",
    )
