"""Containers that an earlier version made are found, looked at and ended.

They are made here by the daemon's own API, with what that version asked for, written out.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from docker import APIClient
from peers import docker as peer

from hostler_hub.drivers.contract import Environment, InstanceRef, InstanceSpec
from hostler_hub.drivers.docker.driver import DockerDriver
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import new_ulid

pytestmark = pytest.mark.peer("docker")

WORKER, EPOCH = "w-1", 3
OPTIONS: list[dict[str, Any]] = [
    {"network_mode": "none"},
    {"network_mode": "none", "containment": "subreaper", "user": "nobody"},
    {"network_mode": "none", "volumes": ["hostler-adopted:/cache"], "labels": {"team": "tools"}},
    {"network_mode": "none", "entrypoint": ["/bin/sh", "-c", 'exec "$@"', "sh"], "memory": "256m"},
]
KNOWN_BY = ["its stored handle", "its mark", "the handle that was found", "the list"]


@pytest.fixture
async def driver(
    docker_environment: Environment, docker_client: APIClient, clear: Callable[[str], None]
) -> AsyncIterator[DockerDriver]:
    made = DockerDriver(docker_environment)
    yield made
    await made.aclose()
    clear(docker_environment.hub)
    for volume in docker_client.volumes(filters={"name": "hostler-adopted"})["Volumes"] or []:
        docker_client.remove_volume(volume["Name"])


@pytest.fixture
def more() -> dict[str, Any]:
    return OPTIONS[0]


@pytest.fixture
def options(more: dict[str, Any], docker_url: str) -> dict[str, Any]:
    return {"image": peer.IMAGE, "docker_host": docker_url, **more}


def labels_of(hub: str, instance: str) -> dict[str, str]:
    return {
        "io.hostler.hub": hub,
        "io.hostler.instance": instance,
        "io.hostler.epoch": str(EPOCH),
        "io.hostler.worker": WORKER,
    }


def made(
    client: APIClient, environment: Environment, instance: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """A container that is not started yet, as the daemon describes it."""
    labels = labels_of(environment.hub, instance)
    mark = f"{environment.hub}:{instance}:{EPOCH}"
    agent = ["python3", "/hostler/agent.pyz"]
    own = {"Type": "volume", "Target": "/hostler", "VolumeOptions": {"Labels": labels}}
    mounts = [own]
    for volume in options.get("volumes", ()):
        source, target = volume.split(":")
        mounts.append({"Type": "volume", "Source": source, "Target": target, "ReadOnly": False})
    assert environment.hub_socket is not None
    socket = {"Source": str(environment.hub_socket.parent), "Target": "/run/hostler"}
    mounts.append({"Type": "bind", "ReadOnly": True, **socket})
    host = client.create_host_config(
        init=True,
        pids_limit=4096,
        mounts=mounts,
        log_config={"type": "json-file", "config": {"max-size": "4m", "max-file": "1"}},
        network_mode=options["network_mode"],
        mem_limit=options.get("memory"),
    )
    run = ["run", "--config", "/hostler/agent.json", "--mark", mark]
    created = client.create_container(
        image=options["image"],
        entrypoint=[*options.get("entrypoint", ()), *agent, *run],
        command=[],
        name=f"hostler-{WORKER}-{EPOCH}-{instance[-8:].lower()}",
        hostname=WORKER,
        labels={**options.get("labels", {}), **labels},
        environment={},
        working_dir="/hostler",
        stop_signal="SIGQUIT",
        stop_timeout=10,
        healthcheck={"test": ["NONE"]},
        user=options.get("user"),
        host_config=host,
    )
    client.put_archive(created["Id"], "/hostler", packed(environment, instance, options))
    seen: dict[str, Any] = client.inspect_container(created["Id"])
    return seen


def packed(environment: Environment, instance: str, options: Mapping[str, Any]) -> bytes:
    """The agent, its configuration and its token, as a tar archive for the user `nobody`."""
    config = {
        "hub": "ws://localhost/api/v1/agents/connect",
        "name": WORKER,
        "instance": instance,
        "epoch": EPOCH,
        "workdir": "/hostler/work",
        "token_file": "/hostler/token",
        "containment": options.get("containment", "auto"),
        "hub_socket": "/run/hostler/hub.sock",
    }
    assert environment.archive is not None
    files = {
        "token": b"a-token-of-no-use",
        "agent.json": json.dumps(config).encode(),
        "agent.pyz": environment.archive.path.read_bytes(),
    }
    owner = 65534 if options.get("user") else 0
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        work = tarfile.TarInfo("work")
        work.type, work.mode, work.uid = tarfile.DIRTYPE, 0o700, owner
        archive.addfile(work)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.size = 0o600, owner, len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def stored_handle(seen: Mapping[str, Any], docker_url: str) -> dict[str, Any]:
    """As it stands in the database: volumes are those that go with the container."""
    (own,) = (mount["Name"] for mount in seen["Mounts"] if mount["Destination"] == "/hostler")
    return {
        "version": 1,
        "docker_host": docker_url,
        "tls": None,
        "container": seen["Id"],
        "name": seen["Name"].lstrip("/"),
        "volumes": [own],
    }


def ref(instance: str, handle: Mapping[str, Any] | None, options: Mapping[str, Any]) -> InstanceRef:
    return InstanceRef(WORKER, instance, EPOCH, handle, options)


@pytest.mark.parametrize(
    ("more", "known_by"),
    [
        *((more, KNOWN_BY[0]) for more in OPTIONS),
        *((OPTIONS[0], known_by) for known_by in KNOWN_BY[1:]),
    ],
    ids=str,
)
async def test_it_is_found_and_destroyed(
    driver: DockerDriver,
    docker_environment: Environment,
    docker_client: APIClient,
    docker_url: str,
    options: dict[str, Any],
    known_by: str,
) -> None:
    instance = new_ulid()
    seen = made(docker_client, docker_environment, instance, options)
    docker_client.start(seen["Id"])
    stored = stored_handle(seen, docker_url)
    by_handle = await driver.inspect(ref(instance, stored, options))
    by_mark = await driver.inspect(ref(instance, None, options))
    assert (by_handle.presence, by_mark.presence) == (Presence.RUNNING, Presence.RUNNING)
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.epoch, listed.worker) == (instance, EPOCH, WORKER)
    evidence = await driver.evidence(ref(instance, stored, options))
    assert evidence["state"]
    refs = {
        "its stored handle": ref(instance, stored, {}),
        "its mark": ref(instance, None, options),
        "the handle that was found": ref(instance, by_mark.handle, options),
        "the list": InstanceRef(listed.worker, listed.instance, listed.epoch, listed.handle, {}),
    }
    await driver.destroy(refs[known_by])
    assert docker_client.containers(all=True, filters={"id": seen["Id"]}) == []
    names = [each["Name"] for each in docker_client.volumes()["Volumes"] or []]
    assert stored["volumes"][0] not in names
    assert "hostler-adopted" in names or "volumes" not in options
    assert list(await driver.list_owned([options])) == []
    gone = await driver.inspect(ref(instance, stored, options))
    assert gone.presence is Presence.GONE


async def test_P12_a_container_that_was_made_and_not_started_is_taken_up(
    driver: DockerDriver,
    docker_environment: Environment,
    docker_client: APIClient,
    options: dict[str, Any],
) -> None:
    """The hub died in between; who orders the start again has one container."""
    instance = new_ulid()
    seen = made(docker_client, docker_environment, instance, options)
    known = await driver.inspect(ref(instance, None, options))
    assert known.presence is Presence.GONE
    spec = InstanceSpec(WORKER, instance, EPOCH, "a-token-of-no-use", options)
    handle = await driver.create(spec)
    assert handle["container"] == seen["Id"]
    assert len(await driver.list_owned([options])) == 1
    await driver.destroy(ref(instance, handle, options))
    assert list(await driver.list_owned([options])) == []


async def test_V2_a_volume_that_was_left_is_listed_and_removed(
    driver: DockerDriver,
    docker_environment: Environment,
    docker_client: APIClient,
    options: dict[str, Any],
) -> None:
    instance = new_ulid()
    volume = docker_client.create_volume(labels=labels_of(docker_environment.hub, instance))
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.epoch, listed.worker) == (instance, EPOCH, WORKER)
    await driver.destroy(InstanceRef("", instance, EPOCH, listed.handle, {}))
    names = [each["Name"] for each in docker_client.volumes()["Volumes"] or []]
    assert volume["Name"] not in names


async def test_the_containers_of_other_hubs_are_not_ours(
    driver: DockerDriver,
    other_environment: Environment,
    equip: Callable[[Environment], Environment],
    docker_client: APIClient,
    clear: Callable[[str], None],
    options: dict[str, Any],
) -> None:
    instance = new_ulid()
    theirs = made(docker_client, equip(other_environment), instance, options)
    try:
        assert list(await driver.list_owned([options])) == []
        await driver.destroy(ref(instance, None, options))
        assert docker_client.inspect_container(theirs["Id"])["State"]["Status"] == "created"
    finally:
        clear(other_environment.hub)
