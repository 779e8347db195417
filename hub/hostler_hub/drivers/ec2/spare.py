"""Spares: machines that are stopped at the end of an instance and started again for the next one.

Theory of operation. A spare is a stopped machine whose tag ``hostler:spare`` names the same
instance as its tag ``hostler:instance``. The first tag is set before the machine is stopped; the
second one is overwritten, together with the epoch and in one call, before the machine is started
for another instance. So wherever a hub dies, the machine is either a spare or belongs to an
instance, and is found by its mark. Its user-data is replaced while it is stopped, and so before
anything can run it.

If stopping fails in any way, the next call terminates the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from hostler_hub.drivers.contract import Environment, InstanceSpec
from hostler_hub.drivers.ec2.errors import CallFailed, Meaning
from hostler_hub.drivers.ec2.handle import Target
from hostler_hub.drivers.ec2.inventory import Described, Inventory, state_of
from hostler_hub.drivers.ec2.launch import give_address, newest_image
from hostler_hub.drivers.ec2.options import MARK, RECIPE, SPARE, Ec2Options
from hostler_hub.drivers.ec2.request import user_data
from hostler_hub.drivers.ec2.terminate import GONE_WITHIN_S, end, terminate
from hostler_hub.drivers.errors import ProviderFailed

_POLL_INTERVAL_S = 2.0
_MAX_TRIES = 3


async def stop_as_spare(inventory: Inventory, target: Target, options: Ec2Options) -> bool:
    """Stop the instance's machine and keep it as a spare, or else terminate it.

    Returns whether it was kept. Raises CallFailed, and ProviderFailed if it does not stop in time.
    """
    found = await inventory.describe(target)
    if found is None or not _may_be_kept(inventory, found, target, options):
        await end(inventory, target)
        return False
    await _set_tags(inventory, found["InstanceId"], {SPARE: target.instance})
    if await _stopped(inventory, target, found):
        return True
    await end(inventory, target)
    return False


def _may_be_kept(
    inventory: Inventory, found: Described, target: Target, options: Ec2Options
) -> bool:
    tags = inventory.tags(found)
    is_its_own = tags.get(MARK.instance) == target.instance
    as_wanted = bool(options.recipe) and tags.get(RECIPE) == options.recipe
    return is_its_own and as_wanted and state_of(found)[0] == "running"


async def _stopped(inventory: Inventory, target: Target, found: Described) -> bool:
    """Stop the machine and wait until EC2 says stopped. Returns False if it is terminated instead.
    Raises CallFailed, and ProviderFailed after GONE_WITHIN_S.
    """
    instance_id, state = found["InstanceId"], state_of(found)[0]
    deadline = time.monotonic() + GONE_WITHIN_S
    while state != "stopped":
        if state in {"shutting-down", "terminated"}:
            return False
        if state in {"pending", "running"}:
            await _stop(inventory, instance_id)
        if time.monotonic() > deadline:
            raise ProviderFailed(f"ec2: instance of {target.worker} is {state}, not stopped")
        await asyncio.sleep(_POLL_INTERVAL_S)
        shown = await inventory.by_id(instance_id)
        state = "not visible" if shown is None else state_of(shown)[0]
    return True


async def _stop(inventory: Inventory, instance_id: str) -> None:
    try:
        await inventory.cloud.call(
            "stop_instances", "stop the instance (option at_end)", InstanceIds=[instance_id]
        )
    except CallFailed as failed:
        # The next look settles these.
        if failed.meaning not in {Meaning.NOT_FOUND, Meaning.UNCLEAR, Meaning.WRONG_STATE}:
            raise


async def reuse_spare(
    inventory: Inventory, environment: Environment, spec: InstanceSpec, options: Ec2Options
) -> Described | None:
    """Start the worker's spare as this instance. Returns None if there is no suitable spare.

    Raises CallFailed, OptionsRefused, ProviderFailed.
    """
    spare = await _find(inventory, spec, options) if options.recipe else None
    if spare is None:
        return None
    was = {name: inventory.tags(spare)[name] for name in (MARK.instance, MARK.epoch)}
    if not await _claimed(inventory, spare, spec, user_data(environment, spec, options)):
        return None
    instance_id = spare["InstanceId"]
    try:
        await _call_until_clear(
            inventory, "start_instances", "start the spare", InstanceIds=[instance_id]
        )
    except CallFailed as failed:
        if failed.meaning is not Meaning.NO_CAPACITY:
            raise
        await _set_tags(inventory, instance_id, was)  # it stays one; another machine is started
        return None
    await give_address(inventory, options, spare)
    return spare


async def _find(inventory: Inventory, spec: InstanceSpec, options: Ec2Options) -> Described | None:
    """Describe the newest spare whose recipe is that of the current options; None if there is none.

    A spare whose image is not the newest any more is terminated, and None returned.
    """
    found = [
        each
        for each in await inventory.spares(spec.worker)
        if inventory.tags(each).get(RECIPE) == options.recipe
    ]
    newest = max(found, key=lambda each: inventory.mark(each).epoch, default=None)
    if newest is None or options.image is None:
        return newest
    if newest["ImageId"] == await newest_image(inventory, options):
        return newest
    mark = inventory.mark(newest)
    if inventory.begin_ending(newest, mark.instance, mark.epoch):
        await terminate(inventory, newest["InstanceId"])
    return None


async def _claimed(inventory: Inventory, spare: Described, spec: InstanceSpec, data: str) -> bool:
    """Give the spare to the instance: first its user-data, then the tags. Returns False if the
    spare is being ended or is not available any more.
    """
    instance_id = spare["InstanceId"]
    tags = {MARK.instance: spec.instance, MARK.epoch: str(spec.epoch)}
    if not inventory.claim(instance_id, tags):
        return False
    await asyncio.to_thread(inventory.sent.note, spec.instance)
    try:
        await _call_until_clear(
            inventory,
            "modify_instance_attribute",
            "give the spare its user-data",
            InstanceId=instance_id,
            UserData={"Value": data.encode()},  # boto3 encodes it
        )
        await _set_tags(inventory, instance_id, tags)
    except CallFailed as failed:
        if failed.meaning is Meaning.UNCLEAR:  # who destroys this instance ends the machine
            raise
        inventory.unclaim(instance_id)
        inventory.sent.withdraw(spec.instance)
        if failed.meaning not in {Meaning.NOT_FOUND, Meaning.WRONG_STATE}:
            raise
        return False
    return True


async def _set_tags(inventory: Inventory, instance_id: str, tags: Mapping[str, str]) -> None:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    doing = "tag the machine"
    await _call_until_clear(inventory, "create_tags", doing, Resources=[instance_id], Tags=listed)
    inventory.note_tags(instance_id, tags)


async def _call_until_clear(
    inventory: Inventory, operation: str, doing: str, **arguments: Any
) -> None:
    """Make an idempotent call; repeat it while its outcome is unclear. Raises CallFailed."""
    for left in reversed(range(_MAX_TRIES)):
        try:
            await inventory.cloud.call(operation, doing, **arguments)
            return
        except CallFailed as failed:
            if failed.meaning is not Meaning.UNCLEAR or not left:
                raise
        await asyncio.sleep(_POLL_INTERVAL_S)
