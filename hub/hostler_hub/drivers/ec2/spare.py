"""Spares: machines that are stopped at the end of an instance and started again for the next one.

Theory of operation. A spare is a stopped machine whose tag ``hostler:spare`` names the instance
that ``hostler:instance`` names as well. The first is set before it is stopped; the second, with the
epoch, is overwritten by whoever takes it up, in one call, before it is started. So wherever a hub
dies, what is left is either a spare or an instance's, and is found by its mark. Its user-data is
replaced while it is stopped, and so before anybody can run it.

Whatever goes wrong with stopping, the instance is terminated at the next try.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from hostler_hub.drivers.contract import Environment, InstanceRef, InstanceSpec
from hostler_hub.drivers.ec2.cloud import Asked
from hostler_hub.drivers.ec2.errors import Meaning
from hostler_hub.drivers.ec2.inventory import Seen, Sight, state_of
from hostler_hub.drivers.ec2.launch import give_address, newest_image
from hostler_hub.drivers.ec2.options import EPOCH, INSTANCE, RECIPE, SPARE, Ec2Options
from hostler_hub.drivers.ec2.request import user_data
from hostler_hub.drivers.ec2.terminate import GONE_WITHIN_S, end, terminate
from hostler_hub.drivers.errors import ProviderFailed

_LOOK_EVERY_S = 2.0
_ASK_AGAIN = 3


async def put_by(sight: Sight, ref: InstanceRef, options: Ec2Options) -> bool:
    """Stop the instance's machine, or terminate it; whether it is there, stopped.

    Raises Asked, and ProviderFailed when it is not stopped in time.
    """
    found = await sight.look(ref)
    if found is None or not _may_be_kept(sight, found, ref, options):
        await end(sight, ref)
        return False
    await _mark(sight, found["InstanceId"], {SPARE: ref.instance})
    if await _stopped(sight, ref, found):
        return True
    await end(sight, ref)
    return False


def _may_be_kept(sight: Sight, found: Seen, ref: InstanceRef, options: Ec2Options) -> bool:
    tags = sight.tags(found)
    is_its_own = tags.get(INSTANCE) == ref.instance
    as_wanted = bool(options.recipe) and tags.get(RECIPE) == options.recipe
    return is_its_own and as_wanted and state_of(found)[0] == "running"


async def _stopped(sight: Sight, ref: InstanceRef, found: Seen) -> bool:
    """Stop it, and look until EC2 says stopped; False for one that ends instead."""
    instance_id, state = found["InstanceId"], state_of(found)[0]
    deadline = time.monotonic() + GONE_WITHIN_S
    while state != "stopped":
        if state in {"shutting-down", "terminated"}:
            return False
        if state in {"pending", "running"}:
            await _stop(sight, instance_id)
        if time.monotonic() > deadline:
            raise ProviderFailed(f"ec2: instance of {ref.worker} is {state}, not stopped")
        await asyncio.sleep(_LOOK_EVERY_S)
        shown = await sight.by_id(instance_id)
        state = "not visible" if shown is None else state_of(shown)[0]
    return True


async def _stop(sight: Sight, instance_id: str) -> None:
    try:
        await sight.cloud.call(
            "stop_instances", "stop the instance (option at_end)", InstanceIds=[instance_id]
        )
    except Asked as asked:
        # The next look settles these.
        if asked.meaning not in {Meaning.NOT_FOUND, Meaning.UNCLEAR, Meaning.WRONG_STATE}:
            raise


async def take_up(
    sight: Sight, environment: Environment, spec: InstanceSpec, options: Ec2Options
) -> Seen | None:
    """The worker's spare, started as this instance; None if there is none that could be.

    Raises Asked, OptionsRefused, ProviderFailed.
    """
    spare = await _find(sight, spec, options) if options.recipe else None
    if spare is None:
        return None
    was = {name: sight.tags(spare)[name] for name in (INSTANCE, EPOCH)}
    if not await _claimed(sight, spare, spec, user_data(environment, spec, options)):
        return None
    instance_id = spare["InstanceId"]
    try:
        await _insist(sight, "start_instances", "start the spare", InstanceIds=[instance_id])
    except Asked as asked:
        if asked.meaning is not Meaning.NO_CAPACITY:
            raise
        await _mark(sight, instance_id, was)  # it stays one; another machine is started
        return None
    await give_address(sight, options, spare)
    return spare


async def _find(sight: Sight, spec: InstanceSpec, options: Ec2Options) -> Seen | None:
    """The newest that was made as the options ask for; of an image that there is a newer one of,
    none: that one goes."""
    found = [
        each
        for each in await sight.spares(spec.worker)
        if sight.tags(each).get(RECIPE) == options.recipe
    ]
    newest = max(found, key=lambda each: int(sight.tags(each)[EPOCH]), default=None)
    if newest is None or options.image is None:
        return newest
    if newest["ImageId"] == await newest_image(sight, options):
        return newest
    if sight.doom(newest, sight.tags(newest)[INSTANCE], int(sight.tags(newest)[EPOCH])):
        await terminate(sight, newest["InstanceId"])
    return None


async def _claimed(sight: Sight, spare: Seen, spec: InstanceSpec, data: str) -> bool:
    """Make it the instance's, user-data first; False if somebody else ends it or has it."""
    instance_id = spare["InstanceId"]
    marks = {INSTANCE: spec.instance, EPOCH: str(spec.epoch)}
    if not sight.claim(instance_id, marks):
        return False
    try:
        await _insist(
            sight,
            "modify_instance_attribute",
            "give the spare its user-data",
            InstanceId=instance_id,
            UserData={"Value": data.encode()},  # boto3 encodes it
        )
        await _mark(sight, instance_id, marks)
    except Asked as asked:
        if asked.meaning is Meaning.UNCLEAR:  # who destroys this instance ends the machine
            raise
        sight.unclaim(instance_id)
        sight.intends(spec.instance)
        if asked.meaning not in {Meaning.NOT_FOUND, Meaning.WRONG_STATE}:
            raise
        return False
    return True


async def _mark(sight: Sight, instance_id: str, tags: Mapping[str, str]) -> None:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    doing = "tag the machine"
    await _insist(sight, "create_tags", doing, Resources=[instance_id], Tags=listed)
    sight.note_tags(instance_id, tags)


async def _insist(sight: Sight, operation: str, doing: str, **arguments: Any) -> None:
    """A call that may as well be made twice, made again while its outcome is unclear."""
    for left in reversed(range(_ASK_AGAIN)):
        try:
            await sight.cloud.call(operation, doing, **arguments)
            return
        except Asked as asked:
            if asked.meaning is not Meaning.UNCLEAR or not left:
                raise
        await asyncio.sleep(_LOOK_EVERY_S)
