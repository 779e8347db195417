"""Leases of people."""

from typing import Literal

from hostler_hub.web.api.schemas.base import Shape
from hostler_hub.web.api.schemas.workers import Connection


class Lease(Shape):
    """A person's lease of a worker; without `granted_at` they wait, or have waited, for it."""

    id: str
    worker: str
    state: Literal["waiting", "held", "ended"]
    holder: str
    reason: str | None
    keep: bool
    ttl_s: float
    asked_at: str
    granted_at: str | None
    until: str
    why: str | None
    connection: Connection | None
    ended_at: str | None
    end_reason: str | None


class LeaseResult(Shape):
    """What an order about a lease changed; a lease that would be made has no shape yet."""

    changed: bool
    lease: Lease | None


class LeaseList(Shape):
    """Leases of people."""

    items: list[Lease]
