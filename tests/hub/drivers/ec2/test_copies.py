"""Machines to which somebody gave an instance's tags are reported, and never touched."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from conformance.drivers import ref_of, spec_of
from peers.ec2 import AMI, Ec2

from hostler_hub.drivers.contract import Environment, InstanceSpec
from hostler_hub.drivers.ec2.client_token import Origin
from hostler_hub.drivers.ec2.driver import Ec2Driver
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import new_ulid

pytestmark = pytest.mark.peer("ec2")


@pytest.fixture
async def driver(ec2_environment: Environment, ec2: Ec2) -> AsyncIterator[Ec2Driver]:
    made = Ec2Driver(ec2_environment)
    yield made
    await made.aclose()
    if left := list(ec2.living(ec2_environment.hub)):
        ec2.client().terminate_instances(InstanceIds=left)


@pytest.fixture
def spec(ec2_options: Mapping[str, Any]) -> InstanceSpec:
    """Of long ago, so that EC2 would show it by now."""
    instance = new_ulid(int((time.time() - 700) * 1000))
    return InstanceSpec("w-1", instance, 3, "a-token-of-no-use", ec2_options)


def copied(ec2: Ec2, hub: str, spec: InstanceSpec, token: str) -> str:
    """Somebody's machine with all of an instance's tags, as "launch more like this" makes it."""
    tags = {**spec.mark(hub).fields("hostler:"), "Name": "like that one"}
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    given = {"ResourceType": "instance", "Tags": listed}
    made = ec2.client().run_instances(
        ImageId=AMI, MinCount=1, MaxCount=1, ClientToken=token, TagSpecifications=[given]
    )
    return str(made["Instances"][0]["InstanceId"])


OTHER = Origin(new_ulid(), 2).token(1)


@pytest.mark.parametrize("token", ["fleet-0123-4567", OTHER], ids=["a person's", "another's"])
async def test_V2_a_machine_with_copied_tags_is_left_alone(
    driver: Ec2Driver, ec2: Ec2, ec2_environment: Environment, spec: InstanceSpec, token: str
) -> None:
    handle = await driver.create(spec)
    theirs = copied(ec2, ec2_environment.hub, spec, token)
    listed = {each.name: each.copy for each in await driver.list_owned([spec.options])}
    assert set(listed) == {handle["id"], theirs}
    assert listed[handle["id"]] == ""
    assert "started it" in listed[theirs] or "did not start it" in listed[theirs]
    assert (await driver.inspect(ref_of(spec, None))).handle == handle
    for known in (handle, None):
        await driver.destroy(ref_of(spec, known))
    assert (ec2.state(handle["id"]), ec2.state(theirs)) == ("terminated", "running")
    assert (await driver.inspect(ref_of(spec, None))).presence is Presence.GONE


async def test_a_copy_is_not_taken_for_the_instance_whose_create_was_never_answered(
    driver: Ec2Driver, ec2: Ec2, ec2_environment: Environment, spec: InstanceSpec
) -> None:
    theirs = copied(ec2, ec2_environment.hub, spec, "fleet-1")
    assert (await driver.inspect(ref_of(spec, None))).presence is Presence.GONE
    handle = await driver.create(spec)
    assert handle["id"] != theirs
    await driver.destroy(ref_of(spec, handle))
    assert ec2.state(theirs) == "running"


async def test_a_copy_of_a_stopped_machine_is_not_started_for_the_next_instance(
    driver: Ec2Driver, ec2: Ec2, ec2_environment: Environment, ec2_options: Mapping[str, Any]
) -> None:
    options = {**ec2_options, "at_end": "stop"}
    first = spec_of(options)
    kept = await driver.create(first)
    assert await driver.keep(ref_of(first, kept))
    theirs = copied(ec2, ec2_environment.hub, first, "fleet-2")
    more = {"hostler:recipe": Ec2Driver.options_model.of(options).recipe}
    more["hostler:spare"] = first.instance
    tags = [{"Key": key, "Value": value} for key, value in more.items()]
    ec2.client().create_tags(Resources=[theirs], Tags=tags)
    ec2.client().stop_instances(InstanceIds=[theirs])
    second = spec_of(options, epoch=2)
    assert await driver.create(second) == kept
    third = spec_of(options, epoch=3)
    assert (await driver.create(third))["id"] != theirs
    assert ec2.state(theirs) == "stopped"
