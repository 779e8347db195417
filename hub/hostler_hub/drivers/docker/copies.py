"""Tells the hub's own containers and volumes from copies, which only carry an instance's mark.

Labels are inherited: a container of an image that was committed from a worker's container, or that
was built on such an image, has all the labels of that worker. A tool that makes containers anew
copies them too. So a container is an instance's own only if it has the name that the driver gives,
and if its mark is not that of its image. A volume is the instance's own only if it is anonymous.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hostler_hub.drivers.docker import labels

if TYPE_CHECKING:
    from docker import APIClient

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


class Copies:
    """Judges what one call to a daemon has listed; asks for the labels of each image once."""

    def __init__(self, client: APIClient) -> None:
        self._client = client
        self._image_labels: dict[str, Mapping[str, str]] = {}

    def evidence(self, container: Mapping[str, Any]) -> str:
        """Why a container of the daemon's list is a copy; empty if it is an instance's own."""
        mark = labels.mark_of(container["Labels"])
        if self.is_inherited(container):
            return f"its labels are those of its image, {container['Image']}"
        expected = labels.name(mark)
        if f"/{expected}" not in container["Names"]:
            return f"the hub named the instance's container {expected}"
        return ""

    def is_inherited(self, container: Mapping[str, Any]) -> bool:
        """Whether the container has its mark from its image."""
        known = self._labels_of(container["ImageID"])
        return labels.mark_of(known) == labels.mark_of(container["Labels"])

    def _labels_of(self, image: str) -> Mapping[str, str]:
        """The labels of an image; empty if the daemon has it no longer."""
        from docker.errors import NotFound  # noqa: PLC0415 - the SDK comes with the first call

        if image not in self._image_labels:
            try:
                seen = self._client.inspect_image(image)  # type: ignore[no-untyped-call]
            except NotFound:
                seen = {}
            self._image_labels[image] = (seen.get("Config") or {}).get("Labels") or {}
        return self._image_labels[image]


def is_anonymous(volume: str) -> bool:
    """Whether the daemon gave the volume its name: it was made with a container, for it alone."""
    return _ANONYMOUS.fullmatch(volume) is not None
