"""The docker driver on a real daemon, with real agents that find no hub."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, ClassVar

import pytest
from conformance.drivers import Conformance, ref_of, spec_of
from conformance.malformed import MalformedConfigurations
from docker import APIClient
from docker.errors import NotFound
from peers import docker as peer

from hostler_hub.drivers.contract import Environment, InstanceSpec
from hostler_hub.drivers.docker import DockerDriver, labels
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.lifecycle.model import Presence

pytestmark = pytest.mark.peer("docker")

GONE_S = 60.0


@pytest.fixture
def client(docker_client: APIClient) -> APIClient:
    return docker_client


@pytest.fixture
def environment(docker_environment: Environment) -> Environment:
    return docker_environment


@pytest.fixture
async def driver(
    environment: Environment, clear: Callable[[str], None]
) -> AsyncIterator[DockerDriver]:
    made = DockerDriver(environment)
    yield made
    await made.aclose()
    clear(environment.hub)


@pytest.fixture
async def other_hub_driver(
    other_environment: Environment,
    equip: Callable[[Environment], Environment],
    clear: Callable[[str], None],
) -> AsyncIterator[DockerDriver]:
    made = DockerDriver(equip(other_environment))
    yield made
    await made.aclose()
    clear(other_environment.hub)


@pytest.fixture
def options(docker_url: str) -> dict[str, Any]:
    return {"image": peer.IMAGE, "docker_host": docker_url, "network_mode": "none"}


class TestDocker(Conformance):
    """The contract itself."""


class TestMalformed(MalformedConfigurations):
    """Nothing but the driver's own errors, of whatever the SDK or the daemon refuses."""

    more: ClassVar[dict[str, Sequence[Any]]] = {
        "image": [
            "UPPER",
            "a:b:c",
            "a@sha256:0",
            ":tag",
            "host:port/x",
            "a/" * 130 + "b",
            "x:" + "t" * 200,
        ],
        "memory": ["1", "4b", "999999999999g", 5],
        "volumes": [["a:/b:rw:z"], ["x:relative"], ["x:/y:ro,z"], [":/x"], ["x:"]],
        "networks": [["nowhere"], ["none", "none"], ["bridge", "nowhere"]],
        "network_mode": ["nowhere", "container:nowhere", "bridge "],
        "platform": ["linux/nowhere", "a/b/c/d", "windows"],
        "user": ["nobody:nogroup:x", "-1", "4294967296", "99999999999999999999:0", ":"],
        "extra_hosts": [{"a": "no address"}, {"a": ""}],
        "docker_host": [
            "unix:///dev/null",
            "unix:///etc/passwd",
            "tcp://127.0.0.1:1",
            "tcp://localhost:99999",
        ],
        "dockerfile": ["FROM", "FROM scratch\nRUN true", "nonsense", "FROM a b c", "\ud800"],
        "host_config": [
            *({"shm_size": each} for each in ("x", -1, None, [], {}, "4q", 1.5)),
            *(
                {"ulimits": each}
                for each in (1, [1], ["a"], [{}], [{"name": 1}], [{"Name": "nofile"}])
            ),
            *({"tmpfs": each} for each in (1, [1], {"x": 1}, "x")),
            *({"dns": each} for each in (1, ["x"], "x", [1])),
            *({"sysctls": each} for each in (1, ["x"], {"x": 1}, {"kernel.x": "1"})),
            *({"runtime": each} for each in (1, "nowhere", [])),
            *({"storage_opt": each} for each in (1, {"size": 1}, {"x": "y"})),
            *({"cpuset_cpus": each} for each in (1, "x", "99-100", [])),
            *({"cap_drop": each} for each in (1, "ALL", ["nope"])),
            *({"blkio_weight": each} for each in (1, "x", 10**9)),
            {"unknown": 1},
            {"mem_swappiness": "x"},
            {"group_add": [{}]},
            {"read_only": "yes"},
        ],
    }


def container_of(client: APIClient, hub: str, spec: InstanceSpec) -> dict[str, Any]:
    (found,) = client.containers(all=True, filters=labels.of_instance(hub, spec.instance))
    seen: dict[str, Any] = client.inspect_container(found["Id"])
    return seen


async def run(driver: DockerDriver, spec: InstanceSpec) -> tuple[str, str]:
    """Create it and wait for its end: (container, evidence)."""
    handle = await driver.create(spec)
    container = handle["container"]
    with peer.client_of(handle["docker_host"]) as client:
        await asyncio.to_thread(client.wait, container, timeout=GONE_S)
    seen = await driver.inspect(ref_of(spec, handle))
    assert seen.presence is Presence.GONE
    return container, seen.evidence


