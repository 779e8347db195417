"""Incidents, and the messages about them."""

from typing import Any, Literal

from hostler_hub.web.api.schemas.base import Shape


class IncidentView(Shape):
    """Something that went wrong with a worker, from when to when, and whether people know."""

    id: str
    worker: str
    kind: str
    instance: str | None
    open: bool
    opened_at: str
    closed_at: str | None
    reason: str
    close_reason: str | None
    evidence: dict[str, Any]
    notification: Literal["none", "pending", "sent", "failed"]


class DeliveryView(Shape):
    """One message to one recipient."""

    id: str
    incident: str | None
    about: Literal["opened", "evidence", "closed", "test"]
    channel: Literal["mail", "webhook"]
    recipient: str
    state: Literal["pending", "sent", "failed"]
    attempts: int
    held: bool
    created_at: str
    next_at: str | None
    give_up_at: str | None
    sent_at: str | None
    message_id: str | None
    last_error: str | None


class IncidentDetail(IncidentView):
    """One incident and who was told of it."""

    deliveries: list[DeliveryView]


class IncidentPage(Shape):
    """Incidents, newest first; `next` goes into `after`."""

    items: list[IncidentView]
    next: str | None


class DeliveryPage(Shape):
    """Deliveries, newest first; `next` goes into `after`."""

    items: list[DeliveryView]
    next: str | None


class DeliveryList(Shape):
    """Deliveries that were just made."""

    items: list[DeliveryView]
