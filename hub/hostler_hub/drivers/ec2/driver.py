"""Instances by boto3: started with their mark, found by it, and gone only when EC2 says so.

Theory of operation. The client token ``ULID.epoch.attempt`` makes a repeated RunInstances answer
with the instance that the first one made (P1), and the tags go into the same call, so nothing ever
runs unmarked. What EC2 lists lags behind what it did: an instance that is not found is *unknown*
for minutes after its start, never gone (P3), and ``shutting-down`` is not gone either (P14).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError

from hostler_hub.drivers.contract import (
    Capabilities,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    OptionsRefused,
    Owned,
    ProviderFailed,
)
from hostler_hub.drivers.ec2 import userdata
from hostler_hub.drivers.ec2.cloud import Asked, Cloud
from hostler_hub.drivers.ec2.errors import Meaning
from hostler_hub.drivers.ec2.options import TAG_PREFIX, Ec2Options
from hostler_hub.identifiers import ulid_ms
from hostler_hub.lifecycle.model import Presence
from hostler_hub.secrets import SecretRefused

HANDLE_VERSION = 1
VISIBLE_AFTER_S = 300.0  # a known id may be "not found" for so long (P3)
TAGGED_AFTER_S = 600.0  # and a tag may be unfindable for so long (K2)
LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")
_LOOK_EVERY_S = 2.0
_GONE_WITHIN_S = 240.0
_ASK_AGAIN = 3


class Ec2Driver:
    """Starts instances of an AMI whose user-data fetches and starts the agent."""

    name: ClassVar[str] = "ec2"
    capabilities: ClassVar[Capabilities] = Capabilities(
        create_deadline_s=300.0,
        inspect_deadline_s=40.0,
        destroy_deadline_s=_GONE_WITHIN_S + 30.0,
        missing_timeout_s=1200.0,
    )
    options_model: ClassVar[type[Ec2Options]] = Ec2Options

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._clouds: dict[str, Cloud] = {}
        self._never_made: set[str] = set()
        self._places: dict[tuple[str | None, str], Ec2Options] = {}  # where a list was asked for

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        """The first type and subnet that has room; each try has a client token of its own."""
        options = Ec2Options.model_validate(dict(spec.options))
        cloud = self._cloud(options)
        try:
            already = await self._find(cloud, spec.instance)
            if already is not None:
                return _handle(options, already)
            self._never_made.add(spec.instance)
            request = await self._request(cloud, spec, options)
            made = await self._run(cloud, spec, options, request)
            await self._give_address(cloud, options, made)
        except Asked as asked:
            raise asked.told from asked.error
        return _handle(options, made)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        options, cloud = self._reach(ref)
        try:
            found = await self._look(cloud, ref)
        except Asked as asked:
            raise asked.told from asked.error
        if found is None:
            return self._not_found(ref)
        state, reason = _state(found)
        if state in {"pending", "running"}:
            return Inspection(
                Presence.RUNNING, f"{found['InstanceId']} {state}", _handle(options, found)
            )
        evidence = f"{found['InstanceId']} {state}" + (f": {reason}" if reason else "")
        gone = state == "terminated"
        return Inspection(Presence.GONE if gone else Presence.UNKNOWN, evidence)

    async def destroy(self, ref: InstanceRef) -> None:
        """Terminate, then look until EC2 says terminated: accepted is not done (V3)."""
        _, cloud = self._reach(ref)
        try:
            deadline = time.monotonic() + _GONE_WITHIN_S
            while True:
                found = await self._look(cloud, ref)
                if found is None and self._not_found(ref).presence is Presence.GONE:
                    return
                if found is not None and _state(found)[0] == "terminated":
                    return
                if found is not None and _state(found)[0] != "shutting-down":
                    await self._terminate(cloud, found["InstanceId"])
                if time.monotonic() > deadline or found is None:
                    what = "not visible yet" if found is None else _state(found)[0]
                    raise ProviderFailed(f"ec2: instance of {ref.worker} is {what}, not terminated")
                await asyncio.sleep(_LOOK_EVERY_S)
        except Asked as asked:
            raise asked.told from asked.error

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        seen: dict[str, Ec2Options] = {}
        for place in places:
            options = Ec2Options.model_validate(dict(place))
            seen.setdefault(self._key(options), options)
            self._places[options.endpoint_url, options.region] = options
        owned: dict[str, Owned] = {}
        for options in seen.values():
            for found in await self._list(options):
                owned[found["InstanceId"]] = _owned(options, found)
        return list(owned.values())

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        """The console, and what EC2 says of the state."""
        _, cloud = self._reach(ref)
        try:
            found = await self._look(cloud, ref)
            if found is None:
                return {}
            texts = {"state": " ".join(each for each in _state(found) if each)}
            doing = "read the console"
            answer = await cloud.call("get_console_output", doing, InstanceId=found["InstanceId"])
        except Asked as asked:
            raise asked.told from asked.error
        output = answer.get("Output")
        if output:
            texts["console"] = str(output)
        return texts

    async def aclose(self) -> None:
        """Let go of connections; instances stay."""
        for cloud in self._clouds.values():
            cloud.close()
        self._clouds.clear()

    # --- starting -----------------------------------------------------------------------------

    async def _request(
        self, cloud: Cloud, spec: InstanceSpec, options: Ec2Options
    ) -> dict[str, Any]:
        tags = [{"Key": key, "Value": value} for key, value in self._tags(spec, options).items()]
        request: dict[str, Any] = {
            "ImageId": options.ami or await self._newest_image(cloud, options),
            "MinCount": 1,
            "MaxCount": 1,
            "UserData": self._user_data(spec, options),
            "InstanceInitiatedShutdownBehavior": "terminate",
            # Hop limit 1: containers of builds do not reach the metadata, nor the token in it.
            "MetadataOptions": {
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": 1,
                "HttpEndpoint": "enabled",
            },
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": tags},
                {"ResourceType": "volume", "Tags": tags},
            ],
        }
        if options.security_groups:
            request["SecurityGroupIds"] = list(options.security_groups)
        if options.instance_profile:
            key = "Arn" if options.instance_profile.startswith("arn:") else "Name"
            request["IamInstanceProfile"] = {key: options.instance_profile}
        if options.key_name:
            request["KeyName"] = options.key_name
        if options.volumes:
            request["BlockDeviceMappings"] = [_mapping(each) for each in options.volumes]
        if options.spot is not None:
            request["InstanceMarketOptions"] = _market(options)
        return request

    async def _run(
        self, cloud: Cloud, spec: InstanceSpec, options: Ec2Options, request: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        attempt, refusals = 0, []
        for where in _alternatives(options):
            while True:
                attempt += 1
                token = f"{spec.instance}.{spec.epoch}.{attempt}"
                try:
                    return await self._run_once(cloud, spec, {**request, **where}, token)
                except Asked as asked:
                    if asked.meaning is Meaning.TOKEN_SPENT and attempt < 100:
                        continue
                    if asked.meaning is not Meaning.NO_CAPACITY:
                        raise
                    refusals.append(f"{where['InstanceType']}: {asked.told}")
                    break
        raise ProviderFailed("ec2: no room for any of the types: " + "; ".join(refusals)[:2000])

    async def _run_once(
        self, cloud: Cloud, spec: InstanceSpec, request: Mapping[str, Any], token: str
    ) -> Mapping[str, Any]:
        """One request, asked again with the same token while its outcome is unclear (P1)."""
        for left in reversed(range(_ASK_AGAIN)):
            try:
                answer = await cloud.call(
                    "run_instances", "start an instance", **request, ClientToken=token
                )
                self._never_made.discard(spec.instance)
                made: Mapping[str, Any] = answer["Instances"][0]
                return made
            except Asked as asked:
                if asked.meaning is not Meaning.UNCLEAR:
                    raise
                self._never_made.discard(spec.instance)  # it may have been
                if not left:
                    raise
            await asyncio.sleep(_LOOK_EVERY_S)
            found = await self._find(cloud, spec.instance)
            if found is not None:
                return found
        raise AssertionError("the last try returns or raises")

    async def _newest_image(self, cloud: Cloud, options: Ec2Options) -> str:
        image = options.image
        assert image is not None
        filters = {"name": image.name, "architecture": image.architecture, "state": "available"}
        pages = await cloud.pages(
            "describe_images",
            "find the image",
            Owners=list(image.owners),
            Filters=_filters(filters),
        )
        images = [each for page in pages for each in page["Images"]]
        if not images:
            raise OptionsRefused(
                f"ec2: option image: no image of {', '.join(image.owners)} in {options.region} is "
                f"named {image.name} ({image.architecture})"
            )
        newest = max(images, key=lambda each: (each.get("CreationDate", ""), each["ImageId"]))
        return str(newest["ImageId"])

    async def _give_address(
        self, cloud: Cloud, options: Ec2Options, made: Mapping[str, Any]
    ) -> None:
        if options.elastic_ip is None:
            return
        found: Mapping[str, Any] | None = made
        while found is None or _state(found)[0] == "pending":
            await asyncio.sleep(_LOOK_EVERY_S)
            found = await self._by_id(cloud, made["InstanceId"])
        await cloud.call(
            "associate_address",
            "give it its address (option elastic_ip)",
            AllocationId=options.elastic_ip,
            InstanceId=made["InstanceId"],
        )

    def _user_data(self, spec: InstanceSpec, options: Ec2Options) -> str:
        environment = self._environment
        archive = environment.archive
        if archive is None:
            raise ProviderFailed("ec2: this hub has no archive of the agent to hand out")
        connect_url = environment.connect_url
        path = "/" + connect_url.split("/", 3)[3]
        base = options.hub_url or connect_url.removesuffix(path)
        boot = userdata.Boot(
            worker=spec.worker,
            instance=spec.instance,
            epoch=spec.epoch,
            token=spec.token,
            mark=f"{environment.hub}:{spec.instance}:{spec.epoch}",
            connect_url=base + path,
            archive_url=f"{base.replace('ws', 'http', 1)}/api/v1/agents/archive/{archive.sha256}",
            sha256=archive.sha256,
            python=options.python,
            orphan_timeout_s=options.orphan_timeout_s,
            insecure=options.insecure,
            is_spot=options.spot is not None,
            authorities=environment.ca_file.read_bytes() if environment.ca_file else None,
        )
        text = userdata.windows(boot) if options.system == "windows" else userdata.linux(boot)
        if len(text.encode()) > userdata.SIZE_BYTES:
            raise OptionsRefused(
                f"ec2: the user-data is larger than the {userdata.SIZE_BYTES} bytes EC2 takes; "
                "trust a smaller bundle of authorities (HOSTLER_TLS_CA)"
            )
        return text  # boto3 encodes it

    def _tags(self, spec: InstanceSpec, options: Ec2Options) -> dict[str, str]:
        return {
            "Name": f"hostler {spec.worker}",
            **options.tags,
            f"{TAG_PREFIX}hub": self._environment.hub,
            f"{TAG_PREFIX}instance": spec.instance,
            f"{TAG_PREFIX}epoch": str(spec.epoch),
            f"{TAG_PREFIX}worker": spec.worker,
        }

    # --- looking ------------------------------------------------------------------------------

    def _reach(self, ref: InstanceRef) -> tuple[Ec2Options, Cloud]:
        """Where it is by its handle; the options may be those of another place, or of none."""
        known = None
        if ref.handle is not None:
            known = self._places.get((ref.handle["endpoint_url"], ref.handle["region"]))
        if not ref.options and known is not None:
            return known, self._cloud(known)
        options = Ec2Options.model_validate(dict(ref.options))
        return options, self._cloud(options)

    def _cloud(self, options: Ec2Options) -> Cloud:
        key = self._key(options)
        if key not in self._clouds:
            try:
                self._clouds[key] = Cloud(options, self._environment.secrets)
            except SecretRefused as error:
                raise OptionsRefused(f"ec2: option credentials: {error}") from error
            except BotoCoreError as error:
                raise OptionsRefused(f"ec2: {error}") from error
        return self._clouds[key]

    def _key(self, options: Ec2Options) -> str:
        return f"{options.place} {options.profile} {options.credentials!r}"

    async def _look(self, cloud: Cloud, ref: InstanceRef) -> Mapping[str, Any] | None:
        if ref.handle is None:
            return await self._find(cloud, ref.instance)
        return await self._by_id(cloud, str(ref.handle["id"]))

    async def _by_id(self, cloud: Cloud, instance_id: str) -> Mapping[str, Any] | None:
        try:
            answer = await cloud.call(
                "describe_instances", "look at the instance", InstanceIds=[instance_id]
            )
        except Asked as asked:
            if asked.meaning is Meaning.NOT_FOUND:
                return None
            raise
        return next(_instances(answer), None)

    async def _find(self, cloud: Cloud, instance: str) -> Mapping[str, Any] | None:
        """By its mark; a living one before a dead one."""
        filters = {f"tag:{TAG_PREFIX}hub": self._environment.hub}
        filters[f"tag:{TAG_PREFIX}instance"] = instance
        pages = await cloud.pages(
            "describe_instances", "look for the instance", Filters=_filters(filters)
        )
        found = [each for page in pages for each in _instances(page)]
        return min(found, key=lambda each: _state(each)[0] == "terminated", default=None)

    async def _list(self, options: Ec2Options) -> list[Mapping[str, Any]]:
        filters = _filters({f"tag:{TAG_PREFIX}hub": self._environment.hub})
        filters.append({"Name": "instance-state-name", "Values": list(LIVING)})
        try:
            pages = await self._cloud(options).pages(
                "describe_instances", "list instances", Filters=filters, MaxResults=1000
            )
        except Asked as asked:
            raise asked.told from asked.error
        return [each for page in pages for each in _instances(page)]

    def _not_found(self, ref: InstanceRef) -> Inspection:
        """Of what EC2 does not show: gone only when it would have shown it by now (P3, K2)."""
        if ref.instance in self._never_made:
            return Inspection(Presence.GONE, "ec2: no instance was made")
        age_s = time.time() - ulid_ms(ref.instance) / 1000
        patience_s = TAGGED_AFTER_S if ref.handle is None else VISIBLE_AFTER_S
        if age_s < patience_s:
            words = f"ec2: not shown yet; that proves nothing for {patience_s - age_s:.0f} s more"
            return Inspection(Presence.UNKNOWN, words)
        return Inspection(Presence.GONE, "ec2: EC2 knows of no such instance")

    async def _terminate(self, cloud: Cloud, instance_id: str) -> None:
        try:
            await cloud.call(
                "terminate_instances", "terminate the instance", InstanceIds=[instance_id]
            )
        except Asked as asked:
            # Not found and unclear outcomes are for the next look to settle.
            if asked.meaning not in {Meaning.NOT_FOUND, Meaning.UNCLEAR}:
                raise


def _alternatives(options: Ec2Options) -> Iterator[dict[str, str]]:
    for instance_type in options.instance_types:
        if not options.subnets:
            yield {"InstanceType": instance_type}
        for subnet in options.subnets:
            yield {"InstanceType": instance_type, "SubnetId": subnet}


def _market(options: Ec2Options) -> dict[str, Any]:
    assert options.spot is not None
    terms = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    if options.spot.max_price is not None:
        terms["MaxPrice"] = options.spot.max_price
    return {"MarketType": "spot", "SpotOptions": terms}


def _mapping(volume: Any) -> dict[str, Any]:
    chosen = {
        "VolumeSize": volume.size_gib,
        "VolumeType": volume.type,
        "Iops": volume.iops,
        "Encrypted": volume.encrypted,
        "SnapshotId": volume.snapshot,
        "DeleteOnTermination": True,  # a volume that stays would be billed and never found
    }
    ebs = {key: value for key, value in chosen.items() if value is not None}
    return {"DeviceName": volume.device, "Ebs": ebs}


def _filters(wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [value]} for name, value in wanted.items()]


def _instances(answer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for reservation in answer.get("Reservations", ()):
        yield from reservation["Instances"]


def _state(found: Mapping[str, Any]) -> tuple[str, str]:
    reason = found.get("StateReason", {}).get("Message", "")
    return str(found["State"]["Name"]), str(reason)


def _handle(options: Ec2Options, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": HANDLE_VERSION,
        "id": found["InstanceId"],
        "region": options.region,
        "endpoint_url": options.endpoint_url,
    }


def _owned(options: Ec2Options, found: Mapping[str, Any]) -> Owned:
    tags = {each["Key"]: each["Value"] for each in found.get("Tags", ())}
    return Owned(
        instance=tags.get(f"{TAG_PREFIX}instance", ""),
        epoch=int(tags.get(f"{TAG_PREFIX}epoch", "0") or 0),
        handle=_handle(options, found),
        worker=tags.get(f"{TAG_PREFIX}worker", ""),
        name=found["InstanceId"],
        created_at=found["LaunchTime"].timestamp(),
    )
