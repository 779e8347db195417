"""What only carries an instance's mark is somebody else's: it is reported and never touched."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from conformance.drivers import ref_of, spec_of
from docker import APIClient
from peers import docker as peer

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.docker import DockerDriver, labels
from hostler_hub.lifecycle.model import Presence

pytestmark = pytest.mark.peer("docker")

COMMITTED, DERIVED = "hostler-test-committed:1", "hostler-test-derived:1"


@pytest.fixture
async def driver(
    docker_environment: Environment, clear: Callable[[str], None]
) -> AsyncIterator[DockerDriver]:
    made = DockerDriver(docker_environment)
    yield made
    await made.aclose()
    clear(docker_environment.hub)


@pytest.fixture
def options(docker_url: str) -> dict[str, Any]:
    return {"image": peer.IMAGE, "docker_host": docker_url, "network_mode": "none"}


@pytest.fixture
def images(docker_client: APIClient) -> Iterator[None]:
    """The images that a test makes are removed, with the containers that people started of them."""
    yield
    for image in (DERIVED, COMMITTED):
        for each in docker_client.containers(all=True, filters={"ancestor": image}):
            docker_client.remove_container(each["Id"], force=True)
        if docker_client.images(image):
            docker_client.remove_image(image, force=True)


def somebodys(client: APIClient, image: str, name: str | None = None, **more: Any) -> str:
    made = client.create_container(image, ["1000"], entrypoint=["sleep"], name=name, **more)
    client.start(made["Id"])
    return str(made["Id"])


def runs(client: APIClient, container: str) -> bool:
    return bool(client.inspect_container(container)["State"]["Running"])


@pytest.mark.usefixtures("images")
async def test_V2_containers_of_an_image_that_was_committed_from_an_instance_are_left_alone(
    driver: DockerDriver, docker_client: APIClient, options: dict[str, Any]
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    repository, tag = COMMITTED.split(":")
    docker_client.commit(handle["container"], repository, tag)
    recipe = io.BytesIO(f"FROM {COMMITTED}\nLABEL more=yes\n".encode())
    for line in docker_client.build(fileobj=recipe, tag=DERIVED, rm=True, decode=True):
        assert "error" not in line, line
    theirs = [somebodys(docker_client, image) for image in (COMMITTED, DERIVED)]
    listed = await driver.list_owned([options])
    assert {each.handle["container"] for each in listed if each.copy} == set(theirs)
    assert [each.handle for each in listed if not each.copy] == [handle]
    assert "its labels are those of its image" in next(each.copy for each in listed if each.copy)
    for known in (handle, None):
        await driver.destroy(ref_of(spec, known))
        assert (await driver.inspect(ref_of(spec, known))).presence is Presence.GONE
    assert all(runs(docker_client, each) for each in theirs)
    # The original's name is free now; whoever takes it is no instance for that.
    named = somebodys(docker_client, COMMITTED, labels.name(spec))
    await driver.destroy(ref_of(spec, None))
    assert runs(docker_client, named)
    assert all(each.copy for each in await driver.list_owned([options]))


@pytest.mark.usefixtures("images")
async def test_an_instance_of_a_committed_image_is_the_hub_s_own(
    driver: DockerDriver, docker_client: APIClient, options: dict[str, Any]
) -> None:
    first = await driver.create(spec_of(options))
    docker_client.commit(first["container"], *COMMITTED.split(":"))
    spec = spec_of({**options, "image": COMMITTED}, epoch=2)
    handle = await driver.create(spec)
    assert not any(each.copy for each in await driver.list_owned([options]))
    assert (await driver.inspect(ref_of(spec, None))).handle == handle
    await driver.destroy(ref_of(spec, None))
    assert [each.handle for each in await driver.list_owned([options])] == [first]


async def test_what_a_tool_made_with_the_same_labels_is_a_copy(
    driver: DockerDriver,
    docker_environment: Environment,
    docker_client: APIClient,
    options: dict[str, Any],
) -> None:
    """Tools that make a container anew, with other settings, copy all of its labels."""
    spec = spec_of(options)
    handle = await driver.create(spec)
    mark = labels.of(spec.mark(docker_environment.hub))
    theirs = somebodys(docker_client, peer.IMAGE, labels=mark)
    volume = docker_client.create_volume("hostler-test-copied", labels=mark)["Name"]
    copies = [each for each in await driver.list_owned([options]) if each.copy]
    assert [each.handle["container"] for each in copies] == [theirs]
    assert copies[0].copy == f"the hub named the instance's container {labels.name(spec)}"
    await driver.destroy(ref_of(spec, None))
    assert runs(docker_client, theirs)
    assert docker_client.inspect_volume(volume)["Name"] == volume
    docker_client.remove_container(theirs, force=True)
    (left,) = await driver.list_owned([options])
    assert (left.copy, left.name) == (
        "the volumes that the hub makes have no names",
        "volume hostler-test",
    )
    docker_client.remove_volume(volume)
    assert handle["container"] not in docker_client.containers(all=True, quiet=True)


async def test_a_container_with_the_recorded_name_and_another_id_is_not_the_recorded_one(
    driver: DockerDriver,
    docker_environment: Environment,
    docker_client: APIClient,
    options: dict[str, Any],
) -> None:
    spec = spec_of(options)
    handle = await driver.create(spec)
    docker_client.remove_container(handle["container"], v=True, force=True)
    mark = labels.of(spec.mark(docker_environment.hub))
    theirs = somebodys(docker_client, peer.IMAGE, labels.name(spec), labels=mark)
    assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.GONE
    await driver.destroy(ref_of(spec, handle))
    assert runs(docker_client, theirs)
