"""EC2 instances that an earlier version started, or stopped and kept, are found and ended.

They are made here by EC2's own API with the tags that version set, written out.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from peers.ec2 import Ec2

from hostler_hub.drivers.contract import Environment, InstanceRef, InstanceSpec
from hostler_hub.drivers.ec2.driver import Ec2Driver
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import new_ulid

WORKER, EPOCH = "w-1", 3
OPTIONS: list[dict[str, Any]] = [
    {},
    {"spot": {"max_price": "0.05"}},
    {
        "tags": {"team": "tools", "Name": "mine"},
        "volumes": [{"device": "/dev/sda1", "size_gib": 9}],
    },
    {"at_end": "stop"},
]
KNOWN_BY = ["its stored handle", "its mark", "the handle that was found", "the list"]
IMAGE = {"owners": ["123456789012"], "name": "ubuntu-*", "architecture": "arm64"}
ACCESS = {"instance_profile": "worker", "key_name": "ann", "elastic_ip": "eipalloc-1"}
# What a kept machine is known by: it must not change, or every one that is kept is thrown away.
RECIPES: list[tuple[dict[str, Any], str]] = [
    ({}, "41931def63a8098d"),
    ({"python": "python3.12", "hub_url": "wss://hub.example.org"}, "41931def63a8098d"),
    ({"system": "windows"}, "af8d9dfd1eed971a"),
    ({"ami": None, "image": IMAGE}, "50dc59e26c569998"),
    (
        {
            "tags": {"team": "tools"},
            "volumes": [{"device": "/dev/sda1", "size_gib": 40, "iops": 3000}],
        },
        "3d2736a82d313da2",
    ),
    ({"subnets": ["subnet-1"], "security_groups": ["sg-1"], **ACCESS}, "6d19d2d1b8be3f8f"),
]
MACHINE = {"region": "eu-west-1", "ami": "ami-12c6146b", "instance_types": ["t3.micro"]}


@pytest.fixture
async def driver(ec2_environment: Environment, ec2: Ec2) -> AsyncIterator[Ec2Driver]:
    made = Ec2Driver(ec2_environment)
    yield made
    await made.aclose()
    if left := list(ec2.living(ec2_environment.hub)):
        ec2.client().terminate_instances(InstanceIds=left)


def long_ago(minutes: float = 11) -> str:
    """So that EC2 would show it by now."""
    return new_ulid(int((time.time() - minutes * 60) * 1000))


def run(ec2: Ec2, hub: str, instance: str, *, epoch: int = EPOCH, **more: str) -> str:
    """EC2's own id of a new one."""
    tags = {
        "Name": f"hostler {WORKER}",
        "hostler:hub": hub,
        "hostler:instance": instance,
        "hostler:epoch": str(epoch),
        "hostler:worker": WORKER,
        **more,
    }
    made = ec2.client().run_instances(
        ImageId="ami-12c6146b",
        InstanceType="t3.micro",
        MinCount=1,
        MaxCount=1,
        ClientToken=f"{instance}.{epoch}.1",
        InstanceInitiatedShutdownBehavior="terminate",
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        ],
    )
    return str(made["Instances"][0]["InstanceId"])


def kept(ec2: Ec2, hub: str, instance: str, recipe: str, *, epoch: int = EPOCH) -> str:
    """A machine that was stopped at the end of an instance."""
    marks = {"hostler:recipe": recipe, "hostler:spare": instance}
    made = run(ec2, hub, instance, epoch=epoch, **marks)
    ec2.client().stop_instances(InstanceIds=[made])
    return made


def stored_handle(ec2: Ec2, machine: str) -> dict[str, Any]:
    return {"version": 1, "id": machine, "region": "eu-west-1", "endpoint_url": ec2.url}


def ref(
    instance: str, handle: Mapping[str, Any] | None, options: Mapping[str, Any], epoch: int = EPOCH
) -> InstanceRef:
    return InstanceRef(WORKER, instance, epoch, handle, options)


