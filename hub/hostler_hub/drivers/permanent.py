"""Driver ``permanent``: machines that their owners start, and whose agents attach by themselves.

The hub starts and stops nothing here: it tells the agent to go away when it should, and waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hostler_hub.drivers.contract import (
    Capabilities,
    DriverOptions,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.lifecycle.model import Presence


class PermanentDriver:
    """Accepts any agent of the protocol that knows the worker's name and password, Buildbot's
    worker included.
    """

    name: ClassVar[str] = "permanent"
    capabilities: ClassVar[Capabilities] = Capabilities(permanent=True, missing_timeout_s=600.0)
    options_model: ClassVar[type[DriverOptions]] = DriverOptions

    def __init__(self, environment: Environment) -> None:
        del environment

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        raise OptionsRefused(f"permanent: {spec.worker} is started by its owner, not by the hub")

    async def inspect(self, ref: InstanceRef) -> Inspection:
        return Inspection(Presence.UNKNOWN, f"{ref.worker} is started by its owner")

    async def destroy(self, ref: InstanceRef) -> None:
        """Do nothing: the agent was sent away over its connection."""

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        del places
        return ()

    async def aclose(self) -> None:
        """Do nothing: the driver holds no connections."""
