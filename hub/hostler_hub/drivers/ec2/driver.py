"""`Ec2Driver`: implements the driver contract for EC2 instances, with boto3.

Theory of operation. ``launch`` starts an instance with its mark, and never more than one, whatever
the outcome of a call; ``inventory`` finds it by its mark, and takes into account that EC2 shows
changes late; ``terminate`` ends it and waits until EC2 shows it as terminated; ``spare`` stops it
instead and starts it again, if the options ask for that; ``regions`` keeps the client and the
inventory of each region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from hostler_hub.drivers import listing
from hostler_hub.drivers.contract import (
    Capabilities,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.ec2.errors import CallFailed
from hostler_hub.drivers.ec2.handle import Ec2Handle, Target
from hostler_hub.drivers.ec2.inventory import Described, Inventory, state_of
from hostler_hub.drivers.ec2.launch import launch, repeat
from hostler_hub.drivers.ec2.options import RECIPE, Ec2Options
from hostler_hub.drivers.ec2.regions import Regions
from hostler_hub.drivers.ec2.spare import reuse_spare, stop_as_spare
from hostler_hub.drivers.ec2.terminate import GONE_WITHIN_S, end
from hostler_hub.drivers.sent import SentRequests
from hostler_hub.lifecycle.model import Presence


class Ec2Driver:
    """Starts instances of an AMI whose user-data fetches and starts the agent."""

    name: ClassVar[str] = "ec2"
    capabilities: ClassVar[Capabilities] = Capabilities(
        create_deadline_s=300.0,
        inspect_deadline_s=40.0,
        destroy_deadline_s=GONE_WITHIN_S + 30.0,
        missing_timeout_s=1200.0,
    )
    options_model: ClassVar[type[Ec2Options]] = Ec2Options

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._sent = SentRequests(self.name, environment.directory / "sent")
        self._regions = Regions(environment.hub, environment.secrets, self._sent)

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        """Start the worker's spare, or else a new machine of the first type and subnet with
        capacity.

        Returns the handle of the machine that an earlier call made for the instance, if there is
        one.
        """
        options = Ec2Options.of(spec.options)
        self._sent.begin(spec.instance)
        inventory = self._regions.at(options)
        try:
            made = await inventory.find(spec.instance)
            if made is None:
                made = await reuse_spare(inventory, self._environment, spec, options)
            if made is None:
                made = await launch(inventory, self._environment, spec, options)
        except CallFailed as failed:
            raise failed.driver_error from failed.error
        return _handle(options, made)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        target = Target.of(ref)
        if target.handle is None and self._sent.never(ref.instance):
            return Inspection(Presence.GONE, "ec2: no instance was made")
        options, inventory = self._regions.of(ref, target.handle)
        try:
            found = await inventory.describe(target)
            if found is None and target.handle is None:
                found = await repeat(inventory, ref.instance)
        except CallFailed as failed:
            raise failed.driver_error from failed.error
        if found is None:
            return inventory.not_shown(target)
        state, reason = state_of(found)
        evidence = f"{found['InstanceId']} {state}" + (f": {reason}" if reason else "")
        if inventory.is_taken(found, ref.instance, ref.epoch):
            return Inspection(Presence.GONE, f"{evidence}, a later instance's by now")
        if state == "stopped" and (
            inventory.is_spare_of(found, ref.instance) or target.handle is None
        ):
            return Inspection(Presence.GONE, f"{evidence}, kept or not started yet")
        if state in {"pending", "running"}:
            return Inspection(Presence.RUNNING, evidence, _handle(options, found))
        gone = state == "terminated"
        return Inspection(Presence.GONE if gone else Presence.UNKNOWN, evidence)

    async def destroy(self, ref: InstanceRef) -> None:
        """Terminate the machine, and poll until EC2 says terminated: accepted is not done (V3)."""
        target = Target.of(ref)
        if target.handle is not None or not self._sent.never(ref.instance):
            _, inventory = self._regions.of(ref, target.handle)
            try:
                await end(inventory, await _known(inventory, target))
            except CallFailed as failed:
                raise failed.driver_error from failed.error
        self._sent.forget(ref.instance)

    async def keep(self, ref: InstanceRef) -> bool:
        """Stop the machine as a spare if the options ask for that, otherwise terminate it."""
        target = Target.of(ref)
        options, inventory = self._regions.of(ref, target.handle)
        try:
            kept = await stop_as_spare(inventory, target, options)
        except CallFailed as failed:
            raise failed.driver_error from failed.error
        self._sent.forget(ref.instance)
        return kept

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        regions, unread = self._regions.each(places)
        asked = [
            listing.Place(options.address, options.place, partial(self._list, options))
            for options in regions
        ]
        try:
            return _each_once(await listing.at_each(self.name, asked, unread))
        except listing.IncompleteList as incomplete:
            raise listing.IncompleteList(
                _each_once(incomplete.owned), incomplete.silent
            ) from incomplete

    async def _list(self, options: Ec2Options) -> list[Owned]:
        inventory = self._regions.at(options)
        try:
            return [_owned(options, inventory, each) for each in await inventory.all()]
        except CallFailed as failed:
            raise failed.driver_error from failed.error

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        """The console output, and the instance's state with EC2's reason for it."""
        target = Target.of(ref)
        _, inventory = self._regions.of(ref, target.handle)
        try:
            found = await inventory.describe(target)
            if found is None:
                return {}
            texts = {"state": " ".join(each for each in state_of(found) if each)}
            doing = "read the console"
            instance_id = found["InstanceId"]
            answer = await inventory.cloud.call("get_console_output", doing, InstanceId=instance_id)
        except CallFailed as failed:
            raise failed.driver_error from failed.error
        output = answer.get("Output")
        if output:
            texts["console"] = str(output)
        return texts

    async def aclose(self) -> None:
        """Close the connections. Instances keep running."""
        await self._regions.aclose()


def _handle(options: Ec2Options, found: Described) -> Mapping[str, Any]:
    instance_id, region = found["InstanceId"], options.region
    return Ec2Handle(id=instance_id, region=region, endpoint_url=options.endpoint_url).dump()


def _owned(options: Ec2Options, inventory: Inventory, found: Described) -> Owned:
    mark = inventory.mark(found)
    return Owned(
        instance=mark.instance,
        epoch=mark.epoch,
        handle=_handle(options, found),
        worker=mark.worker,
        name=found["InstanceId"],
        created_at=found["LaunchTime"].timestamp(),
        spare=inventory.tags(found).get(RECIPE, "") if inventory.is_spare(found) else "",
        copy=inventory.copy_evidence(found),
    )


async def _known(inventory: Inventory, target: Target) -> Target:
    """The target with a handle if its instance's start was not answered yet and now is. Raises
    CallFailed.
    """
    if target.handle is not None or await inventory.describe(target) is not None:
        return target
    made = await repeat(inventory, target.instance)
    if made is None:
        return target
    return replace(target, handle=Ec2Handle(id=made["InstanceId"], region="", endpoint_url=None))


def _each_once(listed: Sequence[Owned]) -> list[Owned]:
    """Each machine once: several sets of credentials may show the same."""
    return list({each.name: each for each in listed}.values())
