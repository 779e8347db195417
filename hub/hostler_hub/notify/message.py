"""What is sent: one message to one recipient about one incident, or about several at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hostler_hub.workers.incident_views import IncidentView


class NotSent(Exception):
    """A message did not arrive, as far as one knows. The text is for people, without secrets.

    `unreachable`: nothing else will arrive there either for now.
    """

    def __init__(self, reason: str, *, unreachable: bool) -> None:
        super().__init__(" ".join(reason.split())[:500])
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that is told. An `opened` one whose incident is over by now says both."""

    about: str
    incident: IncidentView | None


@dataclass(frozen=True, slots=True)
class Message:
    """`id` stays the same however often it is sent, so that a duplicate can be told.

    `about` is opened, evidence, closed, test or digest; `answers` is the id of the message that it
    follows.
    """

    id: str
    recipient: str
    about: str
    notices: tuple[Notice, ...]
    answers: str | None = None


class Channel(Protocol):
    """A way to people."""

    async def send(self, message: Message) -> None:
        """Hand the message over for good, or raise NotSent; within seconds, whatever happens."""
