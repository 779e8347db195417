"""Builds the arguments of the call that starts an instance. Pure: nothing here calls EC2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hostler_hub.drivers.contract import Environment, InstanceSpec
from hostler_hub.drivers.ec2 import userdata
from hostler_hub.drivers.ec2.options import MARK, RECIPE, Ec2Options, Volume
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed


def run_request(
    environment: Environment, spec: InstanceSpec, options: Ec2Options, image: str
) -> dict[str, Any]:
    """The arguments of RunInstances except for type, subnet and client token."""
    tags = [{"Key": key, "Value": value} for key, value in _tags(environment.hub, spec, options)]
    request: dict[str, Any] = {
        "ImageId": image,
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": user_data(environment, spec, options),  # boto3 encodes it
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
    return request | _chosen(options)


def alternatives(options: Ec2Options) -> Iterator[dict[str, str]]:
    """The arguments for type and subnet, in the order to try: each type with each of the
    subnets.
    """
    for instance_type in options.instance_types:
        if not options.subnets:
            yield {"InstanceType": instance_type}
        for subnet in options.subnets:
            yield {"InstanceType": instance_type, "SubnetId": subnet}


def _chosen(options: Ec2Options) -> dict[str, Any]:
    """The arguments for those optional settings that the options contain."""
    chosen: dict[str, Any] = {}
    if options.security_groups:
        chosen["SecurityGroupIds"] = list(options.security_groups)
    if options.instance_profile:
        key = "Arn" if options.instance_profile.startswith("arn:") else "Name"
        chosen["IamInstanceProfile"] = {key: options.instance_profile}
    if options.key_name:
        chosen["KeyName"] = options.key_name
    if options.volumes:
        chosen["BlockDeviceMappings"] = [_mapping(each) for each in options.volumes]
    if options.spot is not None:
        chosen["InstanceMarketOptions"] = _market(options.spot.max_price)
    return chosen


def _market(max_price: str | None) -> dict[str, Any]:
    terms = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    if max_price is not None:
        terms["MaxPrice"] = max_price
    return {"MarketType": "spot", "SpotOptions": terms}


def _mapping(volume: Volume) -> dict[str, Any]:
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


def _tags(hub: str, spec: InstanceSpec, options: Ec2Options) -> Iterator[tuple[str, str]]:
    if "Name" not in options.tags:
        yield "Name", f"hostler {spec.worker}"
    yield from options.tags.items()
    yield from spec.mark(hub).fields(MARK.prefix).items()
    if options.recipe:
        yield RECIPE, options.recipe


def user_data(environment: Environment, spec: InstanceSpec, options: Ec2Options) -> str:
    """The user-data that an instance boots with. Raises OptionsRefused, ProviderFailed."""
    archive = environment.archive
    if archive is None:
        raise ProviderFailed("ec2: this hub has no archive of the agent to hand out")
    path = "/" + environment.connect_url.split("/", 3)[3]
    base = options.hub_url or environment.connect_url.removesuffix(path)
    boot = userdata.Boot(
        worker=spec.worker,
        instance=spec.instance,
        epoch=spec.epoch,
        token=spec.token,
        mark=str(spec.mark(environment.hub)),
        connect_url=base + path,
        archive_url=f"{base.replace('ws', 'http', 1)}/api/v1/agents/archive/{archive.sha256}",
        sha256=archive.sha256,
        python=options.python,
        orphan_timeout_s=options.orphan_timeout_s,
        insecure=options.insecure,
        is_spot=options.spot is not None,
        agent_config=spec.agent_config,
        starts_again=options.at_end == "stop",
        authorities=environment.ca_file.read_bytes() if environment.ca_file else None,
    )
    text = userdata.windows(boot) if options.system == "windows" else userdata.linux(boot)
    if len(text.encode()) > userdata.SIZE_BYTES:
        raise OptionsRefused(
            f"ec2: the user-data is larger than the {userdata.SIZE_BYTES} bytes EC2 takes; "
            "trust a smaller bundle of authorities (HOSTLER_TLS_CA)"
        )
    return text
