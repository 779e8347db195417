"""What goes wrong between the hub and its agents.

Exception
├── HandshakeRefused   an agent may not attach (the agent), or not now (retry_after_s)
└── ConnectionLost     the connection ended before the agent answered (the worker lost)
"""

from __future__ import annotations


class HandshakeRefused(Exception):
    """The refusal as an HTTP response: status, body text and seconds for Retry-After."""

    def __init__(self, status: int, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after_s = retry_after_s


class ConnectionLost(Exception):
    """The agent's connection ended before it answered. It may have done what it was asked."""
