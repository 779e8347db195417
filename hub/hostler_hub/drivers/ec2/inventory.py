"""What EC2 shows of a hub's instances, and what may be concluded from what it does not show.

What EC2 lists lags behind what it did: an instance that is not found is *unknown* for minutes after
its start, never gone (P3, K2), and ``shutting-down`` is not gone either (P14).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from hostler_hub.drivers.contract import Inspection, InstanceRef
from hostler_hub.drivers.ec2.batched_describe import Looks
from hostler_hub.drivers.ec2.cloud import Asked, Cloud
from hostler_hub.drivers.ec2.errors import Meaning
from hostler_hub.drivers.ec2.options import EPOCH, HUB, INSTANCE, SPARE, WORKER
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import ulid_ms

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
        self._written: dict[str, dict[str, str]] = {}
        self._claimed: dict[str, Mapping[str, str]] = {}
        self._doomed: set[str] = set()

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
        for instance_id, tags in self._ours():
            if tags.get(INSTANCE) == instance:
                return await self.by_id(instance_id)
        filters = {f"tag:{HUB}": self._hub, f"tag:{INSTANCE}": instance}
        found = await self._described("look for the instance", filters_of(filters))
        return min(found, key=lambda each: state_of(each)[0] == "terminated", default=None)

    async def all(self) -> list[Seen]:
        """Everything with the hub's mark that is not terminated."""
        filters = filters_of({f"tag:{HUB}": self._hub})
        filters.append({"Name": "instance-state-name", "Values": list(LIVING)})
        return await self._described("list instances", filters)

    async def spares(self, worker: str) -> list[Seen]:
        """Stopped machines that are kept for it."""
        filters = {f"tag:{HUB}": self._hub, f"tag:{WORKER}": worker}
        stopped = filters_of({**filters, "instance-state-name": "stopped"})
        found = await self._described("look for a stopped machine to start", stopped)
        return [each for each in found if self.is_spare(each)]

    # --- whose a machine is: tags are shown late, and two may want it at once ------------------

    def tags(self, seen: Seen) -> dict[str, str]:
        """As EC2 shows them, and as we have set them since."""
        shown = {each["Key"]: each["Value"] for each in seen.get("Tags", ())}
        instance_id = seen["InstanceId"]
        written, claimed = self._written.get(instance_id, {}), self._claimed.get(instance_id, {})
        return {**shown, **written, **claimed}

    def is_spare(self, seen: Seen) -> bool:
        tags = self.tags(seen)
        is_at_rest = state_of(seen)[0] in {"stopping", "stopped"}
        return is_at_rest and SPARE in tags and tags[SPARE] == tags.get(INSTANCE)

    def is_spare_of(self, seen: Seen, instance: str) -> bool:
        return self.is_spare(seen) and self.tags(seen)[SPARE] == instance

    def is_taken(self, seen: Seen, instance: str, epoch: int) -> bool:
        """Whether the instance's machine is a later one's by now; an earlier one's is old news."""
        tags = self.tags(seen)
        return tags.get(INSTANCE) != instance and int(tags.get(EPOCH) or 0) > epoch

    def note_tags(self, instance_id: str, tags: Mapping[str, str]) -> None:
        """They have been set."""
        self._claimed.pop(instance_id, None)
        self._written.setdefault(instance_id, {}).update(tags)

    def claim(self, instance_id: str, tags: Mapping[str, str]) -> bool:
        """They are about to be set: from now on nobody ends it but as what it becomes.

        False for one that is being ended: both cannot be had.
        """
        if instance_id in self._doomed:
            return False
        self._claimed[instance_id] = tags
        return True

    def unclaim(self, instance_id: str) -> None:
        """They have not been set after all."""
        self._claimed.pop(instance_id, None)

    def doom(self, seen: Seen, instance: str, epoch: int) -> bool:
        """It is about to be ended as this instance's: nobody takes it up any more.

        False if it is a later one's by now.
        """
        if self.is_taken(seen, instance, epoch):
            return False
        self._doomed.add(seen["InstanceId"])
        return True

    def bury(self, instance_id: str) -> None:
        """It is over."""
        self._doomed.discard(instance_id)
        self._claimed.pop(instance_id, None)
        self._written.pop(instance_id, None)

    def _ours(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        yield from list(self._claimed.items())
        yield from list(self._written.items())

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
