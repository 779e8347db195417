"""Leases of people as the REST API shows them: one model per noun, and its maker."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from sqlalchemy import RowMapping

from hostler_hub.lifecycle.model import OperatorLease, why_not_grantable
from hostler_hub.runtime.clock import instant
from hostler_hub.specs.fields import Number
from hostler_hub.specs.view import View
from hostler_hub.workers.registry import Entry


class LeaseBrief(View):
    """Which person has a worker, or waits for it, and why: for the worker's own view."""

    id: str = Field(description="The lease's id.")
    state: Literal["waiting", "held"] = Field(description="Whether they have it already.")
    holder: str = Field(description="Whose lease it is, by the token's name.")
    reason: str | None = Field(description="Why they want it.")
    since: str = Field(description="Since when they have it, or wait for it.")
    until: str = Field(description="When it expires, or until when it is waited for.")
    keep: bool = Field(description="Whether the instance goes on afterwards.")


class Connection(View):
    """How a person gets to a leased worker, as far as the driver and the agent tell."""

    driver: str = Field(description="What started the instance.")
    instance: str = Field(description="The id of the instance.")
    epoch: int = Field(description="The instance's epoch.")
    handle: dict[str, Any] | None = Field(description="What the driver finds the instance by.")
    driver_options: dict[str, Any] = Field(description="What the instance was started with.")
    facts: dict[str, Any] = Field(description="What its agent reports of the machine.")


class LeaseView(View):
    """A person's lease of a worker; without `granted_at` they wait, or have waited, for it."""

    id: str = Field(description="Its id. What names another one is refused.")
    worker: str = Field(description="The worker.")
    state: Literal["waiting", "held", "ended"] = Field(description="`waiting`, `held` or `ended`.")
    holder: str = Field(description="Whose it is, by the token's name.")
    reason: str | None = Field(description="Why.")
    keep: bool = Field(description="Whether the instance goes on afterwards.")
    ttl_s: Number = Field(description="For how many seconds it is given.")
    asked_at: str = Field(description="When it was asked for.")
    granted_at: str | None = Field(description="When it was granted.")
    until: str = Field(description="When it expires, or until when it is waited for.")
    why: str | None = Field(description="Why it is still waited for.")
    connection: Connection | None = Field(
        description="How to get to the worker while you have it, as far as the driver and the "
        "agent tell. `facts` are the machine's own, such as `hostname`; `handle` is the driver's, "
        "such as a container's id; `driver_options` are those it was started with, such as an SSH "
        "host."
    )
    ended_at: str | None = Field(description="When it ended.")
    end_reason: str | None = Field(description="How it ended.")


class LeaseResult(View):
    """What an order about a lease changed; a lease that would be made has no view yet."""

    changed: bool = Field(description="Whether the order changed anything.")
    lease: LeaseView | None = Field(description="The lease as it is now.")


class LeaseList(View):
    """Leases of people."""

    items: list[LeaseView] = Field(description="The leases.")


def lease_brief(person: OperatorLease) -> LeaseBrief:
    """The brief view of the lease by which a person has a worker or waits for it."""
    return LeaseBrief(
        id=person.id,
        state="held" if person.granted else "waiting",
        holder=person.holder,
        reason=person.reason,
        since=instant(person.granted_at or person.asked_at),
        until=instant(person.until),
        keep=person.keep,
    )


def lease_view(entry: Entry, person: OperatorLease) -> LeaseView:
    """The view of a lease that has not ended.

    It has ``why`` while the lease is waited for, and ``connection`` once it is granted.
    """
    return LeaseView(
        id=person.id,
        worker=entry.life.name,
        state="held" if person.granted else "waiting",
        holder=person.holder,
        reason=person.reason,
        keep=person.keep,
        ttl_s=person.ttl_s,
        asked_at=instant(person.asked_at),
        granted_at=instant(person.granted_at),
        until=instant(person.until),
        why=None if person.granted else why_not_grantable(entry.life),
        connection=_connection(entry) if person.granted else None,
        ended_at=None,
        end_reason=None,
    )


def past_lease_view(row: RowMapping) -> LeaseView:
    """The view of a lease that has ended, from its row of ``store.tables.past_leases``."""
    lease = row["lease"]
    return LeaseView(
        id=row["id"],
        worker=row["worker"],
        state="ended",
        holder=lease["holder"],
        reason=lease["reason"],
        keep=lease["keep"],
        ttl_s=lease["ttl_s"],
        asked_at=instant(lease["asked_at"]),
        granted_at=instant(lease["granted_at"]),
        until=instant(lease["until"]),
        why=None,
        connection=None,
        ended_at=instant(row["ended_at"]),
        end_reason=row["end_reason"],
    )


def _connection(entry: Entry) -> Connection | None:
    instance = entry.life.instance
    if instance is None:
        return None
    return Connection(
        driver=entry.origin.driver,
        instance=instance.id,
        epoch=instance.epoch,
        handle=None if instance.handle is None else dict(instance.handle),
        driver_options=dict(entry.origin.options),
        facts=dict(entry.facts),
    )
