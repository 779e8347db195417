"""Decisions as the REST API, the page and the modules show them."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from sqlalchemy import RowMapping

from hostler_hub.runtime.clock import instant
from hostler_hub.specs.view import View
from hostler_hub.workers.decisions import DecisionKind


class DecisionView(View):
    """What was decided of a worker, a build or a group: by which rule, on which numbers."""

    id: int = Field(description="Its number; later ones are higher.")
    at: str = Field(description="When, in UTC.")
    kind: DecisionKind = Field(
        description="`start`, `stop`, `match`, `skip`, `quarantine`, `breaker` or `hold`."
    )
    rule: str = Field(
        description="By which rule, in a fixed word such as `idle` or `max_instances`."
    )
    text: str = Field(description="Why, for people.")
    worker: str | None = Field(description="The worker it is about.")
    build: str | None = Field(description="The build it is about.")
    group: str | None = Field(description="The group it is about.")
    numbers: dict[str, Any] = Field(description="What it was decided on.")


class DecisionPage(View):
    """Decisions, newest first; `next` goes into `after`."""

    items: list[DecisionView] = Field(description="The decisions of this page.")
    next: int | None = Field(description="The `after` of the next page; null on the last one.")


def decision_view(row: RowMapping) -> DecisionView:
    """The view of one row of ``store.tables.decisions``."""
    return DecisionView(
        id=row["id"],
        at=instant(row["at"]),
        kind=row["kind"],
        rule=row["rule"],
        text=row["text"],
        worker=row["worker"],
        build=row["build"],
        group=row["group"],
        numbers=row["numbers"],
    )
