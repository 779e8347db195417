"""The interface by which a driver uses a machine that runs instances of several workers.

The agent's verb `host` does all the work on the machine: it starts, inspects, ends and lists
instances there (`hostler_agent.instances`). A `Host` carries a request to it and the reply back:
`RemoteHost` through a transport, `LocalHost` within the hub's own process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hostler_hub.drivers.errors import HostFailed


@dataclass(frozen=True, slots=True)
class Site:
    """The directory of a machine's instances, and the Python interpreter that runs their agents."""

    directory: str
    python: str


class Host(ABC):
    """A machine. All methods raise HostFailed, and TransportError if the machine is remote."""

    @abstractmethod
    async def call(
        self,
        action: str,
        request: Mapping[str, Any],
        deadline_s: float,
        sending: Callable[[], None] | None = None,
    ) -> Mapping[str, Any]:
        """Have the machine carry out one of `hostler_agent.instances.actions.ACTIONS`; return its
        reply.

        `request` need not contain the directory. `sending` is called just before the request may
        reach the machine, possibly in another thread.
        """

    async def end_unstarted(self, instance: str, deadline_s: float) -> bool:
        """Make sure that an instance which was never started never will be, without Python on the
        machine.

        Returns True if it was never started and now never will be; False if that cannot be told.
        """
        del instance, deadline_s
        return False

    async def never_was(self, instance: str, error: HostFailed, deadline_s: float) -> bool:
        """Whether ending the instance failed with `error` because it was never started on the
        machine.
        """
        del instance, error, deadline_s
        return False


def checked(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the reply. Raises HostFailed if it carries an error."""
    error = reply.get("error")
    if isinstance(error, dict):
        raise HostFailed(str(error.get("text")), kind=str(error.get("kind")))
    return reply
