"""What EC2 shows of a hub's instances, and what follows if it does not show an instance.

EC2's lists lag behind its actions: for minutes after its start an instance that is not found is
*unknown*, never gone (P3, K2), and ``shutting-down`` is not gone either (P14).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from hostler_agent.instances.mark import Mark
from hostler_hub.drivers.contract import Inspection
from hostler_hub.drivers.ec2.batched_describe import BatchedDescribe
from hostler_hub.drivers.ec2.client_token import Origin
from hostler_hub.drivers.ec2.cloud import Cloud
from hostler_hub.drivers.ec2.errors import CallFailed, Meaning
from hostler_hub.drivers.ec2.handle import Target
from hostler_hub.drivers.ec2.options import MARK, RECIPE, SPARE
from hostler_hub.drivers.sent import SentRequests
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import ulid_ms

Described = Mapping[str, Any]
"""An instance as EC2 describes it."""

VISIBLE_AFTER_S = 300.0  # a known id may be "not found" for so long (P3)
TAGGED_AFTER_S = 600.0  # and a tag may be unfindable for so long (K2)
LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")


class Inventory:
    """A hub's instances in one region: what EC2 shows of them, and the hub's own later changes.

    EC2 shows tags late, and two callers may want the same machine at once; so the inventory records
    the tags that were written. Methods that call EC2 raise CallFailed.
    """

    def __init__(self, cloud: Cloud, hub: str, sent: SentRequests) -> None:
        self.cloud = cloud
        self.sent = sent
        self._hub = hub
        self._batches = BatchedDescribe(self._several)
        self._written: dict[str, dict[str, str]] = {}
        self._claimed: dict[str, Mapping[str, str]] = {}
        self._ending: set[str] = set()

    async def describe(self, target: Target) -> Described | None:
        """Describe the instance, found by its handle or else by its mark. None: EC2 does not show
        it.
        """
        if target.handle is None:
            return await self.find(target.instance)
        return await self.by_id(target.handle.id)

    async def by_id(self, instance_id: str) -> Described | None:
        """Describe the instance with this id. None: EC2 does not show it."""
        return await self._batches.describe(instance_id)

    async def find(self, instance: str) -> Described | None:
        """Describe the instance that carries the mark and is no copy, preferring a living one to a
        terminated one.
        """
        for instance_id, tags in self._ours():
            if tags.get(MARK.instance) == instance:
                return await self.by_id(instance_id)
        filters = {f"tag:{MARK.hub}": self._hub, f"tag:{MARK.instance}": instance}
        shown = await self._described("look for the instance", filters_of(filters))
        found = [each for each in shown if not self.copy_evidence(each)]
        return min(found, key=lambda each: state_of(each)[0] == "terminated", default=None)

    async def all(self) -> list[Described]:
        """Describe every instance that carries the hub's mark and is not terminated."""
        filters = filters_of({f"tag:{MARK.hub}": self._hub})
        filters.append({"Name": "instance-state-name", "Values": list(LIVING)})
        return await self._described("list instances", filters)

    async def spares(self, worker: str) -> list[Described]:
        """The stopped machines that are kept for the worker's next instance."""
        filters = {f"tag:{MARK.hub}": self._hub, f"tag:{MARK.worker}": worker}
        stopped = filters_of({**filters, "instance-state-name": "stopped"})
        found = await self._described("look for a stopped machine to start", stopped)
        return [each for each in found if self.is_spare(each) and not self.copy_evidence(each)]

    # --- whose a machine is --------------------------------------------------------------------

    def tags(self, seen: Described) -> dict[str, str]:
        """The machine's tags: those that EC2 shows, updated by those that this hub has
        set since.
        """
        shown = {each["Key"]: each["Value"] for each in seen.get("Tags", ())}
        instance_id = seen["InstanceId"]
        written, claimed = self._written.get(instance_id, {}), self._claimed.get(instance_id, {})
        return {**shown, **written, **claimed}

    def mark(self, seen: Described) -> Mark:
        """The mark in the machine's tags: the instance that it belongs to."""
        return Mark.of_fields(MARK.prefix, self.tags(seen))

    def copy_evidence(self, seen: Described) -> str:
        """Why the machine is a copy, to which somebody gave an instance's tags; empty if the hub
        made it.
        """
        token = seen.get("ClientToken") or ""
        origin, mark = Origin.of_token(token), self.mark(seen)
        if origin is None:
            return f"the hub did not start it (its client token is {token or 'missing'})"
        was_spare = RECIPE in self.tags(seen) and origin.epoch < mark.epoch
        if origin.made(mark) or was_spare:
            return ""
        return f"the hub started it as instance {origin.instance}"

    def is_spare(self, seen: Described) -> bool:
        """Whether the machine is a spare: stopped or stopping, and tagged to be kept."""
        tags = self.tags(seen)
        is_at_rest = state_of(seen)[0] in {"stopping", "stopped"}
        return is_at_rest and SPARE in tags and tags[SPARE] == self.mark(seen).instance

    def is_spare_of(self, seen: Described, instance: str) -> bool:
        """Whether the machine is a spare that was kept of this instance."""
        return self.is_spare(seen) and self.tags(seen)[SPARE] == instance

    def is_taken(self, seen: Described, instance: str, epoch: int) -> bool:
        """Whether the machine now belongs to a later instance than this one. (Tags of an earlier
        instance only mean that EC2 does not show the newer tags yet.)
        """
        mark = self.mark(seen)
        return mark.instance != instance and mark.epoch > epoch

    def note_tags(self, instance_id: str, tags: Mapping[str, str]) -> None:
        """Record that the tags were set on the machine."""
        self._claimed.pop(instance_id, None)
        self._written.setdefault(instance_id, {}).update(tags)

    def claim(self, instance_id: str, tags: Mapping[str, str]) -> bool:
        """Record tags that are about to be set on the machine; they count from now on, so that only
        the instance that they name can end it. Returns False if the machine is being ended.
        """
        if instance_id in self._ending:
            return False
        self._claimed[instance_id] = tags
        return True

    def unclaim(self, instance_id: str) -> None:
        """Undo `claim`: the tags were not set."""
        self._claimed.pop(instance_id, None)

    def begin_ending(self, seen: Described, instance: str, epoch: int) -> bool:
        """Record that the machine is about to be ended on behalf of this instance. From now on
        `claim` refuses it.

        Returns False if the machine belongs to a later instance by now.
        """
        if self.is_taken(seen, instance, epoch):
            return False
        self._ending.add(seen["InstanceId"])
        return True

    def forget(self, instance_id: str) -> None:
        """Drop everything recorded of a machine that is terminated."""
        self._ending.discard(instance_id)
        self._claimed.pop(instance_id, None)
        self._written.pop(instance_id, None)

    def _ours(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        yield from list(self._claimed.items())
        yield from list(self._written.items())

    def not_shown(self, target: Target) -> Inspection:
        """The result of inspecting an instance that EC2 does not show: GONE only if EC2 would have
        shown it by now.
        """
        if target.handle is None and self.sent.never(target.instance):
            return Inspection(Presence.GONE, "ec2: no instance was made")
        age_s = time.time() - ulid_ms(target.instance) / 1000
        patience_s = TAGGED_AFTER_S if target.handle is None else VISIBLE_AFTER_S
        if age_s < patience_s:
            words = f"ec2: not shown yet; that proves nothing for {patience_s - age_s:.0f} s more"
            return Inspection(Presence.UNKNOWN, words)
        return Inspection(Presence.GONE, "ec2: EC2 knows of no such instance")

    async def aclose(self) -> None:
        """Close the connections; instances stay."""
        await self._batches.aclose()
        self.cloud.close()

    async def _several(self, ids: list[str]) -> Mapping[str, Described]:
        """Describe instances by a filter on their ids. (If ids were given as arguments, one unknown
        id would make the whole call fail.)
        """
        filters = [{"Name": "instance-id", "Values": ids}]
        try:
            found = await self._described("look at the instance", filters)
        except CallFailed as failed:
            if failed.meaning is Meaning.NOT_FOUND:
                return {}
            raise
        return {str(each["InstanceId"]): each for each in found}

    async def _described(self, doing: str, filters: list[dict[str, Any]]) -> list[Described]:
        pages = await self.cloud.pages(
            "describe_instances", doing, Filters=filters, MaxResults=1000
        )
        return [each for page in pages for each in _instances(page)]


def filters_of(wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """EC2's request form of filters that each match one value."""
    return [{"Name": name, "Values": [value]} for name, value in wanted.items()]


def state_of(seen: Described) -> tuple[str, str]:
    """The instance's state, and EC2's reason for it (empty if none)."""
    reason = seen.get("StateReason", {}).get("Message", "")
    return str(seen["State"]["Name"]), str(reason)


def _instances(answer: Mapping[str, Any]) -> Iterator[Described]:
    for reservation in answer.get("Reservations", ()):
        yield from reservation["Instances"]
