"""Ends an instance: terminate, then poll until EC2 says terminated. Accepted is not done (V3)."""

from __future__ import annotations

import asyncio
import time

from hostler_hub.drivers.ec2.errors import CallFailed, Meaning
from hostler_hub.drivers.ec2.handle import Target
from hostler_hub.drivers.ec2.inventory import Inventory, state_of
from hostler_hub.drivers.errors import ProviderFailed
from hostler_hub.lifecycle.model import Presence

GONE_WITHIN_S = 240.0
_POLL_INTERVAL_S = 2.0


async def end(inventory: Inventory, target: Target) -> None:
    """Terminate the instance and return when EC2 says terminated.

    Raises CallFailed, and ProviderFailed if it may still exist.
    """
    deadline = time.monotonic() + GONE_WITHIN_S
    while True:
        found = await inventory.describe(target)
        if found is None and inventory.not_shown(target).presence is Presence.GONE:
            return
        if found is not None and not inventory.begin_ending(found, target.instance, target.epoch):
            return  # its machine is another instance's by now
        state = "not visible yet" if found is None else state_of(found)[0]
        if found is not None and state == "terminated":
            inventory.forget(found["InstanceId"])
            return
        if found is not None and state != "shutting-down":
            await terminate(inventory, found["InstanceId"])
        if time.monotonic() > deadline or found is None:
            raise ProviderFailed(f"ec2: instance of {target.worker} is {state}, not terminated")
        await asyncio.sleep(_POLL_INTERVAL_S)


async def terminate(inventory: Inventory, instance_id: str) -> None:
    """Ask EC2 to terminate it: accepted is not done. Raises CallFailed."""
    doing = "terminate the instance"
    try:
        await inventory.cloud.call("terminate_instances", doing, InstanceIds=[instance_id])
    except CallFailed as failed:
        # Not found and unclear outcomes are for the next look to settle.
        if failed.meaning not in {Meaning.NOT_FOUND, Meaning.UNCLEAR}:
            raise