def agent_runs(client: APIClient, container: str) -> str:
    """Its processes, once the agent is among them: its start is over before runc has become it."""
    deadline = time.monotonic() + GONE_S
    while "agent.pyz" not in (seen := json.dumps(client.top(container, "-ww -eo pid,args"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return seen


async def test_V14_the_token_is_in_a_private_file_alone(
    driver: DockerDriver, environment: Environment, client: APIClient, options: dict[str, Any]
) -> None:
    token = "a-token-that-stands-out"
    spec = dataclasses.replace(spec_of({**options, "environment": {"EXTRA": "yes"}}), token=token)
    handle = await driver.create(spec)
    seen = container_of(client, environment.hub, spec)
    assert token not in json.dumps(seen)
    assert token not in json.dumps(handle)
    assert seen["Config"]["Env"][0] == "EXTRA=yes"
    processes = agent_runs(client, handle["container"])
    assert token not in processes
    assert spec.instance in processes
    exported = b"".join(client.export(handle["container"]))
    assert token.encode() not in exported  # the volume is no part of what a commit would take
    data = b"".join(client.get_archive(handle["container"], "/hostler/token")[0])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (member,) = tar.getmembers()
        assert (member.mode & 0o777, member.uid) == (0o600, 0)
    assert token not in (await driver.evidence(ref_of(spec, handle)))["console"]
    await driver.destroy(ref_of(spec, handle))


async def test_it_is_marked_bounded_and_shut_in(
    driver: DockerDriver, environment: Environment, client: APIClient, options: dict[str, Any]
) -> None:
    given = {"memory": "256m", "cpus": 0.5, "pids": 200, "labels": {"team": "build"}}
    spec = spec_of({**options, **given, "host_config": {"shm_size": "8m"}}, epoch=7)
    handle = await driver.create(spec)
    seen = container_of(client, environment.hub, spec)
    carried = {key: value for key, value in seen["Config"]["Labels"].items() if "hostler" in key}
    assert carried == labels.of(spec.mark(environment.hub))
    assert seen["Config"]["Labels"]["team"] == "build"
    assert seen["Name"] == f"/hostler-w-1-7-{spec.instance[-8:].lower()}"
    host = seen["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (256 * 2**20, 256 * 2**20)
    assert (host["NanoCpus"], host["PidsLimit"], host["ShmSize"]) == (500_000_000, 200, 8 * 2**20)
    assert (host["Privileged"], host["Init"], host["AutoRemove"]) == (False, True, False)
    socket = next(mount for mount in seen["Mounts"] if mount["Type"] == "bind")
    assert (socket["Destination"], socket["RW"]) == ("/run/hostler", False)
    await driver.destroy(ref_of(spec, handle))


async def test_V2_nothing_is_left_of_its_volumes(
    driver: DockerDriver, environment: Environment, client: APIClient, options: dict[str, Any]
) -> None:
    """Also when a removal was cut short, so that only a volume carries the mark."""
    spec = spec_of(options)
    handle = await driver.create(spec)
    (volume,) = handle["volumes"]
    assert client.inspect_volume(volume)["Labels"] == labels.of(spec.mark(environment.hub))
    client.remove_container(handle["container"], v=False, force=True)
    (left,) = await driver.list_owned([options])
    assert (left.instance, left.worker, left.name) == (
        spec.instance,
        "w-1",
        f"volume {volume[:12]}",
    )
    assert left.created_at is not None
    await driver.destroy(ref_of(spec, left.handle))
    assert await driver.list_owned([options]) == []
    with pytest.raises(NotFound):
        client.inspect_volume(volume)


async def test_the_handle_alone_is_enough(driver: DockerDriver, options: dict[str, Any]) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    bare = dataclasses.replace(ref_of(spec, handle), options={})
    assert (await driver.inspect(bare)).presence is Presence.RUNNING
    assert "console" in await driver.evidence(bare)
    elsewhere = {"image": "gone", "docker_host": "unix:///nowhere/docker.sock"}
    await driver.destroy(dataclasses.replace(bare, options=elsewhere))
    assert await driver.list_owned([options]) == []


async def test_G1_a_name_that_is_taken_is_adopted_if_it_is_ours(
    driver: DockerDriver, environment: Environment, client: APIClient, options: dict[str, Any]
) -> None:
    """Create was done but its answer lost: the container is there and was never started."""
    spec = spec_of(options)
    mark = labels.of(spec.mark(environment.hub))
    volume = {"Type": "volume", "Target": "/hostler", "VolumeOptions": {"Labels": mark}}
    host = client.create_host_config(mounts=[volume], init=True, network_mode="none")
    argv = ["python3", "/hostler/agent.pyz", "run", "--config", "/hostler/agent.json"]
    made = client.create_container(
        peer.IMAGE, argv, name=labels.name(spec), labels=mark, host_config=host
    )
    lost = await driver.inspect(ref_of(spec, None))
    assert (lost.presence, "never started" in lost.evidence) == (Presence.GONE, True)
    handle = await driver.create(spec)
    assert handle["container"] == made["Id"]
    assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
    await driver.destroy(ref_of(spec, handle))


async def test_G1_a_name_that_is_another_s_is_left_alone(
    driver: DockerDriver, client: APIClient, options: dict[str, Any]
) -> None:
    spec = spec_of(options)
    theirs = client.create_container(peer.IMAGE, ["sleep", "60"], name=labels.name(spec))
    try:
        with pytest.raises(ProviderFailed, match="is taken by another's container"):
            await driver.create(spec)
        await driver.destroy(ref_of(spec, None))
        assert client.inspect_container(theirs["Id"])["State"]["Status"] == "created"
    finally:
        client.remove_container(theirs["Id"], force=True)


async def test_P7_an_image_without_python_is_told_apart(
    driver: DockerDriver, options: dict[str, Any]
) -> None:
    spec = spec_of({**options, "python": "python9"})
    _, evidence = await run(driver, spec)
    assert "exit code 127" in evidence
    assert "has the image Python 3.9 or newer? (driver_options.python)" in evidence
    assert "python9" in evidence
    await driver.destroy(ref_of(spec, None))


async def test_P7_who_exits_at_once_leaves_its_last_words(
    driver: DockerDriver, options: dict[str, Any]
) -> None:
    words = ["sh", "-c", "echo something is amiss >&2; exit 3"]
    spec = spec_of({**options, "command": words})
    _, evidence = await run(driver, spec)
    assert "exit code 3" in evidence
    assert "something is amiss" in evidence
    await driver.destroy(ref_of(spec, None))


async def test_P7_the_kernel_s_end_for_want_of_memory_is_said(
    driver: DockerDriver, options: dict[str, Any]
) -> None:
    hungry = ["python3", "-c", "x = bytearray(200 * 2**20)"]
    spec = spec_of({**options, "command": hungry, "memory": "64m", "init": False})
    _, evidence = await run(driver, spec)
    assert "OOMKilled" in evidence
    await driver.destroy(ref_of(spec, None))


async def test_P15_removed_from_outside_is_gone(
    driver: DockerDriver, client: APIClient, options: dict[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    client.remove_container(handle["container"], v=True, force=True)
    for known in (handle, None):
        assert (await driver.inspect(ref_of(spec, known))).presence is Presence.GONE
    await driver.destroy(ref_of(spec, handle))


async def test_E1_who_ignores_the_order_to_stop_is_killed(
    driver: DockerDriver, options: dict[str, Any]
) -> None:
    stubborn = ["sh", "-c", "trap '' QUIT TERM; while :; do sleep 1; done"]
    spec = spec_of({**options, "command": stubborn, "stop_timeout_s": 1.0})
    handle = await driver.create(spec)
    await driver.destroy(ref_of(spec, handle))
    assert await driver.list_owned([options]) == []


async def test_what_it_was_is_evidence(
    driver: DockerDriver, client: APIClient, options: dict[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    agent_runs(client, handle["container"])
    told = await driver.evidence(ref_of(spec, handle))
    assert set(told) == {"state", "console", "processes"}
    assert json.loads(told["state"])["State"]["Status"] == "running"
    assert "agent.pyz" in told["processes"]  # ps cuts its lines
    await driver.destroy(ref_of(spec, handle))
    with pytest.raises(ProviderFailed):
        await driver.evidence(ref_of(spec, handle))


@pytest.mark.parametrize("user", ["nobody", "daemon:games", "12345:12345"])
async def test_any_user_of_the_image_can_be_the_agent(
    driver: DockerDriver, client: APIClient, options: dict[str, Any], user: str
) -> None:
    look = ["sh", "-c", "cat /hostler/token && touch /hostler/work/mine && id -un; exit 0"]
    spec = spec_of({**options, "user": user, "command": look})
    container, evidence = await run(driver, spec)
    assert "exit code 0" in evidence, evidence
    assert client.inspect_container(container)["Config"]["User"] == user
    await driver.destroy(ref_of(spec, None))


async def test_a_user_that_the_image_does_not_know_is_refused(
    driver: DockerDriver, options: dict[str, Any]
) -> None:
    spec = spec_of({**options, "user": "builder"})
    with pytest.raises(OptionsRefused, match=r"driver_options.user: .*/etc/passwd has no builder"):
        await driver.create(spec)
    await driver.destroy(ref_of(spec, None))
    assert await driver.list_owned([options]) == []


async def test_a_read_only_image_is_no_hindrance(
    driver: DockerDriver, options: dict[str, Any]
) -> None:
    spec = spec_of({**options, "host_config": {"read_only": True, "tmpfs": {"/tmp": ""}}})
    handle = await driver.create(spec)
    assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
    await driver.destroy(ref_of(spec, handle))


async def test_an_entrypoint_runs_the_agent(driver: DockerDriver, options: dict[str, Any]) -> None:
    wrapper = ["sh", "-c", 'echo wrapped "$@"', "wrapper"]
    spec = spec_of({**options, "entrypoint": wrapper})
    _, evidence = await run(driver, spec)
    assert "wrapped python3 -I -S /hostler/agent.pyz run --config /hostler/agent.json" in evidence
    await driver.destroy(ref_of(spec, None))
