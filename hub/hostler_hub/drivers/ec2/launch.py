"""Starts an instance of the first type and subnet with capacity; never more than one.

The client token ``ULID.epoch.attempt`` makes a repeated RunInstances answer with the instance that
the first one made (P1), and the tags are part of the same call, so that no instance ever runs
without a mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hostler_hub.drivers.contract import Environment, InstanceSpec
from hostler_hub.drivers.ec2.client_token import Origin
from hostler_hub.drivers.ec2.errors import CallFailed, Meaning
from hostler_hub.drivers.ec2.inventory import Described, Inventory, filters_of, state_of
from hostler_hub.drivers.ec2.options import Ec2Options
from hostler_hub.drivers.ec2.request import alternatives, run_request
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed

_POLL_INTERVAL_S = 2.0
_MAX_TRIES = 3
_MAX_TOKENS = 100  # how many client tokens may turn out to be spent


async def launch(
    inventory: Inventory, environment: Environment, spec: InstanceSpec, options: Ec2Options
) -> Described:
    """Start a new instance and return it. Raises CallFailed, OptionsRefused, ProviderFailed."""
    image = options.ami or await newest_image(inventory, options)
    request = run_request(environment, spec, options, image)
    made = await _run(inventory, spec, options, request)
    await give_address(inventory, options, made)
    return made


async def _run(
    inventory: Inventory, spec: InstanceSpec, options: Ec2Options, request: Mapping[str, Any]
) -> Described:
    attempt, refusals = 0, []
    for where in alternatives(options):
        while True:
            attempt += 1
            token = Origin(spec.instance, spec.epoch).token(attempt)
            try:
                return await _run_once(inventory, spec, {**request, **where, "ClientToken": token})
            except CallFailed as failed:
                if failed.meaning is Meaning.TOKEN_SPENT and attempt < _MAX_TOKENS:
                    continue
                if failed.meaning is not Meaning.NO_CAPACITY:
                    raise
                place = f" in {where['SubnetId']}" if "SubnetId" in where else ""
                refusals.append(f"{where['InstanceType']}{place}: {failed.driver_error}")
                break
    raise ProviderFailed("ec2: no room for any of the types: " + "; ".join(refusals)[:2000])


async def _run_once(
    inventory: Inventory, spec: InstanceSpec, request: Mapping[str, Any]
) -> Described:
    """Make one RunInstances request; repeat it with the same token while its outcome is unclear
    (P1).
    """
    await asyncio.to_thread(inventory.sent.note, spec.instance, request)
    for left in reversed(range(_MAX_TRIES)):
        try:
            made = await _started(inventory, request)
            inventory.sent.answered(spec.instance)
            return made
        except CallFailed as failed:
            if failed.meaning is not Meaning.UNCLEAR and left == _MAX_TRIES - 1:
                inventory.sent.withdraw(spec.instance)
            if failed.meaning is not Meaning.UNCLEAR or not left:
                raise
        await asyncio.sleep(_POLL_INTERVAL_S)
        found = await inventory.find(spec.instance)
        if found is not None:
            return found
    raise AssertionError("the last try returns or raises")


async def repeat(inventory: Inventory, instance: str) -> Described | None:
    """Repeat the call that was to start the instance and whose answer was lost (with the hub that
    made it, for example), so that nobody has to wait until EC2 shows what became of it.

    EC2 answers a repeated call of one client token with the instance that the first one made. So
    the answer is that instance, or one that is made now. Returns None if the call was answered
    before, or if none was made. Raises CallFailed if the outcome is unclear still.
    """
    request = inventory.sent.request(instance)
    if request is None:
        return None
    try:
        made = await _started(inventory, request)
    except CallFailed as failed:
        if failed.meaning is Meaning.NO_CAPACITY:  # an instance of this token would be returned
            inventory.sent.withdraw(instance)
            return None
        if failed.meaning is Meaning.TOKEN_SPENT:  # it was made, and is terminated
            inventory.sent.answered(instance)
            return None
        raise
    inventory.sent.answered(instance)
    return made


async def _started(inventory: Inventory, request: Mapping[str, Any]) -> Described:
    answer = await inventory.cloud.call("run_instances", "start an instance", **request)
    made: Described = answer["Instances"][0]
    return made


async def newest_image(inventory: Inventory, options: Ec2Options) -> str:
    """The id of the newest AMI that matches option image. Raises CallFailed, OptionsRefused."""
    image = options.image
    assert image is not None
    wanted = {"name": image.name, "architecture": image.architecture, "state": "available"}
    pages = await inventory.cloud.pages(
        "describe_images",
        "find the image (option image)",
        Owners=list(image.owners),
        Filters=filters_of(wanted),
    )
    images = [each for page in pages for each in page["Images"]]
    if not images:
        raise OptionsRefused(
            f"ec2: option image: no image of {', '.join(image.owners)} in {options.region} is "
            f"named {image.name} ({image.architecture})"
        )
    newest = max(images, key=lambda each: (each.get("CreationDate", ""), each["ImageId"]))
    return str(newest["ImageId"])


async def give_address(inventory: Inventory, options: Ec2Options, made: Described) -> None:
    """Assign the options' elastic_ip, if any, as soon as the instance can have it. Raises
    CallFailed.
    """
    if options.elastic_ip is None:
        return
    found: Described | None = made
    while found is None or state_of(found)[0] in {"pending", "stopped"}:
        await asyncio.sleep(_POLL_INTERVAL_S)
        found = await inventory.by_id(made["InstanceId"])
    await inventory.cloud.call(
        "associate_address",
        "give it its address (option elastic_ip)",
        AllocationId=options.elastic_ip,
        InstanceId=made["InstanceId"],
    )
