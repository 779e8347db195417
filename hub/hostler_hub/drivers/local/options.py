"""Options of a local worker: what its agent runs on, and with which variables."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from typing import Any, Literal

from hostler_agent.instances.launch import DETACHED
from hostler_hub.drivers.hosts.host import Site
from hostler_hub.drivers.hosts.options import HostOptions


class LocalOptions(HostOptions):
    """Options of a local worker."""

    python: str | None = None  # the interpreter the agent runs on; default: the hub's own
    containment: Literal["auto", "cgroup2", "cgroup1", "subreaper"] = "auto"
    environment: Mapping[str, str] = {}  # variables beside PATH, HOME and their like

    @property
    def address(self) -> str:
        """As the base says."""
        return "this machine"

    @property
    def access(self) -> Hashable:
        """There is one machine."""
        return None

    @property
    def site(self) -> Site:
        """The directory is the driver's own, and no option."""
        return Site("", self.python or sys.executable)

    def handle_options(self) -> dict[str, Any]:
        """As the base says."""
        return self.model_dump(mode="json", include={"containment"}, exclude_defaults=True)

    def start_request(self) -> dict[str, Any]:
        """No unit of systemd: making one takes longer than all the rest of a start."""
        return {"way": DETACHED}
