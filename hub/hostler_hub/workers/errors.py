"""The errors between the hub and its agents.

Exception
├── HandshakeRefused   an agent may not attach (the agent), or not now (retry_after_s)
└── ConnectionLost     the connection ended before the agent answered (the worker lost)
"""

from __future__ import annotations


class HandshakeRefused(Exception):
    """An agent is refused before it attaches; status, text and Retry-After of the HTTP answer."""

    def __init__(self, status: int, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after_s = retry_after_s


class ConnectionLost(Exception):
    """The agent's connection ended before the agent answered. It may have done what was asked."""
