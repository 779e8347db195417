"""The contract, for instances by boto3.

Theory of operation. ``launch`` starts an instance with its mark, at most one whatever is answered;
``sight`` finds it by its mark, and knows that EC2 shows things late; ``ending`` has it terminated
and believes only what it sees; ``spare`` has it stopped instead and started again, where that is
asked for; ``places`` keeps what deals with each region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hostler_hub.drivers.contract import (
    Capabilities,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.ec2.cloud import Asked
from hostler_hub.drivers.ec2.inventory import Seen, Sight, state_of
from hostler_hub.drivers.ec2.launch import launch
from hostler_hub.drivers.ec2.options import EPOCH, INSTANCE, RECIPE, WORKER, Ec2Options
from hostler_hub.drivers.ec2.regions import Places
from hostler_hub.drivers.ec2.spare import put_by, take_up
from hostler_hub.drivers.ec2.terminate import GONE_WITHIN_S, end
from hostler_hub.lifecycle.model import Presence

HANDLE_VERSION = 1


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
        self._places = Places(environment.hub, environment.secrets)

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        """A machine that was kept, or the first type and subnet that has room."""
        options = Ec2Options.model_validate(dict(spec.options))
        sight = self._places.at(options)
        try:
            made = await sight.find(spec.instance)
            if made is None:
                made = await take_up(sight, self._environment, spec, options)
            if made is None:
                made = await launch(sight, self._environment, spec, options)
        except Asked as asked:
            raise asked.told from asked.error
        return _handle(options, made)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        options, sight = self._places.of(ref)
        try:
            found = await sight.look(ref)
        except Asked as asked:
            raise asked.told from asked.error
        if found is None:
            return sight.not_shown(ref)
        state, reason = state_of(found)
        evidence = f"{found['InstanceId']} {state}" + (f": {reason}" if reason else "")
        if sight.is_taken(found, ref.instance, ref.epoch):
            return Inspection(Presence.GONE, f"{evidence}, a later instance's by now")
        if state == "stopped" and (sight.is_spare_of(found, ref.instance) or ref.handle is None):
            return Inspection(Presence.GONE, f"{evidence}, kept or not started yet")
        if state in {"pending", "running"}:
            return Inspection(Presence.RUNNING, evidence, _handle(options, found))
        gone = state == "terminated"
        return Inspection(Presence.GONE if gone else Presence.UNKNOWN, evidence)

    async def destroy(self, ref: InstanceRef) -> None:
        """Terminate, then look until EC2 says terminated: accepted is not done (V3)."""
        _, sight = self._places.of(ref)
        try:
            await end(sight, ref)
        except Asked as asked:
            raise asked.told from asked.error

    async def keep(self, ref: InstanceRef) -> bool:
        """Stop it where the options ask for that, else terminate it."""
        options, sight = self._places.of(ref)
        try:
            return await put_by(sight, ref, options)
        except Asked as asked:
            raise asked.told from asked.error

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        owned: dict[str, Owned] = {}
        for options in self._places.each(places):
            sight = self._places.at(options)
            try:
                found = await sight.all()
            except Asked as asked:
                raise asked.told from asked.error
            owned |= {each["InstanceId"]: _owned(options, sight, each) for each in found}
        return list(owned.values())

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        """The console, and what EC2 says of the state."""
        _, sight = self._places.of(ref)
        try:
            found = await sight.look(ref)
            if found is None:
                return {}
            texts = {"state": " ".join(each for each in state_of(found) if each)}
            doing = "read the console"
            instance_id = found["InstanceId"]
            answer = await sight.cloud.call("get_console_output", doing, InstanceId=instance_id)
        except Asked as asked:
            raise asked.told from asked.error
        output = answer.get("Output")
        if output:
            texts["console"] = str(output)
        return texts

    async def aclose(self) -> None:
        """Let go of connections; instances stay."""
        await self._places.aclose()


def _handle(options: Ec2Options, found: Seen) -> dict[str, Any]:
    return {
        "version": HANDLE_VERSION,
        "id": found["InstanceId"],
        "region": options.region,
        "endpoint_url": options.endpoint_url,
    }


def _owned(options: Ec2Options, sight: Sight, found: Seen) -> Owned:
    tags = sight.tags(found)
    return Owned(
        instance=tags.get(INSTANCE, ""),
        epoch=int(tags.get(EPOCH, "0") or 0),
        handle=_handle(options, found),
        worker=tags.get(WORKER, ""),
        name=found["InstanceId"],
        created_at=found["LaunchTime"].timestamp(),
        spare=tags.get(RECIPE, "") if sight.is_spare(found) else "",
    )
