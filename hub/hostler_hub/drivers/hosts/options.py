"""Options and handles of the drivers whose instances are processes on existing machines."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, field_serializer

from hostler_hub.drivers.contract import DriverOptions
from hostler_hub.drivers.handle import Handle
from hostler_hub.drivers.hosts.host import Site


class HostOptions(DriverOptions):
    """Base of the options of these drivers."""

    environment: Mapping[str, str] = {}
    containment: str = "auto"  # how the agent's jobs are held together

    @property
    def address(self) -> str:
        """The machine's address, for messages."""
        raise NotImplementedError

    @property
    def access(self) -> Hashable:
        """How the machine is reached. Workers whose `access` is equal share a connection."""
        raise NotImplementedError

    @property
    def site(self) -> Site:
        """The directory on the machine that holds the instances, and the Python of the agents."""
        raise NotImplementedError

    @property
    def owner(self) -> str | None:
        """The user on the machine who owns the agents' processes; None if no option names one."""
        return None

    def handle_options(self) -> dict[str, Any]:
        """The options that a handle stores: those needed to find and to end an instance when the
        worker's definition is gone. They contain references to secrets, never the secrets.
        """
        raise NotImplementedError

    def agent_config(self) -> dict[str, Any]:
        """The options that go into the agent's own configuration."""
        return {}

    def start_request(self) -> dict[str, Any]:
        """The options that go into the request that starts an agent."""
        return {}


Options = TypeVar("Options", bound=HostOptions)


class ProcessRecord(BaseModel):
    """An agent's process: pid, start time (in the machine's own unit), boot id."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: int
    boot: str


class HostHandle(Handle, Generic[Options]):
    """The machine that the instance is on, and its directory there. `directory` is None if only the
    options name it. `process` is only for people to read, because an instance is found by its mark.
    """

    options: Options
    directory: str | None = None
    process: ProcessRecord | None = None

    @field_serializer("options")
    def _dump_options(self, options: Options) -> dict[str, Any]:
        return options.handle_options()
