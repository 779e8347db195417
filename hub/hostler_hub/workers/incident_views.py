"""Incidents and the messages about them as the REST API shows them: a model per noun, its maker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import RowMapping

from hostler_hub.runtime.clock import instant
from hostler_hub.specs.view import View
from hostler_hub.store import deliveries
from hostler_hub.store.rows import Row

Notification = Literal["none", "pending", "sent", "failed"]


class DeliveryView(View):
    """One message to one recipient."""

    id: str = Field(description="The delivery's id.")
    incident: str | None = Field(description="The incident it is about; null for a test.")
    about: Literal["opened", "evidence", "closed", "test"] = Field(
        description="What of the incident it tells."
    )
    channel: Literal["mail", "webhook"] = Field(description="How it is sent.")
    recipient: str = Field(description="To whom: an address, or a webhook's name.")
    state: Literal["pending", "sent", "failed"] = Field(
        description="`pending` while it is tried, `failed` once it was given up."
    )
    attempts: int = Field(description="How often it was tried.")
    held: bool = Field(description="Whether it waits for a digest, over the hour's limit.")
    created_at: str = Field(description="When it was made.")
    next_at: str | None = Field(description="When it is tried next.")
    give_up_at: str | None = Field(description="Until when it is tried.")
    sent_at: str | None = Field(description="When it was handed over.")
    message_id: str | None = Field(description="The id of the message; a digest has one for all.")
    last_error: str | None = Field(description="Why the last attempt failed.")


class IncidentView(View):
    """Something that went wrong with a worker, from when to when, and whether people know."""

    id: str = Field(description="The incident's id.")
    worker: str = Field(description="The worker it happened to.")
    kind: str = Field(description="What it is, such as `missing`, `stop_failed` or `compromised`.")
    instance: str | None = Field(description="The id of the instance it happened to.")
    open: bool = Field(description="Whether it is not over yet.")
    opened_at: str = Field(description="When it began.")
    closed_at: str | None = Field(description="When it was over, or none.")
    reason: str = Field(description="Why, in a sentence.")
    close_reason: str | None = Field(description="Why it was over.")
    evidence: dict[str, Any] = Field(
        description="What was known of the worker when it began, and what was noted since."
    )
    notification: Notification = Field(
        description="`sent`, `pending`, `failed` when somebody was given up, `none` when nobody "
        "is told."
    )


class IncidentDetail(IncidentView):
    """One incident and who was told of it."""

    deliveries: list[DeliveryView] = Field(
        description="Each message to each recipient with its state and its last error."
    )


class IncidentPage(View):
    """Incidents, newest first; `next` goes into `after`."""

    items: list[IncidentView] = Field(description="The incidents of this page.")
    next: str | None = Field(description="The `after` of the next page; null on the last one.")


class DeliveryPage(View):
    """Deliveries, newest first; `next` goes into `after`."""

    items: list[DeliveryView] = Field(description="The deliveries of this page.")
    next: str | None = Field(description="The `after` of the next page; null on the last one.")


class DeliveryList(View):
    """Deliveries that were just made."""

    items: list[DeliveryView] = Field(description="The deliveries.")


class IncidentCounts(View):
    """How many incidents are not over, and how many messages about any do not get through."""

    open: int = Field(description="How many incidents are not over.")
    undelivered: int = Field(description="How many messages failed, or fail and are tried again.")


def incident_view(row: Row, states: Mapping[str, int]) -> IncidentView:
    """The view of one incident's row; ``states`` counts its deliveries by state."""
    return IncidentView(**_incident(row, states))


def incident_detail(row: Row, told: Sequence[RowMapping]) -> IncidentDetail:
    """The view of one incident's row with the rows of its deliveries."""
    states = [each["state"] for each in told]
    counts = {state: states.count(state) for state in set(states)}
    return IncidentDetail(
        **_incident(row, counts), deliveries=[delivery_view(each) for each in told]
    )


def delivery_view(row: Row) -> DeliveryView:
    """The view of one row of ``store.tables.deliveries``."""
    pending = row["state"] == deliveries.PENDING
    return DeliveryView(
        id=row["id"],
        incident=row["incident"],
        about=row["about"],
        channel=row["channel"],
        recipient=row["recipient"],
        state=row["state"],
        attempts=row["attempts"],
        held=row["held"],
        created_at=instant(row["created_at"]),
        next_at=instant(row["next_at"]) if pending else None,
        give_up_at=instant(row["give_up_at"]) if pending else None,
        sent_at=instant(row["sent_at"]),
        message_id=row["message_id"],
        last_error=row["last_error"],
    )


def _incident(row: Row, states: Mapping[str, int]) -> dict[str, Any]:
    """The fields of IncidentView, by name; ``states`` counts the deliveries by state."""
    return {
        "id": row["id"],
        "worker": row["worker"],
        "kind": row["kind"],
        "instance": row["instance"],
        "open": row["closed_at"] is None,
        "opened_at": instant(row["opened_at"]),
        "closed_at": instant(row["closed_at"]),
        "reason": row["reason"],
        "close_reason": row["close_reason"],
        "evidence": row["evidence"],
        "notification": _notification(states),
    }


def _notification(states: Mapping[str, int]) -> str:
    """The state of an incident's notification, from how many deliveries are in which state.

    "none" if nobody was to be told; "failed" as soon as one delivery was given up (V16).
    """
    for state in (deliveries.FAILED, deliveries.PENDING, deliveries.SENT):
        if states.get(state):
            return state
    return "none"
