"""Starting an instance: the first type and subnet that has room, one at most whatever is answered.

The client token ``ULID.epoch.attempt`` makes a repeated RunInstances answer with the instance that
the first one made (P1), and the tags go into the same call, so nothing ever runs unmarked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hostler_hub.drivers.contract import Environment, InstanceSpec
from hostler_hub.drivers.ec2.cloud import Asked
from hostler_hub.drivers.ec2.errors import Meaning
from hostler_hub.drivers.ec2.inventory import Seen, Sight, filters_of, state_of
from hostler_hub.drivers.ec2.options import Ec2Options
from hostler_hub.drivers.ec2.request import alternatives, run_request
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed

_LOOK_EVERY_S = 2.0
_ASK_AGAIN = 3
_TOKENS = 100  # that may turn out to be spent


async def launch(
    sight: Sight, environment: Environment, spec: InstanceSpec, options: Ec2Options
) -> Seen:
    """The new instance. Raises Asked, OptionsRefused, ProviderFailed."""
    sight.intends(spec.instance)
    image = options.ami or await newest_image(sight, options)
    request = run_request(environment, spec, options, image)
    made = await _run(sight, spec, options, request)
    await give_address(sight, options, made)
    return made


async def _run(
    sight: Sight, spec: InstanceSpec, options: Ec2Options, request: Mapping[str, Any]
) -> Seen:
    attempt, refusals = 0, []
    for where in alternatives(options):
        while True:
            attempt += 1
            token = f"{spec.instance}.{spec.epoch}.{attempt}"
            try:
                return await _run_once(sight, spec, {**request, **where, "ClientToken": token})
            except Asked as asked:
                if asked.meaning is Meaning.TOKEN_SPENT and attempt < _TOKENS:
                    continue
                if asked.meaning is not Meaning.NO_CAPACITY:
                    raise
                place = f" in {where['SubnetId']}" if "SubnetId" in where else ""
                refusals.append(f"{where['InstanceType']}{place}: {asked.told}")
                break
    raise ProviderFailed("ec2: no room for any of the types: " + "; ".join(refusals)[:2000])


async def _run_once(sight: Sight, spec: InstanceSpec, request: Mapping[str, Any]) -> Seen:
    """One request, asked again with the same token while its outcome is unclear (P1)."""
    for left in reversed(range(_ASK_AGAIN)):
        try:
            answer = await sight.cloud.call("run_instances", "start an instance", **request)
            sight.may_have_made(spec.instance)
            made: Seen = answer["Instances"][0]
            return made
        except Asked as asked:
            if asked.meaning is not Meaning.UNCLEAR:
                raise
            sight.may_have_made(spec.instance)
            if not left:
                raise
        await asyncio.sleep(_LOOK_EVERY_S)
        found = await sight.find(spec.instance)
        if found is not None:
            return found
    raise AssertionError("the last try returns or raises")


async def newest_image(sight: Sight, options: Ec2Options) -> str:
    """The id of what option image asks for. Raises Asked, OptionsRefused."""
    image = options.image
    assert image is not None
    wanted = {"name": image.name, "architecture": image.architecture, "state": "available"}
    pages = await sight.cloud.pages(
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


async def give_address(sight: Sight, options: Ec2Options, made: Seen) -> None:
    """Where an elastic_ip is asked for; waits until the instance can have it."""
    if options.elastic_ip is None:
        return
    found: Seen | None = made
    while found is None or state_of(found)[0] in {"pending", "stopped"}:
        await asyncio.sleep(_LOOK_EVERY_S)
        found = await sight.by_id(made["InstanceId"])
    await sight.cloud.call(
        "associate_address",
        "give it its address (option elastic_ip)",
        AllocationId=options.elastic_ip,
        InstanceId=made["InstanceId"],
    )
