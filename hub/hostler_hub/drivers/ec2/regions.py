"""The regions that workers name, with one inventory per region and set of credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hostler_hub.drivers import listing
from hostler_hub.drivers.contract import InstanceRef
from hostler_hub.drivers.ec2.cloud import Cloud
from hostler_hub.drivers.ec2.handle import Ec2Handle
from hostler_hub.drivers.ec2.inventory import Inventory
from hostler_hub.drivers.ec2.options import Ec2Options
from hostler_hub.drivers.sent import SentRequests
from hostler_hub.runtime.secrets import Secrets

_REGION_OPTIONS = ("region", "endpoint_url", "profile", "credentials")


class Regions:
    """Makes each region's inventory when it is first needed, and keeps it."""

    def __init__(self, hub: str, secrets: Secrets, sent: SentRequests) -> None:
        self._hub = hub
        self._sent = sent
        self._secrets = secrets
        self._inventories: dict[str, Inventory] = {}
        self._listed: dict[tuple[str | None, str], Ec2Options] = {}

    def at(self, options: Ec2Options) -> Inventory:
        """The inventory of the options' region, with the options' credentials."""
        key = _key(options)
        if key not in self._inventories:
            cloud = Cloud(options, self._secrets)
            self._inventories[key] = Inventory(cloud, self._hub, self._sent)
        return self._inventories[key]

    def of(self, ref: InstanceRef, handle: Ec2Handle | None) -> tuple[Ec2Options, Inventory]:
        """The options and inventory of an instance's region, found by its options, or else by its
        handle.
        """
        known = None
        if handle is not None:
            known = self._listed.get((handle.endpoint_url, handle.region))
        if not ref.options and known is not None:
            return known, self.at(known)
        options = Ec2Options.of(ref.options)
        return options, self.at(options)

    def each(
        self, places: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Ec2Options], list[listing.Silent]]:
        """The distinct regions to list, each as options, and the options that are not valid.
        Remembers the regions, so that `of` can find that of an instance that has only a handle.
        """
        # Thousands of workers name the same few: only these are looked into.
        few = {repr([place.get(name) for name in _REGION_OPTIONS]): place for place in places}
        read, unread = listing.read("ec2", Ec2Options, few.values())
        found: dict[str, Ec2Options] = {}
        for options in read:
            found.setdefault(_key(options), options)
            self._listed[options.endpoint_url, options.region] = options
        return list(found.values()), unread

    async def aclose(self) -> None:
        """Close all connections."""
        for inventory in self._inventories.values():
            await inventory.aclose()
        self._inventories.clear()


def _key(options: Ec2Options) -> str:
    return f"{options.place} {options.profile} {options.credentials!r}"
