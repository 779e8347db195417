"""The contract, for instances by boto3.

Theory of operation. ``launch`` starts an instance with its mark, at most one whatever is answered;
``sight`` finds it by its mark, and knows that EC2 shows things late; ``ending`` has it terminated
and believes only what it sees; ``places`` keeps what deals with each region.
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
from hostler_hub.drivers.ec2.ending import GONE_WITHIN_S, end
from hostler_hub.drivers.ec2.launch import launch
from hostler_hub.drivers.ec2.options import TAG_PREFIX, Ec2Options
from hostler_hub.drivers.ec2.places import Places
from hostler_hub.drivers.ec2.sight import Seen, state_of
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
        """The first type and subnet that has room; each try has a client token of its own."""
        options = Ec2Options.model_validate(dict(spec.options))
        sight = self._places.at(options)
        try:
            made = await sight.find(spec.instance)
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

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        owned: dict[str, Owned] = {}
        for options in self._places.each(places):
            try:
                found = await self._places.at(options).all()
            except Asked as asked:
                raise asked.told from asked.error
            owned |= {each["InstanceId"]: _owned(options, each) for each in found}
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


def _owned(options: Ec2Options, found: Seen) -> Owned:
    tags = {each["Key"]: each["Value"] for each in found.get("Tags", ())}
    return Owned(
        instance=tags.get(f"{TAG_PREFIX}instance", ""),
        epoch=int(tags.get(f"{TAG_PREFIX}epoch", "0") or 0),
        handle=_handle(options, found),
        worker=tags.get(f"{TAG_PREFIX}worker", ""),
        name=found["InstanceId"],
        created_at=found["LaunchTime"].timestamp(),
    )
