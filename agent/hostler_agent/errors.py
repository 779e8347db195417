"""Exceptions of the agent, and who must do something about each.

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
    """Base of the agent's own exceptions."""


class ConfigurationError(AgentError):
    """The configuration is wrong. The text is one line and names the option or the file."""


class ConnectFailed(AgentError):
    """One attempt to connect failed. `retry_after_s` is the delay that the hub asked for,
    or None.
    """

    def __init__(self, reason: str, retry_after_s: Optional[float] = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class OrderedAway(AgentError):
    """The hub has ended this instance: the agent must end everything and never connect again."""


class LinkLost(AgentError, WireError):
    """There is no connection, or it was lost before the answer arrived."""


class DeadlineExceeded(AgentError, WireError):
    """The hub did not answer a request within the deadline."""
