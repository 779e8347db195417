"""The regions that are dealt with, each as one set of credentials sees it, and how to get there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hostler_hub.drivers.contract import InstanceRef
from hostler_hub.drivers.ec2.cloud import Cloud
from hostler_hub.drivers.ec2.inventory import Sight
from hostler_hub.drivers.ec2.options import Ec2Options
from hostler_hub.runtime.secrets import Secrets

_WHERE = ("region", "endpoint_url", "profile", "credentials")


class Places:
    """Makes what deals with a region when it is needed, once."""

    def __init__(self, hub: str, secrets: Secrets) -> None:
        self._hub = hub
        self._secrets = secrets
        self._sights: dict[str, Sight] = {}
        self._listed: dict[tuple[str | None, str], Ec2Options] = {}

    def at(self, options: Ec2Options) -> Sight:
        """Raises OptionsRefused for credentials that are not to be had."""
        key = _key(options)
        if key not in self._sights:
            self._sights[key] = Sight(Cloud(options, self._secrets), self._hub)
        return self._sights[key]

    def of(self, ref: InstanceRef) -> tuple[Ec2Options, Sight]:
        """Where it is by its handle; the options may be those of another place, or of none."""
        known = None
        if ref.handle is not None:
            known = self._listed.get((ref.handle["endpoint_url"], ref.handle["region"]))
        if not ref.options and known is not None:
            return known, self.at(known)
        options = Ec2Options.model_validate(dict(ref.options))
        return options, self.at(options)

    def each(self, places: Sequence[Mapping[str, Any]]) -> list[Ec2Options]:
        """The places that are to be listed, once each; their handles will be understood."""
        # Thousands of workers name the same few: only these are looked into.
        few = {repr([place.get(name) for name in _WHERE]): place for place in places}
        found: dict[str, Ec2Options] = {}
        for place in few.values():
            options = Ec2Options.model_validate(dict(place))
            found.setdefault(_key(options), options)
            self._listed[options.endpoint_url, options.region] = options
        return list(found.values())

    async def aclose(self) -> None:
        for sight in self._sights.values():
            await sight.aclose()
        self._sights.clear()


def _key(options: Ec2Options) -> str:
    return f"{options.place} {options.profile} {options.credentials!r}"
