"""What EC2 shows of a hub's instances, and what may be concluded from what it does not show.

What EC2 lists lags behind what it did: an instance that is not found is *unknown* for minutes after
its start, never gone (P3, K2), and ``shutting-down`` is not gone either (P14).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from hostler_hub.drivers.contract import Inspection, InstanceRef
from hostler_hub.drivers.ec2.cloud import Asked, Cloud
from hostler_hub.drivers.ec2.errors import Meaning
from hostler_hub.drivers.ec2.looks import Looks
from hostler_hub.drivers.ec2.options import TAG_PREFIX
from hostler_hub.identifiers import ulid_ms
from hostler_hub.lifecycle.model import Presence

Seen = Mapping[str, Any]
"""An instance as EC2 describes it."""

VISIBLE_AFTER_S = 300.0  # a known id may be "not found" for so long (P3)
TAGGED_AFTER_S = 600.0  # and a tag may be unfindable for so long (K2)
LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")


class Sight:
    """One region."""

    def __init__(self, cloud: Cloud, hub: str) -> None:
        self.cloud = cloud
        self._hub = hub
        self._looks = Looks(self._several)
        self._never_made: set[str] = set()

    def intends(self, instance: str) -> None:
        """It is about to be made; until then there is none, whatever EC2 takes to show one."""
        self._never_made.add(instance)

    def may_have_made(self, instance: str) -> None:
        self._never_made.discard(instance)

    async def look(self, ref: InstanceRef) -> Seen | None:
        if ref.handle is None:
            return await self.find(ref.instance)
        return await self.by_id(str(ref.handle["id"]))

    async def by_id(self, instance_id: str) -> Seen | None:
        return await self._looks.at(instance_id)

    async def find(self, instance: str) -> Seen | None:
        """By its mark; a living one before a dead one."""
        filters = {f"tag:{TAG_PREFIX}hub": self._hub, f"tag:{TAG_PREFIX}instance": instance}
        found = await self._described("look for the instance", filters_of(filters))
        return min(found, key=lambda each: state_of(each)[0] == "terminated", default=None)

    async def all(self) -> list[Seen]:
        """Everything with the hub's mark that is not terminated."""
        filters = filters_of({f"tag:{TAG_PREFIX}hub": self._hub})
        filters.append({"Name": "instance-state-name", "Values": list(LIVING)})
        return await self._described("list instances", filters)

    def not_shown(self, ref: InstanceRef) -> Inspection:
        """Of what EC2 does not show: gone only when it would have shown it by now."""
        if ref.instance in self._never_made:
            return Inspection(Presence.GONE, "ec2: no instance was made")
        age_s = time.time() - ulid_ms(ref.instance) / 1000
        patience_s = TAGGED_AFTER_S if ref.handle is None else VISIBLE_AFTER_S
        if age_s < patience_s:
            words = f"ec2: not shown yet; that proves nothing for {patience_s - age_s:.0f} s more"
            return Inspection(Presence.UNKNOWN, words)
        return Inspection(Presence.GONE, "ec2: EC2 knows of no such instance")

    async def aclose(self) -> None:
        await self._looks.aclose()
        self.cloud.close()

    async def _several(self, ids: list[str]) -> Mapping[str, Seen]:
        """By a filter: of ids that are named outright a single unknown one spoils the answer."""
        filters = [{"Name": "instance-id", "Values": ids}]
        try:
            found = await self._described("look at the instance", filters)
        except Asked as asked:
            if asked.meaning is Meaning.NOT_FOUND:
                return {}
            raise
        return {str(each["InstanceId"]): each for each in found}

    async def _described(self, doing: str, filters: list[dict[str, Any]]) -> list[Seen]:
        pages = await self.cloud.pages(
            "describe_instances", doing, Filters=filters, MaxResults=1000
        )
        return [each for page in pages for each in _instances(page)]


def filters_of(wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [value]} for name, value in wanted.items()]


def state_of(seen: Seen) -> tuple[str, str]:
    """Its state, and the provider's words on why."""
    reason = seen.get("StateReason", {}).get("Message", "")
    return str(seen["State"]["Name"]), str(reason)


def _instances(answer: Mapping[str, Any]) -> Iterator[Seen]:
    for reservation in answer.get("Reservations", ()):
        yield from reservation["Instances"]
