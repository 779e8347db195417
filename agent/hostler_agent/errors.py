"""What can go wrong in the agent, and who is to do something about it.

    AgentError
    ├── ConfigurationError   the operator: fix the configuration; nothing was started
    ├── ConnectFailed        nobody: the hub cannot be reached or will not have us now; try later
    ├── OrderedAway          nobody: the hub said to go away, and that is final
    ├── LinkLost             the connection went away under a request (also a WireError)
    └── DeadlineExceeded     the hub did not answer in time (also a WireError)

Jobs and commands have their own hierarchies in their packages.
"""

from __future__ import annotations

from typing import Optional

from hostler_agent.wire.errors import WireError


class AgentError(Exception):
    """Base of what the agent itself raises."""


class ConfigurationError(AgentError):
    """The text is one line, and says which option or file it is about."""


class ConnectFailed(AgentError):
    """One attempt failed; `retry_after_s` is what the hub asked for, if it did."""

    def __init__(self, reason: str, retry_after_s: Optional[float] = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class OrderedAway(AgentError):
    """This instance is over: end everything, and never connect again."""


class LinkLost(AgentError, WireError):
    """There is no connection, or it was lost before the answer came."""


class DeadlineExceeded(AgentError, WireError):
    """The hub has not answered a request within the deadline."""
