"""A machine that runs instances of several workers, as a driver sees it.

The agent's `host` verb does everything on the machine: it starts, inspects, ends and lists
instances there (`hostler_agent.instances`). A `Host` carries a request to it and its reply back:
`RemoteHost` by a transport, `LocalHost` within the hub's own process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hostler_hub.drivers.errors import HostFailed


@dataclass(frozen=True, slots=True)
class Site:
    """The directory of a machine's instances, and the Python that runs their agents."""

    directory: str
    python: str


class Host(ABC):
    """One machine. All methods raise HostFailed, and TransportError where there is a transport."""

    @abstractmethod
    async def call(
        self,
        action: str,
        request: Mapping[str, Any],
        deadline_s: float,
        sending: Callable[[], None] | None = None,
    ) -> Mapping[str, Any]:
        """Have the machine do one of `hostler_agent.instances.actions.ACTIONS`; return its reply.

        `request` need not name the directory. `sending` is called just before the request may
        reach the machine, perhaps in another thread.
        """

    async def end_unstarted(self, instance: str, deadline_s: float) -> bool:
        """End an instance that never was started, without Python on the machine.

        Returns True if it never was started and now never will be; False if that cannot be told.
        """
        del instance, deadline_s
        return False

    async def never_was(self, instance: str, error: HostFailed, deadline_s: float) -> bool:
        """Whether ending the instance failed with `error` because it never was on the machine."""
        del instance, error, deadline_s
        return False


def checked(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """The reply, unless it carries an error. Raises HostFailed."""
    error = reply.get("error")
    if isinstance(error, dict):
        raise HostFailed(str(error.get("text")), kind=str(error.get("kind")))
    return reply
