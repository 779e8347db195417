"""What the REST API shows of leases of people."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping

from hostler_hub.instants import instant
from hostler_hub.lifecycle.model import PersonLease, why_not_grantable
from hostler_hub.workers.registry import Entry


def lease_brief(person: PersonLease) -> dict[str, Any]:
    """Who has a worker, or waits for it: for the worker's own view."""
    return {
        "id": person.id,
        "state": "held" if person.granted else "waiting",
        "holder": person.holder,
        "reason": person.reason,
        "since": instant(person.granted_at or person.asked_at),
        "until": instant(person.until),
        "keep": person.keep,
    }


def lease_view(entry: Entry, person: PersonLease) -> dict[str, Any]:
    """A lease that lasts; ``why`` it is still waited for, or how to get to the worker."""
    return {
        "id": person.id,
        "worker": entry.life.name,
        "state": "held" if person.granted else "waiting",
        "holder": person.holder,
        "reason": person.reason,
        "keep": person.keep,
        "ttl_s": person.ttl_s,
        "asked_at": instant(person.asked_at),
        "granted_at": instant(person.granted_at),
        "until": instant(person.until),
        "why": None if person.granted else why_not_grantable(entry.life),
        "connection": _connection(entry) if person.granted else None,
        "ended_at": None,
        "end_reason": None,
    }


def _connection(entry: Entry) -> dict[str, Any] | None:
    instance = entry.life.instance
    if instance is None:
        return None
    return {
        "driver": entry.origin.driver,
        "instance": instance.id,
        "epoch": instance.epoch,
        "handle": None if instance.handle is None else dict(instance.handle),
        "driver_options": dict(entry.origin.options),
        "facts": dict(entry.facts),
    }


def past_lease_view(row: RowMapping) -> dict[str, Any]:
    """A lease that is over."""
    lease = row["lease"]
    return {
        "id": row["id"],
        "worker": row["worker"],
        "state": "ended",
        "holder": lease["holder"],
        "reason": lease["reason"],
        "keep": lease["keep"],
        "ttl_s": lease["ttl_s"],
        "asked_at": instant(lease["asked_at"]),
        "granted_at": instant(lease["granted_at"]),
        "until": instant(lease["until"]),
        "why": None,
        "connection": None,
        "ended_at": instant(row["ended_at"]),
        "end_reason": row["end_reason"],
    }
