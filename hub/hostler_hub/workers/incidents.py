"""Turns the core's commands Notify and Resolve into rows of incidents and of the outbox.

The rows are committed with the transition itself, so that no crash comes between a worker's loss
and the notification about it (K12, V16). The outbox sends the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection

from hostler_hub.lifecycle import Worker, commands
from hostler_hub.runtime.clock import instant
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.store import deliveries, incidents
from hostler_hub.workers.registry import Entry

_log = structlog.get_logger(__name__)

GIVE_UP_S = 48 * 3600.0
_REASON_SIZE = 2000
# The keys of an incident's evidence that only the hub itself writes.
OWN_EVIDENCE = frozenset(
    {
        "driver",
        "epoch",
        "mode",
        "state",
        "state_since",
        "builds_lost",
        "last_error",
        "quarantined_until",
    }
)


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who is notified, and by which channel. A webhook is given by name, never by URL (V14)."""

    channel: str
    name: str


Recipients = Callable[[Entry], Sequence[Recipient]]


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An incident that a transition opens, and who is to be notified."""

    row: Mapping[str, Any]
    recipients: Sequence[Recipient]

    @property
    def kind(self) -> str:
        return str(self.row["kind"])

    def write(self, c: Connection) -> None:
        incidents.insert(c, dict(self.row))
        at = self.row["opened_at"]
        rows = [delivery("opened", each, at, self.row["id"]) for each in self.recipients]
        deliveries.insert(c, rows)

    def adopt(self, open_incidents: dict[str, str]) -> None:
        open_incidents[self.kind] = self.row["id"]


@dataclass(frozen=True, slots=True, eq=False)
class Closed:
    """An incident that a transition closes."""

    id: str
    kind: str
    at: float
    reason: str

    def write(self, c: Connection) -> None:
        if incidents.close(c, self.id, self.at, self.reason):
            tell_recovery(c, self.id, self.at)

    def adopt(self, open_incidents: dict[str, str]) -> None:
        open_incidents.pop(self.kind, None)


Alarm = Opened | Closed


class Alarms:
    """Decides which commands open or close an incident.

    ``on_news`` is called when the outbox may have something to send.
    """

    def __init__(self, recipients: Recipients, on_news: Callable[[], None]) -> None:
        self._recipients = recipients
        self.on_news = on_news

    def of(
        self, entry: Entry, after: Worker, ordered: Sequence[commands.Command], at: float
    ) -> tuple[Alarm, ...]:
        """The incidents that the commands open or close, given those open on the worker."""
        alarms: list[Alarm] = []
        is_open = dict(entry.incidents)
        for command in ordered:
            for alarm in self._of_command(entry, after, command, at, is_open):
                alarm.adopt(is_open)
                alarms.append(alarm)
        return tuple(alarms)

    def _of_command(
        self,
        entry: Entry,
        after: Worker,
        command: commands.Command,
        at: float,
        is_open: Mapping[str, str],
    ) -> Sequence[Alarm]:
        if isinstance(command, commands.Notify) and command.incident not in is_open:
            row = incident_row(entry, after, command.incident, command.detail, at)
            return [Opened(row, self._recipients(entry))]
        if isinstance(command, commands.Resolve) and command.incident in is_open:
            return [Closed(is_open[command.incident], command.incident, at, command.detail)]
        if isinstance(command, commands.Forget):
            reason = "the worker was removed"
            return [Closed(each, kind, at, reason) for kind, each in is_open.items()]
        return []

    def tell(self, alarm: Alarm, worker: str) -> None:
        """Log the incident and wake the outbox.

        Called after the transaction that stored the incident has committed.
        """
        if isinstance(alarm, Opened):
            reason = alarm.row["reason"]
            _log.warning("incident opened", worker=worker, incident=alarm.kind, detail=reason)
        else:
            _log.info("incident closed", worker=worker, incident=alarm.kind, detail=alarm.reason)
        self.on_news()


def incident_row(entry: Entry, life: Worker, kind: str, reason: str, at: float) -> dict[str, Any]:
    """A new row of an open incident, with the worker's state as evidence.

    ``entry`` still has the life before the transition; ``life`` is the one after it.
    """
    instance = entry.life.instance or life.instance
    return {
        "id": new_ulid(int(at * 1000)),
        "worker": life.name,
        "kind": kind,
        "instance": instance.id if instance else None,
        "opened_at": at,
        "closed_at": None,
        "reason": reason[:_REASON_SIZE],
        "close_reason": None,
        "evidence": {
            "driver": entry.origin.driver,
            "epoch": life.epoch,
            "mode": life.mode.value,
            "state": life.state.value,
            "builds_lost": len(entry.life.leases) - len(life.leases),
            "last_error": life.last_error,
            "quarantined_until": instant(life.quarantine_until),
        },
    }


def delivery(about: str, to: Recipient, at: float, incident: str | None) -> dict[str, Any]:
    """A new row of the outbox, due at ``at``, given up GIVE_UP_S seconds later.

    ``about``: "opened", "evidence", "closed" or "test".
    """
    return {
        "id": new_ulid(int(at * 1000)),
        "incident": incident,
        "about": about,
        "channel": to.channel,
        "recipient": to.name,
        "state": deliveries.PENDING,
        "attempts": 0,
        "held": False,
        "created_at": at,
        "next_at": at,
        "give_up_at": at + GIVE_UP_S,
        "sent_at": None,
        "message_id": None,
        "last_error": None,
    }


def tell_evidence(c: Connection, incident: str, at: float) -> None:
    """Queue a message about new evidence to each recipient who was told of the incident."""
    told = [Recipient(row["channel"], row["recipient"]) for row in deliveries.sent(c, incident)]
    deliveries.insert(c, [delivery("evidence", each, at, incident) for each in told])


def tell_recovery(c: Connection, incident: str, at: float) -> None:
    """Queue a message about the end to each recipient who was told that the incident began.

    A message about the beginning that is still pending tells of both: messages are written when
    they are sent.
    """
    told = [Recipient(row["channel"], row["recipient"]) for row in deliveries.sent(c, incident)]
    deliveries.insert(c, [delivery("closed", each, at, incident) for each in told])
