"""Messages: one message goes to one recipient and is about one incident or, as a digest,
several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Incident = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Notice:
    """One entry of a message. An `opened` one whose incident has ended says both."""

    about: str
    incident: Incident | None


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `id` is the same each time it is sent, so that the recipient can recognise
    duplicates.

    `about` is opened, evidence, closed, test or digest. `answers` is the id of the earlier message
    that this one follows.
    """

    id: str
    recipient: str
    about: str
    notices: tuple[Notice, ...]
    answers: str | None = None


class Channel(Protocol):
    """A way to deliver messages to people."""

    async def send(self, message: Message) -> None:
        """Deliver the message or raise NotSent. Returns within seconds in either case."""
