"""Options of a local worker: the agent's Python, containment and environment."""

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
        """Name of the machine in messages."""
        return "this machine"

    @property
    def access(self) -> Hashable:
        """None: there is only one machine."""
        return None

    @property
    def site(self) -> Site:
        """The agent's Python. The directory is empty here: the driver supplies its own."""
        return Site("", self.python or sys.executable)

    def handle_options(self) -> dict[str, Any]:
        """The options that a handle stores: the containment, which a sweep needs."""
        return self.model_dump(mode="json", include={"containment"}, exclude_defaults=True)

    def start_request(self) -> dict[str, Any]:
        """Start the agent as a detached process: making a systemd unit takes longer than the rest
        of a start.
        """
        return {"way": DETACHED}