@pytest.mark.parametrize(
    ("more", "known_by"),
    [*((more, KNOWN_BY[0]) for more in OPTIONS), *(({}, known_by) for known_by in KNOWN_BY[1:])],
    ids=str,
)
async def test_it_is_found_and_destroyed(
    driver: Ec2Driver,
    ec2: Ec2,
    ec2_environment: Environment,
    ec2_options: Mapping[str, Any],
    more: dict[str, Any],
    known_by: str,
) -> None:
    options = {**ec2_options, **more}
    instance = long_ago()
    machine = run(ec2, ec2_environment.hub, instance)
    stored = stored_handle(ec2, machine)
    by_handle = await driver.inspect(ref(instance, stored, options))
    by_mark = await driver.inspect(ref(instance, None, options))
    assert (by_handle.presence, by_mark.presence) == (Presence.RUNNING, Presence.RUNNING)
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.epoch, listed.worker) == (instance, EPOCH, WORKER)
    assert (listed.name, listed.spare) == (machine, "")
    refs = {
        "its stored handle": ref(instance, stored, options),
        "its mark": ref(instance, None, options),
        "the handle that was found": ref(instance, by_mark.handle, options),
        "the list": ref(instance, listed.handle, options),
    }
    await driver.destroy(refs[known_by])
    assert ec2.state(machine) == "terminated"
    assert list(await driver.list_owned([options])) == []
    gone = await driver.inspect(ref(instance, stored, options))
    assert gone.presence is Presence.GONE


@pytest.mark.parametrize(("more", "recipe"), RECIPES, ids=str)
def test_a_recipe_is_what_it_was(more: dict[str, Any], recipe: str) -> None:
    options = {**MACHINE, "at_end": "stop", **more}
    assert Ec2Driver.options_model.of(options).recipe == recipe


async def test_a_machine_that_was_kept_is_listed_and_started_for_the_next_instance(
    driver: Ec2Driver, ec2: Ec2, ec2_environment: Environment, ec2_options: Mapping[str, Any]
) -> None:
    options = {**ec2_options, "at_end": "stop"}
    recipe = Ec2Driver.options_model.of(options).recipe  # the endpoint's port is another each time
    first = long_ago()
    machine = kept(ec2, ec2_environment.hub, first, recipe)
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.spare) == (first, recipe)
    of_first = await driver.inspect(ref(first, stored_handle(ec2, machine), options))
    assert of_first.presence is Presence.GONE
    second = InstanceSpec(WORKER, new_ulid(), EPOCH + 1, "a-token-of-no-use", options)
    handle = await driver.create(second)
    assert (handle["id"], ec2.state(machine)) == (machine, "running")
    (listed,) = await driver.list_owned([options])
    assert (listed.instance, listed.epoch, listed.spare) == (second.instance, EPOCH + 1, "")
    await driver.destroy(ref(second.instance, handle, options, EPOCH + 1))
    assert ec2.state(machine) == "terminated"


async def test_a_machine_of_another_recipe_is_destroyed_by_what_the_list_says(
    driver: Ec2Driver, ec2: Ec2, ec2_environment: Environment, ec2_options: Mapping[str, Any]
) -> None:
    instance = long_ago()
    machine = kept(ec2, ec2_environment.hub, instance, "0" * 16)
    (listed,) = await driver.list_owned([ec2_options])
    assert listed.spare == "0" * 16
    await driver.destroy(ref(listed.instance, listed.handle, ec2_options))
    assert ec2.state(machine) == "terminated"


async def test_a_machine_that_a_later_instance_took_up_is_not_the_earlier_one_s_to_end(
    driver: Ec2Driver, ec2: Ec2, ec2_environment: Environment, ec2_options: Mapping[str, Any]
) -> None:
    """The tag of the spare still names the earlier one; it does not count any more."""
    first, second = long_ago(30), long_ago()
    marks = {"hostler:recipe": "0" * 16, "hostler:spare": first}
    machine = run(ec2, ec2_environment.hub, second, epoch=EPOCH + 1, **marks)
    stored = stored_handle(ec2, machine)
    of_first = await driver.inspect(ref(first, stored, ec2_options))
    assert of_first.presence is Presence.GONE
    await driver.destroy(ref(first, stored, ec2_options))
    assert ec2.state(machine) == "running"
    of_second = await driver.inspect(ref(second, stored, ec2_options, EPOCH + 1))
    assert of_second.presence is Presence.RUNNING
    await driver.destroy(ref(second, stored, ec2_options, EPOCH + 1))
    assert ec2.state(machine) == "terminated"


async def test_the_instances_of_other_hubs_are_not_ours(
    driver: Ec2Driver, ec2: Ec2, other_environment: Environment, ec2_options: Mapping[str, Any]
) -> None:
    machine = run(ec2, other_environment.hub, long_ago())
    assert list(await driver.list_owned([ec2_options])) == []
    ec2.client().terminate_instances(InstanceIds=[machine])
