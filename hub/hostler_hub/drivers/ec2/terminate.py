"""Ending an instance: terminate, then look until EC2 says terminated. Accepted is not done (V3)."""

from __future__ import annotations

import asyncio
import time

from hostler_hub.drivers.contract import InstanceRef
from hostler_hub.drivers.ec2.cloud import Asked
from hostler_hub.drivers.ec2.errors import Meaning
from hostler_hub.drivers.ec2.inventory import Sight, state_of
from hostler_hub.drivers.errors import ProviderFailed
from hostler_hub.lifecycle.model import Presence

GONE_WITHIN_S = 240.0
_LOOK_EVERY_S = 2.0


async def end(sight: Sight, ref: InstanceRef) -> None:
    """Raises Asked, and ProviderFailed when it may still be there."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while True:
        found = await sight.look(ref)
        if found is None and sight.not_shown(ref).presence is Presence.GONE:
            return
        if found is not None and not sight.doom(found, ref.instance, ref.epoch):
            return  # its machine is another instance's by now
        state = "not visible yet" if found is None else state_of(found)[0]
        if found is not None and state == "terminated":
            sight.bury(found["InstanceId"])
            return
        if found is not None and state != "shutting-down":
            await terminate(sight, found["InstanceId"])
        if time.monotonic() > deadline or found is None:
            raise ProviderFailed(f"ec2: instance of {ref.worker} is {state}, not terminated")
        await asyncio.sleep(_LOOK_EVERY_S)


async def terminate(sight: Sight, instance_id: str) -> None:
    """Ask for it, which proves nothing. Raises Asked."""
    doing = "terminate the instance"
    try:
        await sight.cloud.call("terminate_instances", doing, InstanceIds=[instance_id])
    except Asked as asked:
        # Not found and unclear outcomes are for the next look to settle.
        if asked.meaning not in {Meaning.NOT_FOUND, Meaning.UNCLEAR}:
            raise
